"""Captions against the styles that they state."""

import random
import re

import pytest

from speechbrain_clsp.mini_fcaps import wording
from speechbrain_clsp.mini_fcaps.corpus import manifest_row, plan_clips


def test_captions_state_the_style_and_nothing_else(rows, clips):
    tables = {"rate": wording.RATE, "pitch": wording.PITCH, "loudness": wording.LOUDNESS}
    tables["expressiveness"] = wording.EXPRESSIVENESS
    for clip in clips:
        style = clip.style
        for caption in rows[clip.id]["global_captions"]:
            # "low volume" is about loudness; what is left of it is not about pitch
            text = re.sub(
                r"with a low|at a (low|high|normal|moderate) (volume|loudness)", "", caption
            )
            assert style.accent in caption
            for name, table in tables.items():
                for level, words in table.items():
                    said = any(re.search(rf"\b{word}\b", text) for word in words)
                    if name in ("rate", "loudness"):
                        said = any(word in caption for word in words)
                    assert not said or level == getattr(style, name) or style.change, caption
                if getattr(style, name) is not None:
                    words = table[getattr(style, name)]
                    assert any(word in caption for word in words), (caption, name)
            if style.change is not None:
                words = wording.OVERALL_CHANGE[style.change.dimension, style.change.rises]
                assert any(word in caption.lower() for word in words), caption


def test_fine_captions_tell_what_happens_when(rows, clips):
    tables = {"rate": wording.RATE, "pitch": wording.PITCH, "loudness": wording.LOUDNESS}
    for clip in clips:
        change = clip.style.change
        assert len(rows[clip.id]["fine_captions"]) >= 3
        for caption in rows[clip.id]["fine_captions"]:
            text = caption.lower()
            assert ("pause" in text) == clip.style.pause, caption
            said = {
                place for place, words in wording.PLACE.items() if any(w in text for w in words)
            }
            assert said == {clip.place, clip.pause_place} - {None}, caption
            if change is not None:
                words = tables[change.dimension]
                told = text.split(". ", maxsplit=1)[1]
                starts = [
                    min(told.find(w) % 999 for w in words[level])
                    for level in (change.before, change.after)
                ]
                assert starts[0] < starts[1] < 998, caption


def test_captions_are_well_formed_and_keep_the_words_to_themselves(rows, clips):
    forbidden = "no|not|neither|nor|free from|without|lacking|rather than"
    common = set("a an the in at on with and of from to by over under her".split())
    for clip in clips:
        row = rows[clip.id]
        assert 1 <= len(row["global_captions"]) <= 2 and len(row["fine_captions"]) >= 3
        spoken = set(" ".join(part.text for part in clip.parts).lower().split()) - common
        for caption in row["global_captions"] + row["fine_captions"]:
            assert re.fullmatch(r"([A-Z][^.]*\.)( [A-Z][^.]*\.)*", caption), caption
            assert "  " not in caption and " ," not in caption
            assert not re.search(rf"\b({forbidden})\b", caption.lower()), caption
            assert not re.search(r"\ba [aeiou]|\ban [^aeiouA]", caption), caption
            assert not spoken & set(re.findall(r"[a-z]+", caption.lower())), (caption, spoken)


def test_held_out_captions_use_no_new_word():
    words = {"train": set(), "test": set()}
    for clip in plan_clips({"test": 100, "valid": 0, "train": 1000}, seed=3):
        row = manifest_row(clip, 1.0, seed=3)
        for caption in row["global_captions"] + row["fine_captions"]:
            words[clip.split] |= set(re.findall(r"[a-z-]+", caption.lower()))
    assert words["test"] <= words["train"]


def test_a_change_without_a_place_is_refused(clips):
    style = next(clip.style for clip in clips if clip.style.change)
    with pytest.raises(ValueError, match="place"):
        wording.fine_caption(style, None, None, random.Random(0))
