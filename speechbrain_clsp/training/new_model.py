"""A model that a recipe trains from a definition in its YAML file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from speechbrain_clsp.dataio.tokenizers import train_sentencepiece
from speechbrain_clsp.evaluation.models import ClspModel
from speechbrain_clsp.evaluation.result import Evaluation
from speechbrain_clsp.lobes.text_tower import TextTower
from speechbrain_clsp.pretrained.folder import extract_definition, save_model_folder
from speechbrain_clsp.pretrained.hub import fetch_tokenizer


class NewModel:
    """What a recipe asks its model for; :class:`FineTunedModel` answers the same.

    Arguments
    ---------
    definition : dict
        The part ``model`` of a recipe, as HyperPyYAML built it.

    Example
    -------
    >>> model = NewModel({"tokenizer": None, "modules": {}})
    >>> model.provenance(), model.describe_base(), model.describe_changes(Evaluation("mini", 0), 1)
    ({}, '', [])
    """

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self.definition = definition
        self.tokenizer: Any = definition["tokenizer"]

    def save_tokenizer(self, path: Path, source: str, texts: Iterable[str]) -> None:
        """Train a tokenizer on texts, or fetch one.

        Arguments
        ---------
        path : Path
            Where it goes.
        source : str
            ``captions`` or ``captions_and_prompts`` for a new one with as many tokens as the text
            tower knows; or a folder or Hub repository.
        texts : iterable of str
            What a new one is trained on.
        """
        if source in ("captions", "captions_and_prompts"):
            text_tower: TextTower = self.definition["text_tower"]
            train_sentencepiece(texts, path, text_tower.vocab_size)
        else:
            fetch_tokenizer(source).save(path)

    def provenance(self) -> dict[str, str]:
        """Return what a resumed training must have in common with the first: nothing else here."""
        return {}

    def describe_unknown(self, texts: Iterable[str]) -> str:
        """Return "": the tokenizer was made from the captions, or knows all characters."""
        return ""

    def save(
        self,
        folder: Path,
        modules: Mapping[str, nn.Module],
        metrics: Mapping[str, float],
        tokenizer_file: str | os.PathLike,
    ) -> None:
        """Write the model folder of trained modules.

        The definition is read from the ``hyperparams.yaml`` that SpeechBrain wrote beside it: the
        recipe's, with overrides and includes resolved.
        """
        recipe = (folder.parent / "hyperparams.yaml").read_text(encoding="utf-8")
        towers: dict[str, Any] = {name: modules[name] for name in ("speech_tower", "text_tower")}
        save_model_folder(
            folder,
            extract_definition(
                recipe, "model", {name: tower.arguments() for name, tower in towers.items()}
            ),
            {name: modules[name] for name in self.definition["modules"]},
            {self.tokenizer.FILENAME: str(tokenizer_file)},
            metrics,
        )

    def open_evaluated(self, folder: Path, device: str) -> dict[str, ClspModel]:
        """Open what is evaluated, by its name in tables: the saved model."""
        return {folder.parent.name: ClspModel.open(str(folder), device=device)}

    def describe_base(self) -> str:
        """Return "": there is no base model that the card must speak of."""
        return ""

    def describe_changes(self, evaluation: Evaluation, n_clips: int) -> list[str]:
        """Return no line: there is nothing that changed."""
        return []
