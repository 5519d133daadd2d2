"""MiniFCaps: its labels against measurements of the audio, its captions against its labels."""

import difflib
import hashlib
import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.evaluation.zero_shot import read_tasks
from speechbrain_clsp.mini_fcaps import wording
from speechbrain_clsp.mini_fcaps.acoustics import claims, fundamental, listen, pitch_spread
from speechbrain_clsp.mini_fcaps.corpus import PLACES, manifest_row, plan_clips
from speechbrain_clsp.mini_fcaps.style import ACCENTS
from speechbrain_clsp.mini_fcaps.synthesis import Synthesizer

sys.path.insert(0, str(Path(__file__).parents[3] / "recipes" / "FCaps"))
from mini_fcaps_prepare import make_clip, prepare_mini_fcaps  # noqa: E402

SIZES = {"train": 120, "dev": 20, "test": 60}
RATE = 16000
# Measured values that a label may stand for; the bands of one attribute do not overlap.
LOUDNESS_DBFS = {"quiet": (-47, -40), "moderate": (-37, -31), "loud": (-28, -21)}
PHONEMES_PER_SECOND = {"slow": (6.6, 13.1), "measured": (13.1, 20.1), "fast": (20.1, 33)}
PITCH_HZ = {
    "male": {"low": (70, 96), "medium": (98, 128), "high": (130, 175)},
    "female": {"low": (130, 172), "medium": (174, 225), "high": (240, 310)},
}
SPREAD_SEMITONES = {"monotone": (0, 1.0), "natural": (1.0, 2.6), "lively": (2.6, 12)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini")
    sizes = {f"n_{split}": size for split, size in SIZES.items()}
    prepare_mini_fcaps(folder, **sizes, n_jobs=1)
    return folder


@pytest.fixture(scope="module")
def clips():
    return plan_clips(SIZES, seed=1986)


def waveform(folder, clip) -> np.ndarray:
    """Return a clip's samples."""
    return soundfile.read(folder / "wavs" / clip.split / f"{clip.id}.wav", dtype="float32")[0]


def parts_of(wav: np.ndarray, clip) -> list[np.ndarray]:
    """Cut a clip where its parts begin and end; each part is spoken again to know its length."""
    parts, start = [], 0
    with Synthesizer() as synthesizer:
        for part in clip.parts:
            settings = (part.rate, part.pitch, part.pitch_range)
            length = len(synthesizer.speak(part.text, clip.voice, *settings))
            parts.append(wav[start : start + length])
            start += length + round(part.silence * RATE)
    assert start == len(wav), clip.id
    return parts


def halves_of(wav: np.ndarray, clip) -> tuple[np.ndarray, np.ndarray, str, str]:
    """Return the sound and the text before and after the change."""
    settings = [(part.rate, part.pitch, part.level) for part in clip.parts]
    first = next(i for i, setting in enumerate(settings) if setting != settings[0])
    parts, texts = parts_of(wav, clip), [part.text for part in clip.parts]
    before, after = np.concatenate(parts[:first]), np.concatenate(parts[first:])
    return before, after, " ".join(texts[:first]), " ".join(texts[first:])


def decibels(wav: np.ndarray) -> float:
    """Return the root mean square in dB re full scale."""
    return 20 * np.log10(np.sqrt(np.mean(wav**2)))


def within(value: float, band: tuple[float, float]) -> bool:
    return bool(band[0] <= value <= band[1])


def periodic_share(wav: np.ndarray) -> float:
    """Return the share of a clip in which a pitch is found."""
    return len(fundamental(wav)) / (len(wav) / 160)


def phonemes_of(text: str, voice: str) -> str:
    with Synthesizer() as synthesizer:
        return re.sub(r"[\W\dˈˌː_]", "", synthesizer.phonemes(text, voice))


def speaking_rate(wav: np.ndarray, text: str, voice: str) -> float:
    """Return phonemes per second."""
    return len(phonemes_of(text, voice)) / (len(wav) / RATE)


def measured(folder, clip, attribute: str) -> tuple[float, dict]:
    """Measure an attribute of a clip; also returns the band of each of its labels."""
    wav = waveform(folder, clip)
    if attribute == "loudness":
        return decibels(wav[wav != 0]), LOUDNESS_DBFS
    if attribute == "rate":
        spoken = np.concatenate(parts_of(wav, clip))
        text = " ".join(part.text for part in clip.parts)
        return speaking_rate(spoken, text, clip.voice), PHONEMES_PER_SECOND
    if attribute == "pitch":
        return float(np.median(fundamental(wav))), PITCH_HZ[clip.style.kind]
    return pitch_spread(wav), SPREAD_SEMITONES


def share(flags: list[bool]) -> float:
    assert len(flags) > 15, "too few clips to say anything"
    return sum(flags) / len(flags)


@pytest.mark.parametrize(
    "attribute, least",
    [("loudness", 1.0), ("pitch", 0.98), ("rate", 0.97), ("expressiveness", 0.9)],
)
def test_labels_are_true_and_false_ones_are_noticed(folder, clips, attribute, least):
    """If this fails, a label contradicts the sound, or the measurement has no teeth."""
    true, planted = [], []
    for clip in clips:
        label = getattr(clip.style, attribute)
        if label is not None:
            value, bands = measured(folder, clip, attribute)
            true.append(within(value, bands[label]))
            planted += [within(value, band) for other, band in bands.items() if other != label]
    assert share(true) >= least
    assert share(planted) <= 1 - least


@pytest.mark.parametrize("attribute, least", [("loudness", 0.98), ("pitch", 0.98), ("rate", 0.8)])
def test_ears_that_know_nothing_hear_what_captions_say(folder, clips, attribute, least):
    """If this fails, the captioner and the judge that listen make up what they say."""
    right, shifted = [], []
    for clip in clips:
        said = claims(manifest_row(clip, 1.0, 0)["fine_captions"][0]).get(attribute)
        if (
            said is None
            or clip.style.change
            or (attribute == "pitch") > (clip.style.pitch is not None)
        ):
            continue
        heard = listen(waveform(folder, clip)).level(attribute, clip.style.kind)
        right.append(heard == said)
        shifted.append(heard == (said + 1) % 3)
    assert share(right) >= least
    assert share(shifted) <= 1 - least


def test_nothing_is_clipped_and_durations_are_exact(folder):
    """If this fails, loud clips are distorted, or batches are packed by wrong lengths."""
    for row in itertools.chain(*(Manifest(folder / f"{split}.arrow") for split in SIZES)):
        wav, rate = soundfile.read(row["audio"])
        assert np.abs(wav).max() < 0.99, row["id"]
        assert rate == row["sample_rate"] == RATE and row["duration"] == len(wav) / RATE
        assert 1.1 <= row["duration"] <= 5.0, row["id"]


def test_gender_is_heard_in_the_timbre(folder, clips):
    """If this fails, gender is told by pitch alone, and a high-pitched man is a woman."""
    voices = {"male": {}, "female": {}}
    for clip in clips:
        if clip.style.kind in voices:
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
    assert share(flags) >= 0.9


def test_every_sentence_tells_the_accents_apart(clips):
    """If this fails, an accent is named where it cannot be heard."""
    for clip in clips[:40]:
        text = " ".join(part.text for part in clip.parts)
        spoken = [phonemes_of(text, voice) for voice in ACCENTS.values()]
        for one, other in itertools.combinations(spoken, 2):
            same = difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()
            assert same < 0.95, (text, one, other)


def test_whispers_have_no_voice_and_croaks_a_rough_one(folder, clips):
    """If this fails, a whisper is voiced, or a croak sounds like a clear voice."""
    shares = {kind: [] for kind in ("male", "female", "whisper", "croak")}
    for clip in clips:
        shares[clip.style.kind].append(periodic_share(waveform(folder, clip)))
    clear = np.percentile(shares["male"] + shares["female"], 3)
    assert max(shares["whisper"]) < clear
    assert np.median(shares["croak"]) < clear


def test_changes_are_where_captions_put_them(folder, clips):
    """If this fails, "half-way through" is said of something else, or goes the wrong way."""
    places, directions = [], []
    for clip in clips:
        if clip.style.change is None:
            continue
        before, after, *texts = halves_of(waveform(folder, clip), clip)
        low, high = PLACES[clip.place]
        places.append(low - 0.07 <= len(before) / (len(before) + len(after)) <= high + 0.07)
        measure = {
            "loudness": lambda wav, text: decibels(wav),
            "pitch": lambda wav, text: np.median(fundamental(wav)),
            "rate": lambda wav, text, voice=clip.voice: speaking_rate(wav, text, voice),
        }[clip.style.change.dimension]
        rises = measure(after, texts[1]) > measure(before, texts[0])
        directions.append(bool(rises) == clip.style.change.rises)
    assert share(places) >= 0.97
    assert share(directions) == 1.0
    assert share([clip.style.change is not None for clip in clips]) >= 0.25


def test_pauses_are_heard(folder, clips):
    """If this fails, a caption tells of a pause that is not there, or keeps one back."""
    flags = []
    for clip in clips:
        wav = waveform(folder, clip)
        level = np.sqrt(np.mean(wav[: len(wav) // 160 * 160].reshape(-1, 160) ** 2, axis=1))
        runs = [len(list(run)) for quiet, run in itertools.groupby(level < 1e-4) if quiet]
        flags.append((max(runs, default=0) >= 40) == clip.style.pause)
    assert share(flags) >= 0.99


def test_captions_state_the_style_and_nothing_that_cannot_be_heard(folder, clips):
    """If this fails, captions contradict the sound, or give a whisper a pitch."""
    rows = {row["id"]: row for split in SIZES for row in Manifest(folder / f"{split}.arrow")}
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


def test_fine_captions_tell_what_happens_when(folder, clips):
    """If this fails, a fine caption leaves out the change or the pause, or misplaces it."""
    rows = {row["id"]: row for split in SIZES for row in Manifest(folder / f"{split}.arrow")}
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


def test_captions_are_well_formed_and_keep_the_words_to_themselves(folder, clips):
    """If this fails, captions leak what is said, deny something, or read badly."""
    rows = {row["id"]: row for split in SIZES for row in Manifest(folder / f"{split}.arrow")}
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


def test_test_clips_share_no_signature_and_no_sentence(clips):
    """If this fails, a global caption fits two test clips, or the test was seen in training."""
    by_split = {split: [c for c in clips if c.split == split] for split in SIZES}
    signatures = {s: [c.style.signature for c in group] for s, group in by_split.items()}
    for split in ("test", "dev"):
        assert len(set(signatures[split])) == SIZES[split]
    sentences = {s: {" ".join(p.text for p in c.parts) for c in g} for s, g in by_split.items()}
    for a, b in (("test", "train"), ("dev", "train"), ("test", "dev")):
        assert not set(signatures[a]) & set(signatures[b])
        assert not sentences[a] & sentences[b]


def test_held_out_captions_use_no_new_word():
    """If this fails, the test asks for words that training never showed."""
    words = {"train": set(), "test": set()}
    for clip in plan_clips({"test": 100, "dev": 0, "train": 1000}, seed=3):
        row = manifest_row(clip, 1.0, seed=3)
        for caption in row["global_captions"] + row["fine_captions"]:
            words[clip.split] |= set(re.findall(r"[a-z-]+", caption.lower()))
    assert words["test"] <= words["train"]


def test_every_label_has_a_prompt(folder):
    """If this fails, zero-shot evaluation of MiniFCaps stops at an unknown class."""
    rows = list(Manifest(folder / "test.arrow"))
    for task in read_tasks("mini"):
        labels = {task.label_of(row) for row in rows} - {-1}
        assert labels == set(range(len(task.prompts))), task.name


def digest(folder: Path) -> dict[str, str]:
    """Return the hash of every file."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_same_seed_same_bytes_in_any_process_and_after_an_interruption(tmp_path):
    """If this fails, two people train on different data under one name."""
    sizes = {"n_train": 20, "n_dev": 2, "n_test": 2}
    prepare_mini_fcaps(tmp_path / "a", **sizes, n_jobs=1)
    expected = digest(tmp_path / "a")
    prepare_mini_fcaps(tmp_path / "b", **sizes, n_jobs=2)
    assert digest(tmp_path / "b") == expected
    for name in ("train.arrow", "wavs/train/train_00007.wav", "wavs/test/test_00001.wav"):
        (tmp_path / "b" / name).unlink()
    prepare_mini_fcaps(tmp_path / "b", **sizes, n_jobs=1)
    assert digest(tmp_path / "b") == expected
    prepare_mini_fcaps(tmp_path / "c", **sizes, n_jobs=1, seed=7)
    assert (
        digest(tmp_path / "c")["wavs/test/test_00001.wav"] != expected["wavs/test/test_00001.wav"]
    )


def test_preparation_is_skipped_or_refused_when_it_should_be(tmp_path):
    """If this fails, a second run makes everything anew, or mixes two data sets in one folder."""
    sizes = {"n_train": 2, "n_dev": 1, "n_test": 1}
    prepare_mini_fcaps(tmp_path / "never", **sizes, skip_prep=True)
    assert not (tmp_path / "never").exists()
    prepare_mini_fcaps(tmp_path / "a", **sizes, n_jobs=1)
    before = (tmp_path / "a" / "train.arrow").stat().st_mtime_ns
    prepare_mini_fcaps(tmp_path / "a", **sizes, n_jobs=1)
    assert (tmp_path / "a" / "train.arrow").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="other data_folder|another data_folder"):
        prepare_mini_fcaps(tmp_path / "a", **{**sizes, "n_train": 3}, n_jobs=1)
    assert json.loads((tmp_path / "a" / "settings.json").read_text())["train"] == 2


def test_a_half_written_clip_is_made_again(folder, clips, tmp_path):
    """If this fails, a kill while a clip is written leaves a cut clip in the data set."""
    (tmp_path / "wavs" / clips[0].split).mkdir(parents=True)
    (tmp_path / "wavs" / clips[0].split / f"{clips[0].id}.partial").write_bytes(b"RIFF")
    make_clip(clips[0], tmp_path)
    name = f"wavs/{clips[0].split}/{clips[0].id}.wav"
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
