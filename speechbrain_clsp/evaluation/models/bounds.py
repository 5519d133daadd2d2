"""Bounds of what a model can reach: noise, a model before training, all attributes, all words."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hyperpyyaml import load_hyperpyyaml
from torch import Tensor

from speechbrain_clsp.dataio.labels import value_of
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.evaluation.clips import clip_name, is_whole_file
from speechbrain_clsp.evaluation.models.base import unit
from speechbrain_clsp.evaluation.models.clsp import ClspModel
from speechbrain_clsp.evaluation.zero_shot import read_tasks
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.pretrained.folder import HYPERPARAMS, translate_definition
from speechbrain_clsp.utils.files import sha256_of_file

SEED = 0  # of the untrained model's weights


class RandomModel:
    """The lower bound: a random direction for each file and each caption, always the same."""

    model, revision, is_bound = "random", "1", True

    def encode_files(self, paths: Sequence[str]) -> Tensor:
        """Embed the files' contents as noise."""
        return torch.stack([self._direction(Path(path).read_bytes()) for path in paths])

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed captions as noise."""
        return torch.stack([self._direction(text.encode()) for text in texts])

    def _direction(self, content: bytes) -> Tensor:
        seed = int.from_bytes(hashlib.sha256(content).digest()[:7], "big")
        noise = np.random.default_rng(seed).standard_normal(512)
        return unit(torch.from_numpy(noise))


class UntrainedModel(ClspModel):
    """A CLSP as its folder defines it, with the random weights that a training starts from.

    Arguments
    ---------
    source : str
        Folder in SpeechBrain's format; its YAML is run.
    device : str
        Where it runs.

    Raises
    ------
    FileNotFoundError
        If the folder has no ``hyperparams.yaml``.
    """

    is_bound = True

    def __init__(self, source: str, device: str = "cpu") -> None:
        definition = Path(source) / HYPERPARAMS
        if not definition.is_file():
            raise FileNotFoundError(f"untrained:{source}: there is no {definition}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            hparams = load_hyperpyyaml(translate_definition(definition.read_text(encoding="utf-8")))
        tokenizer = hparams["tokenizer"]
        tokenizer.load(Path(source) / tokenizer.FILENAME)
        clsp = CLSP(hparams["modules"], hparams, {"device": device})
        super().__init__(clsp, f"{source} untrained", f"{sha256_of_file(definition)} seed {SEED}")


class OracleModel:
    """The upper bound: knows every labelled attribute of every clip of a manifest, and no more.

    A clip is the set of its attributes; a caption is that of the clips that it describes; a prompt
    of the set ``mini`` is its class. Clips with equal attributes tie, and so count against it:
    recall below 100 % shows what labels alone cannot tell.

    Raises
    ------
    ValueError
        If a file or caption is not in the manifest.
    """

    is_bound = True

    def __init__(self, manifest: str | os.PathLike) -> None:
        self.model, self.revision = "attribute oracle", sha256_of_file(manifest)
        rows = list(Manifest(manifest))
        keys = list(map(_file_of, rows))
        sets = dict(zip(keys, map(_attributes, rows)))
        known: dict[str, set[str]] = {
            prompt: {f"{task.column}={name}"}
            for task in read_tasks("mini")
            for name, prompts in task.prompts.items()
            for prompt in prompts
        }
        for key, row in zip(keys, rows):
            for caption in row["global_captions"] + row["fine_captions"]:
                known[caption] = known.get(caption, set()) | sets[key]
        self.sets = sets | known
        names = sorted(set().union(*self.sets.values()))
        self.axis = {name: number for number, name in enumerate(names)}

    def encode_files(self, paths: Sequence[str]) -> Tensor:
        """Look attributes up."""
        return self._encode([p if p in self.sets else Path(p).name for p in map(str, paths)])

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Look attributes up."""
        return self._encode(texts)

    def _encode(self, items: Sequence[str]) -> Tensor:
        absent = [item for item in items if item not in self.sets]
        if absent:
            raise ValueError(f"The oracle's manifest lacks {len(absent)}, such as {absent[:3]}")
        vectors = torch.zeros(len(items), len(self.axis))
        for vector, item in zip(vectors, items):
            vector[[self.axis[name] for name in self.sets[item]]] = 1.0
        return unit(vectors)


class BagOfWordsModel:
    """The upper bound of a model without word order: each clip is the words of its captions.

    A caption is its words, how often each occurs, and no more. Captions that differ in the order of
    words only tie.

    Raises
    ------
    ValueError
        If a file is not in the manifest.

    Example
    -------
    >>> from speechbrain_clsp.dataio.manifest import write_manifest
    >>> path = getfixture("tmp_path") / "test.arrow"
    >>> captions = {"global_captions": ["A man begins softly and ends loudly."]}
    >>> _ = write_manifest(path, [{"id": "a", "audio": "a.wav", "duration": 1.0, **captions}])
    >>> model = BagOfWordsModel(path)
    >>> one = model.encode_text(["A man begins loudly and ends softly."])
    >>> torch.equal(one, model.encode_text(captions["global_captions"]))
    True
    """

    is_bound = True

    def __init__(self, manifest: str | os.PathLike) -> None:
        self.model, self.revision = "bag of words", sha256_of_file(manifest)
        rows = list(Manifest(manifest))
        self.captions = {
            _file_of(row): " ".join(row["global_captions"] + row["fine_captions"]) for row in rows
        }
        words = sorted({word for text in self.captions.values() for word in _words(text)})
        self.axis = {word: number for number, word in enumerate(words)}

    def encode_files(self, paths: Sequence[str]) -> Tensor:
        """Look captions up."""
        keys = [p if p in self.captions else Path(p).name for p in map(str, paths)]
        absent = [key for key in keys if key not in self.captions]
        if absent:
            raise ValueError(
                f"The bag of words' manifest lacks {len(absent)}, such as {absent[:3]}"
            )
        return self.encode_text([self.captions[key] for key in keys])

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Count words; those that no caption of the manifest has are left out."""
        vectors = torch.zeros(len(texts), len(self.axis))
        for vector, text in zip(vectors, texts):
            for word in _words(text):
                if word in self.axis:
                    vector[self.axis[word]] += 1.0
        return unit(vectors)


def _words(text: str) -> list[str]:
    """Return a text's words, of which "an" is the same as "a"."""
    return ["a" if word == "an" else word for word in re.findall(r"[\w'-]+", text.lower())]


def _file_of(row: Mapping[str, Any]) -> str:
    """Return the file of a row's clip: a part of a recording gets one that is named after it."""
    return row["audio"] if is_whole_file(row) else clip_name(row)


def _attributes(row: dict[str, Any]) -> set[str]:
    """Return all labels and tags of a clip, such as ``gender=male`` and ``deep``."""
    columns = ["gender", "accent", "pitch", "speaking_rate"]
    columns += [f"labels.{name}" for name in row["labels"]]
    labels = {f"{column}={value}" for column in columns if (value := value_of(row, column))}
    return labels | {*(row["intrinsic_tags"] or []), *(row["situational_tags"] or [])}
