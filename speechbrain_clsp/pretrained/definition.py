"""The definition of a CLSP's parts, from which recipes, model folders and the Hub build."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references

from speechbrain_clsp import __version__

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


def define(
    sizes: Mapping[str, Mapping[str, Any]], prompts: Mapping[str, Sequence[str]] | None = None
) -> str:
    """Return the HyperPyYAML of a model of the published architecture.

    Arguments
    ---------
    sizes : dict
        Of :func:`~speechbrain_clsp.pretrained.official.read_architecture`.
    prompts : dict, optional
        Class -> prompts; with them, the model is a classifier, too.

    Returns
    -------
    str
        The definition, without references.

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


def build_without_weights(definition: str) -> dict[str, Any]:
    """Build what a definition names, with parameters on the meta device: they take no memory.

    Arguments
    ---------
    definition : str
        HyperPyYAML.

    Returns
    -------
    dict
        Key of the definition -> what was built. Give the modules their weights by
        :func:`~speechbrain_clsp.pretrained.folder.load_state`.
    """
    with torch.device("meta"):
        return load_hyperpyyaml(definition)
