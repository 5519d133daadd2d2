"""What the suites need of a model, and what the kinds of models have in common."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from speechbrain_clsp.dataio.audio import AudioError, read_samples
from speechbrain_clsp.dataio.resample import resample
from speechbrain_clsp.pretrained.folder import BACKGROUND, CONFIG
from speechbrain_clsp.pretrained.hub import find_file
from speechbrain_clsp.utils.files import expand, sha256_of_file

MOVING = "main"  # a branch: its content may change
BATCH_TEXTS = 64
MAX_TOKENS = 512
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


class DualEncoderBase:
    """A model of transformers' ``extractor`` and ``tokenizer``; subclasses embed what these give.

    ``batch_clips`` are embedded at once. For ``model`` and ``revision`` see :class:`Model`.
    """

    is_bound = False

    def __init__(
        self,
        model: str,
        revision: str,
        extractor: Any,
        tokenizer: Any,
        device: str,
        batch_clips: int = 1,
    ) -> None:
        self.model, self.revision, self.device = model, revision, device
        self.extractor, self.tokenizer, self.batch_clips = extractor, tokenizer, batch_clips

    @torch.no_grad()
    def encode_files(self, paths: Sequence[str]) -> Tensor:
        """Embed audio files."""
        size = self.batch_clips
        parts = [paths[start : start + size] for start in range(0, len(paths), size)]
        return torch.cat(
            [unit(self._embed_speech([self._read(p) for p in part])) for part in parts]
        )

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed captions, of which at most 512 tokens count."""
        vectors = []
        for start in range(0, len(texts), BATCH_TEXTS):
            tokens = self.tokenizer(
                list(texts[start : start + BATCH_TEXTS]),
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            ).to(self.device)
            vectors.append(unit(self._embed_text(tokens["input_ids"], tokens["attention_mask"])))
        return torch.cat(vectors)

    def _read(self, path: str) -> np.ndarray:
        return read_at(path, self.extractor.sampling_rate)

    def _embed_speech(self, wavs: list[np.ndarray]) -> Tensor:
        """Embed waveforms at the extractor's rate; returns [B, D]."""
        raise NotImplementedError

    def _embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed tokens [B, L]; returns [B, D]."""
        raise NotImplementedError


def state_of(source: str, revision: str | None = None, name: str = CONFIG) -> str:
    """Return a folder's SHA-256, or the commit that a revision of a Hub repository stands for.

    Arguments
    ---------
    source : str
        A folder, whose weights and settings count, or a repository.
    revision : str, optional
        Of the repository.
    name : str
        A file that the repository has.

    Example
    -------
    >>> state_of(str(getfixture("tmp_path"))).partition(":")[0]
    'sha256'
    """
    folder = expand(source)
    if not folder.is_dir():
        # In the Hub's cache files lie in snapshots/<commit>.
        return find_file(source, name, revision).parent.name
    digest = hashlib.sha256()
    paths = {path for pattern in WEIGHT_FILES for path in folder.glob(pattern)}
    for path in sorted(paths - {folder / BACKGROUND}):
        digest.update(path.name.encode() + bytes.fromhex(sha256_of_file(path)))
    return f"sha256:{digest.hexdigest()}"


def read_at(path: str | os.PathLike, rate: int) -> np.ndarray:
    """Read a file as mono [T] float32 at a model's own sample rate in Hz.

    Example
    -------
    >>> import soundfile
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.zeros((16000, 2)), 16000)
    >>> read_at(path, 48000).shape
    (48000,)
    """
    samples, own = read_samples(path, str(path))
    if not len(samples) or not np.isfinite(samples).all():
        raise AudioError(f"{path}: holds no samples, or NaN or infinite ones")
    return resample(torch.from_numpy(samples.mean(axis=1)), own, rate).numpy()


def unit(vectors: Tensor) -> Tensor:
    """Return vectors [..., D] of unit norm, float32 on the CPU."""
    return torch.nn.functional.normalize(vectors.float().cpu(), dim=-1)
