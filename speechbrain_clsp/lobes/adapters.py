"""Low-rank adapters: how a pretrained tower learns something new while its weights stay."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from speechbrain.nnet.adapters import AdaptedModel
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks
from torch import Tensor, nn

from speechbrain_clsp.lobes.lora import ADAPTER_KEYS, LinearLoRA

TUNINGS = ("lora", "heads")
OWN = "adapted_model."  # in front of the tower's own names


class LowRankUpdate(nn.Module):
    """A matrix of low rank that is added to a weight; zero until it is trained.

    Arguments
    ---------
    weight : Tensor
        [out, in], what it is added to; only its shape and device count.
    rank : int
        Rank of the update.
    alpha : float
        The update is scaled by ``alpha / rank``.

    Example
    -------
    >>> LowRankUpdate(torch.ones(3, 2), rank=1, alpha=1.0)().abs().tolist()
    [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.down = nn.Parameter(nn.Linear(inputs, rank, device=weight.device).weight.detach())
        self.up = nn.Parameter(torch.zeros(outputs, rank, device=weight.device))
        self.scaling = alpha / rank

    def forward(self) -> Tensor:
        """Return the update, [out, in]."""
        return self.scaling * self.up @ self.down


class AttentionLoRA(nn.Module):
    """LoRA (arXiv 2106.09685) for torch's multi-head attention.

    That reads the weights of its projections itself, so that no layer can take their place, and
    SpeechBrain's adapters leave it out. Here it is called with other weights.

    Arguments
    ---------
    target_module : torch.nn.MultiheadAttention
        The attention, with queries, keys and values of one size. It is frozen.
    rank : int
        Rank of the updates: one of the joint projection to queries, keys and values, and one of the
        output's.
    alpha : float
        Updates are scaled by ``alpha / rank``.

    Example
    -------
    >>> attention, x = nn.MultiheadAttention(8, 2), torch.randn(5, 1, 8)
    >>> expected, _ = attention(x, x, x)
    >>> bool((AttentionLoRA(attention)(x, x, x)[0] == expected).all())
    True
    """

    def __init__(
        self, target_module: nn.MultiheadAttention, rank: int = 16, alpha: float = 1.0
    ) -> None:
        super().__init__()
        self.pretrained_module = target_module.requires_grad_(False)
        self.adapter_in_proj = LowRankUpdate(target_module.in_proj_weight, rank, alpha)
        self.adapter_out_proj = LowRankUpdate(target_module.out_proj.weight, rank, alpha)

    def weights(self) -> dict[str, Tensor]:
        """Return the adapted weights, by their names in the attention."""
        attention = self.pretrained_module
        return {
            "in_proj_weight": attention.in_proj_weight + self.adapter_in_proj(),
            "out_proj.weight": attention.out_proj.weight + self.adapter_out_proj(),
        }

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Attend; arguments and results are those of the attention."""
        return torch.func.functional_call(self.pretrained_module, self.weights(), args, kwargs)


@register_checkpoint_hooks
class AdaptedTower(AdaptedModel):
    """A pretrained tower of which adapters, or the head alone, are trained.

    It is a tower like any other. It stays in evaluation mode while it is trained: dropout, skipped
    layers and the like would train the adapters on what the frozen weights never compute in use,
    and rescale gradients as the training from scratch needs it. Nothing depends on a batch's
    statistics, so embeddings stay batch-invariant. Checkpoints hold what is trained, not the rest.

    Arguments
    ---------
    tower : nn.Module
        The speech or the text tower. It is changed in place and frozen.
    tune : str
        ``lora``: low-rank adapters beside its linear layers and attention; ``heads``: the head
        itself, and nothing else.
    rank : int
        Rank of the adapters.
    alpha : float, optional
        Adapters are scaled by ``alpha / rank``. Default: ``rank``, so that they are not scaled.
    layers : sequence of str
        Which layers get adapters: names in the tower, with ``*`` and ``?`` as in file names, such
        as ``encoder.*.in_proj``.

    Raises
    ------
    ValueError
        If ``tune`` is unknown, ``rank`` or ``alpha`` is not positive, or no layer has such a name.

    Example
    -------
    >>> from speechbrain_clsp.lobes import TransformerTextTower
    >>> tower = TransformerTextTower(40, dim=16, n_layers=1, heads=2, feedforward=32, joint_dim=8)
    >>> adapted = AdaptedTower(tower, rank=2, layers=["head.*"])
    >>> sorted(adapted.tuned_state())[0]
    'head.projection.0.adapter_down_proj.weight'
    """

    def __init__(
        self,
        tower: nn.Module,
        tune: str = "lora",
        rank: int = 8,
        alpha: float | None = None,
        layers: Sequence[str] = ("*",),
    ) -> None:
        if tune not in TUNINGS:
            raise ValueError(f"tune must be one of {list(TUNINGS)}, not {tune!r}")
        if rank < 1:
            raise ValueError(f"rank must be at least 1, not {rank}")
        if alpha is not None and not (isinstance(alpha, int | float) and alpha > 0):
            raise ValueError(f"alpha must be a positive number, not {alpha!r}")
        found = adaptable_layers(tower, layers) if tune == "lora" else []
        super().__init__(
            tower,
            adapt_layer,
            unfrozen_layers=["head"] if tune == "heads" else [],
            adapter_kwargs={"rank": rank, "alpha": rank if alpha is None else alpha},
            manual_adapter_insertion=True,
        )
        # Its own search takes patterns for every module alike, containers included.
        self.replace_layers = found
        self.insert_adapters()
        # Not parts of the tuned state, since they are not trained.
        self.initial = nn.ParameterList(
            nn.Parameter(value.clone(), requires_grad=False)
            for value in self.tuned_state().values()
        )
        self.eval()

    def train(self, mode: bool = True) -> AdaptedTower:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def embed_as_before(self, inputs: Tensor, lengths_or_mask: Tensor) -> Tensor:
        """Return the embeddings [B, D] that the tower had before it was tuned, without gradients.

        Arguments are those of the tower.
        """
        names = (f"{OWN}{name}" for name in self.tuned_state())
        before = dict(zip(names, self.initial, strict=True))
        return torch.func.functional_call(self, before, (inputs, lengths_or_mask))

    def tuned_state(self) -> dict[str, Tensor]:
        """Return what is trained, by its name in the tower."""
        return {
            name.removeprefix(OWN): parameter.detach()
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def load_tuned(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`tuned_state` returned."""
        for name, value in self.tuned_state().items():
            value.copy_(state[name])

    @mark_as_saver
    def save(self, path: str | os.PathLike) -> None:
        """Write what is trained into a checkpoint."""
        torch.save(self.tuned_state(), path)

    @mark_as_loader
    def load(self, path: str | os.PathLike, end_of_epoch: bool) -> None:
        """Read it from one; SpeechBrain's own takes what fits, and leaves the rest untrained.

        Raises
        ------
        ValueError
            If the checkpoint is of other adapters.
        """
        state = torch.load(path, map_location="cpu", weights_only=True)
        shapes = [{key: x.shape for key, x in each.items()} for each in (state, self.tuned_state())]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{path} holds other adapters: go on with the same tune, rank and layers, or train"
                " in another folder"
            )
        self.load_tuned(state)

    def merged(self) -> nn.Module:
        """Add the adapters to the weights, and return the tower itself, without adapters.

        It computes the same, up to rounding, as fast as before.
        """
        names, self.replace_layers = self.replace_layers, []
        for name in names:
            module = merge_layer(self.adapted_model.get_submodule(name))
            parent, _, place = name.rpartition(".")
            setattr(self.adapted_model.get_submodule(parent), place, module)
        return self.adapted_model


