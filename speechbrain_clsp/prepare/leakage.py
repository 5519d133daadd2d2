"""Detection of test clips that occur in the training data: ids, speakers, sounds and captions."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array
from tqdm import tqdm

from speechbrain_clsp.dataio.audio import AudioError
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.dataio.shards import ClipReader

NEAR_CAPTION = 0.7  # Jaccard index of two captions' word triples from which they are near
FRAME_SAMPLES = 80  # 5 ms: shorter than a period of most voices, so that pitch shows too
SAME_SOUND = 0.05  # relative distance of envelopes up to which two sounds are the same
SAME_SECONDS = 0.002  # durations that differ by less belong to clips that are compared by sound
HEAD_SECONDS = 1.0  # decoded first; most pairs differ there already
MAX_LISTED = 100_000  # leaks of each kind; counts are not limited
MAX_PAIRS = 10_000_000  # of captions that are compared at once; bounds the memory
CAPTION_COLUMNS = ("global_captions", "fine_captions")
SAME_CLIP = ("id", "audio")  # kinds that are leaks; speakers and captions may be shared on purpose
_WORD = re.compile(r"\w+")


@dataclass
class Leak:
    """A property of a test clip that a training clip has too."""

    kind: str  # id, speaker, audio or caption
    test: str  # id of the test clip
    train: str  # id of the training clip
    detail: str = ""


@dataclass
class LeakReport:
    """Result of :func:`check_leakage`.

    Arguments
    ---------
    counts : dict of int
        By kind, of test clips with a leak.
    leaks : list of Leak
        Pairs of test and training clips, up to 100,000 of each kind.

    Example
    -------
    >>> report = LeakReport({"id": 0, "audio": 1}, [Leak("audio", "a", "b")])
    >>> bool(report), [leak.test for leak in report.of_kind("audio")]
    (True, ['a'])
    """

    counts: dict[str, int] = field(default_factory=dict)
    leaks: list[Leak] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(self.counts.values())

    def of_kind(self, kind: str) -> list[Leak]:
        """Return the leaks of one kind."""
        return [leak for leak in self.leaks if leak.kind == kind]

    def warnings(self) -> list[str]:
        """Return a sentence per kind with leaks.

        Example
        -------
        >>> LeakReport({"id": 0, "audio": 1}, [Leak("audio", "a", "b")]).warnings()
        ['LEAK: 1 test clips have the audio of a training clip, such as a (b)']
        """
        found = []
        for kind, count in self.counts.items():
            if count:
                first = self.of_kind(kind)[0]
                label = "LEAK" if kind in SAME_CLIP else "SHARED, is it intended?"
                found.append(
                    f"{label}: {count} test clips have the {kind} of a training clip, such as"
                    f" {first.test} ({first.train})"
                )
        return found


def check_leakage(
    test: Manifest,
    train: Manifest,
    kinds: Sequence[str] = ("id", "speaker", "audio", "caption"),
) -> LeakReport:
    """Compare a test set with training data.

    Arguments
    ---------
    test, train : Manifest
        The training manifest is streamed; memory grows with the test set only.
    kinds : sequence of str
        What to compare:

        - ``id``, ``speaker``: equal values.
        - ``audio``: the same sound, also in another format. Clips are compared if their durations
          agree to 2 ms or their files have equal sizes; a training clip is decoded only then.
        - ``caption``: equal, or with 70 % of their triples of successive words in common.

    Returns
    -------
    LeakReport
        Lists one leak per test clip for ids and speakers, every pair for sounds and captions.

    Raises
    ------
    ValueError
        If a kind is not known.

    Example
    -------
    >>> from speechbrain_clsp.dataio.manifest import write_manifest
    >>> folder = getfixture("tmp_path")
    >>> row = {"id": "a", "audio": "a.wav", "duration": 1.0, "speaker": "s"}
    >>> _ = write_manifest(folder / "test.arrow", [row])
    >>> _ = write_manifest(folder / "train.arrow", [row | {"id": "b"}])
    >>> test, train = Manifest(folder / "test.arrow"), Manifest(folder / "train.arrow")
    >>> check_leakage(test, train, ["speaker"])
    LeakReport(counts={'speaker': 1}, leaks=[Leak(kind='speaker', test='a', train='b', detail='s')])
    """
    unknown = set(kinds) - set(CHECKS)
    if unknown:
        raise ValueError(f"kinds: unknown {sorted(unknown)}; known: {list(CHECKS)}")
    report = LeakReport()
    for kind in kinds:
        clips: set[str] = set()
        for number, leak in enumerate(CHECKS[kind](test, train)):
            clips.add(leak.test)
            if number < MAX_LISTED:
                report.leaks.append(leak)
        report.counts[kind] = len(clips)
    return report


def _same_values(test: Manifest, train: Manifest, column: str) -> Iterator[Leak]:
    """Find equal values of a column of texts."""
    tested = defaultdict(list)
    for name, value in zip(test.values("id"), test.values(column)):
        if value is not None:
            tested[value].append(name)
    wanted = pa.array(list(tested), pa.string())
    first: dict[str, str] = {}
    for batch in train.batches():
        shared = batch.filter(pc.is_in(batch.column(column), wanted))
        for name, value in zip(*(shared.column(c).to_pylist() for c in ("id", column))):
            first.setdefault(value, name)
    for value, name in first.items():
        yield from (Leak(column, clip, name, value) for clip in tested[value])


def _same_audio(test: Manifest, train: Manifest) -> Iterator[Leak]:
    """Find clips with the same sound among those of equal duration or file size."""
    reader = ClipReader()
    by_size = _rows_by_size(test)
    order = np.argsort(test.array("duration"), kind="stable")
    durations = test.array("duration")[order]
    tested: dict[int, np.ndarray | None] = {}
    index = -1
    with tqdm(total=len(train), desc="sounds", unit="clip", disable=None) as progress:
        for batch in train.batches():
            found = np.asarray(batch.column("duration"))
            low = np.searchsorted(durations, found - SAME_SECONDS)
            high = np.searchsorted(durations, found + SAME_SECONDS, side="right")
            sizes = _file_sizes(train, batch)
            for i in range(batch.num_rows):
                index += 1
                size = sizes[i]
                same_size = () if size is None else by_size.get(size, ())
                candidates = {*order[low[i] : high[i]].tolist(), *same_size}
                if not candidates:
                    continue
                for other in candidates - tested.keys():
                    tested[other] = _envelope(reader, test[other])
                row = train[index]
                for other in _alike(reader, row, {n: tested[n] for n in sorted(candidates)}):
                    yield Leak("audio", test[other]["id"], row["id"], row["audio"])
            progress.update(batch.num_rows)


def _rows_by_size(manifest: Manifest) -> dict[int, list[int]]:
    """Return the indices of rows by the size of their file, or of their bytes in a shard."""
    found = defaultdict(list)
    sizes = (size for batch in manifest.batches() for size in _file_sizes(manifest, batch))
    for index, size in enumerate(sizes):
        if size is not None:
            found[size].append(index)
    return found


def _file_sizes(manifest: Manifest, batch: pa.RecordBatch) -> list[int | None]:
    """Return the bytes of each row's audio, None where there is no such file."""
    sizes = batch.column("nbytes").to_pylist()
    for i, audio in enumerate(batch.column("audio").to_pylist()):
        if sizes[i] is None:
            try:
                sizes[i] = os.path.getsize(manifest.absolute(audio))
            except OSError:
                pass
    return sizes


