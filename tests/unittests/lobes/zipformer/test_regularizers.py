"""Zipformer's training side: gradient rules, schedules, and what must not depend on them."""

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch

from speechbrain_clsp.lobes.speech_tower import SpeechTower
from speechbrain_clsp.lobes.zipformer.encoder import Zipformer2, ZipformerStack
from speechbrain_clsp.lobes.zipformer.regularization import FeatureMask, Regularization
from speechbrain_clsp.lobes.zipformer.regularizers import (
    Balancer,
    RangeLimiter,
    Whiten,
    _covariance,
)
from speechbrain_clsp.lobes.zipformer.schedule import Schedule, Scheduled, set_step
from speechbrain_clsp.nnet.gradcache import GradCache
from speechbrain_clsp.nnet.masking import padding_mask
from speechbrain_clsp.nnet.optim import ScaledAdam
from speechbrain_clsp.training.brain import ContrastiveBrain
from tests.unittests.lobes.test_speech_tower import padded, speech
from tests.utils.reference import stored, tiny_speech_tower

RULES = {
    "balancer_a": Balancer(0.45, 0.55, 0.2, 4.0, probability=1.0),
    "balancer_b": Balancer(0.3, 0.7, 1.0, 1.5, grad_scale=0.1, probability=1.0),
    "whiten_one": Whiten(2.0, grad_scale=0.01, groups=1, probability=1.0),
    "whiten_four": Whiten(1.5, grad_scale=0.025, groups=4, probability=1.0),
}
EVERYTHING = Regularization(balancing=2.0, whitening=2.0, unmasked_channels=16)
DROP_ALL = Regularization(
    position_drop=1.0,
    attention_drop=1.0,
    convolution_drop=1.0,
    feedforward_drop=1.0,
    frontend_drop=1.0,
    layer_drop=(1.0, 1.0),
    feature_mask=1.0,
    unmasked_channels=0,
)


