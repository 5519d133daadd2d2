"""Losses against the published values and against plain float64 formulas."""

import math

import pytest
import torch

from speechbrain_clsp.nnet.losses import contrastive_loss, hard_negative_loss, prompt_loss
from tests.utils.reference import stored


def leaves(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Return copies that collect gradients."""
    return [x.detach().clone().requires_grad_() for x in tensors]


@pytest.mark.parametrize("name, n_texts", [("single", 1), ("multi", 2)])
def test_contrastive_loss_equals_the_published_one(name, n_texts):
    """If this fails, training optimizes something else than the published recipe."""
    reference = stored("losses")
    speech, text, scale = leaves(
        reference["speech"], reference["text"][: 6 * n_texts], reference["scale"]
    )
    loss = contrastive_loss(speech, text.view(n_texts, 6, 16), scale)
    loss.backward()
    torch.testing.assert_close(loss[None].flatten(), reference[f"{name}_loss"].flatten())
    for leaf, part in ((speech, "speech"), (text, "text"), (scale, "scale")):
        torch.testing.assert_close(leaf.grad, reference[f"{name}_grad_{part}"])


def test_hard_negative_loss_equals_the_published_one():
    """If this fails, perturbed captions push the towers with another force than published."""
    reference = stored("losses")
    speech, positive, negative, scale = leaves(
        reference["speech"], reference["text"][:6], reference["negative"], reference["scale"]
    )
    loss = hard_negative_loss(speech, positive, negative, scale)
    loss.backward()
    torch.testing.assert_close(loss[None].flatten(), reference["hard_loss"].flatten())
    for leaf, part in ((speech, "speech"), (negative, "negative"), (scale, "scale")):
        torch.testing.assert_close(leaf.grad, reference[f"hard_grad_{part}"])


def test_a_caption_that_could_not_be_swapped_pushes_nothing():
    """If this fails, a caption is pushed away from itself."""
    speech, text, scale = random_batch(2)
    speech, positive, negative = leaves(speech, *text)
    differs = torch.arange(13) % 3 > 0
    hard_negative_loss(speech, positive, negative, scale, differs).backward()
    assert (negative.grad.abs().sum(dim=1) > 0).tolist() == differs.tolist()
    everyone = hard_negative_loss(speech, positive, negative, scale, torch.ones(13) > 0)
    torch.testing.assert_close(everyone, hard_negative_loss(speech, positive, negative, scale))


def test_contrastive_loss_is_computed_in_float32_under_autocast():
    """If this fails, logits of up to 100 are rounded to bfloat16 and small margins vanish."""
    unit = torch.nn.functional.normalize(torch.randn(64, 32), dim=-1)
    expected = contrastive_loss(unit, unit[None], torch.tensor(100.0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(contrastive_loss(unit, unit[None], torch.tensor(100.0)), expected)


def test_misshapen_texts_are_refused():
    """If this fails, [B, K, D] in place of [K, B, D] would train on wrong pairs in silence."""
    with pytest.raises(ValueError, match=r"\[K, B, D\]"):
        contrastive_loss(torch.randn(4, 8), torch.randn(4, 2, 8), torch.tensor(1.0))


def random_batch(n_texts: int, n_clips: int = 13, dtype=torch.float64):
    """Return unit embeddings and a temperature."""
    draw = torch.Generator().manual_seed(n_texts)
    speech = torch.randn(n_clips, 16, generator=draw, dtype=dtype)
    text = torch.randn(n_texts, n_clips, 16, generator=draw, dtype=dtype)
    unit = torch.nn.functional.normalize
    return unit(speech, dim=-1), unit(text, dim=-1), torch.tensor([30.0], dtype=dtype)


@pytest.mark.parametrize("tile", [1, 4, 13, 100])
@pytest.mark.parametrize("n_texts", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_tiles_change_nothing(tile, n_texts, masked):
    """If this fails, large batches are trained with other gradients than small ones."""
    ids = torch.arange(n_texts * 13).view(n_texts, 13) % 9 if masked else None
    results = []
    for rows in (None, tile):
        speech, text, scale = leaves(*random_batch(n_texts))
        loss = contrastive_loss(speech, text, scale, rows, caption_ids=ids)
        (3 * loss).backward()
        results.append((loss.detach(), speech.grad, text.grad, scale.grad))
    for plain, tiled in zip(*results):
        torch.testing.assert_close(tiled, plain, atol=1e-12, rtol=0)


def test_a_loss_in_tiles_without_gradients_keeps_none():
    """If this fails, validation in tiles costs what training does."""
    speech, text, scale = random_batch(2)
    loss = contrastive_loss(speech, text, scale, tile=4)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, contrastive_loss(speech, text, scale))


def test_equal_captions_of_other_clips_are_no_negatives():
    """If this fails, a clip is pushed away from its own caption because another has it too."""
    speech, text, scale = random_batch(2, n_clips=4)
    ids = torch.tensor([[0, 1, 2, 0], [4, 5, 6, 7]])  # the first text of clips 0 and 3 is the same
    logits = scale * torch.einsum("bd,kcd->bkc", speech, text)
    logits[0, 0, 3] = logits[3, 0, 0] = -torch.inf
    rows = torch.arange(4)
    from_speech = -logits.flatten(1).log_softmax(1).view(4, 2, 4)[rows, :, rows].mean()
    columns = scale * torch.einsum("kbd,cd->kbc", text, speech)
    columns[0, 0, 3] = columns[0, 3, 0] = -torch.inf
    from_text = -columns.log_softmax(2)[:, rows, rows].mean()
    loss = contrastive_loss(speech, text, scale, caption_ids=ids)
    torch.testing.assert_close(loss, (from_speech + from_text) / 2)


def test_a_clip_with_one_caption_twice_keeps_both():
    """If this fails, a clip's own repeated caption is masked out of its positives."""
    speech, text, scale = random_batch(2, n_clips=4)
    text[1] = text[0]
    ids = torch.arange(4).repeat(2, 1)
    loss = contrastive_loss(speech, text, scale, caption_ids=ids)
    torch.testing.assert_close(loss, contrastive_loss(speech, text, scale))


@pytest.mark.parametrize("arguments", [{"offset": 9}, {"all_text": torch.ones(2, 5, 8)}])
def test_columns_that_do_not_fit_are_refused(arguments):
    """If this fails, a wrong rank offset trains on wrong pairs in silence."""
    speech = torch.ones(4, 8)
    with pytest.raises(ValueError, match="offset"):
        contrastive_loss(speech, speech[None], torch.tensor(1.0), **arguments)
    with pytest.raises(ValueError, match="tile"):
        contrastive_loss(speech, speech[None], torch.tensor(1.0), tile=0)


def test_prompt_loss_equals_a_computation_in_float64():
    speech, prompts, scale = unit_rows(5, 4, seed=1), unit_rows(7, 4, seed=2), 9.0
    labels = torch.tensor([[0, 3, 1], [1, -1, 0], [-1, 0, -1], [2, 2, 2], [0, 1, 0]])
    expected = 0.0
    for attribute, (start, end) in {0: (0, 3), 1: (3, 7)}.items():
        for x, label in zip(speech.double(), labels[:, attribute]):
            if label >= 0:
                likelihoods = torch.softmax(scale * prompts[start:end].double() @ x, dim=0)
                expected -= math.log(likelihoods[label]) / 5
    # The third attribute has no prompts.
    found = prompt_loss(speech, prompts, [3, 4, 0], labels, torch.tensor(scale))
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_clips_without_labels_add_nothing_to_the_prompt_loss():
    speech, prompts = leaves(unit_rows(2, 4, seed=1), unit_rows(3, 4, seed=2))
    loss = prompt_loss(speech, prompts, [3], torch.tensor([[-1], [-1]]), torch.tensor(9.0))
    loss.backward()
    assert loss == 0 and not speech.grad.any()


def unit_rows(*shape: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=draw), dim=-1)
