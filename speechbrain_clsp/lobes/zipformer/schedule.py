"""Piecewise-linear schedules of rates and limits over the training steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

Rate = float | Sequence[tuple[float, float]]


class Schedule:
    """A piecewise linear function of the step, constant before its first and after its last point.

    Arguments
    ---------
    points : float or sequence of (float, float)
        (step, value) with growing steps; a number is that value at every step.

    Raises
    ------
    ValueError
        If there is no point, or steps do not grow.

    Example
    -------
    >>> rate = Schedule([(0, 0.5), (4000, 0.1)])
    >>> rate(0), round(rate(1000), 6), rate()
    (0.5, 0.4, 0.1)
    """

    def __init__(self, points: Rate) -> None:
        if isinstance(points, int | float):
            points = [(0.0, points)]
        self.points = [(float(step), float(value)) for step, value in points]
        if not self.points or any(b[0] <= a[0] for a, b in pairwise(self.points)):
            raise ValueError(f"A schedule needs points at growing steps, not {points}")

    def __call__(self, step: float = math.inf) -> float:
        """Return the value at a step; by default the last one."""
        if step <= self.points[0][0]:
            return self.points[0][1]
        for (start, low), (end, high) in pairwise(self.points):
            if step < end:
                return low + (high - low) * (step - start) / (end - start)
        return self.points[-1][1]


class Scheduled(nn.Module):
    """A module that reads schedules. Until :func:`set_step` is called it sees their last values.

    The step is a plain attribute, neither parameter nor buffer: state dicts do not hold it.

    Example
    -------
    >>> Scheduled().step
    inf
    """

    step: float = math.inf


def set_step(module: nn.Module, step: float) -> None:
    """Tell every :class:`Scheduled` module inside ``module`` how far the training is.

    Arguments
    ---------
    module : nn.Module
        Any module.
    step : float
        Counted from 0.

    Example
    -------
    >>> modules = nn.Sequential(Scheduled(), nn.ReLU())
    >>> set_step(modules, 10)
    >>> modules[0].step
    10
    """
    for part in module.modules():
        if isinstance(part, Scheduled):
            part.step = step
