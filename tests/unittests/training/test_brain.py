"""A training that cannot learn anything ends, instead of leaving an untrained model."""

import pytest
import soundfile
import torch

from speechbrain_clsp.captions.policies import TwoCaptions, WithHardNegatives, evaluation_captions
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset, Collate
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.dataio.sampler import BucketBatchSampler
from speechbrain_clsp.evaluation.zero_shot import Task
from tests.utils.buzzes import fit, new_brain, write_buzzes


def train(folder, valid: Manifest, brain) -> None:
    """Fit on ``missing.arrow``, of which no clip is there, or some."""
    manifest = Manifest(folder / "missing.arrow")
    collate = Collate(brain.hparams.tokenizer)
    brain.hparams.tokenizer.load(folder / "t.model")
    brain.fit(
        brain.epoch_counter,
        CaptionedSpeechDataset(manifest, TwoCaptions(), skip_unreadable=True),
        CaptionedSpeechDataset(valid, evaluation_captions),
        train_loader_kwargs={
            "batch_sampler": BucketBatchSampler(manifest.array("duration"), batch_size=4),
            "collate_fn": collate,
        },
        valid_loader_kwargs={"batch_size": 8, "collate_fn": collate},
    )


def test_an_epoch_without_a_readable_clip_is_an_error(tmp_path):
    valid = write_buzzes(tmp_path)
    rows = [{**row, "audio": f"/absent/{row['id']}.wav"} for row in valid]
    write_manifest(tmp_path / "missing.arrow", rows)
    with pytest.raises(ValueError, match="No step was taken in epoch 1: 8 clips could not be"):
        train(tmp_path, valid, new_brain(1))


def test_many_batches_without_a_readable_clip_end_with_that_reason(tmp_path):
    valid = write_buzzes(tmp_path)
    rows = [{**row, "id": f"{row['id']}{n}", "audio": "/absent"} for n in range(3) for row in valid]
    write_manifest(tmp_path / "missing.arrow", rows)
    with pytest.raises(ValueError, match=r"\(16 could not be read\).*log.txt names the clips"):
        train(tmp_path, valid, new_brain(1))


@pytest.mark.parametrize("metric", ["mean_r@1", "loss"])
def test_a_metric_by_which_no_epoch_can_be_picked_is_named(tmp_path, metric):
    """Checkpoints without the metric would be passed over, and the last one tested as the best."""
    manifest = write_buzzes(tmp_path)
    with pytest.raises(ValueError, match=f"ckpt_metric is '{metric}'.* take one of global_R@1, "):
        fit(new_brain(1, options={"ckpt_metric": metric}), manifest)


def test_a_negative_that_is_too_long_is_named_with_its_clip(tmp_path):
    manifest = write_buzzes(tmp_path)
    brain = new_brain(1)
    brain.modules["text_tower"].max_tokens = 60

    def swap(text, generator, row):
        return f"{text} {'very ' * 60 * (row['id'] == 'low_loud')}"

    with pytest.raises(ValueError, match=r"Clip 'low_loud': its negative text number 2 has \d+ to"):
        fit(brain, manifest, captions=WithHardNegatives(TwoCaptions(), swap))


def test_an_epoch_with_one_readable_batch_is_none(tmp_path):
    valid = write_buzzes(tmp_path)
    rows = [{**row, "audio": row["audio"] if i < 5 else "/absent"} for i, row in enumerate(valid)]
    write_manifest(tmp_path / "missing.arrow", rows)
    brain = new_brain(1)
    train(tmp_path, valid, brain)
    assert brain.n_unreadable == 3 and brain.optimizer_step > 0


def test_equal_captions_are_one_item_when_an_epoch_is_judged(tmp_path):
    brain, eye = new_brain(1), torch.eye(3)
    brain.embeddings["speech"] = [eye[[0, 1]], eye[[0, 1]]]
    brain.embeddings["text"] = [eye[[0, 1]].expand(2, 2, 3), eye[[0, 1]].expand(2, 2, 3)]
    brain.caption_ids = [torch.tensor([[7, 8], [7, 8]]), torch.tensor([[7, 8], [1, 2]])]
    found = brain._retrieval()
    # As fine captions they are different though alike: either copy stands above the other.
    assert found == {"global_R@1": 1.0, "fine_R@1": 0.0, "mean_R@1": 0.5}


def test_classes_by_prompts_help_to_judge_an_epoch(tmp_path):
    manifest = write_buzzes(tmp_path)
    loud = Task("loudness", "labels.loudness", {"quiet": ["quiet"], "loud": ["loud"]})
    with pytest.raises(ValueError, match="need a tokenizer"):
        new_brain(1, options={"tasks": [loud]})
    brain = new_brain(1)
    brain.hparams.tokenizer.load(tmp_path / "t.model")
    brain.tasks, brain.tokenizer = [loud, loud], brain.hparams.tokenizer
    brain.modules.eval()
    quiet, loud_ = brain.modules["text_tower"](*brain.tokenizer(["quiet", "loud"])).detach()
    brain.embeddings["speech"] = [torch.stack([quiet, loud_, loud_, quiet])]
    brain.labels = [torch.tensor([[0, 1], [1, 0], [1, -1], [-1, 1]])]
    assert brain._zero_shot() == {"zero_shot_UAR": 0.5}  # all right in one task, none in the other
    brain.labels = [torch.full((4, 2), -1)]
    assert brain._zero_shot() == {}
    assert len(manifest) == 8


def test_augmented_clips_are_trained_on_and_others_validated_on(tmp_path):
    manifest, seen = write_buzzes(tmp_path), []

    def augmentation(wavs, wav_lens):
        seen.append(wavs.shape)
        return wavs[:, : wavs.shape[1] // 2], wav_lens

    lengths = []
    brain = new_brain(1, options={"augmentation": augmentation})
    tower = brain.modules["speech_tower"]
    tower.register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[0].shape[1]))
    fit(brain, manifest)
    assert seen == [torch.Size([8, 8000])] and lengths == [4000, 8000]


def test_a_frozen_speech_tower_embeds_each_training_clip_once(tmp_path):
    manifest, n_clips = write_buzzes(tmp_path), []
    brain = new_brain(3)
    tower = brain.modules["speech_tower"].requires_grad_(False)
    tower.frozen = True
    tower.register_forward_pre_hook(lambda module, inputs: n_clips.append(len(inputs[0])))
    fit(brain, manifest)
    assert n_clips == [8, *3 * [8]]  # trained on once, validated on in each epoch
    assert set(brain.embedded_clips) == set(manifest.column("id"))
    for row in manifest:
        wav = torch.from_numpy(soundfile.read(row["audio"], dtype="float32")[0])
        found = brain.embedded_clips[row["id"]]
        torch.testing.assert_close(found, tower(wav[None])[0], atol=1e-4, rtol=0)
