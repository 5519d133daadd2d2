"""Clips with captions as a dataset, and the batch that the Brain gets."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from speechbrain_clsp.captions.policies import Texts, draw_texts
from speechbrain_clsp.dataio.audio import SAMPLE_RATE, AudioError
from speechbrain_clsp.dataio.labels import AttributePrompts
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.dataio.sampler import Key
from speechbrain_clsp.dataio.shards import ClipReader


@dataclass
class CaptionedSpeech:
    """A batch: B clips with K texts each, positives first and negatives after them.

    Arguments
    ---------
    ids : list of str
        The clips' ids.
    wavs : Tensor
        [B, T] float32, zero padded.
    wav_lens : Tensor
        [B] relative to T.
    tokens : Tensor
        [K * B, L] int64: the first text of every clip, then the second of every clip, ...
    padding_mask : Tensor
        [K * B, L] bool, True on padding.
    labels : Tensor
        [B, A] int64, the clips' classes for A attributes, -1 where there is none.
    caption_ids : Tensor
        [K, B] int64, equal for equal texts and practically never otherwise.
    n_positives : int
        How many of the K texts are true of their clip; the others are negatives.
    unreadable : list of str
        What was wrong with clips that should have been in the batch too.
    prompts, prompts_padding_mask : Tensor, optional
        [N, L] int64 and bool: one prompt for each value of the attributes, one attribute after the
        other (:class:`~speechbrain_clsp.dataio.labels.AttributePrompts`).
    n_values : sequence of int
        How many prompts each attribute has.
    n_old : int
        How many of the clips, the last ones, are rehearsed
        (:class:`~speechbrain_clsp.dataio.rehearsal.Rehearsal`).

    Example
    -------
    >>> mask = torch.zeros(2, 1, dtype=torch.bool)
    >>> batch = CaptionedSpeech(
    ...     ids=["a", "b"], wavs=torch.ones(2, 16000), wav_lens=torch.tensor([0.5, 1.0]),
    ...     tokens=torch.tensor([[7], [8]]), padding_mask=mask, labels=torch.empty(2, 0),
    ...     caption_ids=torch.tensor([[1, 2]]), n_positives=1)
    >>> batch.select(0, 1).wavs.shape, [chunk.ids for chunk in batch.split(seconds=1.0)]
    (torch.Size([1, 8000]), [['a'], ['b']])
    """

    ids: list[str]
    wavs: Tensor
    wav_lens: Tensor
    tokens: Tensor
    padding_mask: Tensor
    labels: Tensor
    caption_ids: Tensor
    n_positives: int
    unreadable: list[str] = field(default_factory=list)
    prompts: Tensor | None = None
    prompts_padding_mask: Tensor | None = None
    n_values: Sequence[int] = ()
    n_old: int = 0

    def negatives_differ(self) -> Tensor:
        """Return [K - n_positives, B] bool, False for a negative that repeats a positive.

        A policy repeats a positive where it could not make a negative, as for a caption that names
        no attribute. Such a text is true of the clip, and the loss leaves it out.
        """
        positives, negatives = self.caption_ids.tensor_split([self.n_positives])
        return (negatives[:, None] != positives).all(dim=1)

    def to(self, device: torch.device | str) -> CaptionedSpeech:
        """Return the batch on a device."""
        return self._mapped(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> CaptionedSpeech:
        """Return the batch in page-locked memory, from which copies to a GPU do not wait."""
        return self._mapped(Tensor.pin_memory)

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> CaptionedSpeech:
        changed: dict[str, Any] = {
            name: function(x) for name, x in vars(self).items() if isinstance(x, Tensor)
        }
        return replace(self, **changed)

    def split(self, seconds: float) -> list[CaptionedSpeech]:
        """Cut the batch into chunks of successive clips, without the padding they don't need.

        A chunk has at most so many ``seconds`` of padded audio; a longer clip is one by itself.
        """
        n_samples = self._n_samples()
        limit, bounds, longest = seconds * SAMPLE_RATE, [0], 0
        for i, size in enumerate(n_samples.tolist()):
            longest = max(longest, size)
            if i > bounds[-1] and longest * (i + 1 - bounds[-1]) > limit:
                bounds.append(i)
                longest = size
        return [self.select(*pair) for pair in pairwise([*bounds, len(n_samples)])]

    def _n_samples(self) -> Tensor:
        return (self.wav_lens * self.wavs.shape[1]).round().long()

    def select(self, start: int, end: int) -> CaptionedSpeech:
        """Return the clips from ``start`` to before ``end``, without padding they don't need."""
        if not 0 <= start < end <= len(self.ids):
            raise ValueError(f"There are no clips {start} to {end} in a batch of {len(self.ids)}")
        part, n_clips = slice(start, end), len(self.ids)
        n_samples = self._n_samples()[part]
        longest = int(n_samples.max())
        tokens, padding_mask = (
            x.view(-1, n_clips, x.shape[1])[:, part].flatten(0, 1)
            for x in (self.tokens, self.padding_mask)
        )
        n_tokens = int((~padding_mask).sum(dim=1).max())
        return CaptionedSpeech(
            self.ids[part],
            self.wavs[part, :longest],
            n_samples / longest,
            tokens[:, :n_tokens],
            padding_mask[:, :n_tokens],
            self.labels[part],
            self.caption_ids[:, part],
            self.n_positives,
            prompts=self.prompts,
            prompts_padding_mask=self.prompts_padding_mask,
            n_values=self.n_values,
            n_old=max(0, end - max(start, n_clips - self.n_old)),
        )

    @classmethod
    def empty(cls, unreadable: Sequence[str] = ()) -> CaptionedSpeech:
        """Return a batch without clips, which says why."""
        nothing = torch.empty(0, 0, dtype=torch.long)
        return cls(
            ids=[],
            wavs=nothing.float(),
            wav_lens=torch.empty(0),
            tokens=nothing,
            padding_mask=nothing.bool(),
            labels=nothing,
            caption_ids=nothing,
            n_positives=0,
            unreadable=list(unreadable),
        )


