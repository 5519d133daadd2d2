"""What would stop a training in the middle is found before it begins."""

import math

import pytest
import torch

from speechbrain_clsp.captions.policies import Contrasts, TwoCaptions, evaluation_captions
from speechbrain_clsp.dataio.checks import (
    check_captions,
    check_clips,
    check_durations,
    check_evaluated,
    check_labels,
    check_lengths,
)
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset
from speechbrain_clsp.dataio.labels import AttributeLabels
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.lobes.pretrained_speech import PretrainedSpeechTower
from speechbrain_clsp.lobes.speech_tower import SpeechTower
from tests.utils.small import ROW, tone, write
from tests.utils.speech_encoders import speech_encoder_config

MOST = 40


def tokenizer(texts):
    """One token per character, and two around them; "ﷺ" is normalized to eighteen."""
    sizes = [len(text.replace("ﷺ", "x" * 18)) + 2 for text in texts]
    places = torch.arange(max(sizes))
    padding_mask = places >= torch.tensor(sizes)[:, None]
    return padding_mask.long(), padding_mask


def manifest(folder, *rows) -> Manifest:
    """Write rows, of which all have a clip but those that name another."""
    write(folder / "a.wav", tone(0.5))
    rows = [{**ROW, "id": f"clip{i}", **row} for i, row in enumerate(rows)]
    write_manifest(folder / "m.arrow", rows, batch_rows=2)
    return Manifest(folder / "m.arrow")


def test_captions_that_are_too_long_are_named_with_their_clips(tmp_path):
    long = {"fine_captions": ["Short.", "l" * (MOST - 1)], "global_captions": ["G"]}
    found = manifest(tmp_path, {}, long, {}, {"global_captions": ["ﷺ" * 3]}, {})
    with pytest.raises(ValueError, match=r"m\.arrow: captions of at most 40 tokens fit") as error:
        check_captions(found, tokenizer, MOST)
    assert f"clip 'clip1': 41 tokens, '{'l' * 39}'" in str(error.value)
    assert "clip 'clip3': 56 tokens, 'ﷺﷺﷺ'" in str(error.value)
    assert "clip0" not in str(error.value) and "clip4" not in str(error.value)
    check_captions(found, tokenizer, 56)


def test_only_captions_that_could_be_too_long_are_tokenized(tmp_path):
    seen = []
    rows = [{"fine_captions": ["x" * n]} for n in (3, 20, 24, 25, 39)]

    def noted(texts):
        seen.extend(texts)
        return tokenizer(texts)

    with pytest.raises(ValueError):
        check_captions(manifest(tmp_path, *rows), noted, MOST)
    assert sorted(map(len, seen)) == [25, 39]


def test_clips_without_caption_are_named(tmp_path):
    none = {"global_captions": [], "fine_captions": None}
    with pytest.raises(ValueError, match=r"m\.arrow: 2 clips without caption: 'clip1'; 'clip3'"):
        check_captions(manifest(tmp_path, {}, none, {}, none), tokenizer, MOST)


def test_clips_that_are_not_there_are_counted_and_the_first_ones_named(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "shard.tar").write_bytes((tmp_path / "text.wav").read_bytes())
    rows = [{"audio": "text.wav"}, {}, {"audio": "shard.tar", "offset": 4, "nbytes": 99}]
    rows += [{"audio": f"absent{i}.wav"} for i in range(30)]
    with pytest.raises(ValueError, match=r"m\.arrow: 32 of 33 clips cannot be read") as error:
        check_clips(manifest(tmp_path, *rows), "m.arrow")
    message = str(error.value)
    assert "'clip0': " in message and "'clip2': " in message and "'clip1'" not in message
    assert "absent0.wav" in message and message.endswith("; and 22 more")


def test_sets_that_are_evaluated_are_checked_with_the_texts_that_they_get(tmp_path):
    def dataset(policy, *rows):
        return CaptionedSpeechDataset(manifest(tmp_path, *rows), policy)

    check_evaluated(dataset(evaluation_captions, {}, {}), tokenizer, MOST)
    with pytest.raises(ValueError, match="'clip1': .*absent.wav: no such file"):
        check_evaluated(dataset(evaluation_captions, {}, {"audio": "absent.wav"}), tokenizer, MOST)
    with pytest.raises(ValueError, match="'clip1' needs a global and a fine caption"):
        check_evaluated(dataset(evaluation_captions, {}, {"fine_captions": []}), tokenizer, MOST)
    longer = Contrasts({"order": lambda text, generator, row: text + "x" * 60})
    with pytest.raises(ValueError, match="clip 'clip0': 64 tokens, 'F3xx"):
        check_evaluated(dataset(longer, {}), tokenizer, MOST)
    check_evaluated(dataset(TwoCaptions(), {}), tokenizer, MOST)


def test_labels_that_are_not_listed_are_named_with_a_clip(tmp_path):
    rows = [
        {},
        {"gender": None, "labels": None},
        {"gender": "robot"},
        {"labels": {"loudness": "x"}},
    ]
    found = manifest(tmp_path, *rows, {"gender": "robot"})
    values = {"gender": ["male", "female"], "labels.loudness": ["quiet"], "labels.mood": ["calm"]}
    with pytest.raises(ValueError, match=r"m\.arrow: values that are not listed") as error:
        check_labels(found, AttributeLabels(values))
    assert error.value.entries == [
        "clip 'clip2': gender is 'robot', none of ['male', 'female']",
        "clip 'clip3': labels.loudness is 'x', none of ['quiet']",
    ]
    values |= {"gender": ["female", "robot"], "labels.loudness": ["quiet", "x"]}
    check_labels(found, AttributeLabels(values))
    check_labels(found, AttributeLabels({"gender": {"female": "f"}}))  # others are unlabeled
    for column in ("gendre", "labels", "gender.x"):
        with pytest.raises(ValueError, match=f"attribute '{column}': a manifest has no such"):
            check_labels(found, AttributeLabels({column: ["x"]}))


def test_no_captions_are_no_problem():
    check_lengths([], tokenizer, MOST, "nothing")


def test_clips_that_a_tower_does_not_take_are_named_unless_they_are_left_out(tmp_path):
    seconds = {"a": 1.0, "b": 30.0, "c": 30.00001, "d": 30.1, "e": 31.0}
    rows = [{"id": k, "audio": "x.wav", "duration": v} for k, v in seconds.items()]
    write_manifest(tmp_path / "t.arrow", rows)
    manifest = Manifest(tmp_path / "t.arrow")
    with pytest.raises(ValueError, match=r"2 clips are .* the 30 s .*'d': 30.10 s; 'e': 31.00 s"):
        check_durations(manifest, 30.0)
    with pytest.raises(ValueError, match="1 clips are"):
        check_durations(manifest, 30.0, longest=30.5)
    check_durations(manifest, 30.0, longest=30.0)
    check_durations(manifest, math.inf)
    tower = PretrainedSpeechTower(speech_encoder_config("whisper"))
    assert tower.max_seconds == 2 and SpeechTower.max_seconds == math.inf
