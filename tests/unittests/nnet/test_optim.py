"""ScaledAdam and Eden against 40 steps of the published ones; saving and restoring."""

import copy

import torch

from speechbrain_clsp.nnet.optim import ScaledAdam
from speechbrain_clsp.nnet.schedulers import Eden
from tests.utils.reference import stored


def optimizer_for(parameters: dict[str, torch.nn.Parameter]) -> ScaledAdam:
    """Return ScaledAdam with the reference's settings."""
    return ScaledAdam(parameters.values(), lr=0.045, clipping_scale=2.0, clipping_update_period=8)


def initial(reference: dict) -> dict[str, torch.nn.Parameter]:
    """Return the reference's three parameters before the first step."""
    return {name: torch.nn.Parameter(reference[f"init_{name}"].clone()) for name in "wvs"}


def take_steps(parameters, optimizer, reference, steps: range) -> None:
    """Replay the reference's gradients and check every stored state on the way."""
    schedule = Eden(lr_batches=20, lr_epochs=2, warmup_batches=10, warmup_start=0.5)
    for k in steps:
        _, rate = schedule(optimizer, step=k, epoch=k // 10)
        assert abs(rate - reference["lr"][k].item()) < 1e-12
        for name, parameter in parameters.items():
            parameter.grad = reference[f"grad_{k}_{name}"].clone()
        optimizer.step()
        for name, parameter in parameters.items():
            if f"after_{k}_{name}" in reference:
                torch.testing.assert_close(
                    parameter.detach(), reference[f"after_{k}_{name}"], atol=1e-6, rtol=0
                )


def test_forty_steps_equal_the_published_optimizer():
    """If this fails, published learning rates mean something else here.

    The gradients of steps 16 and 33 are outliers, so that clipping is exercised too.
    """
    reference = stored("scaled_adam")
    parameters = initial(reference)
    take_steps(parameters, optimizer_for(parameters), reference, range(40))


def test_a_restored_optimizer_goes_on_as_if_nothing_had_happened():
    """If this fails, resuming a training changes its course; clipping keeps its history too."""
    reference = stored("scaled_adam")
    parameters = initial(reference)
    optimizer = optimizer_for(parameters)
    take_steps(parameters, optimizer, reference, range(15))
    state = copy.deepcopy(optimizer.state_dict())
    restored = {name: torch.nn.Parameter(p.detach().clone()) for name, p in parameters.items()}
    second = optimizer_for(restored)
    second.load_state_dict(state)
    take_steps(restored, second, reference, range(15, 40))
    take_steps(parameters, optimizer, reference, range(15, 40))
    assert all(torch.equal(restored[name], parameters[name]) for name in parameters)


def test_each_group_keeps_its_own_base_rate():
    """If this fails, two learning rates collapse into one under the schedule."""
    weights = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    optimizer = ScaledAdam(
        [{"params": weights[:1], "lr": 0.04}, {"params": weights[1:], "lr": 0.001}]
    )
    schedule = Eden(lr_batches=10, lr_epochs=3, warmup_batches=1)
    for step in range(5):
        schedule(optimizer, step, epoch=0)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert abs(rates[0] / rates[1] - 40) < 1e-9
    assert rates[0] < 0.04


def test_cooldown_ends_at_zero():
    """If this fails, a short training ends at a rate at which it cannot settle."""
    schedule = Eden(lr_batches=1e9, lr_epochs=1e9, warmup_batches=0, cooldown=(10, 20))
    factors = [round(schedule.factor(0, epoch), 9) for epoch in (10, 15, 20, 30)]
    assert factors == [1.0, 0.5, 0.0, 0.0]