class CaptionedSpeechDataset(Dataset):
    """Reads a clip and draws its texts.

    Arguments
    ---------
    manifest : Manifest
        The clips.
    captions : callable
        Policy, (row, random.Random, step) -> Texts; see
        :mod:`speechbrain_clsp.captions.policies`.
    seed : int
        The texts drawn are a function of (seed, epoch, id).
    labels : callable, optional
        row -> A classes; see :class:`~speechbrain_clsp.dataio.labels.AttributeLabels`.
    skip_unreadable : bool
        Go on without clips that cannot be read; they are named in the batch. By default they
        raise :class:`~speechbrain_clsp.dataio.audio.AudioError` or ``OSError``.

    Example
    -------
    >>> import numpy, soundfile
    >>> from speechbrain_clsp.captions.policies import evaluation_captions
    >>> from speechbrain_clsp.dataio.manifest import write_manifest
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", numpy.ones(8000) / 2, 16000)
    >>> row = {"id": "a", "audio": "a.wav", "duration": 0.5}
    >>> row |= {"global_captions": ["G"], "fine_captions": ["F"]}
    >>> _ = write_manifest(folder / "test.arrow", [row])
    >>> dataset = CaptionedSpeechDataset(Manifest(folder / "test.arrow"), evaluation_captions)
    >>> dataset[0]["wav"].shape, dataset[0]["texts"]
    (torch.Size([8000]), Texts(positives=['G', 'F'], negatives=[]))
    """

    def __init__(
        self,
        manifest: Manifest,
        captions: Callable[[Mapping[str, Any], random.Random, int], Texts],
        seed: int = 0,
        labels: Callable[[dict], list[int]] | None = None,
        skip_unreadable: bool = False,
    ) -> None:
        self.manifest = manifest
        self.captions = captions
        self.seed = seed
        self.labels = labels
        self.skip_unreadable = skip_unreadable
        self.read_clip = ClipReader()

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        """Return id, wav [T], texts and labels of a row index, or of a sampler's key.

        A clip that cannot be read gives ``unreadable``, what is wrong with it, instead.

        Raises
        ------
        TypeError
            If the policy returned something else than Texts.
        """
        key = key if isinstance(key, tuple) else Key(0, 0, key)
        row = self.manifest[key.index]
        try:
            wav = self.read_clip(row)
        except (OSError, AudioError) as error:
            if not self.skip_unreadable:
                raise
            return {"unreadable": f"{row['id']}: {error}"}
        return {
            "id": row["id"],
            "wav": wav,
            "texts": self.draw(row, key.epoch, key.step),
            "labels": self.labels(row) if self.labels else [],
        }

    def draw(self, row: Mapping[str, Any], epoch: int = 0, step: int = 0) -> Texts:
        """Return the texts that a row gets in an epoch.

        Raises
        ------
        TypeError
            If the policy returned something else than Texts.
        """
        generator = random.Random(f"{self.seed} {epoch} {row['id']}")
        return draw_texts(self.captions, row, generator, step)


