"""Gradients of a large contrastive batch in the memory of a small one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


class GradCache:
    """Encodes a batch chunk by chunk without activations, and again for the gradients.

    GradCache (arXiv 2101.06983): the loss needs all embeddings but no activations, the towers'
    gradients need one chunk's activations and the gradients of its embeddings. Random numbers are
    replayed, so that the second pass sees the dropout and the skipped layers of the first. Modules
    that keep a state while training (batch statistics) would see each chunk twice; ours keep none.

    Arguments
    ---------
    encode : callable
        chunk -> tuple of embeddings [..., b, D]. Autocast has to be entered inside.
    no_sync : callable, optional
        Context manager under which DDP does not synchronize. All passes but the last run in it,
        so that there is one synchronization however many chunks there are, also if their number
        differs from rank to rank.

    Example
    -------
    >>> tower = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5))
    >>> cache = GradCache(lambda chunk: (tower(chunk),))
    >>> (embeddings,) = cache.encode(torch.randn(6, 3).split(2))
    >>> (embeddings @ embeddings.T).logsumexp(1).sum().backward()
    >>> cache.backward()
    >>> tower[0].weight.grad.shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        encode: Callable[[Any], tuple[Tensor, ...]],
        no_sync: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self._encode = encode
        self._no_sync = no_sync

    def encode(self, chunks: Sequence[Any]) -> tuple[Tensor, ...]:
        """Return the joined embeddings [..., sum of b, D] as leaves that collect gradients."""
        self.chunks, self.states, parts = list(chunks), [], []
        with torch.no_grad(), self._no_sync():
            for chunk in self.chunks:
                self.states.append(_random_state())
                parts.append(self._encode(chunk))
        self.sizes = [part[0].shape[-2] for part in parts]
        self.leaves = tuple(torch.cat(each, dim=-2).requires_grad_() for each in zip(*parts))
        return self.leaves

    def backward(self, synchronize: bool = True) -> None:
        """Carry the gradients that the leaves have collected on into the towers.

        Arguments
        ---------
        synchronize : bool
            Whether DDP averages over processes at the end; False while gradients accumulate.
        """
        after = _random_state()
        gradients = zip(*(_gradient(leaf).split(self.sizes, dim=-2) for leaf in self.leaves))
        for number, (chunk, wanted) in enumerate(zip(self.chunks, gradients), start=1):
            last = synchronize and number == len(self.chunks)
            with nullcontext() if last else self._no_sync():
                _set_random_state(self.states[number - 1])
                outputs = self._encode(chunk)
                torch.autograd.backward(outputs, [g.to(x) for g, x in zip(wanted, outputs)])
        _set_random_state(after)


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad  # None: not in the loss


def _random_state() -> tuple[Tensor, Tensor | None]:
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    return torch.get_rng_state(), torch.cuda.get_rng_state() if on_gpu else None


def _set_random_state(state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
