"""From the published form of a CLSP to a SpeechBrain-format folder, and back."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from speechbrain.dataio.encoder import CategoricalEncoder
from torch import Tensor, nn

from speechbrain_clsp import __version__
from speechbrain_clsp.inference.checks import prompt_groups
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.lobes.prompt_bank import PromptBank
from speechbrain_clsp.lobes.text_tower import RobertaTextTower
from speechbrain_clsp.pretrained.folder import LABELS, WEIGHTS, save_model_folder, state_of
from speechbrain_clsp.pretrained.hub import CONFIG, PREFIX, load_official, read_sizes
from speechbrain_clsp.pretrained.official import UNUSED_IN_LAYERS, to_official

CLASSES = {
    "encoder": "lobes.zipformer.Zipformer2",
    "speech_tower": "lobes.speech_tower.SpeechTower",
    "text_tower": "lobes.text_tower.RobertaTextTower",
}
REST = """
temperature: !new:speechbrain_clsp.nnet.logit_scale.Temperature
tokenizer: !new:speechbrain_clsp.dataio.tokenizers.RobertaCaptions
{classifier}
modules:
    speech_tower: !ref <speech_tower>
    text_tower: !ref <text_tower>
    temperature: !ref <temperature>{as_encoder_classifier}

pretrainer: !new:speechbrain_clsp.pretrained.folder.FolderPretrainer
    modules:
        speech_tower: !ref <speech_tower>
        text_tower: !ref <text_tower>
        temperature: !ref <temperature>{weights}
    tokenizer: !ref <tokenizer>{labels}
"""
CLASSIFIER = """
# The classes of CLSP.classify_batch, and of SpeechBrain's EncoderClassifier.
prompts: {prompts}
prompt_bank: !new:speechbrain_clsp.lobes.prompt_bank.PromptBank
    n_classes: {n_classes}
    joint_dim: {joint_dim}
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
"""
AS_ENCODER_CLASSIFIER = """
    compute_features: !new:torch.nn.Identity
    mean_var_norm: !new:speechbrain_clsp.lobes.prompt_bank.Unnormalized
    embedding_model: !ref <speech_tower>
    classifier: !ref <prompt_bank>"""
ORIGIN = """Converted from `{source}`{revision}, whose license applies to the weights.

