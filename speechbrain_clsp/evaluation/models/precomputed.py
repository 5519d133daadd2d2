"""Embeddings of any other model, from a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from speechbrain_clsp.evaluation.models.base import unit
from speechbrain_clsp.utils.content import explain_file
from speechbrain_clsp.utils.files import sha256_of_file

ARRAYS = ("paths", "embeddings", "texts", "text_embeddings")


class PrecomputedModel:
    """Embeddings of any other model, from an .npz file.

    Arguments
    ---------
    path : str or path
        With the arrays ``paths`` [N] and ``embeddings`` [N, D], as ``clsp embed`` writes them, and
        ``texts`` [M] and ``text_embeddings`` [M, D]; optionally ``model`` and ``revision``, names.

    Raises
    ------
    ValueError
        If it is not such a file, an array is missing, or sizes do not fit.
    """

    is_bound = False

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = path
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
        except (ValueError, EOFError, TypeError, AttributeError, BadZipFile) as error:
            kind = explain_file(path, "a zip")
            raise ValueError(
                f"{path} is not an .npz file of arrays, or damaged{kind}: {error}"
            ) from error
        absent = [name for name in ARRAYS if name not in arrays]
        if absent:
            raise ValueError(f"{path} lacks the arrays {absent}")
        self.speech = self._by_name(arrays["paths"], arrays["embeddings"])
        self.text = self._by_name(arrays["texts"], arrays["text_embeddings"])
        self.model = str(arrays.get("model", Path(path).stem))
        self.revision = str(arrays.get("revision", "")) or f"sha256:{sha256_of_file(path)}"

    def encode_files(self, paths: Sequence[str]) -> Tensor:
        """Look up files, by path or else by name."""
        names: dict[str, str] = {}
        for known in self.speech:  # a name that occurs in two folders is ambiguous
            names[Path(known).name] = "" if Path(known).name in names else known
        keys = [p if p in self.speech else names.get(Path(p).name, "") for p in paths]
        return self._look_up(self.speech, keys, paths)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Look up captions."""
        return self._look_up(self.text, texts, texts)

    def _look_up(
        self, known: dict[str, Tensor], keys: Sequence[str], asked: Sequence[str]
    ) -> Tensor:
        absent = [name for key, name in zip(keys, asked) if key not in known]
        if absent:
            raise ValueError(f"{self.path} has no embedding of {len(absent)}, such as {absent[:3]}")
        return torch.stack([known[key] for key in keys])

    def _by_name(self, names: np.ndarray, vectors: np.ndarray) -> dict[str, Tensor]:
        if vectors.ndim != 2 or len(names) != len(vectors):
            raise ValueError(f"{self.path}: {len(names)} names, vectors {list(vectors.shape)}")
        return dict(zip(map(str, names), unit(torch.from_numpy(np.ascontiguousarray(vectors)))))
