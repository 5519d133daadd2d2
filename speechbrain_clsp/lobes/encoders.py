"""Encoders of transformers inside a tower: their configuration, weights, and what is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from speechbrain_clsp.lobes.lora import ADAPTER_KEYS, add_adapters

# In a config.json, but not part of the architecture.
IGNORED = (
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "id2label",
    "label2id",
    "torch_dtype",
    "transformers_version",
)


def parse_config(config: Mapping[str, Any]) -> Any:
    """Return the configuration object of transformers for what a ``config.json`` holds.

    Raises
    ------
    ValueError
        If transformers itself has no such encoder; code from elsewhere is not run.

    Example
    -------
    >>> parse_config({"model_type": "wavlm", "hidden_size": 16}).hidden_size
    16
    """
    from transformers import CONFIG_MAPPING  # takes seconds to import

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise ValueError(
            f"transformers has no encoder of the model_type {kind!r}, and code that comes with"
            " weights is not run: choose another encoder"
        )
    options = {key: value for key, value in config.items() if key not in IGNORED}
    return CONFIG_MAPPING[kind].from_dict(options)


def config_of(encoder: Any) -> dict[str, Any]:
    """Return what :func:`parse_config` needs to build an encoder like the given one."""
    saved = encoder.config.to_diff_dict()
    return {key: value for key, value in saved.items() if key not in IGNORED}


def load_encoder(encoder: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the weights of an encoder of transformers, under its own names.

    Adapters in it keep theirs. A pooler that the weights lack stays random if it is trained, and
    weights that the encoder has no use for are left out.

    Raises
    ------
    ValueError
        If weights are missing, or have other shapes.
    """
    own, problems = {}, []
    for key, value in encoder.state_dict(keep_vars=True).items():
        name = key.replace("pretrained_module.", "")
        is_adapter = any(part in key for part in ADAPTER_KEYS)
        if is_adapter or (name not in state and _is_new(name, value)):
            continue
        if name not in state:
            problems.append(f"missing {name}")
        elif state[name].shape != value.shape:
            shapes = f"{list(state[name].shape)}, not {list(value.shape)}"
            problems.append(f"{name} has shape {shapes}")
        else:
            own[key] = state[name]
    if problems:
        raise ValueError(f"The weights do not fit the encoder: {'; '.join(problems)}")
    encoder.load_state_dict(own, strict=False)


def _is_new(name: str, value: Tensor) -> bool:
    return name.startswith("pooler.") and value.requires_grad


def choose_trained(
    encoder: nn.Module, layers: Sequence[nn.Module], tuning: str | int, lora_rank: int
) -> list[nn.Module]:
    """Choose which parameters of an encoder are trained, and insert adapters.

    Arguments
    ---------
    encoder : nn.Module
        The encoder.
    layers : sequence of nn.Module
        Its layers, the last of which may be tuned.
    tuning : str or int
        ``frozen``, ``all``, ``lora``, or the number of layers.
    lora_rank : int
        Rank of adapters.

    Returns
    -------
    list of nn.Module
        The parts that belong into training mode: no part that is frozen has dropout. Adapters are
        trained with the dropout of the whole encoder.

    Raises
    ------
    ValueError
        If ``tuning`` is none of these.

    Example
    -------
    >>> encoder = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> choose_trained(encoder, list(encoder), 1, 8)
    [Linear(in_features=2, out_features=2, bias=True)]
    >>> [parameter.requires_grad for parameter in encoder.parameters()]
    [False, False, True, True]
    """
    if tuning == "all":
        return [encoder]
    encoder.requires_grad_(False)
    if tuning == "frozen":
        return []
    if tuning == "lora":
        add_adapters(encoder, lora_rank)
        return [encoder]
    if isinstance(tuning, str | bool) or not 0 < tuning <= len(layers):
        raise ValueError(
            "tuning must be 'frozen', 'all', 'lora' or a number of layers, 1 to"
            f" {len(layers)}, not {tuning!r}"
        )
    tuned = list(layers)[-tuning:]
    for layer in tuned:
        layer.requires_grad_(True)
    return tuned


def enable_checkpointing(encoder: Any) -> None:
    """Let an encoder's trained layers keep their inputs only, and compute them again backward.

    Gradients are the same, dropout included.

    Raises
    ------
    ValueError
        If transformers cannot do that with an encoder of this family.

    Example
    -------
    >>> from transformers import BertConfig, BertModel
    >>> encoder = BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    >>> enable_checkpointing(encoder)
    >>> encoder.is_gradient_checkpointing
    True
    """
    if not encoder.supports_gradient_checkpointing:
        raise ValueError(
            f"Layers of a {encoder.config.model_type} cannot be computed again: set"
            " checkpoint_layers to False"
        )
    # torch's other kind asks for inputs with gradients, which frozen layers below do not give.
    encoder.gradient_checkpointing_enable({"use_reentrant": False})