Its authors report, on 241 test clips of FCaps (arXiv 2601.03065): R@1 with global captions 45.6
(speech to text) and 40.3 (text to speech), with fine captions 68.1 and 67.2; the 95 % interval of
such figures is about 6 points wide on either side. These are their figures, not measured here."""


def convert_official(
    source: str | os.PathLike,
    folder: str | os.PathLike,
    revision: str | None = None,
    prompts: Mapping[str, str | Sequence[str]] | None = None,
) -> None:
    """Write a published CLSP as a SpeechBrain-format folder.

    Arguments
    ---------
    source : str or path
        As for :func:`~speechbrain_clsp.pretrained.hub.load_official`.
    folder : str or path
        Where it goes. ``CLSP.from_hparams`` loads it, and with ``prompts`` SpeechBrain's own
        ``EncoderClassifier.from_hparams``, too.
    revision : str, optional
        Of the source.
    prompts : dict, optional
        For each class one or several prompts.

    Raises
    ------
    FileNotFoundError
        If the source has no tokenizer, and RoBERTa's cannot be had.
    """
    clsp = load_official(source, revision, run_opts={"device": "cpu"})
    parts = {name: clsp.mods[name] for name in CLSP.MODULES_NEEDED}
    sizes = read_sizes(source, revision)
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer = clsp.hparams.tokenizer
        files = {tokenizer.FILENAME: Path(temporary) / tokenizer.FILENAME}
        tokenizer.save(files[tokenizer.FILENAME])
        if prompts:
            parts["classifier"] = _bank(clsp, prompts)
            files[LABELS] = Path(temporary) / LABELS
            encoder = CategoricalEncoder()
            encoder.update_from_iterable(list(prompts), sequence_input=False)
            encoder.save(files[LABELS])
        origin = ORIGIN.format(source=source, revision=f" at {revision}" if revision else "")
        save_model_folder(folder, _definition(sizes, prompts), parts, files, origin=origin)


def _bank(clsp: CLSP, prompts: Mapping[str, str | Sequence[str]]) -> PromptBank:
    classes = clsp.encode_prompts(prompts)
    bank = PromptBank(*classes.shape)
    bank.fill(classes, clsp.mods.temperature())
    return bank


def _definition(sizes: Mapping[str, dict[str, Any]], prompts: Mapping | None) -> str:
    """Return the HyperPyYAML that builds a model of these sizes."""
    lines = [f"# Written by speechbrain-clsp {__version__}.", "sample_rate: 16000", ""]
    for name, keywords in sizes.items():
        lines.append(f"{name}: !new:speechbrain_clsp.{CLASSES[name]}")
        if name == "speech_tower":
            lines.append("    encoder: !ref <encoder>")
        lines += [f"    {key}: {json.dumps(value)}" for key, value in keywords.items()]
    classifier = prompts and CLASSIFIER.format(
        prompts=json.dumps(dict(zip(prompts, prompt_groups(prompts)))),
        n_classes=len(prompts),
        joint_dim=sizes["speech_tower"]["joint_dim"],
    )
    return "\n".join(lines) + REST.format(
        classifier=classifier or "",
        as_encoder_classifier=AS_ENCODER_CLASSIFIER if prompts else "",
        weights="\n        classifier: !ref <prompt_bank>" if prompts else "",
        labels="\n    label_encoder: !ref <label_encoder>" if prompts else "",
    )


def export_official(clsp: CLSP, folder: str | os.PathLike) -> None:
    """Write a model's weights under the published names.

    Arguments
    ---------
    clsp : CLSP
        A model with a :class:`~speechbrain_clsp.lobes.text_tower.RobertaTextTower`.
    folder : str or path
        Gets ``model.safetensors``, ``config.json`` and the tokenizer;
        :func:`~speechbrain_clsp.pretrained.hub.load_official` reads it.

    Raises
    ------
    ValueError
        If the text tower is of another kind, for which the published form has no place.
    FileExistsError
        If there are weights in the folder.
    """
    if not isinstance(clsp.text_tower, RobertaTextTower):
        raise ValueError(
            f"The published form has no place for a {type(clsp.text_tower).__name__}: only models"
            " with a RobertaTextTower can be exported"
        )
    folder = Path(folder)
    if (folder / WEIGHTS).exists():
        raise FileExistsError(f"{folder / WEIGHTS} exists: remove it, or export to another place")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(official_state(clsp.mods), folder / f"{WEIGHTS}.partial")
    text = clsp.text_tower.encoder.config
    heads = {"hidden_size": text.hidden_size, "num_attention_heads": text.num_attention_heads}
    config = {"model_type": "clsp", "text_config": heads}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    clsp.hparams.tokenizer.save(folder / clsp.hparams.tokenizer.FILENAME)
    os.replace(folder / f"{WEIGHTS}.partial", folder / WEIGHTS)


def official_state(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return towers' and temperature's weights under the published keys, unused ones included."""
    parts = {name: modules[name] for name in CLSP.MODULES_NEEDED}
    state = {
        PREFIX + to_official(key): value.detach().cpu().contiguous()
        for key, value in state_of(parts).items()
    }
    state[f"{PREFIX}logit_scale"] = state[f"{PREFIX}logit_scale"].reshape(())
    for key in list(state):
        if key.endswith(".bypass.bypass_scale"):  # beside it stands one that nothing reads
            name = key.removesuffix("bypass.bypass_scale") + UNUSED_IN_LAYERS
            state[name] = torch.full_like(state[key], 0.5)
    return state
