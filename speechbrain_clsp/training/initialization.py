"""Where a training starts from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from speechbrain_clsp.lobes.pooling import untrained_moments
from speechbrain_clsp.lobes.speech_tower import SpeechTower
from speechbrain_clsp.lobes.text_tower import RobertaTextTower
from speechbrain_clsp.pretrained.folder import WEIGHTS, load_weights
from speechbrain_clsp.pretrained.hub import PINS, load_pretrained_encoder


def from_pretrained_encoders(
    speech_tower: SpeechTower,
    text_tower: RobertaTextTower,
    speech_source: str | os.PathLike,
    text_source: str | os.PathLike,
) -> None:
    """Start stage 1: a Zipformer and a RoBERTa, each pretrained by itself; heads stay random.

    Arguments
    ---------
    speech_tower : SpeechTower
        Its front end and encoder are overwritten.
    text_tower : RobertaTextTower
        Its encoder is overwritten.
    speech_source : str or path
        Folder or Hub repository, as for
        :func:`~speechbrain_clsp.pretrained.hub.load_pretrained_encoder`.
    text_source : str or path
        Folder or Hub repository of a RoBERTa that transformers can load.

    Raises
    ------
    ValueError
        If weights are missing, or have other shapes.
    """
    from transformers import RobertaModel

    load_pretrained_encoder(speech_tower, speech_source)
    pin = PINS.get(str(text_source))
    roberta = RobertaModel.from_pretrained(text_source, revision=pin.revision if pin else None)
    try:
        text_tower.encoder.load_state_dict(roberta.state_dict())
    except RuntimeError as error:
        raise ValueError(f"{text_source} does not fit the text tower: {error}") from error


def from_model_folder(modules: Mapping[str, nn.Module], source: str | os.PathLike) -> None:
    """Start from what an earlier stage left, such as its averaged model.

    The modules' pooling may have moments that the earlier model has not; they start at zero.

    Arguments
    ---------
    modules : dict of nn.Module
        All are overwritten.
    source : str or path
        The model folder that a recipe or ``clsp convert`` wrote, or its weights' file.

    Raises
    ------
    FileNotFoundError
        If there are no weights.
    ValueError
        If they don't fit.

    Example
    -------
    >>> from safetensors.torch import save_file
    >>> folder = getfixture("tmp_path")
    >>> save_file({"a.weight": nn.Linear(2, 3, bias=False).weight.data}, folder / WEIGHTS)
    >>> from_model_folder({"a": nn.Linear(2, 3, bias=False)}, folder)
    """
    source = Path(source)
    path = source / WEIGHTS if source.is_dir() else source
    load_weights(path, modules, absent=untrained_moments(modules))
