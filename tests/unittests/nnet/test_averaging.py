"""Averaged weights."""

import numpy as np
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_clsp.nnet.averaging import ModelAverage


def walk(average: ModelAverage, layer: torch.nn.Linear, steps: range) -> list[float]:
    """Give the weight a new value at each step; returns the values."""
    values = [float(np.sin(step)) for step in steps]
    for step, value in zip(steps, values):
        torch.nn.init.constant_(layer.weight, value)
        average.update(step)
    return values


def test_the_average_is_that_of_every_nth_step_also_after_a_resume(tmp_path):
    layer = torch.nn.Linear(1, 1, bias=False)
    average = ModelAverage({"layer": layer}, period=3)
    values = walk(average, layer, range(1, 20))
    Checkpointer(tmp_path, {"average": average}).save_checkpoint()
    resumed = ModelAverage({"layer": layer}, period=3)
    Checkpointer(tmp_path, {"average": resumed}).recover_if_possible()
    values += walk(resumed, layer, range(20, 31))
    taken = [values[step - 1] for step in range(3, 31, 3)]
    assert resumed.n_averaged == len(taken) == 10
    torch.testing.assert_close(resumed.module["layer"].weight.item(), np.mean(taken))
    assert layer.weight.item() == np.float32(values[-1])


def test_the_averaged_modules_stay_in_eval_mode_and_out_of_the_source(tmp_path):
    layer = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout(0.5))
    average = ModelAverage({"layer": layer}, period=1)
    layer.train()
    walk(average, layer[0], range(1, 5))
    assert not average.module["layer"].training and layer.training
    assert not any(p.requires_grad for p in average.parameters())
    assert set(average.state_dict()) == {
        "n_averaged",
        "module.layer.0.weight",
        "module.layer.0.bias",
    }
