"""What the suites need of a model, and what the kinds of models have in common."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
import torch
from torch import Tensor

from speechbrain_clsp.dataio.audio import AudioError
from speechbrain_clsp.dataio.resample import resample
from speechbrain_clsp.pretrained.hub import CONFIG, find_file
from speechbrain_clsp.utils.files import sha256_of_file

MOVING = "main"  # a branch: its content may change
BATCH_TEXTS = 64
WEIGHT_FILES = ("*.safetensors", "*.ckpt", "*.pth.tar", "*.json", "*.yaml", "*.model", "vocab.txt")


class Model(Protocol):
    """A model under evaluation.

    Attributes
    ----------
    model : str
        What it is: a folder or repository.
    revision : str
        Which state of it: a commit, a SHA-256, or ``main``.
    is_bound : bool
        Whether it is a lower or upper bound: bounds are not compared or warned of.
    """

    model: str
    revision: str
    is_bound: bool

    def encode_files(self, paths: Sequence[str]) -> Tensor:
        """Embed N audio files; returns [N, D] float32 of unit norm on the CPU."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed M captions; returns [M, D] float32 of unit norm on the CPU."""


def split_revision(source: str) -> tuple[str, str | None]:
    """Split ``user/name@revision``; a path that exists has no revision.

    Example
    -------
    >>> split_revision("user/name@v1"), split_revision("user/name")
    (('user/name', 'v1'), ('user/name', None))
    """
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
    if Path(source).is_dir():
        return folder_revision(source)
    return commit_of(find_file(source, CONFIG, revision))


def commit_of(path: Path) -> str:
    """Return the commit of a file in the Hub's cache, ``snapshots/<commit>/<file>``.

    Example
    -------
    >>> commit_of(Path("hub/models--user--name/snapshots/0123abcd/config.json"))
    '0123abcd'
    """
    return path.parent.name


def read_at(path: str | os.PathLike, rate: int) -> np.ndarray:
    """Read a file as mono [T] float32 at a model's own sample rate.

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


def batches(items: Sequence[Any], size: int = BATCH_TEXTS) -> Iterator[list[Any]]:
    """Yield lists of at most ``size`` items.

    Example
    -------
    >>> list(batches("abc", 2))
    [['a', 'b'], ['c']]
    """
    return (list(items[start : start + size]) for start in range(0, len(items), size))


def unit(vectors: Tensor) -> Tensor:
    """Return vectors [..., D] of unit norm, float32 on the CPU."""
    return torch.nn.functional.normalize(vectors.float().cpu(), dim=-1)
