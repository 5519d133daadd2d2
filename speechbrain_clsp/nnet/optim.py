"""ScaledAdam, the optimizer of Zipformer.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

from collections.abc import Iterable

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
    def step(self, closure=None):
        """Do one step; returns what ``closure`` returns, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            updated = [p for p in group["params"] if p.grad is not None]
            for p in updated:
                if not self.state[p]:
                    self.state[p] = _initial_state(p, group["size_update_period"])
            clip = self._clipping_factor(group, updated)
            for p in updated:
                _update(p, p.grad * clip, self.state[p], group)
        return loss

    def _clipping_factor(self, group: dict, params: list[Tensor]) -> Tensor | float:
        """Compare the norm of the group's gradients with ``clipping_scale`` times its median."""
        if group["clipping_scale"] is None or not params:
            return 1.0
        norm = torch.stack([_scale_free_norm(p, self.state[p]) for p in params]).norm()
        period = group["clipping_update_period"]
        # Kept in the group, and so in the state dict, next to the settings.
        step = group.setdefault("clipping_step", 0)
        norms = group.setdefault("recent_norms", [0.0] * period)
        norms[step % period] = norm
        group["clipping_step"] = step + 1
        if step > 0 and step % period == 0:
            ordered = torch.stack([torch.as_tensor(n, device=norm.device) for n in norms]).sort()[0]
            group["clipping_threshold"] = group["clipping_scale"] * ordered[period // 4 * 2]
        if "clipping_threshold" not in group:
            return 1.0
        return (group["clipping_threshold"] / (norm + 1e-20)).clamp(max=1.0)


def _initial_state(p: Tensor, size_update_period: int) -> dict:
    state = {"step": 0, "delta": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
    if p.numel() > 1:
        state["rms"] = p.square().mean().sqrt()
        state["scale_exp_avg_sq"] = torch.zeros((), dtype=p.dtype, device=p.device)
        state["scale_grads"] = torch.zeros(size_update_period, dtype=p.dtype, device=p.device)
    return state


def _scale_free_norm(p: Tensor, state: dict) -> Tensor:
    """Norm of the gradient with respect to the tensor divided by its rms."""
    return p.grad.norm() * state.get("rms", 1.0)


def _update(p: Tensor, grad: Tensor, state: dict, group: dict) -> None:
    beta1, beta2 = group["betas"]
    state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    correction = 1 - beta2 ** (state["step"] + 1)
    direction = grad / ((state["exp_avg_sq"] / correction).sqrt() + group["eps"])
    if p.numel() == 1:
        delta = direction * (-group["lr"] * group["scalar_lr_scale"])
        p.clamp_(-group["scalar_max"], group["scalar_max"])
    else:
        size_step = _size_step(p, grad, state, group)  # first, since it refreshes the rms
        delta = direction * (-group["lr"] * state["rms"].clamp(min=group["param_min_rms"]))
        delta += size_step
    state["delta"].mul_(beta1).add_(delta, alpha=1 - beta1)
    p.add_(state["delta"])
    state["step"] += 1


def _size_step(p: Tensor, grad: Tensor, state: dict, group: dict) -> Tensor | float:
    """Move the tensor's size, once per period, from the gradients with respect to its logarithm."""
    period, step = group["size_update_period"], state["step"]
    state["scale_grads"][step % period] = (p * grad).sum()
    if step % period != period - 1:
        return 0.0
    state["rms"].copy_(p.square().mean().sqrt())
    beta2 = group["betas"][1] ** period
    scale_grads = state["scale_grads"]
    state["scale_exp_avg_sq"].mul_(beta2).add_(scale_grads.square().mean(), alpha=1 - beta2)
    correction = 1 - beta2 ** ((step + 1) // period)
    denominator = state["scale_exp_avg_sq"].sqrt() + group["eps"]
    rate = group["lr"] * group["scalar_lr_scale"] * correction**0.5
    change = -rate * scale_grads.sum() / denominator
    change = torch.where(state["rms"] < group["param_min_rms"], torch.zeros_like(change), change)
    change = torch.minimum(change, (group["param_max_rms"] - state["rms"]) / state["rms"])
    return p * change