def tower(regularization: Regularization | None = EVERYTHING, step: float = 2000.0) -> SpeechTower:
    """Return a small tower with stacks at two rates, in training."""
    torch.manual_seed(0)
    encoder = Zipformer2(
        [1, 2], [1, 2], [32, 48], [48, 64], [2, 2], [7, 7], regularization=regularization
    )
    small = SpeechTower(encoder, joint_dim=16, n_mels=40, frontend_channels=(2, 4, 8))
    set_step(small, step)
    return small.train()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return six padded clips and their lengths."""
    return padded([speech(0.5 + 0.1 * i, seed=i) for i in range(6)])


def gradient(module, x: torch.Tensor, grad: torch.Tensor, *mask) -> torch.Tensor:
    """Return what a module makes of a gradient; its forward pass must be the identity."""
    x = x.clone().requires_grad_()
    output = module(x, *mask)
    assert torch.equal(output, x)
    output.backward(grad)
    return x.grad


@pytest.mark.parametrize("name", RULES)
def test_gradients_equal_the_published_rules(name):
    """If this fails, published strengths and limits mean something else here."""
    reference = stored("regularisers")
    found = gradient(RULES[name], reference["x"], reference["grad"])
    torch.testing.assert_close(found, reference[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name, groups", [("one", 1), ("four", 4)])
def test_the_whitening_metric_equals_the_published_one(name, groups):
    """If this fails, whitening limits mean something else here."""
    reference = stored("regularisers")
    found = _covariance(reference["x"], groups, None)[2].view(1)
    torch.testing.assert_close(found, reference[f"whitening_metric_{name}"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_padding_has_no_part_in_statistics(name):
    """If this fails, what a clip does to the model depends on the clips beside it."""
    reference = {key: value.transpose(0, 1) for key, value in stored("regularisers").items()
                 if value.dim() == 3}  # fmt: skip
    x, grad = reference["x"], reference["grad"]
    padding = torch.nn.functional.pad
    mask = torch.arange(24).expand(3, 24) >= 19
    found = gradient(
        RULES[name], padding(x, (0, 0, 0, 5), value=9.0), padding(grad, (0, 0, 0, 5)), mask
    )
    torch.testing.assert_close(found[:, :19], reference[name], atol=1e-6, rtol=1e-5)
    assert not found[:, 19:].any()


def test_channels_may_be_the_second_axis():
    """If this fails, the front end balances mel bins instead of channels."""
    reference = stored("regularisers")
    images = [reference[key].permute(1, 2, 0)[..., None] for key in ("x", "grad", "balancer_b")]
    rule = copy.copy(RULES["balancer_b"])
    rule.dim = 1
    torch.testing.assert_close(gradient(rule, *images[:2]), images[2], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("x", [torch.zeros(5, 4), torch.full((5, 4), 3.0), torch.eye(4)[:1]])
def test_dead_channels_and_single_frames_give_finite_gradients(x):
    """If this fails, one channel without any variance ends a training."""
    for rule in RULES.values():
        assert gradient(rule, x, torch.ones_like(x)).isfinite().all()


def test_a_limit_turns_gradients_around_that_lead_out():
    """If this fails, bypass scales leave their range and layers stop learning."""
    values = torch.tensor([0.1, 0.1, 0.5, 0.5, 1.2, 1.2])
    grad = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    parameter = torch.nn.Parameter(values)
    RangeLimiter(0.2, 1.0, probability=1.0)(parameter).backward(grad)
    assert parameter.grad.tolist() == [-1.0, -1.0, 1.0, -1.0, 1.0, 1.0]


def test_out_of_training_every_module_returns_its_input_itself():
    """If this fails, regularization costs time in evaluation, or changes its results."""
    x = torch.randn(2, 5, 8, requires_grad=True)
    small = tower(DROP_ALL).eval()
    parts = [module for module in small.modules() if isinstance(module, Scheduled)]
    assert len(parts) > 50
    before = torch.get_rng_state()
    assert all(part(x) is x for part in parts)
    assert small.encoder.feature_mask.draw(x, [8]) == [None]
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_and_state_dict_are_those_of_an_unregularized_tower():
    """If this fails, published weights no longer fit, or embeddings depend on how one trained."""
    plain, full = tower(None).eval(), tower().eval()
    assert list(full.state_dict()) == list(plain.state_dict())
    full.load_state_dict(plain.state_dict())
    with torch.no_grad():
        assert torch.equal(full(*batch()), plain(*batch()))


def test_the_last_values_of_schedules_are_the_default():
    """If this fails, fine-tuning a trained encoder starts with half of its layers skipped."""
    rate = Schedule([(10, 0.5), (20, 0.1), (40, 0.0)])
    steps = (0, 10, 15, 20, 30, 40, 1e9)
    assert [round(rate(step), 6) for step in steps] == [0.5, 0.5, 0.3, 0.1, 0.05, 0.0, 0.0]
    assert rate() == 0.0
    assert Schedule(0.3)(5) == 0.3
    for wrong in ([], [(1, 0.0), (1, 1.0)]):
        with pytest.raises(ValueError, match="growing steps"):
            Schedule(wrong)
    steps = {m.step for m in tiny_speech_tower().modules() if isinstance(m, Scheduled)}
    assert {rate(step) for step in steps} == {0.0}


def test_layers_warm_up_one_after_the_other_and_slow_stacks_are_skipped_more():
    """If this fails, schedules of layer skipping are not the published ones."""
    rules = Regularization()
    assert rules.layer_drop_rates(0, 3, 1, 1) == [[(1000.0, 0.5), (2000.0, 0.035)]]
    second, third = rules.layer_drop_rates(2, 3, 2, 4)
    assert second == [(3000.0, 0.5), (3500.0, 0.07)]
    assert third == [(3500.0, 0.5), (4000.0, 0.07)]


def test_rates_are_what_happens():
    """If this fails, a rate of 0.2 skips something else than every fifth utterance."""
    torch.manual_seed(0)
    x = torch.ones(4000, 1, 40)
    small = tower(Regularization(attention_drop=0.2, dropout=0.3)).encoder.encoders[0].layers[0]
    assert abs(small.attention_drop.draw(x).float().mean() - 0.8) < 0.02
    dropped = small.feed_forward1.dropout(x)
    assert abs((dropped == 0).float().mean() - 0.3) < 0.01
    assert abs(dropped.mean() - 1.0) < 0.01
    (mask,) = FeatureMask(0.125, unmasked=20).draw(x, [40])
    lower, upper = mask[..., 20:30].mean(), mask[..., 30:].mean()
    assert mask[..., :20].all()
    assert abs(lower - 0.875) < 0.02 and abs(upper - 0.875**2) < 0.02
    assert (mask[..., 20] >= mask[..., 30]).all()


def test_the_same_random_state_gives_the_same_embeddings():
    """If this fails, a decision is drawn from another generator than torch's."""
    small, wavs = tower(), batch()
    state = torch.get_rng_state()
    first = small(*wavs)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    with torch.no_grad():  # GradCache's first pass
        second = small(*wavs)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(first, small(*wavs))  # or nothing was drawn at all


