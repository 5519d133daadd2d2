"""Captions whose order, direction or place was swapped are false, and still English."""

import random
import re

import pytest

from speechbrain_clsp.captions.perturbation import OneOf, article, between_values
from speechbrain_clsp.captions.temporal import (
    DirectionSwap,
    OrderSwap,
    PlaceSwap,
    english_tables,
)
from speechbrain_clsp.mini_fcaps import wording
from speechbrain_clsp.mini_fcaps.corpus import manifest_row, plan_clips

LEVELS = {
    name: [list(phrases) for phrases in getattr(wording, name.upper()).values()]
    for name in ("rate", "pitch", "loudness")
}
ENGLISH = OrderSwap(english_tables("level"))


@pytest.fixture(scope="module")
def captions():
    """Return the fine and the global captions of 400 MiniFCaps clips."""
    rows = [
        manifest_row(clip, 1.0, seed=5)
        for clip in plan_clips({"test": 100, "valid": 0, "train": 300}, seed=5)
    ]
    return tuple(
        [caption for row in rows for caption in row[f"{kind}_captions"]]
        for kind in ("fine", "global")
    )


def said(caption):
    """Return the levels that a caption names: {attribute: [(span, phrase, level)]}."""
    every = {p: (name, i) for name, t in LEVELS.items() for i, ps in enumerate(t) for p in ps}
    pattern = "|".join(sorted(map(re.escape, every), key=len, reverse=True))
    found = {}
    for match in re.finditer(rf"(?<![\w-])({pattern})(?![\w-])", caption, re.IGNORECASE):
        name, level = every[match[0].lower()]
        found.setdefault(name, []).append((match.span(), match[0].lower(), level))
    return found


def exchanged(caption, attributes):
    """Exchange the two levels of attributes word by word, then correct the articles."""
    new = []
    for (first, one, _), (second, two, _) in attributes:
        new += [(first, two), (second, one)]
    for (start, end), phrase in sorted(new, reverse=True):
        caption = caption[:start] + phrase + caption[end:]
    return re.sub(r"\ban? (?=([\w-]+) (?:tone|one))", lambda m: f"{article(m[1])} ", caption)


def changing(caption):
    """Return the attributes of which a caption names two levels."""
    return [found for found in said(caption).values() if len({level for *_, level in found}) == 2]


def test_exactly_the_levels_of_a_change_are_exchanged_in_every_layout(captions):
    swap = OrderSwap(between_values(LEVELS))
    fine, whole = captions
    layouts = set()
    for caption in fine:
        attributes = changing(caption)
        assert swap(caption, random.Random(0)) == exchanged(caption, attributes), caption
        if attributes:
            verbs = re.findall(r"begins|starts|ends|turns|moves|goes on|continues|:", caption)
            layouts.add(" ".join(verbs))
    assert len(layouts) >= 5, layouts
    for caption in whole:
        assert swap(caption, random.Random(0)) == caption


def test_a_bound_level_is_exchanged_alone():
    caption = "In the final part, he goes from slow and soft to quick and loud."
    swap = OrderSwap(english_tables("level"), binding=True)
    assert {swap(caption, random.Random(seed)) for seed in range(20)} == {
        "In the final part, he goes from quick and soft to slow and loud.",
        "In the final part, he goes from slow and loud to quick and soft.",
    }
    assert swap("He begins slowly and ends quickly.", random.Random(0)) == (
        "He begins slowly and ends quickly."
    )


