"""A cache of embeddings by model, revision and content."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from speechbrain.utils.logger import get_logger
from torch import Tensor

from speechbrain_clsp.evaluation.models.base import MOVING, Model
from speechbrain_clsp.utils.checks import quote
from speechbrain_clsp.utils.files import sha256_of_file

logger = get_logger(__name__)
BATCH = 64  # items that are embedded between two commits; a kill loses at most these


class CachedModel:
    """A model that embeds nothing twice, neither within a call nor in a later process.

    Equal captions get the very same vector, so that they tie. A model whose revision is a branch
    is not cached, since its content may change.

    Arguments
    ---------
    model : Model
        See :class:`speechbrain_clsp.evaluation.models.base.Model`.
    path : str or path, optional
        SQLite file, shared by all models; None: only within a call.

    Raises
    ------
    ValueError
        If an embedding is NaN or infinite; model and item are named.

    Example
    -------
    >>> from speechbrain_clsp.evaluation.models.bounds import RandomModel
    >>> cached = CachedModel(RandomModel(), getfixture("tmp_path") / "cache.sqlite")
    >>> torch.equal(cached.encode_text(["A.", "A."])[1], RandomModel().encode_text(["A."])[0])
    True
    """

    def __init__(self, model: Model, path: str | os.PathLike | None = None) -> None:
        self.inner, self.model, self.revision = model, model.model, model.revision
        self.is_bound = model.is_bound
        self.unknown: dict[str, str] = {}  # caption -> characters that the model does not know
        self.identity = f"{type(model).__name__} {model.model} {model.revision}"
        if path is not None and model.revision == MOVING:
            logger.warning("%s is not pinned to a revision: not cached", model.model)
            path = None
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.base = sqlite3.connect(":memory:" if path is None else path)
        self.base.execute(
            "CREATE TABLE IF NOT EXISTS vectors"
            " (model TEXT, item TEXT, vector BLOB, PRIMARY KEY (model, item))"
        )

    def check_texts(self, texts: Sequence[tuple[str, str]], where: str) -> None:
        """Raise ValueError if the model cannot embed texts, of which each has a name; see there."""
        if hasattr(self.inner, "check_texts"):
            self.inner.check_texts(texts, where)

    def encode_files(self, paths: Sequence[str]) -> Tensor:
        """Embed files, each content once."""
        keys = [f"speech {sha256_of_file(path)}" for path in paths]
        return self._encode(self.inner.encode_files, keys, list(paths))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed captions, each once; note those that the model does not know all of."""
        find_unknown = getattr(self.inner, "find_unknown", None)
        if find_unknown is not None:
            self.unknown |= {t: found for t, found in zip(texts, find_unknown(texts)) if found}
        keys = [f"text {hashlib.sha256(text.encode()).hexdigest()}" for text in texts]
        return self._encode(self.inner.encode_text, keys, list(texts))

    def _encode(self, encode: Callable, keys: list[str], items: list[str]) -> Tensor:
        found = {}
        for key in set(keys):
            query = "SELECT vector FROM vectors WHERE model = ? AND item = ?"
            row = self.base.execute(query, (self.identity, key)).fetchone()
            if row is not None:
                found[key] = torch.from_numpy(np.frombuffer(row[0], np.float32).copy())
        absent = list({key: item for key, item in zip(keys, items) if key not in found}.items())
        for start in range(0, len(absent), BATCH):
            names, batch = zip(*absent[start : start + BATCH])
            for name, item, vector in zip(names, batch, encode(list(batch)).float().cpu()):
                if not vector.isfinite().all():
                    raise ValueError(
                        f"{self.model}: the embedding of {quote(item)} is NaN or infinite"
                    )
                found[name] = vector
                row = (self.identity, name, vector.numpy().tobytes())
                self.base.execute("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", row)
            self.base.commit()
        return torch.stack([found[key] for key in keys])