def adaptable_layers(tower: nn.Module, patterns: Sequence[str] = ("*",)) -> list[str]:
    """Return the names of a tower's linear layers and attentions that match one of the patterns.

    Raises
    ------
    ValueError
        If there is none.

    Example
    -------
    >>> tower = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.MultiheadAttention(2, 1))
    >>> adaptable_layers(tower)
    ['0', '2']
    """
    known = list(_adaptable(tower))
    if isinstance(patterns, str):
        patterns = [patterns]
    found = [name for name in known if any(fnmatchcase(name, each) for each in patterns)]
    if not found:
        raise ValueError(
            f"No layer of the {type(tower).__name__} is called {' or '.join(patterns)}; there are"
            f" {', '.join(known[:5])}, ... {known[-1] if known else ''}"
        )
    return found


def _adaptable(tower: nn.Module) -> Iterator[str]:
    inside: tuple[str, ...] = ()  # of attention; and adapters that the tower was trained with
    for name, module in tower.named_modules():
        if name.startswith(inside) or any(key in f"{name}." for key in ADAPTER_KEYS):
            continue
        if isinstance(module, nn.MultiheadAttention):
            inside += (f"{name}.",)
            if module.in_proj_weight is not None:
                yield name
        elif isinstance(module, nn.Linear) and name:
            yield name


def adapt_layer(layer: nn.Module, rank: int, alpha: float) -> AttentionLoRA | LinearLoRA:
    """Return a layer with its adapter.

    Example
    -------
    >>> type(adapt_layer(nn.Linear(2, 2), 1, 1.0)).__name__
    'LinearLoRA'
    """
    if isinstance(layer, nn.MultiheadAttention):
        return AttentionLoRA(layer, rank, alpha)
    return LinearLoRA(layer, rank, alpha)


@torch.no_grad()
def merge_layer(adapted: Any) -> nn.Module:
    """Add an adapter to the weights of its layer, which is returned.

    Example
    -------
    >>> layer, x = adapt_layer(nn.Linear(2, 2), 1, 1.0), torch.ones(1, 2)
    >>> _ = nn.init.ones_(layer.adapter_up_proj.weight)
    >>> expected = layer(x)
    >>> torch.allclose(merge_layer(layer)(x), expected)
    True
    """
    layer: Any = adapted.pretrained_module
    # Not in place: weights may be mapped from a file.
    if isinstance(adapted, AttentionLoRA):
        weights = adapted.weights()
        layer.in_proj_weight.data = weights["in_proj_weight"]
        layer.out_proj.weight.data = weights["out_proj.weight"]
    else:
        layer.weight.data = adapted.weight
    return layer
