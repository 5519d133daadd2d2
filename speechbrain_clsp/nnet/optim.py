"""ScaledAdam, the optimizer of Zipformer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class ScaledAdam(Optimizer):
    """Adam whose steps are in proportion to each tensor's size, which is itself learnt.

    A tensor's update is Adam's times the tensor's root mean square (rms); every
    ``size_update_period`` steps a second, one-dimensional Adam moves that size. Tensors of one
    element get plain Adam at ``scalar_lr_scale`` times the rate. Gradients are clipped
    against the median of recent norms rather than at a fixed value
    (Zipformer, arXiv 2310.11230, section 3.5).

    Arguments
    ---------
    params : iterable
        Parameters or parameter groups.
    lr : float
        Relative change per step, roughly.
    clipping_scale : float, optional
        Clip the norm of all gradients of a group at this multiple of its median; None: never.
    betas : (float, float)
        Decay of the momentum and of the squared gradients.
    scalar_lr_scale : float
        Factor on the rate for sizes and one-element tensors.
    eps : float
        Added to denominators.
    param_min_rms, param_max_rms : float
        Sizes are kept within these bounds.
    scalar_max : float
        Bound on the absolute value of one-element tensors.
    size_update_period : int
        Steps between changes of size.
    clipping_update_period : int
        Steps between estimates of the median norm.

    Example
    -------
    >>> weight = torch.nn.Parameter(torch.ones(4, 2))
    >>> optimizer = ScaledAdam([weight], lr=0.1)
    >>> for _ in range(20):
    ...     optimizer.zero_grad()
    ...     (weight - 2.0).square().sum().backward()
    ...     optimizer.step()
    >>> bool((weight > 1.1).all())
    True
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 0.03,
        clipping_scale: float | None = 2.0,
        betas: tuple[float, float] = (0.9, 0.98),
        scalar_lr_scale: float = 0.1,
        eps: float = 1.0e-08,
        param_min_rms: float = 1.0e-05,
        param_max_rms: float = 3.0,
        scalar_max: float = 10.0,
        size_update_period: int = 4,
        clipping_update_period: int = 100,
    ) -> None:
        defaults = dict(
            lr=lr,
            clipping_scale=clipping_scale,
            betas=betas,
            scalar_lr_scale=scalar_lr_scale,
            eps=eps,
            param_min_rms=param_min_rms,
            param_max_rms=param_max_rms,
            scalar_max=scalar_max,
            size_update_period=size_update_period,
            clipping_update_period=clipping_update_period,
        )
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch declares two overloads
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Do one step; returns what ``closure`` returns, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            states = [self.state[p] or self._new_state(p, group) for p in params]
            grads = [p.grad for p in params if p.grad is not None]
            clipped = torch._foreach_mul(grads, _clipping(group, grads, states))
            _move(params, clipped, states, group)
        return loss

    def _new_state(self, p: Tensor, group: dict) -> dict:
        state: dict[str, Any] = {
            "step": 0,
            "delta": torch.zeros_like(p),
            "exp_avg_sq": torch.zeros_like(p),
        }
        state["rms"] = p.square().mean().sqrt() if p.numel() > 1 else torch.ones_like(p).sum()
        state["scale_exp_avg_sq"] = torch.zeros_like(state["rms"])
        state["scale_grads"] = torch.zeros(group["size_update_period"]).to(p)
        self.state[p] = state
        return state


def _clipping(group: dict, grads: list[Tensor], states: list[dict]) -> Tensor | float:
    """Compare the norm of the group's gradients with ``clipping_scale`` times its median.

    Each tensor's gradient is taken with respect to the tensor divided by its rms. The recent norms
    are kept in the group, and so in the state dict, next to the settings.
    """
    if group["clipping_scale"] is None:
        return 1.0
    norms = torch.stack(torch._foreach_norm(grads))
    norm = (norms * torch.stack([state["rms"] for state in states])).norm()
    period, step = group["clipping_update_period"], group.setdefault("clipping_step", 0)
    # A checkpoint is read on the CPU, and a norm that is copied there waits for the GPU.
    recent = group.get("recent_norms", norm.new_zeros(period)).to(norm.device)
    recent[step % period] = norm
    group["recent_norms"] = recent
    group["clipping_step"] = step + 1
    if step > 0 and step % period == 0:
        group["clipping_threshold"] = group["clipping_scale"] * recent.sort()[0][period // 4 * 2]
    if "clipping_threshold" not in group:
        return 1.0
    threshold = group["clipping_threshold"] = group["clipping_threshold"].to(norm.device)
    return (threshold / (norm + 1e-20)).clamp(max=1.0)


def _move(params: list[Tensor], grads: tuple[Tensor, ...], states: list[dict], group: dict) -> None:
    """Update tensors in place; ``_foreach`` runs over all of them in one call."""
    beta1, beta2 = group["betas"]
    squares = [state["exp_avg_sq"] for state in states]
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
    directions = torch._foreach_sqrt(squares)
    torch._foreach_div_(directions, [(1 - beta2 ** (state["step"] + 1)) ** 0.5 for state in states])
    torch._foreach_add_(directions, group["eps"])
    directions = torch._foreach_div(grads, directions)
    changes = [_size_change(*each, group) for each in zip(params, grads, states)]
    for p in params:
        if p.numel() == 1:
            p.clamp_(-group["scalar_max"], group["scalar_max"])
    deltas = [state["delta"] for state in states]
    torch._foreach_mul_(deltas, beta1)
    for p, direction, state, change in zip(params, directions, states, changes):
        rate = group["lr"] * (1 - beta1)
        if p.numel() == 1:
            state["delta"].add_(direction, alpha=-rate * group["scalar_lr_scale"])
            continue
        size = state["rms"].clamp(min=group["param_min_rms"])
        state["delta"].addcmul_(direction, size, value=-rate)
        if change is not None:
            state["delta"].addcmul_(p, change, value=1 - beta1)
    torch._foreach_add_(params, deltas)
    for state in states:
        state["step"] += 1


def _size_change(p: Tensor, grad: Tensor, state: dict, group: dict) -> Tensor | None:
    """Return the tensor's relative change of size, once per period; None in between.

    It follows from the gradients with respect to the logarithm of the size. A tensor of one
    element has no size apart from its value.
    """
    if p.numel() == 1:
        return None
    period, step = group["size_update_period"], state["step"]
    state["scale_grads"][step % period] = torch.dot(p.flatten(), grad.flatten())
    if step % period != period - 1:
        return None
    state["rms"].copy_(p.square().mean().sqrt())
    beta2 = group["betas"][1] ** period
    scale_grads = state["scale_grads"]
    state["scale_exp_avg_sq"].mul_(beta2).add_(scale_grads.square().mean(), alpha=1 - beta2)
    correction = 1 - beta2 ** ((step + 1) // period)
    denominator = state["scale_exp_avg_sq"].sqrt() + group["eps"]
    rate = group["lr"] * group["scalar_lr_scale"] * correction**0.5
    change = -rate * scale_grads.sum() / denominator
    change = change.masked_fill(state["rms"] < group["param_min_rms"], 0.0)
    return torch.minimum(change, (group["param_max_rms"] - state["rms"]) / state["rms"])
