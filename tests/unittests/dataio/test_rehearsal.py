"""Old clips in batches of new ones."""

import numpy as np
import pytest

from speechbrain_clsp.captions.policies import TwoCaptions
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset, Collate
from speechbrain_clsp.dataio.labels import AttributeLabels
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.dataio.rehearsal import MixedBatchSampler, Rehearsal
from speechbrain_clsp.dataio.sampler import BucketBatchSampler
from speechbrain_clsp.dataio.tokenizers import SentencePieceCaptions
from tests.utils.buzzes import write_buzzes
from tests.utils.small import tone, write


@pytest.fixture
def mixed(tmp_path):
    """Return eight old buzzes in batches with six new clips of two labeled moods."""
    old = write_buzzes(tmp_path)
    rows = []
    for number in range(6):
        write(tmp_path / f"{number}.wav", tone(0.4, frequency=90 + 20 * number))
        mood = ["sad", "glad"][number % 2]
        captions = {"global_captions": [mood], "fine_captions": [f"It is {mood}."]}
        row = {"id": f"new{number}", "audio": f"{number}.wav", "duration": 0.4, **captions}
        rows.append({**row, "labels": {"mood": mood}})
    write_manifest(tmp_path / "new.arrow", rows)
    new = Manifest(tmp_path / "new.arrow")
    labels = AttributeLabels({"labels.mood": ["sad", "glad"]})
    dataset = CaptionedSpeechDataset(new, TwoCaptions(), labels=labels)
    sampler = BucketBatchSampler(new.array("duration"), batch_size=3)
    return Rehearsal(old.path, fraction=0.4).mix(dataset, sampler)


def test_each_batch_has_its_fraction_of_old_clips_without_labels(mixed, tmp_path):
    """If this fails, old knowledge is not rehearsed, or is taught wrong labels."""
    dataset, sampler = mixed
    collate = Collate(SentencePieceCaptions(tmp_path / "t.model"))
    for keys in sampler:
        batch = collate([dataset[key] for key in keys])
        is_new = np.array([name.startswith("new") for name in batch.ids])
        assert is_new.tolist() == [True] * 3 + [False] * 2
        assert (batch.labels[:3] >= 0).all() and (batch.labels[3:] == -1).all()
        assert batch.n_old == 2 and [batch.select(*part).n_old for part in ((0, 3), (2, 4))] == [
            0,
            1,
        ]
        assert len({key.step for key in keys}) == 1


def test_an_epoch_has_every_new_clip_once_and_other_old_clips_than_the_last(mixed):
    """If this fails, most of the old data is never rehearsed."""
    dataset, sampler = mixed
    epochs = []
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == 2
        indices = [key.index for batch in batches for key in batch]
        assert sorted(index for index in indices if index < 6) == list(range(6))
        assert max(indices) < len(dataset)
        epochs.append([index for index in indices if index >= 6])
        assert [key.index for batch in sampler for key in batch] == indices
    assert epochs[0] != epochs[1] and len(set(epochs[0])) == 4


def test_few_old_clips_are_taken_several_times():
    """If this fails, batches end when old clips do."""
    new = BucketBatchSampler([1.0] * 20, batch_size=2)
    sampler = MixedBatchSampler(new, BucketBatchSampler([1.0] * 4, batch_size=2))
    assert [len(batch) for batch in sampler] == [4] * 10


def test_fewer_old_clips_than_a_batch_takes_are_all_in_each(tmp_path):
    """If this fails, a few clips cannot be rehearsed, or the error is about the new ones."""
    manifest = write_buzzes(tmp_path)
    dataset = CaptionedSpeechDataset(manifest, TwoCaptions(0.5), 0)
    sampler = BucketBatchSampler([1.0] * 20, batch_size=20)
    _, mixed = Rehearsal(manifest.path).mix(dataset, sampler)
    assert [len(batch) for batch in mixed] == [20 + len(manifest)]
    with pytest.raises(ValueError, match="train.arrow: 0 clips last at most 0.01 s"):
        Rehearsal(manifest.path, longest=0.01).mix(dataset, sampler)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_a_batch_of_one_kind_only_is_refused(tmp_path, fraction):
    """If this fails, fraction=50 or 0 trains on something else than was meant."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        Rehearsal(write_buzzes(tmp_path).path, fraction)