class Collate:
    """Pads clips and tokenizes their texts.

    Arguments
    ---------
    tokenizer : callable
        list of str -> (tokens, padding_mask).
    prompts : AttributePrompts, optional
        Each batch gets prompts drawn from it, which depend on the batch's clips alone.

    Example
    -------
    >>> def letters(texts):
    ...     tokens = torch.tensor([list(text.encode()) for text in texts])
    ...     return tokens, torch.zeros_like(tokens, dtype=torch.bool)
    >>> clip = {"id": "a", "wav": torch.ones(8000), "texts": Texts(["G"], ["N"]), "labels": [1]}
    >>> batch = Collate(letters)([clip, {**clip, "id": "b", "wav": torch.ones(16000)}])
    >>> batch.ids, batch.wavs.shape, batch.tokens.shape
    (['a', 'b'], torch.Size([2, 16000]), torch.Size([4, 1]))
    """

    def __init__(
        self,
        tokenizer: Callable[[list[str]], tuple[Tensor, Tensor]],
        prompts: AttributePrompts | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.prompts = prompts

    def __call__(self, clips: Sequence[dict[str, Any]]) -> CaptionedSpeech:
        """Join clips of the dataset into a batch of those that could be read, possibly none.

        Raises
        ------
        ValueError
            If clips differ in their number of positives or of negatives.
        """
        unreadable = [clip["unreadable"] for clip in clips if "unreadable" in clip]
        clips = [clip for clip in clips if "unreadable" not in clip]
        if not clips:
            return CaptionedSpeech.empty(unreadable)
        n_samples = torch.tensor([len(clip["wav"]) for clip in clips])
        wavs = torch.nn.utils.rnn.pad_sequence([clip["wav"] for clip in clips], batch_first=True)
        n_positives = _check_equal_numbers(clips)
        texts_of_clips = [clip["texts"].positives + clip["texts"].negatives for clip in clips]
        by_position = list(zip(*texts_of_clips, strict=True))
        tokens, padding_mask = self.tokenizer([text for texts in by_position for text in texts])
        ids = [clip["id"] for clip in clips]
        labels = torch.tensor([clip["labels"] for clip in clips], dtype=torch.long)
        caption_ids = torch.tensor([[_text_id(text) for text in texts] for texts in by_position])
        prompts = prompts_padding_mask = None
        if self.prompts is not None:
            drawn = self.prompts.draw(random.Random(" ".join(ids)))
            prompts, prompts_padding_mask = self.tokenizer(drawn)
        return CaptionedSpeech(
            ids,
            wavs,
            n_samples / wavs.shape[1],
            tokens,
            padding_mask,
            labels,
            caption_ids,
            n_positives,
            unreadable,
            prompts,
            prompts_padding_mask,
            self.prompts.n_values if self.prompts is not None else (),
            sum(clip.get("is_old", False) for clip in clips),
        )


def _check_equal_numbers(clips: Sequence[dict[str, Any]]) -> int:
    """Return the number of positives that every clip has."""
    numbers = [(len(clip["texts"].positives), len(clip["texts"].negatives)) for clip in clips]
    for clip, (n_positives, n_negatives) in zip(clips, numbers, strict=True):
        if (n_positives, n_negatives) != numbers[0]:
            raise ValueError(
                f"Clip {clip['id']!r} has {n_positives} positive and {n_negatives} negative texts,"
                f" clip {clips[0]['id']!r} in the same batch {numbers[0][0]} and {numbers[0][1]}:"
                " a caption policy must return the same numbers for every clip"
            )
    return numbers[0][0]


def _text_id(text: str) -> int:
    """Return 63 bits that identify a text, the same in every process."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
