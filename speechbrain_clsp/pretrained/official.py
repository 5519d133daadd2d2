"""The published CLSP checkpoint's names and sizes, and the definition of the same model here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hyperpyyaml import resolve_references

from speechbrain_clsp import __version__

Shapes = Mapping[str, Sequence[int]]

DEFINITION = Path(__file__).with_name("clsp_xlarge.yaml")
# Makes a folder that SpeechBrain's own EncoderClassifier loads, too.
CLASSIFIER = """
prompts: {prompts}
prompt_bank: !new:speechbrain_clsp.lobes.prompt_bank.PromptBank
    n_classes: {n_classes}
    joint_dim: !ref <joint_dim>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
modules:
    compute_features: !new:torch.nn.Identity
    mean_var_norm: !new:speechbrain_clsp.lobes.prompt_bank.Unnormalized
    embedding_model: !ref <speech_tower>
    classifier: !ref <prompt_bank>
pretrainer:
    modules:
        classifier: !ref <prompt_bank>
    label_encoder: !ref <label_encoder>
"""
POSITION_HEAD_DIM = 4  # in all published models; no tensor's shape shows it alone
ROBERTA_HEAD_DIM = 64
UNUSED_IN_LAYERS = "bypass_scale"
UNUSED = (  # kept in the published files, read by no module of theirs
    re.compile(rf"encoder\.encoders\.\d+\.(encoder\.)?layers\.\d+\.{UNUSED_IN_LAYERS}"),
    re.compile(r"text_encoder\.embeddings\.(position|token_type)_ids"),
)
# (published prefix, ours)
PREFIXES = (
    ("encoder_embed.", "speech_tower.encoder_embed."),
    ("encoder.", "speech_tower.encoder."),
    ("audio_projection.", "speech_tower.head.projection."),
    ("audio_transform.sequential.", "speech_tower.head.transform."),
    ("text_encoder.", "text_tower.encoder."),
    ("text_projection.", "text_tower.head.projection."),
    ("text_transform.sequential.", "text_tower.head.transform."),
    ("logit_scale", "logit_scale.logit_scale"),
)
# Names that config.json may use, at any depth, for what the shapes say -> ours.
CONFIG_NAMES = {
    "downsampling_factor": "downsampling",
    "num_encoder_layers": "n_layers",
    "encoder_dim": "dims",
    "feedforward_dim": "feedforward",
    "num_heads": "heads",
    "cnn_module_kernel": "kernels",
    "query_head_dim": "query_head_dim",
    "value_head_dim": "value_head_dim",
    "pos_head_dim": "position_head_dim",
    "pos_dim": "position_dim",
    "output_downsampling_factor": "output_downsampling",
    "joint_dim": "joint_dim",
    "vocab_size": "vocab_size",
}


def to_ours(key: str) -> str | None:
    """Translate a published key, without ``model.`` in front; None if nothing here has it.

    Example
    -------
    >>> to_ours("audio_transform.sequential.3.bias")
    'speech_tower.head.transform.3.bias'
    """
    for published, ours in PREFIXES:
        if key.startswith(published):
            return ours + key.removeprefix(published)
    return None


def to_official(key: str) -> str:
    """Translate one of our keys, ``<module>.<state-dict key>``, into the published name.

    Example
    -------
    >>> to_official("logit_scale.logit_scale")
    'logit_scale'
    """
    for published, ours in PREFIXES:
        if key.startswith(ours):
            return published + key.removeprefix(ours)
    raise ValueError(f"{key} has no place in the published CLSP's files")


def is_unused(key: str) -> bool:
    """Tell whether a published key is known to be unused by the published code."""
    return any(pattern.fullmatch(key) for pattern in UNUSED)


def define(
    sizes: Mapping[str, Mapping[str, Any]], prompts: Mapping[str, Sequence[str]] | None = None
) -> str:
    """Return the HyperPyYAML of a model of the published architecture, without references.

    Sizes are those of :func:`read_architecture`; with prompts for each class, the model is a
    classifier, too.

    Example
    -------
    >>> text = define({"speech_tower": {"joint_dim": 64}}, {"male": ["a male speaker"]})
    >>> "joint_dim: 64" in text, "n_classes: 1" in text, "!ref" in text
    (True, True, False)
    """
    # Without what Zipformer does in training only.
    given = {"joint_dim": sizes["speech_tower"]["joint_dim"], "regularization": None, **sizes}
    overrides = "".join(f"{name}: {json.dumps(value)}\n" for name, value in given.items())
    if prompts:
        overrides += CLASSIFIER.format(prompts=json.dumps(dict(prompts)), n_classes=len(prompts))
    with open(DEFINITION, encoding="utf-8") as file:
        definition = resolve_references(file, overrides).read()
    lines = [line for line in definition.splitlines() if line and not line.startswith("#")]
    return "\n".join([f"# Written by speechbrain-clsp {__version__}.", *lines, ""])


def read_architecture(shapes: Shapes, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Read the sizes of a published model off its tensors.

    Arguments
    ---------
    shapes : dict
        Published key, without ``model.`` in front, -> shape.
    config : dict
        Contents of ``config.json``; may be empty. It gives RoBERTa's number of heads, which no
        shape shows (default: heads of 64 channels), and must not contradict the shapes.

    Returns
    -------
    dict
        Arguments of the ``encoder``, the ``speech_tower`` and the ``text_tower``.
    """
    try:
        sizes = {
            "encoder": _encoder(shapes),
            "speech_tower": _speech_tower(shapes),
            "text_tower": _text_tower(shapes, config),
        }
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"The weights are not a CLSP's: they lack {error}") from error
    _check_config(config, {**sizes["encoder"], **sizes["speech_tower"], **sizes["text_tower"]})
    return sizes


