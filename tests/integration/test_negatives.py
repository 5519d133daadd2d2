"""Positives and negatives on their way from the policy to the loss."""

import pytest
import torch

from speechbrain_clsp.captions.policies import (
    OneFineCaption,
    Texts,
    TwoCaptions,
    WithHardNegatives,
)
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset, Collate
from speechbrain_clsp.nnet.losses import contrastive_loss, hard_negative_loss
from speechbrain_clsp.training.loss import CLSPLoss
from speechbrain_clsp.training.step_log import chance_level_loss
from tests.utils.buzzes import new_brain, write_buzzes

POLICIES = {1: OneFineCaption(), 2: TwoCaptions(1.0)}  # by number of positives


def swap(caption, generator, row):
    """Change captions of moderate pitches; the others stay as they are."""
    return caption if "very" in row["id"] else f"Never: {caption}"


def read_batch(policy, manifest, brain):
    """Return all clips of a manifest as a batch."""
    tokenizer = brain.hparams.tokenizer
    tokenizer.load(f"{manifest[0]['audio'].rsplit('/', 1)[0]}/t.model")
    dataset = CaptionedSpeechDataset(manifest, policy)
    return Collate(tokenizer)([dataset[i] for i in range(len(dataset))])


@pytest.mark.parametrize("chunk_seconds", [None, 1.5])
@pytest.mark.parametrize("n_negatives", [0, 1, 2])
@pytest.mark.parametrize("n_positives", POLICIES)
def test_negatives_are_never_trained_on_as_positives(
    tmp_path, n_positives, n_negatives, chunk_seconds
):
    manifest = write_buzzes(tmp_path)
    loss = CLSPLoss(hard_negative_weight=0.3)
    brain = new_brain(1, options={"loss": loss, "gradcache_chunk_seconds": chunk_seconds})
    policy = WithHardNegatives(POLICIES[n_positives], swap, n_negatives)
    batch = read_batch(policy, manifest, brain)

    brain.modules.eval()  # without dropout, so that both passes see the same embeddings
    with torch.no_grad():
        outputs = brain.compute_forward(batch, None)
    speech, text, scale = outputs["speech"], outputs["text"], brain.modules.logit_scale().detach()
    swapped = torch.tensor(["very" not in name for name in batch.ids])
    expected = contrastive_loss(speech, text[:n_positives], scale)
    for number, negative in enumerate(text[n_positives:]):
        positive = text[number % n_positives]
        hard = hard_negative_loss(speech, positive, negative, scale, swapped)
        expected = expected + 0.3 / n_negatives * hard

    brain.on_fit_start()
    brain.on_stage_start(None)
    brain.nonfinite_count = 0
    assert len(text) == n_positives + n_negatives and swapped.sum() == 4
    assert brain.fit_batch(batch).item() == pytest.approx(expected.item(), abs=1e-5)
    assert brain.chance_levels == [chance_level_loss(8, n_positives)]


@pytest.mark.parametrize("n_negatives", [0, 1, 2])
@pytest.mark.parametrize("n_positives", POLICIES)
def test_chunks_of_a_batch_keep_positives_and_negatives_apart(tmp_path, n_positives, n_negatives):
    policy = WithHardNegatives(POLICIES[n_positives], swap, n_negatives)
    batch = read_batch(policy, write_buzzes(tmp_path), new_brain(epochs=1))
    swapped = torch.tensor(["very" not in name for name in batch.ids])
    assert torch.equal(batch.negatives_differ(), swapped.expand(n_negatives, 8))
    chunks = batch.split(1.5)
    assert [len(chunk.ids) for chunk in chunks] == [3, 3, 2]
    assert {chunk.n_positives for chunk in (*chunks, batch.to("cpu"))} == {n_positives}
    differ = torch.cat([chunk.negatives_differ() for chunk in chunks], dim=1)
    assert torch.equal(differ, batch.negatives_differ())


def test_a_negative_that_is_another_positive_of_the_clip_is_left_out(tmp_path):
    brain, manifest = new_brain(epochs=1), write_buzzes(tmp_path)
    batch = read_batch(lambda *_: Texts(["low.", "loud."], ["loud.", "high."]), manifest, brain)
    assert batch.negatives_differ().tolist() == [[False] * 8, [True] * 8]


def test_clips_with_different_numbers_of_texts_are_named(tmp_path):
    brain, manifest = new_brain(epochs=1), write_buzzes(tmp_path)
    last = manifest[7]["id"]
    two = Texts(["a", "b"], ["c"])
    for texts in (Texts(["a"], ["b", "c"]), Texts(["a", "b"]), Texts(["a", "b", "c"], ["d"])):

        def uneven(row, generator, step, texts=texts):
            return texts if row["id"] == last else two

        with pytest.raises(ValueError, match=f"{last}.*2 and 1"):
            read_batch(uneven, manifest, brain)


@pytest.mark.parametrize("returned", [["a", "b"], ("a", "b"), "a", None])
def test_a_policy_that_returns_something_else_than_texts_is_refused(tmp_path, returned):
    def my_policy(row, generator, step):
        return returned

    manifest = write_buzzes(tmp_path)
    for policy in (my_policy, WithHardNegatives(my_policy, swap)):
        with pytest.raises(TypeError, match="very_low_quiet.*my_policy.*Texts"):
            CaptionedSpeechDataset(manifest, policy)[0]


def test_texts_without_a_positive_and_strings_are_refused():
    with pytest.raises(ValueError, match="at least one positive"):
        Texts([], ["a"])
    with pytest.raises(TypeError, match="not a string"):
        Texts("a")


def test_one_positive_leaves_no_pairs_for_the_loss_between_texts(tmp_path):
    manifest, losses = write_buzzes(tmp_path), []
    for text_weight in (0.0, 1.0):
        brain = new_brain(1, options={"loss": CLSPLoss(text_weight)})
        batch = read_batch(OneFineCaption(), manifest, brain)
        brain.on_fit_start()
        brain.on_stage_start(None)
        losses.append(brain.fit_batch(batch).item())
    assert losses[0] == losses[1]
