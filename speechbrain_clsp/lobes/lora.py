"""Low-rank adapters of linear layers (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from speechbrain.nnet.adapters import AdaptedModel, LoRA
from torch import Tensor, nn

ADAPTER_KEYS = (".adapter_down_proj.", ".adapter_up_proj.")  # in names of weights


class LinearLoRA(LoRA):
    """SpeechBrain's LoRA of a linear layer, also where a module reads the layer's weight.

    WavLM's attention and torch's own hand ``weight`` and ``bias`` of a layer to a function instead
    of calling the layer, which SpeechBrain's LoRA does not have.

    Example
    -------
    >>> import torch
    >>> layer = LinearLoRA(nn.Linear(3, 4), rank=2)
    >>> _ = nn.init.normal_(layer.adapter_up_proj.weight)
    >>> x = torch.randn(5, 3)
    >>> torch.allclose(layer(x), nn.functional.linear(x, layer.weight, layer.bias), atol=1e-6)
    True
    """

    @property
    def weight(self) -> Tensor:
        """The adapted layer's weight, [out, in]."""
        change = self.adapter_up_proj.weight @ self.adapter_down_proj.weight
        return self.pretrained_module.weight + self.scaling * change

    @property
    def bias(self) -> Tensor | None:
        """The layer's bias, which is not adapted."""
        return self.pretrained_module.bias


def add_adapters(module: nn.Module, rank: int, alpha: float | None = None) -> None:
    """Freeze a module, and add adapters to all linear layers below it, in place.

    They change nothing until they are trained.

    Arguments
    ---------
    module : nn.Module
        Of which no layer has adapters yet.
    rank : int
        Rank of the adapters.
    alpha : float, optional
        Their outputs are multiplied by ``alpha / rank``. Default: ``rank``.

    Example
    -------
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> add_adapters(model, rank=1)
    >>> [key for key, value in model.named_parameters() if value.requires_grad][:2]
    ['0.adapter_down_proj.weight', '0.adapter_up_proj.weight']
    """
    scale = {"rank": rank, "alpha": rank if alpha is None else alpha}
    AdaptedModel(module, LinearLoRA, all_linear=True, adapter_kwargs=scale)
