"""A step of the Brain on several processes is the step of one process on the joined batch."""

import math

import pytest
import speechbrain as sb
import torch
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_clsp.dataio.dataset import CaptionedSpeech
from speechbrain_clsp.lobes.attribute_heads import AttributeHeads
from speechbrain_clsp.nnet.logit_scale import LogitScale
from speechbrain_clsp.nnet.schedulers import Eden
from speechbrain_clsp.training.brain import ContrastiveBrain
from speechbrain_clsp.training.loss import CLSPLoss
from tests.utils.processes import run_processes

N_CLIPS, SAMPLES = 12, 10
METHODS = {
    "plain": {},
    "tiled": {"tile": 2},
    "gradcache": {"gradcache_chunk_seconds": 2 * SAMPLES / 16000},
    "gradcache and tiles": {"tile": 3, "gradcache_chunk_seconds": 2 * SAMPLES / 16000},
}
N_TEXTS = {  # positives, negatives
    "one positive": (1, 0),
    "two positives": (2, 0),
    "two positives, one negative": (2, 1),
    "one positive, two negatives": (1, 2),
}
VARIANTS = [(method, texts) for method in METHODS for texts in N_TEXTS]


class Tower(torch.nn.Module):
    """A linear map onto the unit sphere."""

    max_tokens = 8

    def __init__(self, size: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(size, 6)

    def forward(self, x, _):
        """Embed."""
        return torch.nn.functional.normalize(self.head(x), dim=-1)

    def embed_as_before(self, x, _):
        """Embed, as a tower would have done that had other weights."""
        return torch.nn.functional.normalize(x[:, :6], dim=-1)


def joined_batch(n_positives: int, n_negatives: int = 0) -> CaptionedSpeech:
    """Return twelve clips, two of which share a caption."""
    draw = torch.Generator().manual_seed(4)
    n_texts = n_positives + n_negatives
    ids = torch.arange(n_texts * N_CLIPS).view(n_texts, N_CLIPS)
    ids[0, 1] = ids[0, 7]
    return CaptionedSpeech(
        [str(i) for i in range(N_CLIPS)],
        torch.randn(N_CLIPS, SAMPLES, generator=draw, dtype=torch.float64),
        torch.ones(N_CLIPS),
        torch.randn(n_texts * N_CLIPS, 8, generator=draw, dtype=torch.float64),
        torch.zeros(n_texts * N_CLIPS, 8, dtype=torch.bool),
        torch.randint(-1, 3, (N_CLIPS, 1), generator=draw),
        ids,
        n_positives,
        prompts=torch.randn(3, 8, generator=draw, dtype=torch.float64),
        prompts_padding_mask=torch.zeros(3, 8, dtype=torch.bool),
        n_values=[3],
        n_old=2,
    )


def clips_of(batch: CaptionedSpeech, start: int, end: int) -> CaptionedSpeech:
    """Cut a part out of a batch, possibly an empty one."""
    return CaptionedSpeech.empty() if start == end else batch.select(start, end)


def bounds(rank: int, world_size: int) -> tuple[int, int]:
    """Shares of unequal size: 3 + 9 clips, or 1 + 4 + 1 + 6."""
    edges = {1: [0, 12], 2: [0, 3, 12], 4: [0, 1, 5, 6, 12]}[world_size]
    return edges[rank], edges[rank + 1]


def new_brain(distributed: bool, **options) -> ContrastiveBrain:
    """Return a Brain in float64 whose optimizer moves parameters by their gradients."""
    torch.manual_seed(3)
    heads = AttributeHeads(6, {"gender": ["male", "female", "other"]})
    modules = {
        "speech_tower": Tower(SAMPLES).double(),
        "text_tower": Tower(8).double(),
        "logit_scale": LogitScale().double(),
        "attribute_heads": heads.double(),
    }
    names = ("gradcache_chunk_seconds", "max_unreadable_clips")
    own = {name: options.pop(name) for name in names if name in options}
    # Heads compute in float32: powers of two add no rounding to theirs.
    weights = {"attribute_weight": 0.5, "caption_attribute_weight": 0.25}
    weights |= {"prompt_weight": 0.3, "hard_negative_weight": 0.2}
    loss = CLSPLoss(**weights, distillation_weight=0.4, **options)
    run_opts = {"device": "cpu", "max_grad_norm": 0, "nonfinite_patience": 2}
    if distributed:
        run_opts |= {"distributed_launch": True, "distributed_backend": "gloo"}
    brain = ContrastiveBrain(
        modules,
        lambda p: torch.optim.SGD(p, lr=1.0),
        run_opts=run_opts,
        loss=loss,
        lr_annealing=Eden(1e9, 1e9, warmup_batches=0),
        epoch_counter=EpochCounter(limit=1),
        **own,
    )
    brain.on_fit_start()
    brain.on_stage_start(None)
    brain.modules.train()
    brain.nonfinite_count = 0
    return brain


def one_step(variant, rank: int, world_size: int) -> dict[str, torch.Tensor]:
    """Return the loss and every parameter's gradient."""
    method, texts = variant
    options = {**METHODS[method], "mask_duplicates": True}
    options["text_weight"] = float(N_TEXTS[texts] != (1, 0))
    brain = new_brain(world_size > 1, **options)
    before = {name: p.detach().clone() for name, p in brain.modules.named_parameters()}
    loss = brain.fit_batch(clips_of(joined_batch(*N_TEXTS[texts]), *bounds(rank, world_size)))
    after = dict(brain.modules.named_parameters())
    result = {name.replace("module.", ""): before[name] - after[name].detach() for name in before}
    return {**result, "loss": loss}


def save_steps(rank: int, folder: str, world_size: int) -> None:
    """Do a step of every variant and keep what rank 0 has."""
    results = [one_step(variant, rank, world_size) for variant in VARIANTS]
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_gradients_equal_those_of_one_process_on_the_joined_batch(tmp_path, world_size):
    """If this fails, training on more GPUs, in tiles or in chunks is another training."""
    if world_size == 1:
        results = [one_step(variant, 0, 1) for variant in VARIANTS]
    else:
        run_processes(save_steps, world_size, tmp_path, world_size)
        results = torch.load(tmp_path / "results.pt", weights_only=True)
    for variant, result in zip(VARIANTS, results, strict=True):
        expected = one_step(("plain", variant[1]), 0, 1)
        assert result.keys() == expected.keys() and len(result) == 8
        for name, value in expected.items():
            assert value.abs().max() > 1e-6, name
            torch.testing.assert_close(
                result[name], value, atol=1e-10, rtol=0, msg=f"{variant}: {name}"
            )


def test_old_clips_and_their_texts_are_held_where_the_base_has_them():
    """If this fails, rehearsal holds nothing, or new clips too."""
    brain, batch = new_brain(False), joined_batch(2, 1)
    outputs = brain.compute_forward(batch, sb.Stage.TRAIN)
    losses = []
    for brain.loss.distillation_weight in (0.0, 0.4):
        losses.append(brain.compute_objectives(outputs, batch, sb.Stage.TRAIN))
    normalize = torch.nn.functional.normalize
    tokens = batch.tokens.view(3, N_CLIPS, 8)[:, -2:]
    of_speech = 1 - (outputs["speech"][-2:] * normalize(batch.wavs[-2:, :6], dim=-1)).sum(-1)
    of_text = 1 - (outputs["text"][:, -2:] * normalize(tokens[..., :6], dim=-1)).sum(-1)
    expected = 0.4 * (of_speech.mean() + of_text.mean()) * 2 / N_CLIPS
    assert expected > 0.01
    torch.testing.assert_close(losses[1] - losses[0], expected)


def save_steps_with_an_error(rank: int, folder: str) -> None:
    """As `save_steps`, with gradients of 1/W as a plain gather gives them."""
    from speechbrain_clsp.training import loss

    gather = loss.gather_embeddings
    loss.gather_embeddings = lambda *args: gather(*args).detach()
    save_steps(rank, folder, 2)


def test_a_gather_without_gradients_would_be_noticed(tmp_path):
    """If this fails, the test above has no teeth."""
    run_processes(save_steps_with_an_error, 2, tmp_path)
    for variant, result in zip(VARIANTS, torch.load(tmp_path / "results.pt", weights_only=True)):
        expected = one_step(("plain", variant[1]), 0, 1)
        name = "speech_tower.head.weight"
        assert (result[name] - expected[name]).abs().max() > 1e-3


def train_through_trouble(rank: int, folder: str, chunk_seconds: float | None) -> None:
    """Do steps of which some are bad on one rank only; keep losses and weights."""
    brain = new_brain(True, gradcache_chunk_seconds=chunk_seconds, max_unreadable_clips=2)
    batch = joined_batch(2)
    good = clips_of(batch, 6 * rank, 6 * rank + 6)
    none = clips_of(batch, 0, 6 * (1 - rank))  # rank 1 has no clip
    broken = clips_of(batch, 6 * rank, 6 * rank + 6)
    if rank == 0:
        broken.wavs = broken.wavs.index_fill(1, torch.tensor([3]), math.nan)
    losses = [brain.fit_batch(each).item() for each in (good, none, broken, good)]
    errors = []
    try:
        brain.fit_batch(none)
    except RuntimeError as error:
        errors.append(str(error))
    good.unreadable = ["clip7: cannot be read"] * 3 if rank == 1 else []
    try:
        brain.fit_batch(good)
    except RuntimeError as error:
        errors.append(str(error))
    weights = {name: p.detach() for name, p in brain.modules.named_parameters()}
    torch.save((losses, errors, weights), f"{folder}/{rank}.pt")


@pytest.mark.parametrize("chunk_seconds", [None, 2 * SAMPLES / 16000])
def test_ranks_leave_out_bad_batches_together(tmp_path, chunk_seconds):
    """If this fails, one rank's NaN or missing clip leaves the others waiting, or poisons all."""
    run_processes(train_through_trouble, 2, tmp_path, chunk_seconds)
    (losses, errors, weights), (others, other_errors, other_weights) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert [math.isnan(loss) for loss in losses] == [False, True, True, False]
    assert losses[::3] == others[::3] and losses[0] > losses[3]
    assert len(errors) == len(other_errors) == 2
    assert "nonfinite_patience" in errors[0] and "3 clips could not be read" in errors[1]
    for name, value in weights.items():
        assert torch.equal(value, other_weights[name]) and value.isfinite().all()


def test_heads_classify_fine_captions_as_their_clips():
    """If this fails, short captions are blamed for what they do not say, or no caption is."""
    brain, batch = new_brain(False), joined_batch(2, 1)
    outputs = brain.compute_forward(batch, sb.Stage.TRAIN)
    losses = []
    for weight in (0.0, 0.25):
        brain.loss.caption_attribute_weight = weight
        losses.append(brain.compute_objectives(outputs, batch, sb.Stage.TRAIN))
    (head,) = brain.modules["attribute_heads"].heads
    logits = head(outputs["text"][1] * 6**0.5)
    classes = batch.labels[:, 0]
    expected = 0.25 * torch.nn.functional.cross_entropy(
        logits[classes >= 0], classes[classes >= 0], reduction="sum"
    )
    torch.testing.assert_close(losses[1] - losses[0], expected / N_CLIPS, check_dtype=False)
