"""Losses against the published values and against plain float64 formulas; exactness over ranks."""

import pytest
import torch
import torch.distributed
from processes import run_processes
from reference import stored

from speechbrain_clsp.nnet.gather import gather_embeddings
from speechbrain_clsp.nnet.losses import contrastive_loss, hard_negative_loss


def leaves(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Return copies that collect gradients."""
    return [x.detach().clone().requires_grad_() for x in tensors]


@pytest.mark.parametrize("name, n_texts", [("single", 1), ("multi", 2)])
def test_contrastive_loss_equals_the_published_one(name, n_texts):
    """If this fails, training optimises something else than the published recipe."""
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


class Towers(torch.nn.Module):
    """Two linear maps onto the unit sphere and a temperature, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.speech = torch.nn.Linear(10, 6, dtype=torch.float64)
        self.text = torch.nn.Linear(8, 6, dtype=torch.float64)
        self.scale = torch.nn.Parameter(torch.tensor([10.0], dtype=torch.float64))

    def forward(self, speech, text):
        """Embed both sides."""
        unit = torch.nn.functional.normalize
        return unit(self.speech(speech), dim=-1), unit(self.text(text), dim=-1), self.scale * 1.0


def joined_batch(n_clips: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Return clips [N, 10] and texts [2, N, 8]."""
    generator = torch.Generator().manual_seed(4)
    options = dict(generator=generator, dtype=torch.float64)
    return torch.randn(n_clips, 10, **options), torch.randn(2, n_clips, 8, **options)


def rank_gradients(rank: int, folder: str, world_size: int, planted_error: bool) -> None:
    """Run one DDP step on a share of the joined batch and save loss and gradients."""
    towers = torch.nn.parallel.DistributedDataParallel(Towers())
    clips, texts = joined_batch()
    share = slice(rank * 8 // world_size, (rank + 1) * 8 // world_size)
    speech, text, scale = towers(clips[share], texts[:, share])
    all_speech, all_text = gather_embeddings(speech), gather_embeddings(text)
    if planted_error:  # what a gather without gradients gives
        all_speech, all_text = all_speech.detach(), all_text.detach()
    loss = contrastive_loss(speech, text, scale, all_speech, all_text, rank)
    loss.backward()
    torch.distributed.all_reduce(loss)
    gradients = {name: p.grad for name, p in towers.module.named_parameters()}
    if rank == 0:
        torch.save((loss.detach() / world_size, gradients), f"{folder}/result.pt")


def distributed_result(tmp_path, world_size: int, planted_error: bool = False):
    """Spawn real processes and return rank 0's averaged loss and gradients."""
    run_processes(rank_gradients, world_size, tmp_path, world_size, planted_error)
    return torch.load(tmp_path / "result.pt", weights_only=True)


def single_process_result():
    """Return loss and gradients of the joined batch in one process."""
    towers = Towers()
    speech, text, scale = towers(*joined_batch())
    loss = contrastive_loss(speech, text, scale)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in towers.named_parameters()}


@pytest.mark.parametrize("world_size", [2, 4])
def test_ddp_gradients_equal_those_of_one_process(tmp_path, world_size):
    """If this fails, the encoders' gradients shrink or change with the number of GPUs."""
    loss, gradients = distributed_result(tmp_path, world_size)
    expected_loss, expected = single_process_result()
    torch.testing.assert_close(loss, expected_loss, atol=1e-10, rtol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-10, rtol=0, msg=name)


def test_a_gather_without_gradients_would_be_noticed(tmp_path):
    """If this fails, the test above has no teeth."""
    _, gradients = distributed_result(tmp_path, 2, planted_error=True)
    _, expected = single_process_result()
    assert (gradients["speech.weight"] - expected["speech.weight"]).abs().max() > 1e-3