def test_the_same_random_state_gives_the_same_gradients():
    """If this fails, a Balancer, a Whiten or a limit acts by another generator than torch's."""
    found = []
    for seed in (1, 1, 2):
        small = tower()
        make_all_act(small, probability=0.5)
        torch.manual_seed(seed)
        small(*batch())[:, :3].sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in small.parameters()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("step", [0.0, 2000.0, float("inf")])
def test_gradcache_sees_the_same_decisions_in_both_passes(step):
    """If this fails, GradCache's gradients belong to other embeddings than its loss."""
    small, wavs = tower(step=step), batch()
    seen = []

    def encode(rows: torch.Tensor) -> tuple[torch.Tensor]:
        seen.append(small(wavs[0][rows], wavs[1][rows]))
        return (seen[-1],)

    cache = GradCache(encode)
    (embeddings,) = cache.encode(torch.arange(6).split(2))
    (embeddings @ embeddings.T).logsumexp(1).sum().backward()
    cache.backward()
    assert len(seen) == 6
    assert all(torch.equal(one, two) for one, two in zip(seen[:3], seen[3:]))


@pytest.mark.parametrize("rules", [DROP_ALL, EVERYTHING])
def test_every_parameter_has_a_gradient_whatever_is_skipped(rules):
    """If this fails, DDP waits for ever for the gradients of a skipped layer."""
    small = tower(rules)
    small(*batch())[:, :3].sum().backward()
    missing = [name for name, p in small.named_parameters() if p.grad is None]
    assert missing == []
    assert all(p.grad.isfinite().all() for p in small.parameters())


def make_all_act(small: SpeechTower, probability: float = 1.0) -> None:
    """Set bounds that no activation keeps."""
    for module in small.modules():
        if isinstance(module, Balancer | Whiten):
            module.probability, module.grad_scale = Schedule(probability), 0.5
        if isinstance(module, Balancer):
            module.positive = Schedule(0.5), Schedule(0.5)
        elif isinstance(module, Whiten):
            module.limit = Schedule(1.0)


SKIPPED = {
    "position_drop": ["self_attn_weights.linear_pos."],
    "attention_drop": ["self_attn_weights.", "nonlin_attention.", "self_attn1.", "self_attn2."],
    "convolution_drop": ["conv_module1.", "conv_module2."],
    "feedforward_drop": ["feed_forward2.", "feed_forward3."],
    "layer_drop": [""],
}


