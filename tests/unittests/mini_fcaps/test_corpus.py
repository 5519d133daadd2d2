"""MiniFCaps' labels against measurements of the audio; its splits against each other."""

import dataclasses
import hashlib
import itertools
import json

import numpy as np
import pytest
import soundfile

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.evaluation.zero_shot import read_tasks
from speechbrain_clsp.mini_fcaps.corpus import PLACE_BOUNDS, manifest_row, plan_clips
from tests.utils.mini_fcaps import (
    SIZES,
    fraction,
    halves_of,
    is_recorded,
    measured,
    measured_in,
    voiced_fraction,
    waveform,
    within,
)


@pytest.mark.parametrize(
    "attribute, least",
    [("loudness", 1.0), ("pitch", 0.98), ("rate", 0.97), ("expressiveness", 0.9)],
)
def test_labels_are_true_and_false_ones_are_noticed(folder, clips, twins, attribute, least):
    true, planted = [], []
    for clip in [*clips, *twins]:
        label = getattr(clip.style, attribute)
        if label is not None:
            value, bands = measured(folder, clip, attribute)
            true.append(within(value, bands[label]))
            planted += [within(value, band) for other, band in bands.items() if other != label]
    assert fraction(true) >= least
    assert fraction(planted) <= 1 - least


def test_hardly_a_sample_is_clipped_and_durations_are_exact(folder):
    for row in itertools.chain(*(Manifest(folder / f"{split}.arrow") for split in SIZES)):
        wav, rate = soundfile.read(row["audio"])
        assert (np.abs(wav) > 0.99).mean() < 0.002, row["id"]
        assert (
            rate == row["sample_rate"] == SAMPLE_RATE and row["duration"] == len(wav) / SAMPLE_RATE
        )
        assert 1.1 <= row["duration"] <= 5.0, row["id"]


def test_timbre_tells_the_gender_at_any_pitch(folder, clips):
    voices = {"male": {}, "female": {}}
    for clip in clips:
        if clip.style.kind in voices and not is_recorded(clip):
            frames = np.lib.stride_tricks.sliding_window_view(waveform(folder, clip), 512)[::256]
            power = np.abs(np.fft.rfft(frames * np.hanning(512))) ** 2
            spectrum = np.log(power.mean(0).reshape(-1)[:256].reshape(32, 8).mean(1) + 1e-12)
            voices[clip.style.kind].setdefault(clip.voice.split("+")[1], []).append(
                spectrum - spectrum.mean()
            )
    flags = []
    for kind, group in voices.items():
        for held_out, spectra in group.items():  # a voice is told by the other voices
            centers = {
                k: np.mean([np.mean(s, 0) for v, s in g.items() if v != held_out], 0)
                for k, g in voices.items()
            }
            for spectrum in spectra:
                distance = {k: np.linalg.norm(spectrum - center) for k, center in centers.items()}
                flags.append(min(distance, key=distance.get) == kind)
    assert fraction(flags) >= 0.9


@pytest.mark.parametrize("recorded", [False, True])
def test_whispers_have_no_voice_and_croaks_a_rough_one(folder, clips, recorded):
    fractions = {kind: [] for kind in ("male", "female", "whisper", "croak")}
    for clip in clips:
        if is_recorded(clip) == recorded:
            fractions[clip.style.kind].append(voiced_fraction(waveform(folder, clip)))
    clear = np.percentile(fractions["male"] + fractions["female"], 5 if recorded else 3)
    assert np.percentile(fractions["whisper"], 90 if recorded else 100) < clear
    assert np.median(fractions["croak"]) < clear


def test_changes_are_where_captions_put_them(folder, clips, twins):
    places = []
    for clip in [*clips, *twins]:
        if clip.style.change_place is not None:
            before, after, *_ = halves_of(waveform(folder, clip), clip)
            low, high = PLACE_BOUNDS[clip.style.change_place]
            places.append(low - 0.07 <= len(before) / (len(before) + len(after)) <= high + 0.07)
    assert fraction(places) >= 0.97
    assert fraction([bool(clip.style.changes) for clip in clips]) >= 0.4
    assert fraction([len(clip.style.changes) == 2 for clip in clips]) >= 0.08


