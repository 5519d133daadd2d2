"""Checkpoints that are written and deleted atomically."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from textwrap import shorten
from typing import Any

from speechbrain.utils.checkpoints import CKPT_PREFIX, METAFNAME, Checkpoint, Checkpointer
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from speechbrain.utils.logger import get_logger

PENDING = "PENDING.yaml"
logger = get_logger(__name__)


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's checkpointer, safe against a kill at any moment.

    SpeechBrain takes a folder for a checkpoint as soon as its metadata is there, and writes that
    first: a training killed while saving cannot be resumed. Here the metadata gets its name last.
    It also lists the checkpoint's files, so that one that was being deleted is not taken for
    complete.

    Arguments
    ---------
    *args, **kwargs
        Those of SpeechBrain's ``Checkpointer``: a folder, what is saved by name, and so on.

    Example
    -------
    >>> import torch
    >>> folder = getfixture("tmp_path")
    >>> checkpointer = AtomicCheckpointer(folder, {"net": torch.nn.Linear(2, 2)})
    >>> checkpoint = checkpointer.save_checkpoint(meta={"loss": 1.0})
    >>> checkpointer.find_checkpoint(min_key="loss").path == checkpoint.path
    True
    """

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> Checkpoint | None:
        """Save, as SpeechBrain does; also removes what a killed run left unfinished."""
        if if_main_process():
            for folder in Path(self.checkpoints_dir).glob(f"{CKPT_PREFIX}*"):
                if _is_unfinished(folder):
                    shutil.rmtree(folder)
        checkpoint = super().save_checkpoint(*args, **kwargs)
        if checkpoint is not None and if_main_process():
            os.replace(checkpoint.path / PENDING, checkpoint.path / METAFNAME)
        ddp_barrier()  # all must see it before they list checkpoints, or they delete different ones
        return checkpoint

    def list_checkpoints(self) -> list[Checkpoint]:
        """List the checkpoints that have all their files."""
        return [
            checkpoint
            for checkpoint in super().list_checkpoints()
            if set(checkpoint.meta.get("files", ())) <= set(checkpoint.paramfiles)
        ]

    def recover_if_possible(self, *args: Any, **kwargs: Any) -> Checkpoint | None:
        """Load a checkpoint, as SpeechBrain does; say so if others can no longer be used.

        Raises
        ------
        ValueError
            If there are checkpoints, but none of them has all its files: SpeechBrain would begin
            from the start, without a word. Also if it was saved with another model or optimizer.
        """
        usable = {checkpoint.path for checkpoint in self.list_checkpoints()}
        lost = [
            str(folder)
            for folder in sorted(Path(self.checkpoints_dir).glob(f"{CKPT_PREFIX}*"))
            if folder not in usable and not _is_unfinished(folder)
        ]
        message = f"{', '.join(lost)}: {METAFNAME} or files that it lists are missing"
        if lost and not usable:
            raise ValueError(
                f"{message}, and no other checkpoint is there to go on from: restore them, or move"
                " the folder away to begin from the start"
            )
        if lost:
            logger.warning("%s: not used", message)
        try:
            return super().recover_if_possible(*args, **kwargs)
        except (RuntimeError, ValueError) as error:
            first = shorten(" ".join(str(error).split("\n")[:2]), 400)
            raise ValueError(
                f"{self.checkpoints_dir}: its checkpoint does not fit the model ({first}): go"
                " on with the settings of the first run, or name another output folder"
            ) from error

    # SpeechBrain has no public hook between the parameter files and the metadata.
    def _save_checkpoint_metafile(
        self, fpath: Path, meta_to_include: dict, *args: Any, **kwargs: Any
    ) -> dict:
        meta = {**meta_to_include, "files": list(self.recoverables)}
        return super()._save_checkpoint_metafile(fpath.with_name(PENDING), meta, *args, **kwargs)


def _is_unfinished(folder: Path) -> bool:
    """Return whether a process was killed while it wrote a checkpoint."""
    names = {path.name for path in folder.iterdir()}
    return METAFNAME not in names and (PENDING in names or not names)
