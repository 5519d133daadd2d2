"""Keys of a recipe's YAML file that nothing reads, such as misspelled ones."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from speechbrain.core import RunOptions

# Read by SpeechBrain's Brain from hparams, or only there to be executed.
READ_BY_SPEECHBRAIN = {"__set_seed", "modules", *(field.name for field in fields(RunOptions))}
TOP_LEVEL_KEY = re.compile(r"^([A-Za-z_]\w*):", flags=re.M)


def unused_keys(yaml: str, script: str) -> list[str]:
    r"""Return the top-level keys of a YAML that neither its script nor the YAML itself uses.

    As in SpeechBrain's tests/utils/check_yaml.py, a key occurs in the script as ``hparams["key"]``,
    ``hparams.key``, ``modules.key`` or ``getattr(hparams, "key"``, or in the YAML as ``<key>``.

    Arguments
    ---------
    yaml, script : str
        Texts of the two files.

    Returns
    -------
    list of str
        The keys, in their order.

    Example
    -------
    >>> unused_keys("lr: 1.0\nprecison: bf16\n", 'rate = hparams["lr"]')
    ['precison']
    """
    unused = []
    for key in TOP_LEVEL_KEY.findall(yaml):
        name = re.escape(key)
        in_script = re.search(
            rf"""hparams\[["']{name}["']\]|hparams\.{name}\b|modules\.{name}\b"""
            rf"""|attr\((?:self\.)?hparams, ["']{name}["']""",
            script,
        )
        in_yaml = re.search(rf"<{name}[\[>]", yaml)
        if not in_script and not in_yaml and key not in READ_BY_SPEECHBRAIN:
            unused.append(key)
    return unused


def check_keys(hparams_file: str | os.PathLike, script: str | os.PathLike) -> None:
    """Refuse a YAML file with keys that its script does not read.

    SpeechBrain has defaults for options such as ``precision`` and ``max_grad_norm``: a misspelled
    one would silently be the default.

    Raises
    ------
    ValueError
        If there are such keys; the message names them.
    """
    yaml, text = (Path(file).read_text(encoding="utf-8") for file in (hparams_file, script))
    unused = unused_keys(yaml, text)
    if unused:
        raise ValueError(f"{hparams_file} has keys that nothing reads: {unused}. Misspelled?")


def check_overrides(hparams_file: str | os.PathLike, names: Iterable[str]) -> None:
    """Refuse names of settings that a YAML file does not have at its top level.

    Raises
    ------
    ValueError
        That names the first of them, and what there is.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.yaml"
    >>> _ = path.write_text("lr: 1.0")
    >>> check_overrides(path, ["LR"])
    Traceback (most recent call last):
    ...
    ValueError: There is no setting 'LR'; a.yaml has lr
    """
    known = TOP_LEVEL_KEY.findall(Path(hparams_file).read_text(encoding="utf-8"))
    for name in names:
        if name not in known:
            listed = ", ".join(known)
            raise ValueError(
                f"There is no setting {name!r}; {Path(hparams_file).name} has {listed}"
            )