@pytest.mark.parametrize("dimension, least", [("loudness", 1.0), ("pitch", 0.97), ("rate", 0.95)])
def test_both_sides_of_a_change_have_their_levels(folder, clips, twins, dimension, least):
    true, planted, directions = [], [], []
    for clip in [*clips, *twins]:
        changes = {change.dimension: change for change in clip.style.changes}
        if dimension not in changes:
            continue
        change = changes[dimension]
        before, after, *texts = halves_of(waveform(folder, clip), clip)
        values = []
        for wav, text, level in (
            (before, texts[0], change.before),
            (after, texts[1], change.after),
        ):
            value, bands = measured_in(wav, text, clip, dimension)
            values.append(value)
            true.append(within(value, bands[level]))
            planted += [within(value, band) for other, band in bands.items() if other != level]
        directions.append(bool(values[1] > values[0]) == change.rises)
    assert fraction(directions) >= (0.98 if dimension == "rate" else 1.0)
    assert fraction(true) >= least
    assert fraction(planted) <= 1 - least


def test_pauses_are_in_the_speech_as_in_the_style(folder, clips, twins):
    flags = []
    for clip in [*clips, *twins]:
        wav = waveform(folder, clip)
        level = np.sqrt(np.mean(wav[: len(wav) // 160 * 160].reshape(-1, 160) ** 2, axis=1))
        silence = 1e-4
        if is_recorded(clip):  # the noise lies at least 15 dB below the quietest part
            silence = 10 ** ((min(part.level for part in clip.parts) - 10) / 20)
        runs = [len(list(run)) for quiet, run in itertools.groupby(level < silence) if quiet]
        flags.append((max(runs, default=0) >= 40) == (clip.style.pause != "none"))
    assert fraction(flags) >= 0.99


def test_only_training_clips_are_recorded(clips):
    recorded = {split: [is_recorded(c) for c in clips if c.split == split] for split in SIZES}
    assert 0.5 < fraction(recorded["train"]) < 0.8
    assert not any(recorded["valid"] + recorded["test"])


def test_test_clips_share_no_signature_and_no_sentence(clips):
    by_split = {split: [c for c in clips if c.split == split] for split in SIZES}
    signatures = {s: [c.style.signature for c in group] for s, group in by_split.items()}
    for split in ("test", "valid"):
        assert len(set(signatures[split])) == SIZES[split]
    sentences = {s: {" ".join(p.text for p in c.parts) for c in g} for s, g in by_split.items()}
    for a, b in (("test", "train"), ("valid", "train"), ("test", "valid")):
        assert not set(signatures[a]) & set(signatures[b])
        assert not sentences[a] & sentences[b]


def test_every_label_has_a_prompt(folder):
    rows = list(Manifest(folder / "probes.arrow"))
    for task in [*read_tasks("mini"), *read_tasks("mini_unseen")]:
        labels = {task.label_of(row) for row in rows} - {-1}
        assert labels == set(range(len(task.prompts))), task.name


def test_a_seed_gives_the_same_plans_and_captions_as_ever():
    found = []
    for clip in plan_clips({"test": 40, "valid": 30, "train": 200}, seed=1986, recorded=0.65):
        row = manifest_row(clip, 1.0, 1986)
        parts = [(p.text, p.rate, p.pitch, p.pitch_range, p.level, p.silence) for p in clip.parts]
        recording = dataclasses.asdict(clip.script.recording)
        captions = [row["global_captions"], row["fine_captions"]]
        found.append([captions, parts, clip.voice, clip.script.voice.formants, recording])
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()
    assert digest == "6deabbbbc8d8e350812c70559ef06feaa71eb1eb5082e2d5978d636e9a7cd9d6"
