"""Attributes told by zero-shot classification: the gate of a reward and of a ranking."""

import numpy as np
import pytest
import torch

from speechbrain_clsp import CLSP, StyleReward
from speechbrain_clsp.inference.attributes import read_attributes
from tests.utils.small import CAPTIONS, model_folder, tone


@pytest.fixture(scope="module")
def clsp(tmp_path_factory):
    return CLSP.from_hparams(model_folder(tmp_path_factory.mktemp("model")))


@pytest.fixture
def wavs():
    return torch.stack([torch.from_numpy(tone(0.6, frequency=f)) for f in (90, 150, 220)])


def test_prompts_of_the_package_can_be_classes(clsp, wavs):
    for prompts in read_attributes().values():
        assert len(clsp.classify_batch(wavs, prompts=prompts)[3]) == 3


def test_a_required_attribute_gates_rewards_and_rankings_as_the_classifier_says(clsp, wavs):
    speech = clsp.encode_batch(wavs)
    # Prompts of which one is nearest to the first two clips, whatever this untrained model hears.
    nearest = [clsp.classify_batch(wavs, prompts=p)[3] for p in read_attributes().values()]
    for name, labels in zip(read_attributes(), nearest):
        wanted = labels[0]
        passes = clsp.has_attributes(speech, {name: wanted})
        assert passes.tolist() == [label == wanted for label in labels]
        found = StyleReward(clsp, require={name: wanted}).explain(wavs, CAPTIONS)
        assert found.passed[name].tolist() == passes.tolist()
        for row, label in enumerate(labels):
            if label == wanted:
                assert found.total[row] == found.parts["cosine"][row] and not found.reasons[row]
            else:
                assert found.total[row] == -1.0
                assert found.reasons[row] == f"its {name} is {label}, not {wanted}"
        other = next(value for value in read_attributes()[name] if value not in labels[:1])
        assert not clsp.has_attributes(speech[:1], {name: other}).any()


def test_own_attributes_decide_by_their_prompts(clsp, wavs):
    own = {"voice": {"x": CAPTIONS[0], "y": CAPTIONS[1:]}}
    labels = clsp.classify_batch(wavs, prompts=own["voice"])[3]
    found = StyleReward(clsp, require={"voice": "x"}, attributes=own).explain(wavs, CAPTIONS)
    assert found.passed["voice"].tolist() == [label == "x" for label in labels]


def test_unknown_attributes_and_values_are_named(clsp, wavs):
    for require, word in (
        ({"sex": "female"}, "'sex' is none of"),
        ({"gender": "woman"}, "must be one of .'female', 'male'., not 'woman'"),
    ):
        with pytest.raises(ValueError, match=word):
            StyleReward(clsp, require=require)
        with pytest.raises(ValueError, match=word):
            clsp.has_attributes(clsp.encode_batch(wavs), require)
    with pytest.raises(TypeError, match="must be a dict"):
        StyleReward(clsp, require="female")


@pytest.mark.parametrize("scaling", ["cosine", "margin", "group"])
def test_a_bad_caption_costs_its_own_clip_only(clsp, wavs, scaling):
    captions = [CAPTIONS[0], "", CAPTIONS[2], float("nan"), "slowly " * 400, CAPTIONS[0]]
    wavs = torch.cat([wavs, wavs])
    with pytest.raises((TypeError, ValueError)):
        StyleReward(clsp, scaling)(wavs, captions)
    reward = StyleReward(clsp, scaling, on_caption="veto")
    found = reward.explain(wavs, captions)
    good = [0, 2, 5]
    expected = reward.explain(wavs[good], [captions[n] for n in good])
    torch.testing.assert_close(found.total[good], expected.total, atol=1e-3, rtol=0)
    assert found.total[[1, 3, 4]].tolist() == [-1.0] * 3
    for row, word in ((1, "empty"), (3, "nan, a float"), (4, "tokens")):
        assert "caption cannot be used" in found.reasons[row] and word in found.reasons[row]
        assert found.parts["cosine"][row].isnan()
    assert [bool(reason) for reason in found.reasons] == [n in (1, 3, 4) for n in range(6)]


def test_a_caption_without_an_attribute_is_vetoed_for_margin(clsp, wavs):
    captions = [CAPTIONS[0], "speech", CAPTIONS[1]]
    found = StyleReward(clsp, "margin", on_caption="veto").explain(wavs, captions)
    assert [bool(reason) for reason in found.reasons] == [False, True, False]
    assert "can be swapped" in found.reasons[1]
    assert not any(StyleReward(clsp, on_caption="veto").explain(wavs, captions).reasons)
    with pytest.raises(ValueError, match="No caption can be used; the first: "):
        StyleReward(clsp, on_caption="veto")(wavs, ["", "", ""])
    with pytest.raises(ValueError, match="on_caption must be"):
        StyleReward(clsp, on_caption="skip")


def test_percentiles_rank_a_score_among_the_background(clsp, wavs):
    with pytest.raises(ValueError, match="no background"):
        clsp.percentile(torch.zeros(3), CAPTIONS)
    speech = clsp.encode_batch(wavs)
    clsp.set_background(speech)
    scores = clsp.score_batch(wavs, CAPTIONS)
    found = clsp.percentile(scores, CAPTIONS)
    assert found.shape == (3, 3)
    for column in range(3):
        order = scores[:, column].argsort()
        assert found[order, column].tolist() == pytest.approx([100 / 6, 50, 500 / 6], abs=1e-3)
    assert clsp.percentile(torch.full((3,), 1.1), CAPTIONS).tolist() == [100.0] * 3
    assert clsp.percentile(torch.full((2, 4, 3), -1.1), CAPTIONS).max() == 0.0
    for bad, word in (
        (speech[0], r"\[M, 32\]"),
        (torch.zeros(2, 7), r"\[2, 7\]"),
        (speech * torch.nan, "NaN"),
    ):
        with pytest.raises(ValueError, match=word):
            clsp.set_background(bad)
    with pytest.raises(ValueError, match="2 captions for scores"):
        clsp.percentile(scores, CAPTIONS[:2])
    one = scores[0].detach()
    for given in (one.tolist(), one.numpy()):
        assert torch.allclose(clsp.percentile(given, CAPTIONS), clsp.percentile(one, CAPTIONS))
    for wrong in (0.3, [], [0.1, 0.2]):
        with pytest.raises(ValueError, match="3 captions for scores of shape"):
            clsp.percentile(wrong, CAPTIONS)
    unknown = clsp.percentile([float("nan"), 1.1, -1.1], CAPTIONS).tolist()
    assert np.isnan(unknown[0]) and unknown[1:] == [100.0, 0.0]  # not "higher than 0 %"
