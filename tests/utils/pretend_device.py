"""A device that is none: finds tensors left on the CPU where there is no GPU to find them.

Its tensors hold their values on the CPU, say that they are elsewhere, and refuse to meet tensors of
the CPU as those of a GPU do. Random numbers are the CPU's.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

DEVICE = torch.device("meta")  # a name that every factory function knows
aten = torch.ops.aten
MAY_CROSS = {aten.copy_.default, aten._to_copy.default}
MAY_INDEX = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}
TO_NUMBER = {aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default}


class Elsewhere(torch.Tensor):
    """A tensor on the device; ``values`` is what it holds."""

    @staticmethod
    def __new__(cls, values: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
        )

    def __init__(self, values: torch.Tensor) -> None:
        self.values_ = values

    def __repr__(self, **_) -> str:
        return f"Elsewhere({self.values_})"

    def tolist(self) -> list:
        return self.values_.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


def _call(func, args, kwargs):
    flat = tree_flatten((args, kwargs))[0]
    tensors = [x for x in flat if isinstance(x, torch.Tensor)]
    here = [x for x in tensors if not isinstance(x, Elsewhere) and x.dim() > 0]
    away = [x for x in tensors if isinstance(x, Elsewhere)]
    assert all(x.device != DEVICE for x in here), f"{func} made a tensor without values"
    if func in MAY_INDEX:
        here = [] if isinstance(args[0], Elsewhere) else here
    if here and away and func not in MAY_CROSS:
        shapes = [list(x.shape) for x in here]
        raise RuntimeError(f"{func}: tensors of shapes {shapes} are on the CPU, others are not")
    target = kwargs.get("device")
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    inner = tree_map_only(Elsewhere, lambda x: x.values_, (args, kwargs))
    result = func(*inner[0], **inner[1])
    if func in TO_NUMBER:
        return result
    stays_away = bool(away) if target is None else torch.device(target) == DEVICE
    if func is aten.copy_.default:
        return args[0]
    if stays_away:
        result = tree_map_only(torch.Tensor, Elsewhere, result)
        return return_and_correct_aliasing(func, args, kwargs, result) if away else result
    return result


class _Factories(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


@contextmanager
def pretended(monkeypatch) -> Iterator[torch.device]:
    """Let tensors be made on the device, which has no autocast."""
    autocast, tensor = torch.autocast, torch.tensor

    def known(device_type, *args, **kwargs):
        if torch.device(device_type) == DEVICE:
            return nullcontext()
        return autocast(device_type, *args, **kwargs)

    def filled(data, *args, device=None, **kwargs):  # torch itself would forget the data
        made = tensor(data, *args, **kwargs)
        return made if device is None else made.to(device)

    monkeypatch.setattr(torch, "autocast", known)
    monkeypatch.setattr(torch, "tensor", filled)
    with _Factories():
        yield DEVICE
