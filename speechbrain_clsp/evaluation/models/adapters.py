"""Any model under evaluation: two functions, each model fed as its authors require.

A model is anything with ``encode_files(paths) -> [N, D]`` and ``encode_text(texts) -> [M, D]``, of
unit norm, on the CPU; here they also tell what they are.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
import torch
from torch import Tensor

from speechbrain_clsp.dataio.audio import AudioError
from speechbrain_clsp.dataio.resample import resample
from speechbrain_clsp.utils.files import sha256_of_file

MOVING = "main"  # a branch: what it holds may change
DUAL_ENCODERS = ("paraspeechclap", "paraclap")
WEIGHT_FILES = ("*.safetensors", "*.ckpt", "*.pth.tar", "*.json", "*.yaml", "*.model", "vocab.txt")


class Model(Protocol):
    """What the suites need of a model.

    ``model`` names it (folder or repository), ``revision`` says which state of it.
    """

    model: str
    revision: str

    def encode_files(self, paths: Sequence[str]) -> Tensor:
        """Embed N audio files; returns [N, D] float32 of unit norm on the CPU."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed M captions; returns [M, D] float32 of unit norm on the CPU."""


def open_model(spec: str, device: str = "cpu") -> Model:
    """Open a model by its specification.

    Arguments
    ---------
    spec : str
        ``folder`` or ``user/name`` for a CLSP of ours or in the published form;
        ``clap:folder-or-repository`` for a CLAP of transformers; ``paraspeechclap:...`` and
        ``paraclap:...``, see :mod:`~speechbrain_clsp.evaluation.models.dual_encoder`;
        ``file:embeddings.npz`` for vectors that were computed elsewhere; as bounds ``random``,
        ``untrained:folder`` and ``oracle:manifest.arrow``. A repository may end in ``@revision``.
    device : str
        Where it runs.

    Returns
    -------
    Model
        The model.

    Example
    -------
    >>> open_model("random").encode_text(["A man."]).shape
    torch.Size([1, 512])
    """
    kind, _, rest = spec.partition(":")
    if spec == "random":
        return RandomModel()
    if kind == "file" and rest:
        return PrecomputedModel(rest)
    if kind in ("untrained", "oracle") and rest:
        from speechbrain_clsp.evaluation.models.bounds import OracleModel, UntrainedModel

        return OracleModel(rest) if kind == "oracle" else UntrainedModel(rest, device)
    if kind in DUAL_ENCODERS and rest:
        from speechbrain_clsp.evaluation.models.dual_encoder import KNOWN, DualEncoderAdapter

        source, revision = _split_revision(rest)
        return DualEncoderAdapter(source, KNOWN[kind], revision, device)
    if kind == "clap" and rest:
        return ClapAdapter(*_split_revision(rest), device)
    return ClspAdapter(*_split_revision(spec), device)


def _split_revision(source: str) -> tuple[str, str | None]:
    if Path(source).exists():
        return source, None
    name, _, revision = source.partition("@")
    return name, revision or None


def folder_revision(folder: str | os.PathLike) -> str:
    """Return a folder's state as the SHA-256 of its weights and settings.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "config.json").write_text("{}")
    >>> folder_revision(folder).partition(":")[0]
    'sha256'
    """
    digest = hashlib.sha256()
    for path in sorted({p for pattern in WEIGHT_FILES for p in Path(folder).glob(pattern)}):
        digest.update(path.name.encode() + bytes.fromhex(sha256_of_file(path)))
    return f"sha256:{digest.hexdigest()}"


def state_of(source: str, revision: str | None = None) -> str:
    """Return a folder's SHA-256, or the commit that a revision of a Hub repository stands for.

    Arguments
    ---------
    source : str
        A folder, or a repository with a ``config.json``.
    revision : str, optional
        Of the repository.

    Example
    -------
    >>> state_of(str(getfixture("tmp_path"))).partition(":")[0]
    'sha256'
    """
    from speechbrain_clsp.pretrained.hub import CONFIG, find_file

    is_folder = Path(source).is_dir()
    return folder_revision(source) if is_folder else commit_of(find_file(source, CONFIG, revision))


