"""Checks of a whole data set before any of it is trained or evaluated on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from speechbrain_clsp.dataio.audio import SAMPLE_RATE, AudioError, read_header
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset
from speechbrain_clsp.dataio.labels import AttributeLabels
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.dataio.shards import ClipReader
from speechbrain_clsp.dataio.tokenizers import AT_ONCE, count_tokens
from speechbrain_clsp.utils.checks import BadEntriesError, quote

SPECIAL_TOKENS = 16  # more than any tokenizer puts around a caption
KINDS = ("global_captions", "fine_captions")
Tokenizer = Callable[[Sequence[str]], tuple[Tensor, Tensor]]


def check_clips(rows: Iterable[Mapping[str, Any]], where: str) -> None:
    """Raise if the audio of clips is not there or is no audio; only headers are read.

    Arguments
    ---------
    rows : iterable of dict
        Of a manifest.
    where : str
        What messages call it.

    Raises
    ------
    ValueError
        That names the first clips, and says how many there are.

    Example
    -------
    >>> rows = [{"id": "a", "audio": "absent.wav", "offset": None}]
    >>> check_clips(rows, "valid.arrow")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    speechbrain_clsp...BadEntriesError: ...: 1 of 1 clips cannot be read: 'a': absent.wav: ...
    """
    problems, count, reader = [], 0, ClipReader()
    for row in rows:
        count += 1
        try:
            read_header(reader.source_of(row), row["audio"])
        except (OSError, AudioError) as error:
            problems.append(f"{row['id']!r}: {error}")
    if problems:
        raise BadEntriesError(f"{where}: {len(problems)} of {count} clips cannot be read", problems)


def check_lengths(
    texts: Iterable[tuple[str, str]], tokenizer: Tokenizer, max_tokens: int, where: str
) -> None:
    """Raise if captions are longer than a text tower takes.

    Arguments
    ---------
    texts : iterable of (str, str)
        What messages call a caption, such as its clip, and the caption.
    tokenizer : callable
        Captions -> tokens and padding mask [B, L].
    max_tokens : int
        Of the text tower.
    where : str
        Where the captions are from.

    Raises
    ------
    ValueError
        That names the first ones.

    Example
    -------
    >>> import torch
    >>> def tokenizer(texts):
    ...     mask = torch.tensor([[i >= len(text) for i in range(9)] for text in texts])
    ...     return mask.long(), mask
    >>> texts = [("clip 'a'", "loudly")]
    >>> check_lengths(texts, tokenizer, 5, "test.arrow")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    speechbrain_clsp...BadEntriesError: test.arrow: ... shorten: clip 'a': 6 tokens, 'loudly'
    """
    problems, waiting = [], iter(texts)
    while batch := list(islice(waiting, AT_ONCE)):
        sizes = count_tokens(tokenizer, [text for _, text in batch])
        for (name, text), size in zip(batch, sizes.tolist()):
            if size > max_tokens:
                problems.append(f"{name}: {size} tokens, {quote(text)}")
    if problems:
        raise BadEntriesError(
            f"{where}: captions of at most {max_tokens} tokens fit, shorten", problems
        )


def check_captions(manifest: Manifest, tokenizer: Tokenizer, max_tokens: int) -> None:
    """Raise if a clip of training data has no caption, or one that is too long.

    Only captions of so many bytes that they could be too long are tokenized: millions are checked
    in a minute. Other arguments and errors are those of :func:`check_lengths`.
    """
    without = []
    for batch in manifest.batches():
        counts = [pc.fill_null(pc.list_value_length(batch.column(kind)), 0) for kind in KINDS]
        for name in batch.column("id").filter(pc.equal(pc.add(*counts), 0)).to_pylist():
            without.append(repr(name))
    if without:
        raise BadEntriesError(f"{manifest.path}: {len(without)} clips without caption", without)
    check_lengths(_long_captions(manifest, max_tokens), tokenizer, max_tokens, str(manifest.path))


def _long_captions(manifest: Manifest, max_tokens: int) -> Iterator[tuple[str, str]]:
    """Yield the captions that have more bytes than tokens fit: a token has at least one."""
    for batch in manifest.batches():
        for kind in KINDS:
            column = batch.column(kind)
            texts = column.flatten()
            # Tokenizers normalize, by which a few characters become longer.
            sizes = pc.binary_length(pc.utf8_normalize(texts, form="NFKC"))
            is_long = pc.greater(sizes, max_tokens - SPECIAL_TOKENS)
            parents = pc.list_parent_indices(column).filter(is_long)
            names = batch.column("id").take(parents).to_pylist()
            yield from zip(map("clip {!r}".format, names), texts.filter(is_long).to_pylist())


def check_durations(manifest: Manifest, most: float, longest: float = math.inf) -> None:
    """Raise if clips are longer than a speech tower takes.

    Arguments
    ---------
    manifest : Manifest
        The clips.
    most : float
        Seconds that the tower takes.
    longest : float
        Seconds from which on clips are left out, and need not fit.

    Raises
    ------
    ValueError
        That names the first ones.

    Example
    -------
    >>> from speechbrain_clsp.dataio.manifest import write_manifest
    >>> path = getfixture("tmp_path") / "valid.arrow"
    >>> _ = write_manifest(path, [{"id": "a", "audio": "a.wav", "duration": 31.5}])
    >>> check_durations(Manifest(path), 30.0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    speechbrain_clsp...BadEntriesError: ...: 1 clips are longer than ... 30 s ...: 'a': 31.50 s
    """
    seconds = manifest.array("duration")
    is_long = (np.rint(seconds * SAMPLE_RATE) > most * SAMPLE_RATE) & (seconds <= longest)
    if is_long.any():
        names = manifest.column("id")
        long = [f"{names[i]!r}: {seconds[i]:.2f} s" for i in np.flatnonzero(is_long)]
        raise BadEntriesError(
            f"{manifest.path}: {len(long)} clips are longer than the {most:g} s that the speech"
            " tower takes, cut them or leave them out (of training, by longest)",
            long,
        )


def check_labels(manifest: Manifest, labels: AttributeLabels) -> None:
    """Raise if clips have values of attributes that must not be, or an attribute no column.

    Raises
    ------
    ValueError
        That names, for each such value, a clip that has it.
    """
    problems: dict[tuple[str, Any], str] = {}
    for batch in manifest.batches():
        for column, known in labels.values.items():
            name, _, key = column.partition(".")
            if name not in batch.schema.names or (name == "labels") != bool(key):
                raise ValueError(
                    f"attribute {column!r}: a manifest has no such column, only labels.<key> and"
                    f" {', '.join(batch.schema.names)}"
                )
            if column in labels.classes:  # other values are unlabeled
                continue
            values = batch.column(name)
            if key:
                values = pc.map_lookup(values, pa.scalar(key), "first")
            for value in set(pc.unique(values).to_pylist()) - {None, *known}:
                clip = batch.column("id")[pc.index(values, value).as_py()].as_py()
                listed = f"clip {clip!r}: {column} is {value!r}, none of {known}"
                problems.setdefault((column, value), listed)
    if problems:
        raise BadEntriesError(
            f"{manifest.path}: values that are not listed among their attribute's",
            problems.values(),
        )


def check_evaluated(dataset: CaptionedSpeechDataset, tokenizer: Tokenizer, max_tokens: int) -> None:
    """Raise if a data set that is evaluated after each epoch would stop the training there.

    Every clip's audio must be readable, and its texts, which are the same in every epoch, must be
    there and fit.

    Raises
    ------
    ValueError
        That names clips and captions, as :func:`check_clips` and :func:`check_lengths`.
    """
    where = str(dataset.manifest.path)
    check_clips(dataset.manifest, where)
    texts = []
    for row in dataset.manifest:
        drawn = dataset.draw(row)
        different = dict.fromkeys(drawn.positives + drawn.negatives)
        texts += [(f"clip {row['id']!r}", text) for text in different]
    check_lengths(texts, tokenizer, max_tokens, where)
