"""Where a training starts from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import TaggedScalar
from torch import nn

from speechbrain_clsp.lobes.pooling import untrained_additions
from speechbrain_clsp.lobes.pretrained_speech import PretrainedSpeechTower
from speechbrain_clsp.lobes.pretrained_text import PretrainedTextTower
from speechbrain_clsp.lobes.speech_tower import FEATURE_ARGUMENTS, SpeechTower
from speechbrain_clsp.lobes.text_tower import RobertaTextTower, TextTower
from speechbrain_clsp.pretrained.folder import (
    HYPERPARAMS,
    WEIGHTS,
    load_weights,
    translate_definition,
)
from speechbrain_clsp.pretrained.hub import (
    load_pretrained_encoder,
    load_pretrained_speech_encoder,
    load_pretrained_text_encoder,
)


def from_pretrained_encoders(
    speech_tower: SpeechTower | PretrainedSpeechTower,
    text_tower: TextTower,
    speech_source: str | os.PathLike | None,
    text_source: str | os.PathLike | None,
) -> None:
    """Start from encoders of speech and text, each pretrained by itself; heads stay random.

    Arguments
    ---------
    speech_tower : SpeechTower or PretrainedSpeechTower
        Its front end and encoder are overwritten; all of it by another model's speech tower.
    text_tower : TextTower
        A PretrainedTextTower or RobertaTextTower, whose encoder is overwritten.
    speech_source : str or path, optional
        Folder or Hub repository, as for
        :func:`~speechbrain_clsp.pretrained.hub.load_pretrained_encoder` or, for a
        PretrainedSpeechTower,
        :func:`~speechbrain_clsp.pretrained.hub.load_pretrained_speech_encoder`; or a model folder
        with a speech tower of the same shape. Without it, the speech tower stays random.
    text_source : str or path, optional
        Folder or Hub repository, as for
        :func:`~speechbrain_clsp.pretrained.hub.load_pretrained_text_encoder`. Without it, the text
        tower stays random, and may be one that has no pretrained encoder.

    Raises
    ------
    TypeError
        If there is a source for a text tower without a pretrained encoder.
    ValueError
        If weights are missing, or have other shapes, or a frozen speech tower would stay random.
    """
    if speech_source is None:  # it stays random
        if isinstance(speech_tower, SpeechTower) and speech_tower.frozen:
            raise ValueError(
                "A frozen speech tower needs the weights of a trained one: name its model folder"
                " (speech_model), or train the tower (freeze_speech=False)"
            )
    elif (Path(speech_source) / HYPERPARAMS).is_file():
        from_model_folder({"speech_tower": speech_tower}, speech_source)
    elif isinstance(speech_tower, PretrainedSpeechTower):
        load_pretrained_speech_encoder(speech_tower, speech_source)
    else:
        load_pretrained_encoder(speech_tower, speech_source)
    if text_source is None:
        return
    if not isinstance(text_tower, PretrainedTextTower | RobertaTextTower):
        raise TypeError(
            f"A {type(text_tower).__name__} has no place for {text_source}: set the source of the"
            " text tower's weights to null, or choose a PretrainedTextTower"
        )
    load_pretrained_text_encoder(text_tower, text_source)


def from_model_folder(modules: Mapping[str, nn.Module], source: str | os.PathLike) -> None:
    """Start from what an earlier stage left, such as its averaged model.

    The modules' pooling may have moments or spectral variation that the earlier model has not;
    they start at zero.

    Arguments
    ---------
    modules : dict of nn.Module
        All are overwritten; what else the folder holds is left out.
    source : str or path
        The model folder that a recipe or ``clsp convert`` wrote, or its weights' file.

    Raises
    ------
    FileNotFoundError
        If there are no weights.
    ValueError
        If they don't fit, or belong to a speech tower with other filter banks.

    Example
    -------
    >>> from safetensors.torch import save_file
    >>> folder = getfixture("tmp_path")
    >>> save_file({"a.weight": nn.Linear(2, 3, bias=False).weight.data}, folder / WEIGHTS)
    >>> from_model_folder({"a": nn.Linear(2, 3, bias=False)}, folder)
    """
    source = Path(source)
    path = source / WEIGHTS if source.is_dir() else source
    if (path.parent / HYPERPARAMS).is_file():
        _check_features(modules, path.parent / HYPERPARAMS)
    load_weights(path, modules, absent=untrained_additions(modules), in_part=True)


def _check_features(modules: Mapping[str, nn.Module], definition: Path) -> None:
    """Raise if a trained tower has other filter banks: weights fit, and give wrong embeddings."""
    theirs = YAML().load(translate_definition(definition.read_text(encoding="utf-8"))) or {}
    for name, tower in modules.items():
        there = theirs.get(name) or theirs.get("modules", {}).get(name)
        is_plain = str(getattr(there, "tag", "")).endswith(".SpeechTower")  # tags are kept, not run
        if not (isinstance(tower, SpeechTower) and is_plain):
            continue
        trained = {each: _value(there, each, theirs) for each in FEATURE_ARGUMENTS}
        if any(value not in (None, getattr(tower, each)) for each, value in trained.items()):
            arguments = ", ".join(f"{each}: {value}" for each, value in trained.items())
            raise ValueError(
                f"{definition}: {name} was trained on other filter banks: give the recipe's model"
                f" the same (--model='{{{name}: {{{arguments}}}}}'), or train that model again"
            )


def _value(there: Mapping[str, Any], name: str, definition: Mapping[str, Any]) -> Any:
    """Return an argument of a SpeechTower in a definition, which may refer to another key."""
    value = there.get(name, signature(SpeechTower).parameters[name].default)
    if isinstance(value, TaggedScalar):
        return definition.get(value.value.strip("<>"))
    return value
