"""Minimal pairs from the captions of any manifest, by swaps."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from speechbrain_clsp.captions.perturbation import AttributeSwap, Tables, read_tables
from speechbrain_clsp.captions.temporal import (
    DirectionSwap,
    OrderSwap,
    PlaceSwap,
    english_tables,
    reorder_sentences,
)
from speechbrain_clsp.evaluation.probes.pairs import ProbePair
from speechbrain_clsp.mini_fcaps.wording import direction_tables, place_tables, swap_tables

MINI_FCAPS = "mini_fcaps"  # the ``source`` of its clips
CHANGING = ("rate", "pitch", "loudness")  # attributes that may have two levels in one clip
TAGS = "tags"  # how the names of ParaSpeechCaps' other attributes end
# Situational tags of ParaSpeechCaps that are emotions; the others are manners of speaking.
EMOTIONS = (
    "admiring angry anxious awed bored calm confused desirous disgusted enthusiastic guilt happy"
    " pained saddened sarcastic scared sympathetic"
).split()

Swap = Any  # (caption, random.Random, row) -> caption


def make_pairs(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> list[ProbePair]:
    """Make pairs from captions: at most one per clip, kind and attribute.

    The caption is the clip's last fine one that names the attribute, otherwise its first such
    global one. There are pairs of the kinds attribute, order, binding, direction, place (a clip
    with two captions) and sentences (three texts), but none of event or paraphrase, which captions
    alone do not give. A swapped caption contradicts the caption that it was made from; whether it
    is false of the clip depends on how true that one is, so look at some.

    Arguments
    ---------
    rows : list of dict
        Rows of a manifest. Those of MiniFCaps are swapped by its own wordings.
    seed : int
        Seed of what is drawn; a pair depends on it and on the clip alone.

    Example
    -------
    >>> captions = {"global_captions": ["A man speaks."], "fine_captions": ["He slows down."]}
    >>> for pair in make_pairs([{"id": "a", "source": None, **captions}]):
    ...     print(pair.group, "|", pair.true, "|", pair.false)
    attribute: gender, captions | He slows down. | She slows down.
    attribute: speaking rate, captions | He slows down. | He speeds up.
    direction: rate, captions | He slows down. | He speeds up.
    """
    known: dict[bool, dict[tuple[str, str], Swap]] = {}
    pairs = []
    for row in rows:
        is_mini = row["source"] == MINI_FCAPS
        if is_mini not in known:
            known[is_mini] = _mini_swaps() if is_mini else _english_swaps()
        swaps = known[is_mini]
        for (kind, attribute), swap in swaps.items():
            captions = _captions(row)
            if kind == "attribute" and attribute.endswith((*CHANGING, TAGS)):
                captions = [c for c in captions if not _changes(c, attribute, swaps)]
            pairs += _swapped(row, captions, kind, attribute, swap, seed)
        pairs += _reordered(row, swaps, seed)
    return sorted(pairs, key=lambda pair: list(_ORDER).index(pair.kind))


_ORDER = ("attribute", "order", "binding", "direction", "place", "sentences")


def _captions(row: Mapping[str, Any]) -> list[str]:
    return [*reversed(row["fine_captions"] or []), *(row["global_captions"] or [])]


def _swapped(
    row: Mapping[str, Any], captions: list[str], kind: str, attribute: str, swap: Swap, seed: int
) -> list[ProbePair]:
    generator = random.Random(f"{seed} {row['id']} {kind} {attribute}")
    for caption in captions:
        if kind in ("order", "binding"):
            attribute = "+".join(swap.exchanges(caption, generator))
        swapped = swap(caption, generator, row)
        if swapped != caption:
            return [ProbePair(kind, attribute, "captions", row["id"], caption, swapped)]
    return []


def _changes(caption: str, attribute: str, swaps: Mapping[tuple[str, str], Swap]) -> bool:
    """Tell whether a caption names several levels of an attribute, which are for other kinds."""
    ordered = swaps["order", ""].exchanges(caption, random.Random(0))
    if attribute.endswith(TAGS):  # such as "loud"
        return bool(ordered)
    named = swaps["attribute", attribute].named(caption)
    return any(len(values) > 1 for values in named.values()) or attribute.endswith(tuple(ordered))


def _reordered(
    row: Mapping[str, Any], swaps: Mapping[tuple[str, str], Swap], seed: int
) -> list[ProbePair]:
    """Return a caption with its sentences in another order, against one that says otherwise."""
    generator = random.Random(f"{seed} {row['id']} sentences")
    for caption in _captions(row):
        same = reorder_sentences(caption, generator)
        if same == caption:
            continue
        attributes = [swap for (kind, _), swap in swaps.items() if kind == "attribute"]
        generator.shuffle(attributes)
        for name, swap in (
            ("order", swaps["order", ""]),
            *(("attribute", swap) for swap in attributes),
        ):
            false = swap(caption, generator, row)
            if false != caption:
                return [ProbePair("sentences", name, "texts", caption, same, false)]
    return []


def _mini_swaps() -> dict[tuple[str, str], Swap]:
    tables = {name: table for name, table in swap_tables().items() if name != "change"}
    gender = {"gender": read_tables()["gender"]}
    levels = {name: tables[name] for name in CHANGING}
    return {
        **_attribute_swaps(gender | tables),
        **_temporal_swaps(levels, direction_tables(), place_tables()),
    }


def _english_swaps() -> dict[tuple[str, str], Swap]:
    tables = dict(read_tables())
    tags = tables.pop("situational_tags")
    emotions = {value: wordings for value, wordings in tags.items() if value in EMOTIONS}
    manners = {value: wordings for value, wordings in tags.items() if value not in EMOTIONS}
    level = english_tables("level")
    swaps = _attribute_swaps(
        {**tables, **english_tables("attribute"), "loudness": level["loudness"]}
    )
    # By the column's name a label confirms what a caption says.
    swaps["attribute", "emotion"] = AttributeSwap({"situational_tags": emotions})
    swaps["attribute", "situational tags"] = AttributeSwap({"situational_tags": manners})
    return swaps | _temporal_swaps(level, english_tables("direction"), english_tables("place"))


def _attribute_swaps(tables: Tables) -> dict[tuple[str, str], Swap]:
    return {
        ("attribute", name.replace("_", " ")): AttributeSwap({name: table})
        for name, table in tables.items()
    }


def _temporal_swaps(
    levels: Tables, directions: Tables, places: Tables
) -> dict[tuple[str, str], Swap]:
    return {
        ("order", ""): OrderSwap(levels),  # the caption says of which attributes
        ("binding", ""): OrderSwap(levels, binding=True),
        **{("direction", name): DirectionSwap({name: table}) for name, table in directions.items()},
        ("place", "place"): PlaceSwap(places),
    }
