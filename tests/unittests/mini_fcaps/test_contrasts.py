"""Twins: clips that differ in one thing, and in nothing else."""

from collections import Counter
from dataclasses import fields

import pytest

from speechbrain_clsp.mini_fcaps.contrasts import plan_contrasts, variations, with_twins
from speechbrain_clsp.mini_fcaps.corpus import plan_clips
from tests.utils.mini_fcaps import waveform

FIELDS = {  # of the style, that may differ
    "gender": {"kind"},
    "order": {"changes", "change_place"},
    "binding": {"changes", "change_place"},
    ("place", "change"): {"change_place"},
    ("place", "pause"): {"pause"},
    ("event", "pause"): {"pause"},
}


def differing(one, other) -> set[str]:
    return {f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name)}


def allowed(contrast) -> set[str]:
    kind, attribute = contrast.kind, contrast.attribute
    if (kind, attribute) == ("event", "change"):
        changed = {c.dimension for clip in contrast.clips for c in clip.style.changes}
        return {"changes", "change_place", *changed}
    known = (FIELDS.get(key) for key in ((kind, attribute), kind, attribute))
    return next((found for found in known if found), {attribute})


@pytest.fixture(scope="module")
def planned():
    clips = plan_clips({"test": 300, "valid": 0, "train": 0}, seed=1986)
    return clips, plan_contrasts(clips, seed=1986)


def test_twins_differ_in_one_thing_of_style_and_script(planned):
    for contrast in planned[1]:
        one, other = contrast.clips
        found = differing(one.style, other.style)
        assert found and found <= allowed(contrast), contrast
        script = {
            ("attribute", "gender"): {"voice"},
            ("place", "change"): {"boundary"},
            ("event", "change"): {"boundary"},
            ("place", "pause"): {"pause"},
            ("event", "pause"): {"pause"},
        }.get((contrast.kind, contrast.attribute), set())
        assert differing(one.script, other.script) == script, contrast


def test_what_does_not_differ_is_rendered_alike(planned):
    """Accents change the voice only, a level its setting only, an order the parts' settings."""
    settings = {"rate": "rate", "pitch": "pitch", "loudness": "level"}
    for contrast in planned[1]:
        one, other = (clip.parts for clip in contrast.clips)
        if contrast.kind == "attribute" and contrast.attribute == "accent":
            assert one == other
        elif contrast.kind in ("attribute", "order") and contrast.attribute in settings:
            free = {settings[contrast.attribute]}
            if "pitch" in free:
                free.add("pitch_range")  # an equal spread needs another setting
            assert all(differing(*parts) <= free for parts in zip(one, other, strict=True))
            assert one != other


def test_every_kind_has_enough_twins_and_all_are_distinct(planned):
    clips, contrasts = planned
    counts = {}
    for contrast in contrasts:
        key = contrast.kind, contrast.attribute
        counts[key] = counts.get(key, 0) + 1
    named = {thing for clip in clips for thing in variations(clip.style)}
    assert set(counts) == {thing for thing in named if thing[0] != "direction"}
    assert min(counts.values()) >= 30, counts  # each gives two pairs of either side
    twins = {c.id: c for contrast in contrasts for c in contrast.clips if c.split == "probes"}
    assert 500 <= len(twins) <= 750
    assert len({(c.style, c.script) for c in twins.values()}) == len(twins)


def test_a_variation_differs_in_its_own_thing(clips):
    for clip in clips:
        for (kind, attribute), styles in variations(clip.style).items():
            for style in styles:
                found = differing(style, clip.style)
                if kind == "attribute":
                    assert found == ({"kind"} if attribute == "gender" else {attribute})
                elif kind in ("order", "direction", "binding"):
                    assert found == {"changes"}
                elif kind == "place" or attribute == "pause":
                    assert found == ({"change_place"} if attribute == "change" else {"pause"})
                else:
                    assert {"changes", "change_place"} < found


def test_twins_are_rendered_and_loudness_twins_differ_in_level_only(folder, contrasts):
    flags = []
    for contrast in contrasts:
        one, other = (waveform(folder, clip) for clip in contrast.clips)
        if contrast.attribute == "loudness" and contrast.kind == "attribute":
            ratios = (one + 1e-9) / (other + 1e-9)
            spoken = abs(other) > 0.003
            flags.append(ratios[spoken].std() / ratios[spoken].mean() < 0.05)
        else:
            assert len(one) != len(other) or (one != other).any()
    assert flags and all(flags)


@pytest.mark.parametrize("recorded", [0.0, 1.0])
def test_every_second_training_clip_is_a_twin(recorded):
    sizes = {"test": 200, "valid": 100, "train": 600}
    before = plan_clips(sizes, seed=7, recorded=recorded)
    after = with_twins(before, seed=7)
    assert [(clip.id, clip.split) for clip in before] == [(clip.id, clip.split) for clip in after]
    held_out = {clip.style.signature for clip in after if clip.split != "train"}
    training = [clip for clip in after if clip.split == "train"]
    pairs = list(zip(training[::2], training[1::2]))
    twins = [pair for pair in pairs if pair[0].script.phrases == pair[1].script.phrases]
    assert len(twins) >= 0.95 * len(pairs)
    found = Counter()
    for one, other in twins:
        assert other.style in sum(variations(one.style).values(), []) or one.style.changes
        assert one.script.seed == other.script.seed
        assert one.script.recording == other.script.recording
        found.update(differing(one.style, other.style))
        assert other.style.signature not in held_out
    assert {"accent", "rate", "loudness", "changes", "change_place", "pause"} <= set(found)
    unchanged = [clip for clip in before if clip.split != "train"]
    assert unchanged == [clip for clip in after if clip.split != "train"]
