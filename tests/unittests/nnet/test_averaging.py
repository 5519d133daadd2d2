"""Averaged weights."""

import numpy as np
import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_clsp.nnet.averaging import ModelAverage, average_between


def walk(average: ModelAverage, layer: torch.nn.Linear, steps: range) -> list[float]:
    """Give the weight a new value at each step; returns the values."""
    values = [float(np.sin(step)) for step in steps]
    for step, value in zip(steps, values):
        torch.nn.init.constant_(layer.weight, value)
        average.update(step)
    return values


def test_the_average_is_that_of_every_nth_step(tmp_path):
    """If this fails, the published kind of model is another mean, also after a resume."""
    layer = torch.nn.Linear(1, 1, bias=False)
    average = ModelAverage({"layer": layer}, period=3, first_step=4)
    values = walk(average, layer, range(1, 20))
    checkpointer = Checkpointer(tmp_path, {"average": average})
    checkpointer.save_checkpoint()
    resumed = ModelAverage({"layer": layer}, period=3, first_step=4)
    Checkpointer(tmp_path, {"average": resumed}).recover_if_possible()
    values += walk(resumed, layer, range(20, 31))
    taken = [values[step - 1] for step in range(1, 31) if step % 3 == 0 and step > 4]
    assert resumed.n_samples == len(taken) == 9
    torch.testing.assert_close(resumed.mean["layer.weight"].item(), np.mean(taken))
    own = layer.weight.item()
    with resumed.applied():
        torch.testing.assert_close(layer.weight.item(), np.mean(taken))
    assert layer.weight.item() == own

    late = average_between(average.state_dict(), resumed.state_dict())
    torch.testing.assert_close(late["layer.weight"].item(), np.mean(taken[-4:]), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="swapped"):
        average_between(resumed.state_dict(), average.state_dict())


def test_weights_come_back_when_evaluation_breaks_off():
    """If this fails, training goes on from the average after an error in evaluation."""
    layer = torch.nn.Linear(1, 1)
    average = ModelAverage({"layer": layer}, period=1)
    walk(average, layer, range(1, 5))
    own = layer.weight.item()
    with pytest.raises(KeyError), average.applied():
        raise KeyError
    assert layer.weight.item() == own
