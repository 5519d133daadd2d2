"""Pairs of probes, one JSON object per line."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from speechbrain_clsp.utils.files import atomic_write
from speechbrain_clsp.utils.reading import read_json_lines

KINDS = (
    "attribute",
    "order",
    "direction",
    "place",
    "event",
    "binding",
    "paraphrase",
    "sentences",
)
SIDES = ("captions", "clips", "texts")


@dataclass(frozen=True)
class ProbePair:
    """An anchor, what belongs to it, and what differs from that in one thing and does not.

    Arguments
    ---------
    kind : str
        What the two differ in, one of :data:`KINDS`. In ``paraphrase`` and ``sentences``, the true
        text says the same as the anchor in other words, or in another order of sentences.
    attribute : str
        Which attribute, such as ``loudness``; several that differ together are joined by ``+``.
    side : str
        ``captions``: the anchor is a clip, the others are captions; ``clips``: the anchor is a
        caption, the others are clips; ``texts``: all three are captions.
    anchor, true, false : str
        Captions, or the ids of clips of the manifest.

    Raises
    ------
    ValueError
        If the kind or side is not known, a string is empty, or ``true`` is ``false``.

    Example
    -------
    >>> ProbePair("order", "rate", "captions", "a", "Slow, then fast.", "Fast, then slow.").clips
    ['a']
    """

    kind: str
    attribute: str
    side: str
    anchor: str
    true: str
    false: str

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{field.name} must be a string that is not empty, not {value!r}")
        for name, known in (("kind", KINDS), ("side", SIDES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}: {getattr(self, name)}")
        if self.true == self.false:
            raise ValueError(f"true and false are the same: {self.true!r}")

    @property
    def group(self) -> str:
        """Name of the pairs that are counted together, such as ``order: rate, captions``."""
        return f"{self.kind}: {self.attribute}, {self.side}"

    @property
    def clips(self) -> list[str]:
        """Ids of its clips."""
        return {"captions": [self.anchor], "clips": [self.true, self.false], "texts": []}[self.side]

    @property
    def texts(self) -> list[str]:
        """Its captions."""
        every = [self.anchor, self.true, self.false]
        return {"captions": every[1:], "clips": every[:1], "texts": every}[self.side]


def read_pairs(path: str | os.PathLike, clips: Container[str]) -> list[ProbePair]:
    """Read pairs from a file of JSON lines; empty lines are skipped.

    Arguments
    ---------
    path : str or path
        Each line is an object with the fields of :class:`ProbePair`.
    clips : set of str
        Ids of the clips that there are.

    Returns
    -------
    list of ProbePair
        In the order of the file.

    Raises
    ------
    ValueError
        If a line is not such a pair, or names a clip that is not in ``clips``; with its number.

    Example
    -------
    >>> path = getfixture("tmp_path") / "pairs.jsonl"
    >>> pair = ProbePair("place", "pause", "captions", "a", "Early, a pause.", "Late, a pause.")
    >>> write_pairs(path, [pair])
    >>> read_pairs(path, {"a"}) == [pair]
    True
    """
    pairs = []
    for where, entry in read_json_lines(path):
        try:
            pair = _pair_of(entry)
            absent = [clip for clip in pair.clips if clip not in clips]
            if absent:
                raise ValueError(f"the manifest has no clip {absent[0]!r}")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        pairs.append(pair)
    if not pairs:
        raise ValueError(f"{path} holds no pairs")
    return pairs


def _pair_of(entry: Any) -> ProbePair:
    names = [field.name for field in fields(ProbePair)]
    if not isinstance(entry, dict) or sorted(entry) != sorted(names):
        raise ValueError(f"a pair is a JSON object of {', '.join(names)}")
    return ProbePair(**entry)


def write_pairs(path: str | os.PathLike, pairs: Iterable[ProbePair]) -> None:
    """Write pairs as JSON lines, atomically."""
    lines = [json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in pairs]
    atomic_write(path, "".join(lines))


def pick_evenly(pairs: Sequence[ProbePair], number: int) -> list[ProbePair]:
    """Pick pairs to look at, as many of each group as of the others where there are enough.

    Example
    -------
    >>> texts = [("a", "b", "c"), ("d", "e", "f"), ("g", "h", "i")]
    >>> pairs = [ProbePair("order", "rate", "texts", *three) for three in texts]
    >>> pairs += [ProbePair("place", "pause", "texts", "j", "k", "l")]
    >>> [pair.anchor for pair in pick_evenly(pairs, 3)]
    ['a', 'd', 'j']
    """
    groups: dict[str, list[ProbePair]] = {}
    for pair in pairs:
        groups.setdefault(pair.group, []).append(pair)
    rounds = max(map(len, groups.values()), default=0)
    picked = [group[i] for i in range(rounds) for group in groups.values() if i < len(group)]
    chosen = set(picked[:number])
    return [pair for group in groups.values() for pair in group if pair in chosen]