@pytest.mark.parametrize(
    "caption, wanted",
    [
        (
            "He begins at a slow pace, calm and warm; later his speech becomes noticeably faster.",
            "He begins at a fast pace, calm and warm; later his speech becomes noticeably slower.",
        ),
        (
            "Her tone is soft at first and louder towards the end.",
            "Her tone is loud at first and softer towards the end.",
        ),
        (
            "Slowly at first, then quickly, he speaks.",
            "Quickly at first, then slowly, he speaks.",
        ),
        (
            "The opening phrase is quiet. A pause follows. She then goes on in a loud voice.",
            "The opening phrase is loud. A pause follows. She then goes on in a quiet voice.",
        ),
        (
            "The voice moves from an elevated pitch to a low pitch.",
            "The voice moves from a low pitch to an elevated pitch.",
        ),
        (
            "Initially soft, he stays soft until he finishes loudly.",
            None,  # "soft" and "loudly" differ in form: each becomes another word
        ),
        # Levels that do not change, or whose order is not told.
        ("She begins slowly and later continues at a slow pace.", "same"),
        ("She begins to speak slowly and quickly.", "same"),
        ("A deep voice. He begins loudly, and it becomes high-pitched.", "same"),
        ("He begins softly. His tone is loud. Then he is loud again.", "same"),
        ("He begins softly. One. Two. Three. Then he is loud.", "same"),
        ('"He begins slowly", he says, "then quickly".', "same"),
        ('He begins slowly and says "then quickly".', "same"),
    ],
)
def test_order_told_in_free_words(caption, wanted):
    swapped = ENGLISH(caption, random.Random(0))
    if wanted is None:
        assert re.fullmatch(
            r"Initially (loud|booming), he stays (loud|booming) until he finishes "
            r"(quietly|softly|faintly)\.",
            swapped,
        )
    elif wanted == "same":
        assert swapped == caption
    elif "pace" in wanted:
        assert re.sub(r"(fast|rapid|quick|brisk|hurried) pace", "fast pace", swapped) == wanted
    else:
        loud = swapped.replace("booming", "loud")
        assert re.sub("quieter|fainter", "softer", loud) == wanted


def _but_for(caption, phrase, opposites):
    """Return a pattern of the caption with one of the opposites in a phrase's place."""
    stem = re.escape(caption).replace(re.escape(phrase), "PHRASE")
    stem = stem.replace(re.escape(phrase.capitalize()), "PHRASE")
    return stem.replace("PHRASE", f"({'|'.join(map(re.escape, opposites))})")


def test_directions_become_their_opposites(captions):
    swap, tables = DirectionSwap(wording.direction_tables), wording.OVERALL_CHANGE
    for caption in captions[1]:
        swapped = swap(caption, random.Random(1))
        told = [(change, p) for change, ps in tables.items() for p in ps if p in caption.lower()]
        if not told:
            assert swapped == caption
            continue
        assert any(
            re.fullmatch(_but_for(caption, phrase, tables[name, not rises]), swapped, re.IGNORECASE)
            for (name, rises), phrase in told
        ), (caption, swapped)
    english = DirectionSwap(english_tables("direction"))
    assert english("A rising and falling tone.", random.Random(0)) == "A rising and falling tone."
    assert english("Her pitch rises.", random.Random(0)) in (
        "Her pitch falls.",
        "Her pitch goes down.",
        "Her pitch descends.",
    )


def test_one_event_moves_to_a_place_that_is_not_named(captions):
    swap = PlaceSwap(wording.place_tables)
    places = {phrase: place for place, ps in wording.PLACE.items() for phrase in ps}
    pattern = re.compile("|".join(places), re.IGNORECASE)
    moved = 0
    for caption in captions[0]:
        swapped = swap(caption, random.Random(2))
        assert pattern.sub("", caption) == pattern.sub("", swapped)
        before, after = (
            [places[phrase.lower()] for phrase in pattern.findall(text)]
            for text in (caption, swapped)
        )
        differing = [new for old, new in zip(before, after) if old != new]
        assert len(differing) == bool(before) and not {*differing} & {*before}, caption
        moved += bool(before)
    assert moved > 100


def test_one_of_tries_on_until_a_swap_applies():
    order, place = ENGLISH, PlaceSwap(english_tables("place"))
    caption = "A pause is made early on."
    assert OneOf([order, place], [5, 1])(caption, random.Random(0)) != caption
    assert OneOf([order, place], [5, 0])(caption, random.Random(0)) == caption
    assert OneOf([])(caption, random.Random(0)) == caption
    both = "He starts slowly and turns fast near the end."
    told = [OneOf([order, place], [3, 1])(both, random.Random(seed)) for seed in range(400)]
    assert sum("near the end" in text for text in told) / 400 == pytest.approx(0.75, abs=0.07)
    for weights in ([1], [1, -1]):
        with pytest.raises(ValueError, match="weights"):
            OneOf([order, place], weights)


def test_english_tables_have_phrases_of_one_meaning():
    for kind in ("level", "direction", "place"):
        phrases = [
            phrase
            for values in english_tables(kind).values()
            for wordings in values.values()
            for each in wordings
            for phrase in each.phrases
        ]
        assert len(phrases) == len(set(phrases)), kind
