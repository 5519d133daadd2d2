"""Eden, the learning-rate schedule of Zipformer."""

from __future__ import annotations

import math

from torch.optim import Optimizer


class Eden:
    """Decay by steps and by epochs, after a linear warm-up (arXiv 2310.11230, section 3.5).

    lr = base * ((step / lr_batches)^2 + 1)^-1/4 * ((epoch / lr_epochs)^2 + 1)^-1/4 * warmup,
    where warmup goes from ``warmup_start`` to 1 over ``warmup_batches`` steps. A function of
    (step, epoch) only, so there is nothing to save or restore.

    Arguments
    ---------
    lr_batches : float
        Steps after which the decay by steps sets in.
    lr_epochs : float
        Epochs after which the decay by epochs sets in.
    warmup_batches : float
        Length of the warm-up, in steps.
    warmup_start : float
        Its first factor.
    cooldown : (float, float), optional
        Epochs between which the rate also descends linearly to zero: (start, end). Not part of
        Eden as published; short trainings need it.

    Example
    -------
    >>> eden = Eden(lr_batches=100, lr_epochs=4, warmup_batches=10)
    >>> eden.factor(step=0, epoch=0)
    0.5
    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    >>> eden(optimizer, step=0, epoch=0)  # old and new rate, as SpeechBrain's schedulers return
    (0.1, 0.05)
    """

    def __init__(
        self,
        lr_batches: float,
        lr_epochs: float,
        warmup_batches: float = 500.0,
        warmup_start: float = 0.5,
        cooldown: tuple[float, float] | None = None,
    ) -> None:
        self.lr_batches = lr_batches
        self.lr_epochs = lr_epochs
        self.warmup_batches = warmup_batches
        self.warmup_start = warmup_start
        self.cooldown = cooldown

    def factor(self, step: int, epoch: float) -> float:
        """Return the factor on the base learning rate for this step and epoch, both from 0.

        The decay takes epochs that are complete, the cooldown fractions of them too.
        """
        factor = ((step / self.lr_batches) ** 2 + 1) ** -0.25
        factor *= ((math.floor(epoch) / self.lr_epochs) ** 2 + 1) ** -0.25
        if step < self.warmup_batches:
            factor *= self.warmup_start + (1 - self.warmup_start) * step / self.warmup_batches
        if self.cooldown is not None and epoch > self.cooldown[0]:
            start, end = self.cooldown
            factor *= max(0.0, (end - epoch) / (end - start))
        return factor

    def __call__(self, optimizer: Optimizer, step: int, epoch: float) -> tuple[float, float]:
        """Give every parameter group its own base rate times the factor.

        Arguments
        ---------
        optimizer : Optimizer
            The base rates are the ``lr`` that its groups have at the first call; they are kept in
            the groups, and so in its state dict.
        step : int
            Counted from 0.
        epoch : float
            Epochs so far, with the fraction of the current one.

        Returns
        -------
        (float, float)
            The first group's rate before and now.
        """
        old, factor = optimizer.param_groups[0]["lr"], self.factor(step, epoch)
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("base_lr", group["lr"]) * factor
        return old, optimizer.param_groups[0]["lr"]
