"""MiniFCaps: its labels against measurements of the audio, its captions against its labels."""

import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import find_peaks

from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.evaluation.zero_shot import read_tasks
from speechbrain_clsp.mini_fcaps import captions as wording
from speechbrain_clsp.mini_fcaps.clips import PLACES, plan_clips
from speechbrain_clsp.mini_fcaps.synthesis import Synthesizer

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "FCaps"))
from mini_fcaps_prepare import make_clip, prepare_mini_fcaps  # noqa: E402

SIZES = {"train": 120, "dev": 20, "test": 60}
RATE = 16000
# What a listener would accept, wide of the bands that settings are drawn from.
LOUDNESS_DBFS = {"quiet": (-45, -35), "moderate": (-34.5, -25), "loud": (-24.5, -15)}
PHONEMES_PER_SECOND = {"slow": (5, 11.8), "measured": (10.8, 17.6), "fast": (17.6, 30)}
PITCH_HZ = {
    "male": {"low": (55, 96), "medium": (96, 136), "high": (136, 230)},
    "female": {"low": (100, 176), "medium": (176, 252), "high": (252, 430)},
}


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
    """Cut a clip at its digital silences, into as many stretches as were planned."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], wav == 0, [0]])))
    runs = sorted(edges.reshape(-1, 2).tolist(), key=lambda run: run[0] - run[1])
    runs = sorted(runs[: len(clip.parts) - 1])
    starts, ends = [0, *(end for _, end in runs)], [*(start for start, _ in runs), len(wav)]
    return [wav[start:end] for start, end in zip(starts, ends)]


def fundamental(wav: np.ndarray) -> np.ndarray:
    """Estimate F0 in Hz of every voiced frame by autocorrelation: nothing of ours is used."""
    size, estimates = 1024, []
    window = np.hanning(size)
    own = np.fft.irfft(np.abs(np.fft.rfft(window, 4096)) ** 2)
    level = np.sqrt(np.mean(wav**2))
    low, high = RATE // 450, RATE // 55
    for start in range(0, len(wav) - size, 160):
        frame = wav[start : start + size] * window
        if np.sqrt(np.mean(frame**2)) < 0.3 * level:
            continue
        correlation = np.fft.irfft(np.abs(np.fft.rfft(frame, 4096)) ** 2)[:high]
        correlation = correlation / correlation[0] * own[0] / own[:high]
        peaks, _ = find_peaks(correlation[low:], height=0.55)
        if len(peaks):
            heights = correlation[low:][peaks]
            # The first of the equally high peaks: the others are multiples of the period.
            estimates.append(RATE / (low + peaks[np.argmax(heights > 0.88 * heights.max())]))
    return np.array(estimates)


def decibels(wav: np.ndarray) -> float:
    """Return the root mean square in dB re full scale."""
    return 20 * np.log10(np.sqrt(np.mean(wav**2)))


def within(value: float, band: tuple[float, float]) -> bool:
    return band[0] <= value <= band[1]


def share(flags: list[bool]) -> float:
    assert len(flags) > 15, "too few clips to say anything"
    return sum(flags) / len(flags)


def loudness_true(wav, style, levels=LOUDNESS_DBFS) -> bool:
    return within(decibels(wav[np.abs(wav) > 0]), levels[style.loudness])


def test_loudness_labels_are_true(folder, clips):
    """If this fails, a quiet clip is called loud."""
    flags = [loudness_true(waveform(folder, c), c.style) for c in clips if c.style.loudness]
    assert share(flags) == 1.0


def test_a_false_label_would_be_noticed(folder, clips):
    """If this fails, the measurements above have no teeth."""
    swapped = {"quiet": LOUDNESS_DBFS["loud"], "loud": LOUDNESS_DBFS["quiet"]}
    chosen = [c for c in clips if c.style.loudness in swapped]
    assert not any(loudness_true(waveform(folder, c), c.style, swapped) for c in chosen)


def test_rate_labels_are_true(folder, clips):
    """If this fails, a slow clip is called fast: phonemes per second of speaking are counted."""
    flags = []
    with Synthesizer() as synthesizer:
        for clip in clips:
            if clip.style.rate is None:
                continue
            phonemes = seconds = 0.0
            for part in clip.parts:
                spoken = synthesizer.phonemes(part.text, clip.voice)
                phonemes += len(re.findall(r"[^\W\d_]", re.sub("[ˈˌː]", "", spoken)))
                seconds -= part.silence
            seconds += len(waveform(folder, clip)) / RATE
            flags.append(within(phonemes / seconds, PHONEMES_PER_SECOND[clip.style.rate]))
    assert share(flags) >= 0.97


def test_pitch_labels_are_true(folder, clips):
    """If this fails, a deep voice is called high: the median F0 is measured."""
    flags = [
        within(np.median(fundamental(waveform(folder, c))), PITCH_HZ[c.style.kind][c.style.pitch])
        for c in clips
        if c.style.pitch
    ]
    assert share(flags) >= 0.95


def test_expressiveness_labels_are_true(folder, clips):
    """If this fails, a lively clip is called flat: the spread of F0 in semitones is measured."""
    spreads = {"monotone": [], "natural": [], "lively": []}
    for clip in clips:
        if clip.style.expressiveness and clip.style.kind == "female":
            f0 = fundamental(waveform(folder, clip))
            semitones = 12 * np.log2(f0 / np.median(f0))
            spreads[clip.style.expressiveness].append(
                np.subtract(*np.percentile(semitones, [85, 15]))
            )
    medians = {level: np.median(values) for level, values in spreads.items()}
    assert medians["monotone"] < 0.6 * medians["natural"]
    assert medians["natural"] < 0.85 * medians["lively"]


def test_whispers_have_no_voice(folder, clips):
    """If this fails, a whisper is voiced, or a voiced clip is labelled a whisper."""

    def periodic(clip) -> float:
        wav = waveform(folder, clip)
        return len(fundamental(wav)) / (len(wav) / 160)

    whispers = [periodic(c) for c in clips if c.style.kind == "whisper"]
    voices = [periodic(c) for c in clips if c.style.kind in ("male", "female")]
    assert max(whispers) < np.percentile(voices, 2)


def test_changes_and_pauses_are_where_captions_put_them(folder, clips):
    """If this fails, "half-way through" is said of something else, or goes the wrong way."""
    places, directions = [], []
    for clip in clips:
        if clip.style.change is None:
            continue
        stretches = parts_of(waveform(folder, clip), clip)
        # With a pause as well there are up to three parts; settings change only once.
        first = next(
            i for i, part in enumerate(clip.parts) if part.rate != clip.parts[0].rate
            or part.pitch != clip.parts[0].pitch or part.level != clip.parts[0].level
        )  # fmt: skip
        before, after = (np.concatenate(s) for s in (stretches[:first], stretches[first:]))
        low, high = PLACES[clip.place]
        places.append(low - 0.1 <= len(before) / (len(before) + len(after)) <= high + 0.1)
        if clip.style.change.dimension == "loudness":
            directions.append((decibels(after) > decibels(before)) == clip.style.change.rises)
        elif clip.style.change.dimension == "pitch":
            higher = np.median(fundamental(after)) > np.median(fundamental(before))
            directions.append(bool(higher) == clip.style.change.rises)
    assert share(places) >= 0.97
    assert share(directions) == 1.0
    assert share([clip.style.change is not None for clip in clips]) >= 0.25


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
                assert any(word in caption for word in words), caption


def test_captions_are_well_formed_and_keep_the_words_to_themselves(folder, clips):
    """If this fails, captions leak what is said, deny something, or read badly."""
    rows = {row["id"]: row for split in SIZES for row in Manifest(folder / f"{split}.arrow")}
    forbidden = "no|not|neither|nor|free from|without|lacking|rather than"
    common = set("a an the in at on with and of from to by over under".split())
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
