"""Questions to an index: captions, recordings, both, with exceptions, groups and reasons."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from speechbrain_clsp.captions.temporal import CLAUSE, SENTENCE_END
from speechbrain_clsp.dataio.audio import Source
from speechbrain_clsp.dataio.labels import value_of
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.search.filters import columns_of
from speechbrain_clsp.search.index import MOST, StyleIndex
from speechbrain_clsp.search.store import vectors_of
from speechbrain_clsp.utils.checks import check_texts

EXCLUDED_WEIGHT = 1.0
NEAR_DUPLICATE = 0.98  # cosine of two clips from which on they are one for listeners
WORD = re.compile(r"\w")


@dataclass(frozen=True)
class Query:
    """What is searched.

    Arguments
    ---------
    texts : sequence of str
        Captions, all of which should hold.
    recordings : sequence of str or other sources
        Examples: hits should sound like their mean.
    excluded : sequence of str
        Captions that should not hold.
    where : str
        Condition on columns; see :mod:`speechbrain_clsp.search.filters`.
    k, offset : int
        How many hits, and how many to leave out before them.
    per : str
        Column, such as ``speaker``: of each of its values only the best hit counts.
    fold : float
        Hits whose vectors have at least this cosine with that of a better hit are put below it;
        0: none are.
    explain : bool
        Whether to tell how much each phrase of the texts contributes.

    Example
    -------
    >>> Query(["A man whispers."], where="gender = 'male'", k=5).offset
    0
    """

    texts: Sequence[str] = ()
    recordings: Sequence[Source] = ()
    excluded: Sequence[str] = ()
    where: str = ""
    k: int = 10
    offset: int = 0
    per: str = ""
    fold: float = 0.0
    explain: bool = False

    def __post_init__(self) -> None:
        if not (self.texts or self.recordings):
            raise ValueError("A query needs at least one caption or one recording")
        for name in ("texts", "excluded"):
            if getattr(self, name):
                check_texts(getattr(self, name), name)
        if self.k < 1 or self.offset < 0 or self.k + self.offset > MOST:
            raise ValueError(
                f"k must be at least 1, offset at least 0 and both together at most {MOST}, not"
                f" {self.k} and {self.offset}"
            )
        if not 0 <= self.fold <= 1:
            raise ValueError(f"fold must be a cosine from 0 to 1, not {self.fold}")
        if self.explain and not self.texts:
            raise ValueError("A query without captions has no phrases to explain")


@dataclass(frozen=True)
class Hit:
    """A clip that was found.

    Arguments
    ---------
    rank : int
        From 1; the same on whichever page it stands.
    score : float
        The mean of the cosines with texts and with the examples' mean, less the mean cosine with
        excluded texts. Of one caption, or of examples alone, it is the cosine.
    row : dict
        Of the manifest.
    folded : list of str
        Ids of worse hits that are nearly the same.
    phrases : dict
        How much lower the score would be without each phrase.

    Example
    -------
    >>> Hit(1, 0.82, {"id": "a", "audio": "a.wav"}, folded=["b"]).row["id"]
    'a'
    """

    rank: int
    score: float
    row: dict[str, Any]
    folded: list[str] = field(default_factory=list)
    phrases: dict[str, float] = field(default_factory=dict)


def find(index: StyleIndex, clsp: CLSP, query: Query) -> list[Hit]:
    """Answer a query.

    Arguments
    ---------
    index : StyleIndex
        What is searched.
    clsp : CLSP
        The index's model, see :meth:`StyleIndex.check_model`.
    query : Query
        The question.

    Returns
    -------
    list of Hit
        Best first; fewer than asked for, or none, if there are no more.

    Raises
    ------
    ValueError
        If the condition or the column of groups is wrong, or a caption cannot be embedded.
    OSError, AudioError
        If a recording cannot be read.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> import torch
    >>> from speechbrain_clsp.dataio.manifest import write_manifest
    >>> from speechbrain_clsp.search.store import write_store
    >>> tmp = getfixture("tmp_path")
    >>> rows = [{"id": name, "audio": f"{name}.wav", "duration": 1.0} for name in "ab"]
    >>> _ = write_manifest(tmp / "m.arrow", rows)
    >>> write_store(tmp / "store", ["a", "b"], np.eye(2), weights_sha256="ab")
    >>> index = StyleIndex.create(tmp / "index", tmp / "store", tmp / "m.arrow")
    >>> model = SimpleNamespace(encode_text=lambda texts: torch.tensor([[0.6, 0.8]]))
    >>> [(hit.row["id"], hit.score) for hit in find(index, model, Query(["A man."], k=2))]
    [('b', 0.8), ('a', 0.6)]
    """
    columns = columns_of(index.schema)
    if query.per and query.per not in columns:
        raise ValueError(f"There is no column {query.per!r}; there are {', '.join(columns)}")
    target = _vector_of(clsp, query)
    wanted = query.k + query.offset
    size = wanted if not (query.per or query.fold) else min(MOST, 4 * wanted)
    while True:
        table = index.search(target, size, query.where or None)
        groups = _grouped(table, query, wanted)
        if len(groups) >= wanted or len(table) < size or size == MOST:
            break
        size = min(MOST, 4 * size)
    shown = list(enumerate(groups))[query.offset : wanted]
    chosen = table.take(pa.array([places[0] for _, places in shown], pa.int64()))
    vectors = vectors_of(chosen.column("vector")).astype(np.float32)
    reasons = _reasons(clsp, query, vectors) if query.explain else {}
    names, rows = table.column("id"), _rows_of(chosen)
    return [
        Hit(
            rank + 1,
            round(row.pop("score"), 6),
            row,
            [names[place].as_py() for place in places[1:]],
            {phrase: round(float(values[n]), 6) for phrase, values in reasons.items()},
        )
        for n, ((rank, places), row) in enumerate(zip(shown, rows))
    ]


def _rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Return rows as those of a manifest, and the score."""
    rows = table.drop_columns("vector").to_pylist()
    for row in rows:
        labels = row.get("labels") or {}
        row["labels"] = {key: value for key, value in labels.items() if value is not None}
    return rows


