"""Captions against the styles that they state."""

import random
import re
from dataclasses import replace
from itertools import product

import pytest

from speechbrain_clsp.evaluation.zero_shot import read_tasks
from speechbrain_clsp.mini_fcaps import wording
from speechbrain_clsp.mini_fcaps.contrasts import variations
from speechbrain_clsp.mini_fcaps.corpus import manifest_row, plan_clips
from speechbrain_clsp.mini_fcaps.wording import fine_caption, global_caption
from tests.utils.mini_fcaps import fraction

TABLES = {
    "rate": wording.RATE,
    "pitch": wording.PITCH,
    "loudness": wording.LOUDNESS,
    "expressiveness": wording.EXPRESSIVENESS,
}


def says(caption, words):
    return any(re.search(rf"(?<![\w-]){word}(?![\w-])", caption.lower()) for word in words)


def test_captions_state_the_style_and_nothing_else(rows, clips):
    for clip in clips:
        style = clip.style
        for caption in rows[clip.id]["global_captions"]:
            assert style.accent in caption
            for name, table in TABLES.items():
                said = [level for level, words in table.items() if says(caption, words)]
                own = getattr(style, name)
                if (name, own) == ("expressiveness", "natural"):
                    said = [level for level in said if level == own]
                assert said == ([own] if own else []), (caption, name)
            directions = {(change.dimension, change.rises) for change in style.changes}
            said = {way for way, words in wording.OVERALL_CHANGE.items() if says(caption, words)}
            assert said == directions, caption
            assert not (style.changes and says(caption, wording.NO_CHANGE)), caption


def test_fine_captions_tell_what_happens_when(rows, clips):
    n_flows = []
    for clip in clips:
        style = clip.style
        assert len(rows[clip.id]["fine_captions"]) >= 3
        for caption in rows[clip.id]["fine_captions"]:
            *_, events = caption.partition(". ")
            sentences = events.split(". ")
            changes = [text for text in sentences if re.search("starts|begins|[Aa]t first", text)]
            assert len(changes) == bool(style.changes), caption
            pauses = [text for text in sentences if "pause" in text]
            assert len(pauses) == (style.pause != "none"), caption
            for texts, place in ((changes, style.change_place), (pauses, style.pause)):
                said = [p for p, words in wording.PLACE.items() if texts and says(texts[0], words)]
                assert said == ([place] if texts else []), caption
            if style.pause == "none":
                n_flows.append(says(caption, wording.FLOWS))
            for change in style.changes:
                told = changes[0].lower()
                starts = [
                    min(told.find(word) % 999 for word in TABLES[change.dimension][level])
                    for level in (change.before, change.after)
                ]
                assert starts[0] < starts[1] < 998, caption
            assert says(caption, wording.STEADY) == (not style.changes), caption
    assert 0.35 < fraction(n_flows) < 0.65


@pytest.mark.parametrize(
    "table",
    [*TABLES.values(), wording.NOUNS, wording.MANNERS, wording.PLACE, wording.OVERALL_CHANGE],
)
def test_all_levels_of_one_thing_have_equally_many_wordings(table):
    assert len({len(words) for words in table.values()}) == 1
    flat = [word for words in table.values() for word in words]
    assert len(set(flat)) == len(flat)


def test_captions_of_one_seed_differ_only_where_the_styles_do(clips):
    """The words that differ are wordings of the two values, exchanged."""
    seen = set()
    for clip in clips:
        style = clip.style
        for (kind, name), others in variations(style).items():
            if kind != "attribute" or name in ("gender", "accent"):
                continue
            write = (fine_caption, global_caption)[len(seen) % 2]
            for other in others:
                one, two = (write(each, random.Random(clip.id)) for each in (style, other))
                levels = [getattr(each, name) for each in (style, other)]
                words = [TABLES[name][level] for level in levels]
                number = next(n for n, word in enumerate(words[0]) if says(one, [word]))
                assert re.sub(r"\ban\b", "a", one.lower()).replace(
                    words[0][number], words[1][number]
                ) == re.sub(r"\ban\b", "a", two.lower()), (one, two)
                seen.add((name, *levels))
    assert len(seen) == 4 * 3 * 2


def test_exchanged_levels_give_the_same_words_in_another_order(clips):
    n_exchanged = 0
    for clip in clips:
        if clip.style.changes:
            other = clip.style.exchanged("rate", "pitch", "loudness")
            one, two = (fine_caption(each, random.Random(0)) for each in (clip.style, other))
            bags = [sorted(re.findall(r"[\w-]+", text.lower())) for text in (one, two)]
            assert bags[0] == bags[1] and one != two
            n_exchanged += 1
    assert n_exchanged > 50


def test_a_place_that_is_not_known_is_not_stated(clips):
    for clip in clips:
        style = replace(clip.style, change_place=None, pause=None)
        caption = fine_caption(style, random.Random(clip.id))
        assert "pause" not in caption and not says(caption, wording.FLOWS)
        assert not any(says(caption, words) for words in wording.PLACE.values()), caption
        assert not re.search(r"  | [,.]|,,", caption), caption


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


def test_prompts_of_unseen_wording_share_no_content_word_with_captions():
    clips = plan_clips({"test": 200, "valid": 0, "train": 600}, seed=3)
    rows = [manifest_row(clip, 1.0, seed=3) for clip in clips]
    tables = (*TABLES.values(), wording.NOUNS, wording.MANNERS, wording.PLACE)
    known = stems(
        *(text for row in rows for text in row["global_captions"] + row["fine_captions"]),
        *(text for table in tables for texts in table.values() for text in texts),
        *(text for texts in wording.OVERALL_CHANGE.values() for text in texts),
        *wording.NO_CHANGE, *wording.STEADY, *wording.FLOWS, *wording.PAUSES,
        *prompts_of_training(),
    )  # fmt: skip
    # "ear" is the stem of "early" here
    neutral = stems("a an and as at in into is it of on the this to who with voice talk ear")
    # Not of gentlemen, everybody, along, single; "is heard" and "becoming" say nothing of the style
    harmless = stems("gently gentle ever every alone sings heard becoming")
    prompts = {task.name: task.prompts for task in read_tasks("mini_unseen")}
    assert {"gender", "speaking rate", "pitch", "loudness", "whisper", "change"} == set(prompts)
    for classes in prompts.values():
        assert all(len(texts) >= 4 for texts in classes.values())
        said = stems(*(text for texts in classes.values() for text in texts))
        assert (said - neutral) & known == set()
        pairs = product(said - neutral, known - harmless)
        assert [pair for pair in pairs if are_related(*pair)] == []
    (change,) = (task for task in read_tasks("mini") if task.name == "change")
    assert list(change.prompts) == list(prompts["change"])
    assert all(
        word in wording.NO_CHANGE or word in sum(wording.OVERALL_CHANGE.values(), ())
        for texts in change.prompts.values()
        for word in (text.removeprefix("A speaker speaks, ").removesuffix(".") for text in texts)
    )


def prompts_of_training():
    for many in (False, True):
        for name, sets in wording.read_prompts(many).items():
            for prompts in [] if name.startswith("_") else sets:
                yield from prompts["templates"]
                yield from (text for texts in prompts["words"].values() for text in texts)


def stems(*texts):
    words = set(re.findall("[a-z]+", " ".join(texts).lower()))
    return {re.sub("(?<=..)(ing|ed|er|ly|s|y|e)$", "", word) for word in words}


def are_related(*stems):
    """Tell whether one begins with the other, as "become" and "becom" of "becoming"."""
    shorter, longer = sorted(stems, key=len)
    return len(shorter) >= 4 and longer.startswith(shorter)