def commit_of(path: Path) -> str:
    """Return the commit of a file in the Hub's cache, ``snapshots/<commit>/<file>``.

    Example
    -------
    >>> commit_of(Path("hub/models--user--name/snapshots/0123abcd/config.json"))
    '0123abcd'
    """
    return path.parent.name


class ClspAdapter:
    """A CLSP of this package, or in the published form: 16 kHz, any length.

    Arguments
    ---------
    source : str
        Folder or Hub repository.
    revision : str, optional
        Of the repository; default: the pinned one of known repositories.
    device : str
        Where it runs.
    """

    def __init__(self, source: str, revision: str | None = None, device: str = "cpu") -> None:
        from speechbrain_clsp import CLSP
        from speechbrain_clsp.pretrained.folder import HYPERPARAMS
        from speechbrain_clsp.pretrained.hub import PINS

        run_opts = {"device": device}
        if (Path(source) / HYPERPARAMS).is_file():
            self.clsp = CLSP.from_hparams(source, run_opts=run_opts)
        else:
            self.clsp = CLSP.from_pretrained(source, revision, run_opts=run_opts)
        self.model = source
        pinned = PINS[source].revision if source in PINS else MOVING
        self.revision = folder_revision(source) if Path(source).is_dir() else revision or pinned

    def encode_files(self, paths: Sequence[str]) -> Tensor:
        """Embed audio files; see :class:`Model`."""
        return self.clsp.encode_files(list(paths), progress=False).float().cpu()

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed captions; see :class:`Model`."""
        parts = [list(texts[start : start + 64]) for start in range(0, len(texts), 64)]
        return torch.cat([self.clsp.encode_text(part).float().cpu() for part in parts])


class ClapAdapter:
    """A CLAP of transformers, such as LAION's: mono at its feature extractor's rate, 48 kHz.

    Its extractor crops longer clips *at random*; here they are cut into equal windows of at most
    its length (10 s), whose normalized mean is the embedding, so that figures can be repeated.

    Arguments
    ---------
    source : str
        Folder or Hub repository with ``model.safetensors``; no code of it is run.
    revision : str, optional
        Of the repository.
    device : str
        Where it runs.
    """

    def __init__(self, source: str, revision: str | None = None, device: str = "cpu") -> None:
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

        options = {} if revision is None else {"revision": revision}
        self.clap = ClapModel.from_pretrained(source, use_safetensors=True, **options)
        self.clap = self.clap.eval().to(device)
        self.extractor = ClapFeatureExtractor.from_pretrained(source, **options)
        self.tokenizer = AutoTokenizer.from_pretrained(source, **options)
        self.model, self.device = source, device
        self.revision = state_of(source, revision)

    @torch.no_grad()
    def encode_files(self, paths: Sequence[str]) -> Tensor:
        """Embed audio files, one at a time; see :class:`Model`."""
        rate = self.extractor.sampling_rate
        longest = int(self.extractor.max_length_s * rate)
        vectors = []
        for path in paths:
            wav = read_at(path, rate)
            windows = np.array_split(wav, max(1, math.ceil(len(wav) / longest)))
            inputs = self.extractor(
                [np.ascontiguousarray(window) for window in windows],
                sampling_rate=rate,
                return_tensors="pt",
            )
            # The extractor marks a random clip as longer; none is, after the cut.
            longer = torch.zeros(len(windows), 1, dtype=torch.bool, device=self.device)
            features = inputs["input_features"].to(self.device)
            speech = self.clap.get_audio_features(input_features=features, is_longer=longer)
            vectors.append(_unit(_pooled(speech)).mean(dim=0))
        return _unit(torch.stack(vectors))

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed captions; see :class:`Model`."""
        vectors = []
        for start in range(0, len(texts), 64):
            part = list(texts[start : start + 64])
            tokens = self.tokenizer(part, padding=True, truncation=True, return_tensors="pt")
            names = ("input_ids", "attention_mask")
            inputs = {name: tokens[name].to(self.device) for name in names}
            vectors.append(_unit(_pooled(self.clap.get_text_features(**inputs))))
        return torch.cat(vectors)


