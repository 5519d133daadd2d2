"""No tensor is left on the CPU when a model works elsewhere."""

import pytest
import torch
from speechbrain import Stage
from torch.utils._pytree import tree_map_only

from speechbrain_clsp import CLSP
from speechbrain_clsp.captions.policies import TwoCaptions
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset, Collate
from speechbrain_clsp.evaluation.retrieval.metrics import retrieval_metrics
from speechbrain_clsp.inference.guards import LengthGuard, LevelGuard
from speechbrain_clsp.inference.reward import StyleReward
from speechbrain_clsp.lobes.text_tower import RobertaTextTower
from speechbrain_clsp.nnet.averaging import ModelAverage
from speechbrain_clsp.nnet.gradcache import GradCache
from speechbrain_clsp.nnet.losses import contrastive_loss, hard_negative_loss
from speechbrain_clsp.nnet.optim import ScaledAdam
from speechbrain_clsp.training.loss import CLSPLoss
from speechbrain_clsp.training.step_log import geometry
from tests.unittests.lobes.zipformer.test_regularizers import batch, make_all_act, tower
from tests.utils.buzzes import new_brain, write_buzzes
from tests.utils.pretend_device import pretended
from tests.utils.reference import tiny_speech_tower
from tests.utils.small import CAPTIONS, model_folder


@pytest.fixture
def device(monkeypatch):
    """Return a device whose tensors refuse those of the CPU."""
    with pretended(monkeypatch) as device:
        yield device


def unit(*shape: int) -> torch.Tensor:
    """Return random unit vectors."""
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1)


def test_the_pretended_device_refuses_the_cpu(device):
    """If this fails, the other tests here see nothing."""
    there = torch.arange(3, device=device)
    assert (there + 1).cpu().tolist() == [1, 2, 3]
    assert (there * torch.tensor(2)).device == device  # scalars may be anywhere, as on a GPU
    with pytest.raises(RuntimeError, match="on the CPU"):
        there + torch.arange(3)


def test_towers_give_the_same_embeddings_elsewhere(device):
    """If this fails, a tower makes a mask or a position where its input is not."""
    speech, text = tiny_speech_tower(), RobertaTextTower(40, 16, 1, 2, 32, joint_dim=8).eval()
    wavs, lengths = batch()
    tokens = torch.tensor([[0, 4, 5, 2], [0, 6, 2, 1]])
    with torch.no_grad():
        expected = speech(wavs, lengths), text(tokens, tokens == 1)
        wavs, lengths, tokens = (x.to(device) for x in (wavs, lengths, tokens))
        found = speech.to(device)(wavs, lengths), text.to(device)(tokens, tokens == 1)
    for one, other in zip(found, expected):
        assert one.device == device
        torch.testing.assert_close(one.cpu(), other)


def test_a_regularized_tower_trains_and_resumes_elsewhere(device):
    """If this fails, a training on a GPU ends at its first step, or after it was resumed."""
    small = tower().to(device)
    make_all_act(small)
    wavs, lengths = (x.to(device) for x in batch())
    optimizer = ScaledAdam(small.parameters(), lr=0.03, clipping_update_period=1)
    average = ModelAverage({"tower": small}, period=1)
    for step in range(2):
        optimizer.zero_grad()
        cache = GradCache(lambda part: (small(part, lengths[: len(part)]),))
        (embeddings,) = cache.encode(wavs.split(3))
        (embeddings @ embeddings.T).logsumexp(1).sum().backward()
        cache.backward()
        optimizer.step()
        average.update(step + 1)
    # SpeechBrain reads checkpoints on the CPU.
    saved = tree_map_only(torch.Tensor, lambda x: x.cpu(), optimizer.state_dict())
    optimizer.load_state_dict(saved)
    optimizer.step()
    group = optimizer.param_groups[0]
    assert group["recent_norms"].device == group["clipping_threshold"].device == device
    assert all(p.device == device for p in average.parameters())


@pytest.mark.parametrize("tile", [None, 4])
def test_losses_and_ranks_are_the_same_elsewhere(device, tile):
    """If this fails, targets or pairs are made where embeddings are not."""
    speech, text, scale = unit(6, 8), unit(2, 6, 8), torch.tensor([9.0])
    ids = torch.arange(12).view(2, 6) % 5

    def metrics_on(where: str | torch.device) -> list:
        leaves = [x.to(where).clone().requires_grad_() for x in (speech, text, scale)]
        loss = contrastive_loss(*leaves, tile, caption_ids=ids.to(where))
        loss = loss + hard_negative_loss(leaves[0], *leaves[1], leaves[2], (ids[0] > 0).to(where))
        loss.backward()
        metrics = retrieval_metrics(leaves[0].detach(), leaves[1][0].detach())
        shape = geometry(leaves[0].detach(), leaves[1][0].detach())
        return [loss.detach().cpu(), *(x.grad.cpu() for x in leaves), metrics, shape]

    torch.testing.assert_close(metrics_on(device), metrics_on("cpu"))


def test_the_brain_steps_elsewhere(device, tmp_path):
    """If this fails, part of a batch stays on the CPU while its towers are on a GPU."""
    manifest = write_buzzes(tmp_path)
    brain = new_brain(1, options={"loss": CLSPLoss(text_weight=1.0, mask_duplicates=True)})
    brain.hparams.tokenizer.load(tmp_path / "t.model")
    data = CaptionedSpeechDataset(manifest, TwoCaptions())
    joined = Collate(brain.hparams.tokenizer)([data[i] for i in range(8)])
    brain.epoch_counter.current = 1
    brain.device = device
    brain.modules.to(device)
    brain.init_optimizers()
    brain.on_stage_start(Stage.TRAIN, 1)
    for chunk in (None, 2.0):
        brain.gradcache_chunk_seconds = chunk
        assert brain.fit_batch(joined).isfinite()
    brain.on_stage_start(Stage.VALID, 1)
    brain.evaluate_batch(joined, Stage.VALID)
    assert brain._retrieval()["mean_R@1"] >= 0


@pytest.mark.parametrize("lengths_there", [False, True])
def test_rewards_have_gradients_elsewhere(device, tmp_path, lengths_there):
    """If this fails, a reward for a model on a GPU needs its waveforms on the CPU."""
    clsp = CLSP.from_hparams(model_folder(tmp_path), run_opts={"device": "cpu"})
    for module in clsp.mods.values():
        module.to(device)
    clsp.device = device
    reward = StyleReward(clsp, scaling="margin", guards=[LengthGuard(), LevelGuard()])
    wavs = (0.1 * torch.randn(3, 8000)).to(device).requires_grad_()
    lengths = torch.ones(3).to(device) if lengths_there else torch.ones(3)
    reward(wavs, CAPTIONS, lengths).sum().backward()
    assert wavs.grad.device == device and bool(wavs.grad.any())
