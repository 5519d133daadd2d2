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
from speechbrain.inference.interfaces import Pretrained
from torch import Tensor, nn

from speechbrain_clsp.dataio.tokenizers import FastTokenizerCaptions
from speechbrain_clsp.lobes.prompt_bank import PromptBank, embed_classes, prompt_groups
from speechbrain_clsp.lobes.speech_tower import SpeechTower
from speechbrain_clsp.lobes.text_tower import RobertaTextTower
from speechbrain_clsp.pretrained.adapters import Adapters, find_adapters
from speechbrain_clsp.pretrained.background import (
    find_background,
    read_background,
    write_background,
)
from speechbrain_clsp.pretrained.folder import (
    CONFIG,
    HYPERPARAMS,
    LABELS,
    PARTS,
    WEIGHTS,
    find_source,
    save_model_folder,
    state_of,
)
from speechbrain_clsp.pretrained.hub import (
    PREFIX,
    find_file,
    has_definition,
    load_official,
    read_sizes,
)
from speechbrain_clsp.pretrained.official import UNUSED_IN_LAYERS, define, to_official
from speechbrain_clsp.utils.files import atomic_path, atomic_write, expand

ORIGIN = """Converted from `{source}`{revision}, whose license applies to the weights.

Its authors report, on 241 test clips of FCaps (arXiv 2601.03065): R@1 with global captions 45.6
(speech to text) and 40.3 (text to speech), with fine captions 68.1 and 67.2; the 95 % interval of
such numbers is about 6 points wide on either side. These are their numbers, not measured here."""


@torch.no_grad()
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
        Where it goes. ``CLSP.from_pretrained`` loads it, and with ``prompts`` SpeechBrain's own
        ``EncoderClassifier.from_hparams``, too.
    revision : str, optional
        Of a repository.
    prompts : dict, optional
        For each class one or several prompts.

    Raises
    ------
    FileNotFoundError
        If the source has no tokenizer, and RoBERTa's could not be downloaded.

    Example
    -------
    >>> convert_official("yfyeung/CLSP", "my_clsp", prompts={"calm": "calm"})  # doctest: +SKIP
    """
    modules, tokenizer = load_official(source, revision)
    origin = ORIGIN.format(source=source, revision=f" at {revision}" if revision else "")
    _write_folder(folder, read_sizes(source, revision), modules, tokenizer, prompts, origin)


@torch.no_grad()
def merge_adapters(
    clsp: Pretrained,
    source: str | os.PathLike,
    folder: str | os.PathLike,
    revision: str | None = None,
    prompts: Mapping[str, str | Sequence[str]] | None = None,
) -> None:
    """Write a fine-tuned model as a folder that needs no base model; its background comes along.

    Arguments
    ---------
    clsp : CLSP
        What ``CLSP.from_pretrained(source, revision)`` returned: adapters are in its weights.
    source : str or path
        Where the adapters are: a folder or a Hub repository.
    folder : str or path
        Where the model goes.
    revision : str, optional
        Of the adapters' repository.
    prompts : dict, optional
        For each class one or several prompts, if the base model is in the published form.

    Raises
    ------
    ValueError
        If there are no adapters; or prompts, and the base model has a definition of its own.
    FileExistsError
        If there is something at ``folder`` that is not a model folder.

    Example
    -------
    >>> from speechbrain_clsp import CLSP  # doctest: +SKIP
    >>> clsp = CLSP.from_pretrained("tuned")  # doctest: +SKIP
    >>> merge_adapters(clsp, "tuned", "merged")  # doctest: +SKIP
    """
    adapters = find_adapters(find_source(source), revision)
    if adapters is None:
        raise ValueError(f"{source} is a model of its own already: it has no adapters to merge")
    background = find_background(adapters.place, revision)
    found = None if background is None else read_background(background)
    _write_merged(clsp, adapters, folder, prompts)
    if found is not None:
        write_background(folder, *found)


def _write_merged(
    clsp: Pretrained,
    adapters: Adapters,
    folder: str | os.PathLike,
    prompts: Mapping[str, str | Sequence[str]] | None,
) -> None:
    """Write the weights of a model with what else is in its base's folder."""
    origin = f"Fine-tuned from `{adapters.base.source}`, whose license applies to the weights."
    base = adapters.base
    while (inner := find_adapters(find_source(base.source), base.revision)) is not None:
        base = inner.base
    tokenizer, place = clsp.hparams.tokenizer, find_source(base.source)
    if not has_definition(place, base.revision):
        sizes = read_sizes(place, base.revision)
        _write_folder(folder, sizes, dict(clsp.mods.items()), tokenizer, prompts, origin)
        return
    if prompts:
        raise ValueError(f"Prompts go into a model of the published form; {place} is of another")
    definition = find_file(place, HYPERPARAMS, base.revision).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        files = {tokenizer.FILENAME: Path(temporary) / tokenizer.FILENAME}
        tokenizer.save(files[tokenizer.FILENAME])
        if "classifier" in clsp.mods:
            classes = embed_classes(clsp.encode_text, clsp.hparams.prompts)
            clsp.mods.classifier.fill(classes, clsp.mods.logit_scale())
            files[LABELS] = find_file(place, LABELS, base.revision)
        parts = {name: clsp.mods[name] for name in (*PARTS, "classifier") if name in clsp.mods}
        save_model_folder(folder, definition, parts, files, origin=origin)


