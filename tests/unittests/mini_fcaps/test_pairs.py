"""Minimal pairs: what is called true is true, and what is called false is false in one thing."""

import re

import pytest

from speechbrain_clsp.mini_fcaps.contrasts import plan_contrasts
from speechbrain_clsp.mini_fcaps.corpus import plan_clips
from speechbrain_clsp.mini_fcaps.pairs import write_pairs
from tests.utils.caption_facts import contradictions, facts_in, facts_of

LEVELS = {"rate", "pitch", "loudness"}
FACTS = {  # that a false side contradicts, by kind; order and binding: those of the attribute
    ("place", "change"): {"change_place"},
    ("place", "pause"): {"pause"},
    ("event", "pause"): {"pause"},
}


@pytest.fixture(scope="module")
def planned():
    clips = plan_clips({"test": 300, "valid": 0, "train": 0}, seed=1986)
    contrasts = plan_contrasts(clips, seed=1986)
    known = {clip.id: clip for clip in clips}
    known |= {clip.id: clip for contrast in contrasts for clip in contrast.clips}
    return known, write_pairs(clips, contrasts, seed=1986)


def test_every_kind_has_enough_pairs_on_both_sides(planned):
    counts = {}
    for pair in planned[1]:
        key = pair["side"], pair["kind"], pair["attribute"]
        counts[key] = counts.get(key, 0) + 1
        assert pair["true"] != pair["false"]
    by_side = {
        side: {key[1:] for key in counts if key[0] == side} for side in ("captions", "clips")
    }
    assert by_side["captions"] == by_side["clips"]
    assert {kind for kind, _ in by_side["clips"]} == {
        *("attribute", "order", "direction", "place", "event", "binding")
    }
    for kind in ("order", "direction"):
        assert {attribute for each, attribute in by_side["clips"] if each == kind} == LEVELS
    assert all(n >= 60 for (side, *_), n in counts.items() if side != "texts"), counts


def test_captions_are_true_and_false_of_their_clips(planned):
    known, pairs = planned
    for pair in pairs:
        if pair["side"] == "captions":
            facts = facts_of(known[pair["anchor"]].style)
            assert not contradictions(facts_in(pair["true"]), facts), pair
            check_false(pair, contradictions(facts_in(pair["false"]), facts))


def test_clips_are_true_and_false_of_their_captions(planned):
    known, pairs = planned
    for pair in pairs:
        if pair["side"] == "clips":
            said = facts_in(pair["anchor"])
            assert not contradictions(said, facts_of(known[pair["true"]].style)), pair
            check_false(pair, contradictions(said, facts_of(known[pair["false"]].style)))


def check_false(pair, found):
    kind, attribute = pair["kind"], pair["attribute"]
    if (kind, attribute) in FACTS:
        expected = [FACTS[kind, attribute]]
    elif (kind, attribute) == ("event", "change"):
        assert "change" in found, (pair, found)
        return
    elif kind == "direction":
        expected = [{"directions"}]
    else:  # one of the two attributes of a binding
        expected = [{name} for name in attribute.split("+")]
    assert found in expected, (pair, found)


def test_texts_say_the_same_or_not(planned):
    for pair in planned[1]:
        if pair["side"] != "texts":
            continue
        anchor, true, false = (facts_in(pair[key]) for key in ("anchor", "true", "false"))
        assert not contradictions(true, anchor), pair
        assert contradictions(false, anchor), pair
        if pair["kind"] == "sentences":
            parts = [sorted(re.split(r"(?<=\.) ", pair[key])) for key in ("anchor", "true")]
            assert parts[0] == parts[1], pair


def test_pairs_are_a_function_of_the_seed(planned):
    clips = plan_clips({"test": 12, "valid": 0, "train": 0}, seed=1986)
    first, again, other = (
        write_pairs(clips, plan_contrasts(clips, seed), seed) for seed in (1, 1, 2)
    )
    assert first == again != other
