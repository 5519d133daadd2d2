"""Rules on texts, each at its edge."""

import numpy as np
import pytest

from speechbrain_clsp.annotation.stages.filter import (
    ABSENCE,
    FilterSettings,
    caption_faults,
    filter_captions,
    longest_quotation,
)

GOOD = "A woman with a warm voice speaks slowly at first and then hurries through her phrases, " * 2


def test_published_limits_hold_to_the_character():
    settings = FilterSettings()
    for length, passes in ((127, False), (128, True), (768, True), (769, False)):
        faults = caption_faults(("word " * 200)[:length], settings)
        assert (not faults) == passes, length


@pytest.mark.parametrize("phrase", ABSENCE)
def test_every_published_word_of_absence_drops(phrase):
    settings = FilterSettings()
    assert dict(caption_faults(f"{GOOD} {phrase.upper()}, harshness", settings))["absence"]
    inside = {"no": "nose knows noble", "not": "noted knot", "nor": "normal north"}
    assert not caption_faults(f"{GOOD} {inside.get(phrase, 'calm')}", settings)


def test_a_second_speaker_drops_the_clip_and_repetitions_drop_themselves():
    captions = [GOOD, GOOD, GOOD + "The first speaker laughs."]
    kept, dropped = filter_captions(captions, FilterSettings())
    assert not kept
    assert sorted(drop["rule"] for drop in dropped) == ["repeated"] + ["several speakers"] * 2
    kept, dropped = filter_captions(captions[:2], FilterSettings())
    assert kept == [GOOD] and [drop["rule"] for drop in dropped] == ["repeated"]


def brute_quotation(text: str, transcript: str) -> int:
    ours, theirs = text.split(), transcript.split()
    return max(
        (
            size
            for size in range(len(ours) + 1)
            for i in range(len(ours) - size + 1)
            if any(theirs[j : j + size] == ours[i : i + size] for j in range(len(theirs)))
        ),
        default=0,
    )


def test_quotations_are_the_longest_ones():
    draw = np.random.default_rng(0)
    for _ in range(200):
        text, said = (" ".join(draw.choice(list("abc"), draw.integers(1, 12))) for _ in range(2))
        assert len(longest_quotation(text, said).split()) == brute_quotation(text, said)
    said = "Come to the \u2018window\u2019, it's sweet!"
    assert longest_quotation("He asks to COME, to the Window.", said) == "come to the window"