def _write_folder(
    folder: str | os.PathLike,
    sizes: Mapping[str, Mapping[str, Any]],
    modules: dict[str, nn.Module],
    tokenizer: FastTokenizerCaptions,
    prompts: Mapping[str, str | Sequence[str]] | None,
    origin: str,
) -> None:
    """Write a model of the published architecture, and with prompts its classifier."""
    groups = prompt_groups(prompts) if prompts else None
    definition = define(sizes, groups)
    with tempfile.TemporaryDirectory() as temporary:
        files = {tokenizer.FILENAME: Path(temporary) / tokenizer.FILENAME}
        tokenizer.save(files[tokenizer.FILENAME])
        if groups:
            classes = embed_classes(lambda some: modules["text_tower"](*tokenizer(some)), groups)
            modules["classifier"] = bank = PromptBank(*classes.shape)
            bank.fill(classes, modules["logit_scale"]())
            files[LABELS] = Path(temporary) / LABELS
            encoder = CategoricalEncoder()
            encoder.update_from_iterable(list(groups), sequence_input=False)
            encoder.save(files[LABELS])
        save_model_folder(folder, definition, modules, files, origin=origin)


def export_official(clsp: Pretrained, folder: str | os.PathLike) -> None:
    """Write a model's weights under the published names.

    Arguments
    ---------
    clsp : CLSP
        A model with a :class:`~speechbrain_clsp.lobes.speech_tower.SpeechTower` and a
        :class:`~speechbrain_clsp.lobes.text_tower.RobertaTextTower`.
    folder : str or path
        Gets ``model.safetensors``, ``config.json`` and the tokenizer;
        :func:`~speechbrain_clsp.pretrained.hub.load_official` reads it.

    Raises
    ------
    ValueError
        If a tower is of another kind, for which the published form has no place.
    FileExistsError
        If one of these files is there already.

    Example
    -------
    >>> from speechbrain_clsp import CLSP  # doctest: +SKIP
    >>> export_official(CLSP.from_pretrained("my_clsp"), "published")  # doctest: +SKIP
    """
    text_tower, tokenizer = clsp.mods.text_tower, clsp.hparams.tokenizer
    for tower, kind in ((clsp.mods.speech_tower, SpeechTower), (text_tower, RobertaTextTower)):
        if not isinstance(tower, kind):
            raise ValueError(
                f"The published form has no place for a {type(tower).__name__}: only models"
                f" with a {kind.__name__} can be exported"
            )
    folder = expand(folder)
    for name in (WEIGHTS, CONFIG, tokenizer.FILENAME):
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} exists: remove it, or export to another place")
    text = text_tower.encoder.config
    heads = {"hidden_size": text.hidden_size, "num_attention_heads": text.num_attention_heads}
    config = {"model_type": "clsp", "text_config": heads}
    atomic_write(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    tokenizer.save(folder / tokenizer.FILENAME)
    with atomic_path(folder / WEIGHTS) as temporary:  # last: a folder with weights is complete
        save_file(_official_state(clsp.mods), temporary)


def _official_state(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return a model's weights under the published keys, unused ones included."""
    parts = state_of({name: modules[name] for name in PARTS})
    state = {PREFIX + to_official(key): value.cpu().contiguous() for key, value in parts.items()}
    state[f"{PREFIX}logit_scale"] = state[f"{PREFIX}logit_scale"].reshape(())
    for key in list(state):
        if key.endswith(".bypass.bypass_scale"):  # beside it stands one that nothing reads
            name = key.removesuffix("bypass.bypass_scale") + UNUSED_IN_LAYERS
            state[name] = torch.full_like(state[key], 0.5)
    return state