def _vector_of(clsp: CLSP, query: Query) -> np.ndarray:
    """Return what clips are multiplied with, [D]."""
    parts = [] if not query.texts else list(clsp.encode_text(query.texts).cpu().numpy())
    if query.recordings:
        examples = clsp.encode_files(query.recordings, progress=False).numpy().mean(axis=0)
        parts.append(examples / np.linalg.norm(examples))
    target = np.mean(parts, axis=0)
    if query.excluded:
        excluded = clsp.encode_text(query.excluded).cpu().numpy()
        target = target - EXCLUDED_WEIGHT * excluded.mean(axis=0)
    return target.astype(np.float32)


def _grouped(table: pa.Table, query: Query, wanted: int) -> list[list[int]]:
    """Return the places of hits, each with those that are folded below it."""
    if not (query.per or query.fold):
        return [[place] for place in range(len(table))]
    values: list[Any] = [None] * len(table)
    if query.per:
        name, _, key = query.per.partition(".")
        columns = table.select([name]).to_pylist()
        values = [value_of({name: row[name] or {}} if key else row, query.per) for row in columns]
    vectors = vectors_of(table.column("vector")).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # float16 rounds their norms, too
    groups: list[list[int]] = []
    seen: set[Any] = set()
    for place, value in enumerate(values):
        if value is not None and str(value) in seen:  # clips without a value are not one group
            continue
        if query.fold and groups:
            cosines = vectors[[group[0] for group in groups]] @ vectors[place]
            if cosines.max() >= query.fold:
                groups[int(cosines.argmax())].append(place)
                continue
        if len(groups) < wanted:
            groups.append([place])
            seen.add(str(value))
    return groups


def phrases_of(caption: str) -> list[tuple[int, int]]:
    """Return where the phrases of a caption begin and end: between commas, "and" and periods.

    Example
    -------
    >>> caption = "A woman starts calmly, and becomes agitated."
    >>> [caption[start:end] for start, end in phrases_of(caption)]
    ['A woman starts calmly', 'becomes agitated']
    """
    cuts = sorted(m.span() for each in (CLAUSE, SENTENCE_END) for m in each.finditer(caption))
    bounds = [0, *(place for cut in cuts for place in cut), len(caption)]
    found = []
    for start, end in zip(bounds[::2], bounds[1::2]):
        piece = caption[start:end]
        if WORD.search(piece):
            left = len(piece) - len(piece.lstrip())
            found.append((start + left, start + len(piece.rstrip())))
    return found


def _without_phrases(texts: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each phrase, and the texts without it; a text that is one phrase is left out."""
    for number, text in enumerate(texts):
        for start, end in phrases_of(text):
            rest = " ".join((text[:start] + text[end:]).split())
            others = [*texts[:number], *([rest] if phrases_of(rest) else []), *texts[number + 1 :]]
            yield text[start:end], others


def _reasons(clsp: CLSP, query: Query, vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Return for each phrase how much lower the scores [N] are without it."""
    scores = vectors @ _vector_of(clsp, query)
    reasons = {}
    for phrase, texts in _without_phrases(query.texts):
        if texts or query.recordings:
            rest = Query(texts, query.recordings, query.excluded)
            reasons[phrase] = scores - vectors @ _vector_of(clsp, rest)
        else:
            reasons[phrase] = scores  # nothing is left to compare with
    return reasons