@pytest.mark.parametrize("rate", SKIPPED)
def test_a_skip_leaves_out_just_its_modules(rate):
    """If this fails, a skip leaves part of a branch running, or stops others from learning."""
    none = {name: (0.0, 0.0) if name == "layer_drop" else 0.0 for name in SKIPPED}
    one = {rate: (1.0, 1.0) if rate == "layer_drop" else 1.0}
    rules = Regularization(**none | one, dropout=0.0, balancing=0.0, whitening=0.0)
    layer = tower(rules).encoder.encoders[0].layers[0]
    x, positions = torch.randn(2, 5, 32), torch.randn(9, 48)
    output = layer(x, positions, torch.zeros(2, 5, dtype=torch.bool))
    (output * torch.randn(2, 5, 32)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.any() == (not name.startswith(tuple(SKIPPED[rate]))), name
    assert torch.equal(output, x) == (rate == "layer_drop")


def test_more_padding_changes_no_gradient():
    """If this fails, padding is balanced and whitened like speech somewhere in the tower."""
    found = []
    for more in (0, 40):
        # Dropout of the positional encoding draws a number per frame.
        small = tower(dataclasses.replace(EVERYTHING, position_dropout=0.0))
        make_all_act(small)
        features, n_frames = small.fbank(*batch())
        features = torch.nn.functional.pad(features, (0, 0, 0, more), value=5.0)
        torch.manual_seed(1)
        encoded, counts = small.encoder(*small.encoder_embed(features, n_frames))
        encoded[~padding_mask(counts, encoded.shape[1])][:, ::3].sum().backward()
        found.append({name: p.grad for name, p in small.named_parameters() if p.grad is not None})
    assert len(found[0]) > 100
    for name, expected in found[0].items():
        assert (found[1][name] - expected).norm() <= 1e-3 * expected.norm(), name


def test_masked_features_stay_out_of_a_stack():
    """If this fails, a narrow utterance gets its masked channels back inside the encoder."""
    small = tower(dataclasses.replace(DROP_ALL, layer_drop=(0.0, 0.0), unmasked_channels=16))
    stack = small.encoder.encoders[0]
    (mask,) = small.encoder.feature_mask.draw(torch.ones(2, 1, 1), [32])
    output = stack(torch.randn(2, 9, 32), torch.tensor([9, 4]), mask)
    assert not output[..., 16:].any()
    assert output[..., :16].any()


def test_the_front_end_is_regularized_like_its_encoder():
    """If this fails, the recipes' one setting leaves half of the speech tower out."""
    on, off = tower(DROP_ALL).encoder_embed, tower(None).encoder_embed
    assert on.convnext.skip.rate() == 1.0 and off.convnext.skip.rate() == 0.0
    assert on.whiten.probability() == 0.25 and off.whiten.probability() == 0.0


def test_a_balancer_moves_activations_into_their_bounds():
    """If this fails, the gradient rule points away from the bounds, or is too weak to matter."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 4)
    with torch.no_grad():
        linear.bias.fill_(3.0)  # nearly always positive
    shares = {}
    rule = Balancer(0.45, 0.55, grad_scale=0.2, probability=1.0)
    for name, rules in (("plain", []), ("balanced", [rule])):
        model = torch.nn.Sequential(copy.deepcopy(linear), *rules)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        for _ in range(300):
            optimizer.zero_grad()
            # a loss that does not care which way: its gradient is noise
            model(torch.randn(64, 8)).mul(torch.randn(64, 4)).mean().backward()
            optimizer.step()
        shares[name] = float((model(torch.randn(2000, 8)) > 0).float().mean())
    assert shares["plain"] > 0.95
    assert shares["balanced"] < 0.7


def test_a_whiten_spreads_the_variance():
    """If this fails, activations collapse to few directions in long trainings."""
    torch.manual_seed(0)
    mix = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 1.0, 1.0, 0.3])))
    whiten = Whiten(1.2, grad_scale=0.1, probability=1.0)
    optimizer = torch.optim.SGD([mix], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        whiten(torch.randn(256, 4) @ mix).mul(torch.randn(256, 4)).mean().backward()
        optimizer.step()
    assert _covariance(torch.randn(4000, 4) @ mix, 1, None)[2] < 1.5  # it was 2.9


def test_a_training_with_everything_on_stays_finite_and_learns():
    """If this fails, the regularizers work against the loss or against each other."""
    small, wavs = tower(step=0.0), batch()
    optimizer = ScaledAdam(small.parameters(), lr=0.03)
    losses = []
    for step in range(30):
        set_step(small, 200.0 * step)
        optimizer.zero_grad()
        embeddings = small(*wavs)
        loss = torch.nn.functional.cross_entropy(10 * embeddings[:, :6], torch.arange(6))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.isfinite().all() for p in small.parameters())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize("start, expected", [(None, float("inf")), (100, 107)])
def test_the_brain_sets_the_step_of_schedules(start, expected):
    """If this fails, schedules of a training stand still, or a resumed one begins them anew."""
    brain = SimpleNamespace(modules=tower(step=float("inf")), schedule_step=start, optimizer_step=7)
    ContrastiveBrain.on_fit_batch_start(brain, batch=None, should_step=False)
    steps = {m.step for m in brain.modules.modules() if isinstance(m, Scheduled)}
    assert steps == {expected}


@pytest.mark.parametrize("autocast", [False, True])
def test_checkpointed_layers_give_the_same_gradients(autocast):
    """If this fails, a layer that is computed again drops or balances something else."""
    kept, found = [], []
    for checkpointed in (False, True):
        small = tower()
        make_all_act(small, probability=0.5)
        for stack in small.modules():
            if isinstance(stack, ZipformerStack):
                stack.checkpoint_layers = checkpointed
        storages = {}

        def note(x, storages=storages):
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        torch.manual_seed(1)
        with (
            torch.autograd.graph.saved_tensors_hooks(note, lambda x: x),
            torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        ):
            loss = small(*batch())[:, :3].sum()
        loss.backward()
        kept.append(sum(storages.values()))
        found.append((torch.rand(1), [p.grad for p in small.parameters()]))
    assert kept[1] < 0.5 * kept[0]
    torch.testing.assert_close(found[1], found[0], atol=0, rtol=0)


def test_checkpointing_is_chosen_in_the_encoder():
    """If this fails, the option reaches no stack, or acts in evaluation."""
    encoder = Zipformer2([1, 2], [1, 1], [32, 48], [48, 64], [2, 2], [7, 7], checkpoint_layers=True)
    stacks = [m for m in encoder.modules() if isinstance(m, ZipformerStack)]
    assert [stack.checkpoint_layers for stack in stacks] == [True, True]