def _encoder(shapes: Shapes) -> dict[str, Any]:
    per_stack = ("downsampling", "n_layers", "dims", "feedforward", "heads", "kernels")
    sizes: dict[str, Any] = {name: [] for name in per_stack}
    for stack in range(_numbers(shapes, r"encoder\.encoders\.(\d+)\.")):
        base = f"encoder.encoders.{stack}."
        factor = shapes.get(f"{base}downsample.bias", [1])[0]
        base += "encoder.layers." if factor > 1 else "layers."
        sizes["downsampling"].append(factor)
        sizes["n_layers"].append(_numbers(shapes, re.escape(base) + r"(\d+)\."))
        sizes["dims"].append(shapes[f"{base}0.norm.bias"][0])
        sizes["feedforward"].append(shapes[f"{base}0.feed_forward2.in_proj.weight"][0])
        position_rows, position_dim = shapes[f"{base}0.self_attn_weights.linear_pos.weight"]
        heads = position_rows // POSITION_HEAD_DIM
        sizes["heads"].append(heads)
        sizes["kernels"].append(shapes[f"{base}0.conv_module1.depthwise_conv.weight"][-1])
        rows = shapes[f"{base}0.self_attn_weights.in_proj.weight"][0]
        sizes["query_head_dim"] = (rows // heads - POSITION_HEAD_DIM) // 2
        sizes["value_head_dim"] = shapes[f"{base}0.self_attn1.in_proj.weight"][0] // heads
        sizes["position_dim"] = position_dim
    sizes["position_head_dim"] = POSITION_HEAD_DIM
    sizes["output_downsampling"] = shapes["encoder.downsample_output.bias"][0]
    return sizes


def _speech_tower(shapes: Shapes) -> dict[str, Any]:
    channels = [shapes[f"encoder_embed.conv.{i}.weight"][0] for i in (0, 4, 7)]
    bins = shapes["encoder_embed.out.weight"][1] // channels[-1]
    return {
        "joint_dim": shapes["audio_projection.0.weight"][0],
        "n_mels": 4 * (bins + 1),  # what two strides of two leave of it, rounded down, is `bins`
        "frontend_channels": channels,
    }


def _text_tower(shapes: Shapes, config: Mapping[str, Any]) -> dict[str, Any]:
    embeddings = "text_encoder.embeddings."
    vocab_size, dim = shapes[f"{embeddings}word_embeddings.weight"]
    said = [
        table["num_attention_heads"]
        for table in _tables(config)
        if table.get("hidden_size") == dim and "num_attention_heads" in table
    ]
    if not said and dim % ROBERTA_HEAD_DIM:
        raise ValueError(
            f"RoBERTa has {dim} channels and config.json does not give its num_attention_heads"
        )
    return {
        "vocab_size": vocab_size,
        "dim": dim,
        "n_layers": _numbers(shapes, r"text_encoder\.encoder\.layer\.(\d+)\."),
        "heads": said[0] if said else dim // ROBERTA_HEAD_DIM,
        "feedforward": shapes["text_encoder.encoder.layer.0.intermediate.dense.weight"][0],
        "joint_dim": shapes["text_projection.0.weight"][0],
        "n_positions": shapes[f"{embeddings}position_embeddings.weight"][0],
    }


def _numbers(shapes: Shapes, pattern: str) -> int:
    """Return one more than the largest number that the pattern finds in the keys."""
    found = [int(match.group(1)) for key in shapes if (match := re.match(pattern, key))]
    if not found:
        raise KeyError(pattern.replace("\\", ""))
    return max(found) + 1


def _tables(config: Any) -> Iterator[Mapping[str, Any]]:
    """Yield all mappings of a nested configuration."""
    if isinstance(config, Mapping):
        yield config
        for value in config.values():
            yield from _tables(value)


def _check_config(config: Mapping[str, Any], sizes: Mapping[str, Any]) -> None:
    problems = []
    for table in _tables(config):
        for name, ours in CONFIG_NAMES.items():
            if name in table and not _agree(table[name], sizes[ours]):
                problems.append(f"{name} {table[name]!r} in config.json, {sizes[ours]} in weights")
    if problems:
        raise ValueError(f"config.json and the weights contradict each other: {problems}")


def _agree(said: Any, size: int | list[int]) -> bool:
    """Compare sizes that may be written as a number, a list or, as icefall does, ``1,2,4``."""
    if isinstance(said, str):
        said = [int(word) for word in said.split(",") if word.strip().isdigit()]
    numbers, sizes = np.atleast_1d(said), np.atleast_1d(size)
    return numbers.size in (1, sizes.size) and bool((numbers == sizes).all())
