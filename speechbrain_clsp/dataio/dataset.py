"""Clips with captions as a dataset, and the batch that the Brain gets.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from speechbrain_clsp.dataio.audio import read_audio
from speechbrain_clsp.dataio.manifest import Manifest


@dataclass
class CaptionedSpeech:
    """A batch: B clips with K texts each.

    Arguments
    ---------
    ids : list of str
        The clips' ids.
    wavs : Tensor
        [B, T] float32, zero padded.
    lengths : Tensor
        [B] relative to T.
    tokens : Tensor
        [K * B, L] int64: the first text of every clip, then the second of every clip, ...
    mask : Tensor
        [K * B, L] bool, True on tokens.
    labels : Tensor
        [B, A] int64, the clips' classes for A attributes, -1 where there is none.
    """

    ids: list[str]
    wavs: Tensor
    lengths: Tensor
    tokens: Tensor
    mask: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> CaptionedSpeech:
        """Return the batch on a device."""
        return self._mapped(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> CaptionedSpeech:
        """Return the batch in page-locked memory, from which copies to a GPU do not wait."""
        return self._mapped(Tensor.pin_memory)

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> CaptionedSpeech:
        tensors = (self.wavs, self.lengths, self.tokens, self.mask, self.labels)
        return CaptionedSpeech(self.ids, *map(function, tensors))


class CaptionedSpeechDataset(Dataset):
    """Reads a clip and draws its texts.

    Arguments
    ---------
    manifest : Manifest
        The clips.
    captions : callable
        Policy, (row, random.Random) -> K captions; see :mod:`speechbrain_clsp.dataio.captions`.
    seed : int
        The texts drawn are a function of (seed, epoch, id).
    labels : callable, optional
        row -> A classes; see :class:`~speechbrain_clsp.dataio.labels.AttributeLabels`.

    Example
    -------
    >>> import numpy, soundfile
    >>> from speechbrain_clsp.dataio.captions import evaluation_captions
    >>> from speechbrain_clsp.dataio.manifest import write_manifest
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", numpy.ones(8000) / 2, 16000)
    >>> row = {"id": "a", "audio": "a.wav", "duration": 0.5}
    >>> row |= {"global_captions": ["G"], "fine_captions": ["F"]}
    >>> _ = write_manifest(folder / "test.arrow", [row])
    >>> dataset = CaptionedSpeechDataset(Manifest(folder / "test.arrow"), evaluation_captions)
    >>> dataset[0]["wav"].shape, dataset[0]["texts"]
    (torch.Size([8000]), ['G', 'F'])
    """

    def __init__(
        self,
        manifest: Manifest,
        captions: Callable[[dict, random.Random], list[str]],
        seed: int = 0,
        labels: Callable[[dict], list[int]] | None = None,
    ) -> None:
        self.manifest = manifest
        self.captions = captions
        self.seed = seed
        self.labels = labels

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """Return id, wav [T], texts and labels of a row index, or of a pair (epoch, row index)."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        row = self.manifest[index]
        generator = random.Random(f"{self.seed} {epoch} {row['id']}")
        return {
            "id": row["id"],
            "wav": read_audio(row["audio"]),
            "texts": self.captions(row, generator),
            "labels": self.labels(row) if self.labels else [],
        }


class Collate:
    """Pads clips and tokenises their texts.

    Arguments
    ---------
    tokenizer : callable
        list of str -> (tokens, mask).
    """

    def __init__(self, tokenizer: Callable[[list[str]], tuple[Tensor, Tensor]]) -> None:
        self.tokenizer = tokenizer

    def __call__(self, clips: Sequence[dict[str, Any]]) -> CaptionedSpeech:
        """Join B clips of the dataset into a batch."""
        samples = torch.tensor([len(clip["wav"]) for clip in clips])
        wavs = torch.nn.utils.rnn.pad_sequence([clip["wav"] for clip in clips], batch_first=True)
        by_rank = zip(*(clip["texts"] for clip in clips), strict=True)
        tokens, mask = self.tokenizer([text for texts in by_rank for text in texts])
        ids = [clip["id"] for clip in clips]
        labels = torch.tensor([clip["labels"] for clip in clips], dtype=torch.long)
        return CaptionedSpeech(ids, wavs, samples / wavs.shape[1], tokens, mask, labels)
