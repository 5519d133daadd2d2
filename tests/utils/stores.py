"""A manifest of short buzzes, and stores of random vectors."""

from pathlib import Path

import numpy as np

from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.search.store import EmbeddingStore, write_store
from tests.utils.small import CAPTIONS, tone, write

WEIGHTS = "00" * 32


def buzzes(folder: Path, count: int, bad: tuple[int, ...] = ()) -> Manifest:
    """Write clips of different lengths and pitches, and their manifest; some are no audio."""
    rows = []
    for n in range(count):
        path, seconds = folder / f"{n}.wav", 0.2 + 0.05 * (n * 7 % 5)
        if n in bad:
            path.write_text("no audio")
        else:
            write(path, tone(seconds, frequency=90 + 11 * n))
        rows.append(
            {
                "id": f"clip{n}",
                "audio": path.name,
                "duration": seconds,
                "speaker": f"speaker{n % 3}",
                "gender": ("female", "male")[n % 2],
                "labels": {"mood": ("calm", "angry", "sad")[n % 3]},
                "situational_tags": ["loud"] if n % 4 == 0 else [],
                "global_captions": [CAPTIONS[n % 3]],
                "fine_captions": [CAPTIONS[n % 3], CAPTIONS[(n + 1) % 3]],
                "split": "train",
            }
        )
    write_manifest(folder / "clips.arrow", rows)
    return Manifest(folder / "clips.arrow")


def unit_vectors(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    """Return [count, dim] float32 of unit norm, in a narrow cone as those of real models."""
    draw = np.random.default_rng(seed)
    vectors = draw.standard_normal((count, dim)).astype(np.float32)
    vectors[:, 0] += 0.6 * dim**0.5
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def random_store(folder: Path, ids: list[str], dim: int = 16, **about) -> EmbeddingStore:
    """Write a store of random vectors."""
    write_store(folder, ids, unit_vectors(len(ids), dim), **{"weights_sha256": WEIGHTS, **about})
    return EmbeddingStore(folder)


def corpus_store(folder: Path, name: str, first: int, count: int, seed: int = 0) -> Path:
    """Write a store of random vectors and its manifest; returns the store's folder."""
    rows = [
        {
            "id": f"c{n}",
            "audio": f"{n}.wav",
            "duration": 1.0 + n % 5,
            "gender": ("male", "female", None)[n % 3],
            "labels": {"mood": ("calm", "sad")[n % 2]},
            "situational_tags": ["loud"] if n % 4 == 0 else [],
            "speaker": f"s{n % 12}",
            "source": name,
        }
        for n in range(first, first + count)
    ]
    write_manifest(folder / f"{name}.arrow", rows)
    about = {"weights_sha256": WEIGHTS, "source": str(folder / f"{name}.arrow"), "shard_rows": 150}
    vectors = unit_vectors(count, 32, seed)
    write_store(folder / name, [row["id"] for row in rows], vectors, **about)
    return folder / name