def _envelope(
    reader: ClipReader, row: dict[str, Any], seconds: float | None = None
) -> np.ndarray | None:
    """Return the loudness in frames of 5 ms; None if the clip cannot be read.

    A hash of the samples would miss copies: encoders round them, even lossless ones if the source
    has floating-point samples.
    """
    if seconds is not None:
        row = {**row, "start": row["start"] or 0.0, "duration": min(seconds, row["duration"])}
    try:
        wav = reader(row).numpy()
    except (OSError, AudioError):
        return None
    frames = wav[: len(wav) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    return np.sqrt((frames**2).mean(axis=1))


def _alike(
    reader: ClipReader, row: dict[str, Any], others: dict[int, np.ndarray | None]
) -> Iterator[int]:
    """Yield the keys of the envelopes that a training clip's sound agrees with."""
    head = _envelope(reader, row, HEAD_SECONDS)
    if head is None:
        return
    head = head[:-2]  # the resampler rounds off the end of a part
    # The distance of whole envelopes is at least that of their heads.
    near = {
        key: other
        for key, other in others.items()
        if other is not None and _distance(head, other) <= SAME_SOUND * np.linalg.norm(other)
    }
    whole = _envelope(reader, row) if near else None
    for key, other in near.items():
        if whole is not None:
            size = min(len(whole), len(other))
            if _distance(whole, other) <= SAME_SOUND * np.linalg.norm(other[:size]):
                yield key


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    size = min(len(one), len(other))
    return float(np.linalg.norm(one[:size] - other[:size]))


def triples(text: str) -> frozenset[tuple[str, ...]]:
    """Return all triples of successive words, in lower case; of a short text, all its words.

    Example
    -------
    >>> sorted(triples("A man, aged 40, whispers."))[:2]
    [('40', 'whispers'), ('a', 'man', 'aged')]
    """
    words = _WORD.findall(text.casefold())
    found = {tuple(words[i : i + 3]) for i in range(len(words) - 2)}
    return frozenset(found | {tuple(words[-2:])} if words else found)


def _captions(batch: pa.RecordBatch) -> Iterator[tuple[str, str]]:
    """Yield (id, caption) for all captions of a batch of rows."""
    columns = (batch.column(name).to_pylist() for name in ("id", *CAPTION_COLUMNS))
    for name, *captions in zip(*columns):
        for text in {text for texts in captions for text in texts or ()}:
            yield name, text


def _near_captions(test: Manifest, train: Manifest) -> Iterator[Leak]:
    """Find pairs of captions with most of their triples in common."""
    tested = [(name, triples(text)) for batch in test.batches() for name, text in _captions(batch)]
    columns: dict[tuple[str, ...], int] = {}
    for _, grams in tested:
        for gram in grams:
            columns.setdefault(gram, len(columns))
    occurrences = _incidence([[columns[gram] for gram in grams] for _, grams in tested], columns)
    sizes = np.array([len(grams) for _, grams in tested])
    with tqdm(total=len(train), desc="captions", unit="clip", disable=None) as progress:
        for batch in train.batches():
            near = []  # id, text, known triples, number of triples
            for name, text in _captions(batch):
                grams = triples(text)
                known = [columns[gram] for gram in grams if gram in columns]
                if known and len(known) >= NEAR_CAPTION * len(grams):  # or it cannot be near
                    near.append((name, text, known, len(grams)))
            step = max(1, MAX_PAIRS // max(1, len(tested)))
            for start in range(0, len(near), step):
                names, texts, found, n_grams = zip(*near[start : start + step])
                common = (_incidence(found, columns) @ occurrences.T).tocoo()
                union = np.array(n_grams)[common.row] + sizes[common.col] - common.data
                for n in np.flatnonzero(common.data >= NEAR_CAPTION * union).tolist():
                    clip = common.row[n]
                    detail = f"{common.data[n] / union[n]:.0%} of {texts[clip][:80]!r}"
                    yield Leak("caption", tested[common.col[n]][0], names[clip], detail)
            progress.update(batch.num_rows)


def _incidence(rows: Sequence[list[int]], columns: dict) -> csr_array:
    """Return a sparse matrix [rows, columns] of int32 with a one for every listed column."""
    ends = np.cumsum([0, *map(len, rows)])
    indices = np.array([column for row in rows for column in row], dtype=np.int32)
    ones = np.ones(len(indices), dtype=np.int32)
    return csr_array((ones, indices, ends), shape=(len(rows), len(columns)))


CHECKS: dict[str, Callable[[Manifest, Manifest], Iterator[Leak]]] = {
    "id": partial(_same_values, column="id"),
    "speaker": partial(_same_values, column="speaker"),
    "audio": _same_audio,
    "caption": _near_captions,
}