def read_at(path: str | os.PathLike, rate: int) -> np.ndarray:
    """Read a file as mono [T] float32 at a model's own rate.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.zeros((16000, 2)), 16000)
    >>> read_at(path, 48000).shape
    (48000,)
    """
    try:
        samples, own = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: cannot be read as audio: {error}") from error
    if not len(samples) or not np.isfinite(samples).all():
        raise AudioError(f"{path}: holds no samples, or NaN or infinite ones")
    return resample(torch.from_numpy(samples.mean(axis=1)), own, rate).numpy()


class PrecomputedModel:
    """Vectors of any other model, from an .npz file.

    Arguments
    ---------
    path : str or path
        With the arrays ``paths`` [N] and ``embeddings`` [N, D], as ``clsp embed`` writes them, and
        ``texts`` [M] and ``text_embeddings`` [M, D]; optionally ``model`` and ``revision``, names.

    Raises
    ------
    ValueError
        If an array is missing, or sizes do not fit.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        with np.load(path, allow_pickle=False) as arrays:
            needed = ("paths", "embeddings", "texts", "text_embeddings")
            absent = [name for name in needed if name not in arrays]
            if absent:
                raise ValueError(f"{path} lacks the arrays {absent}")
            self.speech = _named(path, arrays["paths"], arrays["embeddings"])
            self.text = _named(path, arrays["texts"], arrays["text_embeddings"])
            self.model = str(arrays["model"]) if "model" in arrays else Path(path).stem
            stated = str(arrays["revision"]) if "revision" in arrays else ""
        self.revision = stated or f"sha256:{sha256_of_file(path)}"
        self.path = path

    def encode_files(self, paths: Sequence[str]) -> Tensor:
        """Look up files, by path or else by name; see :class:`Model`."""
        names = {}
        for known in self.speech:  # a name that two folders have says nothing
            names[Path(known).name] = None if Path(known).name in names else known
        keys = [p if p in self.speech else names.get(Path(p).name) for p in map(str, paths)]
        return self._find(self.speech, keys, list(map(str, paths)))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Look up captions; see :class:`Model`."""
        return self._find(self.text, list(texts), list(texts))

    def _find(self, known: dict[str, Tensor], keys: list, asked: list[str]) -> Tensor:
        absent = [name for key, name in zip(keys, asked) if key not in known]
        if absent:
            raise ValueError(f"{self.path} has no embedding of {len(absent)}, such as {absent[:3]}")
        return torch.stack([known[key] for key in keys])


class RandomModel:
    """The lower bound: a random direction for each file and each caption, always the same."""

    is_bound = True

    model, revision, size = "random", "1", 512

    def encode_files(self, paths: Sequence[str]) -> Tensor:
        """Embed the files' contents as noise; see :class:`Model`."""
        return torch.stack([self._direction(Path(path).read_bytes()) for path in paths])

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed captions as noise; see :class:`Model`."""
        return torch.stack([self._direction(text.encode()) for text in texts])

    def _direction(self, content: bytes) -> Tensor:
        seed = int.from_bytes(hashlib.sha256(content).digest()[:7], "big")
        noise = np.random.default_rng(seed).standard_normal(self.size)
        return _unit(torch.from_numpy(noise))


def _named(path: Any, names: np.ndarray, vectors: np.ndarray) -> dict[str, Tensor]:
    if vectors.ndim != 2 or len(names) != len(vectors):
        raise ValueError(f"{path}: {len(names)} names, but vectors {list(vectors.shape)}")
    unit = _unit(torch.from_numpy(np.ascontiguousarray(vectors)))
    return dict(zip(map(str, names), unit))


def _pooled(output: Any) -> Tensor:
    """Return the embedding; newer transformers wrap it."""
    return getattr(output, "pooler_output", output)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.float().cpu(), dim=-1)
