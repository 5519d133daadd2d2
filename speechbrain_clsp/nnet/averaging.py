"""The running average of a model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from torch import Tensor, nn


@register_checkpoint_hooks
class ModelAverage:
    """Mean of the weights at every ``period``-th step.

    The weights that a decaying learning rate leaves behind still jump about; their mean is a better
    model (Zipformer, arXiv 2310.11230; the released CLSP is such an average). The mean over the
    steps between two checkpoints follows from the averages in both: :func:`average_between`.

    Arguments
    ---------
    modules : dict
        Name -> module, the bare ones, not DDP's wrappers.
    period : int
        Steps between samples. Published: 200.
    first_step : int
        Step after which sampling begins: the weights of the first steps are no use.

    Example
    -------
    >>> layer = nn.Linear(1, 1)
    >>> average = ModelAverage({"layer": layer}, period=1)
    >>> for step, value in enumerate([1.0, 2.0, 6.0], start=1):
    ...     _ = nn.init.constant_(layer.weight, value)
    ...     average.update(step)
    >>> with average.applied():
    ...     print(layer.weight.item())
    3.0
    >>> layer.weight.item()
    6.0
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], period: int = 200, first_step: int = 0
    ) -> None:
        self.modules = dict(modules)
        self.period = period
        self.first_step = first_step
        self.n_samples = 0
        self.mean: dict[str, Tensor] = {}

    def _weights(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": tensor
            for name, module in self.modules.items()
            for key, tensor in module.state_dict().items()
            if tensor.is_floating_point()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take a sample, if it is time.

        Arguments
        ---------
        step : int
            Steps done so far.
        """
        if step <= self.first_step or step % self.period:
            return
        self.n_samples += 1
        weights = self._weights()
        if not self.mean:
            self.mean = {key: tensor.clone() for key, tensor in weights.items()}
            return
        means = [self.mean[key] for key in weights]
        torch._foreach_lerp_(means, list(weights.values()), 1 / self.n_samples)

    @contextmanager
    def applied(self):
        """Put the average into the modules for a while; without a sample yet, change nothing."""
        weights = self._weights() if self.mean else {}
        own = {key: tensor.clone() for key, tensor in weights.items()}
        try:
            with torch.no_grad():
                for key, tensor in weights.items():
                    tensor.copy_(self.mean[key])
            yield
        finally:
            with torch.no_grad():
                for key, tensor in weights.items():
                    tensor.copy_(own[key])

    def state_dict(self) -> dict[str, Any]:
        """Return the average and the number of its samples."""
        return {"n_samples": self.n_samples, "mean": self.mean}

    @mark_as_saver
    def save(self, path: Path) -> None:
        """Write the state; SpeechBrain's checkpointer calls this."""
        torch.save(self.state_dict(), path)

    @mark_as_loader
    def load(self, path: Path, end_of_epoch: bool) -> None:
        """Read what :meth:`save` wrote."""
        device = {key: tensor.device for key, tensor in self._weights().items()}
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.n_samples = state["n_samples"]
        self.mean = {key: tensor.to(device[key]) for key, tensor in state["mean"].items()}


def average_between(older: Mapping[str, Any], newer: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the mean over the samples that a later average has and an earlier one has not.

    Arguments
    ---------
    older, newer : dict
        What :meth:`ModelAverage.state_dict` gave at two steps of one training.

    Returns
    -------
    dict
        Key -> tensor.

    Raises
    ------
    ValueError
        If ``newer`` has no more samples than ``older``.

    Example
    -------
    >>> older = {"n_samples": 2, "mean": {"w": torch.tensor([1.0])}}  # e.g. of 0 and 2
    >>> newer = {"n_samples": 4, "mean": {"w": torch.tensor([3.0])}}  # and then of 4 and 6
    >>> average_between(older, newer)
    {'w': tensor([5.])}
    """
    before, after = older["n_samples"], newer["n_samples"]
    if after <= before:
        raise ValueError(f"The newer average has {after} samples, the older one {before}: swapped?")
    weight = after / (after - before)  # beyond 1: an extrapolation from the older mean
    mean = {}
    for key, tensor in newer["mean"].items():
        start = older["mean"].get(key, torch.zeros_like(tensor)) if before else tensor
        mean[key] = torch.lerp(start.double(), tensor.double(), weight).to(tensor.dtype)
    return mean
