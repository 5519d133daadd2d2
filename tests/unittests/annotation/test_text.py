"""Prompts, filters and selection: rules on texts, without any server."""

import numpy as np
import pytest

from speechbrain_clsp.annotation.prompts import caption_prompt, fill, template_text
from speechbrain_clsp.annotation.stages.filter import (
    ABSENCE,
    FilterSettings,
    caption_faults,
    filter_captions,
    longest_quotation,
)
from speechbrain_clsp.annotation.stages.select import (
    SelectSettings,
    most_different,
    select,
    word_vectors,
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


def test_captions_that_differ_most_are_kept():
    kinds = np.eye(3)[[0, 0, 0, 1, 1, 2]] + 0.01 * np.random.default_rng(0).standard_normal((6, 3))
    vectors = kinds / np.linalg.norm(kinds, axis=1, keepdims=True)
    assert {0: 0, 1: 0, 2: 0, 3: 1, 4: 1, 5: 2}[most_different(vectors, 1)[0]] == 0
    chosen = most_different(vectors, 3)
    assert {min(n // 3, 1) if n < 5 else 2 for n in chosen} == {0, 1, 2}
    assert sorted(most_different(vectors, 99)) == list(range(6))
    captions = ["A man talks fast.", "A man talks very fast.", "Slow whispering, breathy."]
    kept, dropped = select(captions, SelectSettings(most=2))
    assert captions[2] in kept and len(kept) == 2 and dropped[0]["rule"] == "selection"
    assert np.allclose(np.linalg.norm(word_vectors(captions), axis=1), 1)


def test_gate_and_least_drop_with_reasons():
    captions = ["one", "two", "three"]
    settings = SelectSettings(most=3, least=2, gate=0.3)
    kept, dropped = select(captions, settings, fit=[0.9, 0.1, 0.5])
    assert sorted(kept) == ["one", "three"] and dropped[0]["rule"] == "gate"
    kept, dropped = select(captions, settings, fit=[0.9, 0.1, 0.2])
    assert not kept and [drop["rule"] for drop in dropped] == ["gate", "gate", "too few"]
    assert select([], SelectSettings()) == ([], [])
    with pytest.raises(ValueError, match="clsp"):
        select(captions, settings)


def test_prompts_speak_of_labels_only_where_there_are_some(tmp_path):
    row = {
        "accent": "Scottish",
        "speaking_rate": "fast speed",
        "situational_tags": ["angry", "sad"],
    }
    with_labels, without = caption_prompt(row), caption_prompt({})
    for text in ("accent: Scottish", "speaking rate: fast speed", "angry, sad"):
        assert text in with_labels and text not in without
    assert "${" not in with_labels + without and "labels" not in without
    assert "pitch:" not in caption_prompt({**row, "pitch": "high-pitched"})  # not a published one
    (tmp_path / "mine.txt").write_text("Only this. ${labels}")
    assert caption_prompt({}, tmp_path / "mine.txt") == "Only this. "
    (tmp_path / "wrong.txt").write_text("${label}")
    with pytest.raises(ValueError, match="label.*known names are"):
        caption_prompt({}, tmp_path / "wrong.txt")
    with pytest.raises(FileNotFoundError, match="caption.txt"):
        template_text("nowhere.txt")
    assert fill("verify_verdict.txt").strip()
