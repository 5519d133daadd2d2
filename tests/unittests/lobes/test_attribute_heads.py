"""Labels of attributes, and the classifiers that learn them beside the contrastive loss."""

import pytest
import torch

from speechbrain_clsp.captions.policies import TwoCaptions
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset, Collate
from speechbrain_clsp.dataio.labels import AttributeLabels
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.lobes.attribute_heads import AttributeHeads
from tests.utils.small import tone, write

VALUES = {"gender": ["male", "female"], "labels.mood": ["sad", "glad", "mad"]}
LABELS = AttributeLabels(VALUES)


def test_labels_reach_the_batch_beside_their_clip(tmp_path):
    """If this fails, a clip is trained towards another clip's attributes."""
    rows = []
    for name, gender, labels in (("a", "female", {}), ("b", None, {"mood": "mad"})):
        write(tmp_path / f"{name}.wav", tone(0.2))
        row = {"id": name, "audio": f"{name}.wav", "duration": 0.2, "gender": gender}
        rows.append(row | {"labels": labels, "global_captions": ["G"], "fine_captions": ["F"]})
    write_manifest(tmp_path / "train.arrow", rows)
    dataset = CaptionedSpeechDataset(
        Manifest(tmp_path / "train.arrow"), TwoCaptions(), labels=LABELS
    )
    collate = Collate(lambda texts: (torch.ones(len(texts), 1), torch.zeros(len(texts), 1)))
    batch = collate([dataset[1], dataset[0]])
    assert batch.ids == ["b", "a"]
    assert batch.labels.tolist() == [[-1, 2], [1, -1]]
    dataset.labels = None
    assert collate([dataset[0]]).labels.shape == (1, 0)


def test_an_unknown_value_is_named():
    """If this fails, a typo in a manifest becomes a wrong class, or an unexplained crash."""
    with pytest.raises(ValueError, match="'x'.*labels.mood is 'bored', none of"):
        LABELS({"id": "x", "gender": None, "labels": {"mood": "bored"}})


def test_heads_sum_the_cross_entropy_of_labelled_clips():
    """If this fails, unlabelled clips or other attributes leak into the loss."""
    torch.manual_seed(0)
    heads = AttributeHeads(8, VALUES).double()
    speech = torch.nn.functional.normalize(torch.randn(4, 8, dtype=torch.float64), dim=-1)
    labels = torch.tensor([[0, 2], [1, -1], [-1, 0], [-1, -1]])
    expected = 0.0
    for attribute, head in enumerate(heads.heads):
        for clip, label in enumerate(labels[:, attribute].tolist()):
            if label >= 0:
                logits = head.weight @ speech[clip] * 8**0.5 + head.bias
                expected -= logits.log_softmax(0)[label] / len(speech)
    torch.testing.assert_close(heads(speech, labels), expected.float())
    halves = (heads(speech[:2], labels[:2]) + heads(speech[2:], labels[2:])) / 2
    torch.testing.assert_close(halves, expected.float())  # what two processes average to
    none = torch.full((4, 2), -1)
    assert heads(speech, none) == 0 and heads(speech, none).requires_grad
