"""Whether the training data contains what is tested on."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from speechbrain_clsp.dataio.manifest import Manifest

NEAR = 0.7  # share of word triples in common from which captions count as nearly the same
FRAME = 80  # samples, 5 ms: shorter than a period of most voices, so that pitch shows too
SAME_SOUND = 0.05  # relative distance of envelopes up to which sounds are the same
SAME_LENGTH = 0.002  # seconds; only clips so close in length are compared by sound
CAPTIONS = ("global_captions", "fine_captions")
_WORD = re.compile(r"\w+")


@dataclass
class Leak:
    """Something of a test clip that training has too."""

    kind: str  # id, speaker, audio, caption
    test: str  # id of the test clip
    train: str  # id of a training clip
    detail: str = ""


def check_leakage(
    train: Manifest, test: Manifest, kinds: Sequence[str] = ("id", "speaker", "audio", "caption")
) -> list[Leak]:
    """Look for leaks.

    Arguments
    ---------
    train, test : Manifest
        The training manifest is read as a stream; what is kept in memory grows with the test set.
    kinds : sequence of str
        What to look at: ``id``; ``speaker``; ``audio``: the same sound, also in another format
        (clips of other length are not decoded); ``caption``: the same words, or 70 % of the
        triples of successive words.

    Returns
    -------
    list of Leak
        For ids and speakers at most one per test clip; for sound and captions every pair.

    Example
    -------
    >>> from speechbrain_clsp.dataio.manifest import write_manifest
    >>> folder = getfixture("tmp_path")
    >>> row = {"id": "a", "audio": "a.wav", "duration": 1.0, "speaker": "s"}
    >>> _ = write_manifest(folder / "a.arrow", [row])
    >>> _ = write_manifest(folder / "b.arrow", [row | {"id": "b"}])
    >>> check_leakage(Manifest(folder / "a.arrow"), Manifest(folder / "b.arrow"), ["speaker"])
    [Leak(kind='speaker', test='b', train='a', detail='s')]
    """
    unknown = set(kinds) - set(CHECKS)
    if unknown:
        raise ValueError(f"kinds: unknown {sorted(unknown)}; known: {list(CHECKS)}")
    return [leak for kind in kinds for leak in CHECKS[kind](train, test)]


def _same_values(kind: str) -> Callable[[Manifest, Manifest], Iterator[Leak]]:
    """Make the check of a column of texts."""

    def check(train: Manifest, test: Manifest) -> Iterator[Leak]:
        tested = {}
        for name, value in zip(test.values("id"), test.values(kind)):
            if value is not None:
                tested.setdefault(value, []).append(name)
        wanted, first = pa.array(list(tested), pa.string()), {}
        for batch in train.batches():
            shared = batch.filter(pc.is_in(batch.column(kind), wanted))
            for name, value in zip(*(shared.column(c).to_pylist() for c in ("id", kind))):
                first.setdefault(value, name)
        for value, name in first.items():
            yield from (Leak(kind, clip, name, value) for clip in tested[value])

    return check


def _same_audio(train: Manifest, test: Manifest) -> Iterator[Leak]:
    """Find clips with the same sound; only those of about the same length are decoded."""
    order = np.argsort(test.array("duration"), kind="stable")
    lengths = test.array("duration")[order]
    tested: dict[int, np.ndarray | None] = {}
    near = []
    position = 0
    for batch in train.batches():
        durations = np.asarray(batch.column("duration"))
        low = np.searchsorted(lengths, durations - SAME_LENGTH)
        high = np.searchsorted(lengths, durations + SAME_LENGTH, side="right")
        for i in np.flatnonzero(high > low).tolist():
            near.append((position + i, order[low[i] : high[i]].tolist()))
        position += batch.num_rows
    for index, candidates in tqdm(near, "sounds", unit="clip", disable=None):
        found = envelope(train, index)
        for other in candidates:
            if other not in tested:
                tested[other] = envelope(test, other)
            if _alike(found, tested[other]):
                row = train[index]
                yield Leak("audio", test[other]["id"], row["id"], row["audio"])


def envelope(manifest: Manifest, index: int) -> np.ndarray | None:
    """Return the loudness of a clip's frames of 5 ms, [frames]; None if it cannot be read.

    A hash of the samples would miss copies: encoders round them, even lossless ones on the way from
    floating point.
    """
    from speechbrain_clsp.dataio.audio import AudioError
    from speechbrain_clsp.dataio.shards import ClipReader

    try:
        wav = ClipReader(1)(manifest[index]).numpy()
    except (OSError, AudioError):
        return None
    frames = wav[: len(wav) // FRAME * FRAME].reshape(-1, FRAME)
    return np.sqrt((frames**2).mean(axis=1))


def _alike(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return False
    size = min(len(one), len(other))
    distance = np.linalg.norm(one[:size] - other[:size])
    return bool(distance <= SAME_SOUND * np.linalg.norm(other[:size]))


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


def _captions_of(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield (id, caption) of all clips."""
    for batch in manifest.batches():
        columns = (batch.column(name).to_pylist() for name in ("id", *CAPTIONS))
        for name, short, fine in zip(*columns):
            for text in {*short, *fine}:
                yield name, text


def _near_captions(train: Manifest, test: Manifest) -> Iterator[Leak]:
    """Find pairs of captions with most of their triples in common."""
    tested = [(name, triples(text)) for name, text in _captions_of(test)]
    places = defaultdict(list)  # triple -> captions of the test set with it
    for number, (_, grams) in enumerate(tested):
        for gram in grams:
            places[gram].append(number)
    clips = tqdm(_captions_of(train), "captions", unit="caption", disable=None)
    for name, text in clips:
        grams = triples(text)
        common = Counter(number for gram in grams if gram in places for number in places[gram])
        for number, shared in common.items():
            share = shared / (len(grams) + len(tested[number][1]) - shared)
            if share >= NEAR:
                yield Leak("caption", tested[number][0], name, f"{share:.0%} of {text[:80]!r}")


CHECKS = {
    "id": _same_values("id"),
    "speaker": _same_values("speaker"),
    "audio": _same_audio,
    "caption": _near_captions,
}
