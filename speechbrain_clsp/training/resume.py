"""What a training depends on, written down, so that a resumed one can say what has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechbrain_clsp.utils.files import atomic_write
from speechbrain_clsp.utils.reading import read_json

SETTINGS = "resume.json"


def check_kind(folder: Path, provenance: Mapping[str, str]) -> None:
    """Refuse to go on with fine-tuning by a training from scratch, and the other way around.

    Arguments
    ---------
    folder : path
        That of the checkpoints, which may be empty.
    provenance : dict
        What the model starts from: its ``base``, if it is fine-tuned.

    Raises
    ------
    ValueError
        If the training there began otherwise.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = find_changes(folder, {"base": "sha256 1"})
    >>> check_kind(folder, {"base": "sha256 1"})
    """
    path = folder / SETTINGS
    if not path.is_file():
        return
    was_fine_tuned = "base" in read_json(path)
    if was_fine_tuned != ("base" in provenance):
        kind = "of adapters of a base model" if was_fine_tuned else "from scratch"
        raise ValueError(f"{folder.parent} holds a training {kind}: name another output folder")


def find_changes(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """Compare settings with those of the training that is resumed, and write the new ones down.

    Arguments
    ---------
    folder : path
        That of the checkpoints.
    settings : dict
        Such as batch size, seed, and hashes of manifests.

    Returns
    -------
    list of str
        A line for each setting that is not what it was; empty for a new training.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> find_changes(folder, {"batch_size": 32})
    []
    >>> find_changes(folder, {"batch_size": 16})
    ['batch_size was 32 and is 16']
    """
    path = folder / SETTINGS
    settings = json.loads(json.dumps(settings))  # as they are read
    before = read_json(path) if path.is_file() else settings
    if before != settings or not path.is_file():
        atomic_write(path, json.dumps(settings, indent=1) + "\n")
    return [
        f"{name} was {before[name]} and is {value}"
        for name, value in settings.items()
        if name in before and before[name] != value
    ]
