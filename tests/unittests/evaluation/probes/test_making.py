"""Pairs from captions: of every kind that captions give, and different in one thing only."""

import re
from collections import Counter

import pytest

from speechbrain_clsp.evaluation.probes.making import make_pairs
from speechbrain_clsp.mini_fcaps import wording
from speechbrain_clsp.mini_fcaps.corpus import manifest_row, plan_clips

FREE = {
    "id": "psc",
    "source": "expresso",
    "gender": "female",
    "accent": "Irish",
    "situational_tags": ["bored"],
    "global_captions": ["A young Irish woman speaks in a bored, whispered tone."],
    "fine_captions": [
        "She begins at a slow pace, with a low volume. Her speech slows down further, and then her"
        " pitch rises. Towards the end she speaks at a faster pace and a high volume.",
        "She says nothing of note.",
    ],
}


@pytest.fixture(scope="module")
def rows():
    """Return the rows of 150 MiniFCaps clips."""
    clips = plan_clips({"test": 150, "valid": 0, "train": 0}, seed=11)
    return [manifest_row(clip, 1.0, seed=11) for clip in clips]


def test_a_clip_has_one_pair_of_a_kind_and_attribute(rows):
    pairs = make_pairs(rows)
    anchors = Counter((pair.group, pair.anchor) for pair in pairs if pair.side == "captions")
    assert set(anchors.values()) == {1}
    captions = {row["id"]: row["global_captions"] + row["fine_captions"] for row in rows}
    for pair in pairs:
        known = captions[pair.anchor] if pair.side == "captions" else sum(captions.values(), [])
        assert (pair.true if pair.side == "captions" else pair.anchor) in known
        assert pair.false not in known, pair
    kinds = Counter(pair.kind for pair in pairs)
    assert set(kinds) == {"attribute", "order", "binding", "direction", "place", "sentences"}
    assert min(kinds.values()) > 10, kinds
    attributes = {pair.attribute for pair in pairs if pair.kind == "attribute"}
    assert attributes == {"gender", "accent", *wording.swap_tables()} - {"change"}


def test_words_of_other_attributes_stay(rows):
    for pair in make_pairs(rows):
        if pair.kind == "attribute" and pair.attribute != "gender":
            table = wording.swap_tables()[pair.attribute]
            phrases = [p for ws in table.values() for w in ws for p in w.phrases]
            left = [pair.true, pair.false]
            for phrase in sorted(phrases, key=len, reverse=True):
                left = [re.sub(rf"(An?|an?) {phrase}|{phrase}", "*", text) for text in left]
            assert left[0] == left[1] and "*" in left[0], pair
        if pair.kind == "order":
            words = [re.findall(r"[\w-]+", text.lower()) for text in (pair.true, pair.false)]
            words = [sorted(word for word in each if word not in ("a", "an")) for each in words]
            assert words[0] == words[1], pair
        if pair.kind == "sentences":
            split = [sorted(text.rstrip(".").split(". ")) for text in (pair.anchor, pair.true)]
            assert split[0] == split[1] and pair.anchor != pair.true


def test_free_captions_give_pairs_of_what_they_say():
    pairs = {(pair.kind, pair.attribute): pair for pair in make_pairs([FREE])}
    assert set(pairs) == {
        ("attribute", "gender"),
        ("attribute", "accent"),
        ("attribute", "age"),
        ("attribute", "emotion"),
        ("attribute", "situational tags"),
        ("order", "rate+loudness"),
        ("binding", "rate+loudness"),
        ("direction", "rate"),
        ("direction", "pitch"),
        ("place", "place"),
    }
    order, binding = pairs["order", "rate+loudness"], pairs["binding", "rate+loudness"]
    fast = "(fast|rapid|quick|brisk|hurried) (pace|speed|tempo|rate)"
    rest = r"\. Her speech slows down .* she speaks at a {} pace and a {} volume\."
    assert re.fullmatch(
        f"She begins at a {fast}, with a high volume{rest.format('slower', 'low')}", order.false
    )
    one = f"She begins at a {fast}, with a low volume{rest.format('slower', 'high')}"
    other = f"She begins at a slow pace, with a high volume{rest.format('faster', 'low')}"
    assert re.fullmatch(f"{one}|{other}", binding.false)
    assert "whispered" in pairs["attribute", "emotion"].false
    assert "bored" in pairs["attribute", "situational tags"].false
    assert "slows down" not in pairs["direction", "rate"].false


def test_a_pair_depends_on_its_own_clip_and_the_seed(rows):
    both = make_pairs(rows[:40])
    assert [p for p in both if p.anchor == rows[7]["id"]] == [
        p for p in make_pairs([rows[7]]) if p.side == "captions"
    ]
    assert both == make_pairs(rows[:40]) != make_pairs(rows[:40], seed=1)


def test_captions_that_name_nothing_give_no_pair():
    assert make_pairs([FREE | {"global_captions": ["Speech."], "fine_captions": []}]) == []
