"""A CLSP of this package, or in the published form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from speechbrain_clsp.evaluation.models.base import MOVING, folder_revision
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.pretrained.hub import PINS


class ClspModel:
    """A CLSP that is open already.

    Arguments
    ---------
    clsp : CLSP
        Anything with ``encode_files(paths, progress) -> [N, D]`` and ``encode_text(texts) -> [M,
        D]``, of unit norm.
    model, revision : str
        What it is and in which state; see :class:`~speechbrain_clsp.evaluation.models.base.Model`.
    """

    is_bound = False

    def __init__(self, clsp: CLSP, model: str, revision: str) -> None:
        self.clsp, self.model, self.revision = clsp, model, revision

    @classmethod
    def open(cls, source: str, revision: str | None = None, device: str = "cpu") -> ClspModel:
        """Open a folder or a Hub repository.

        Arguments
        ---------
        source : str
            Folder or repository.
        revision : str, optional
            Of the repository; default: the pinned one of known repositories.
        device : str
            Where it runs.
        """
        clsp = CLSP.from_pretrained(source, revision, run_opts={"device": device})
        pinned = PINS[source].revision if source in PINS else MOVING
        is_folder = Path(source).is_dir()
        return cls(clsp, source, folder_revision(source) if is_folder else revision or pinned)

    def encode_files(self, paths: Sequence[str]) -> Tensor:
        """Embed audio files of any rate and length."""
        return self.clsp.encode_files(list(paths), progress=False).float().cpu()

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed captions."""
        return self.clsp.encode_text(list(texts)).float().cpu()
