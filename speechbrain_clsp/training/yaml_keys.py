"""Keys of a recipe's YAML file that nothing reads, such as misspelled ones."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from speechbrain.core import RunOptions
from yaml import YAMLError, compose, safe_load

from speechbrain_clsp.utils.files import parse_key_values

# Read by SpeechBrain's Brain from hparams, or only there to be executed.
READ_BY_SPEECHBRAIN = {"__set_seed", "modules", *(field.name for field in fields(RunOptions))}
TOP_LEVEL_KEY = re.compile(r"^([A-Za-z_]\w*):", flags=re.M)
_PLAIN = "tag:yaml.org,2002:"  # begins the tags of numbers, texts and the like
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "True or False"),
    "str": ((str,), "a text"),
    "seq": ((list,), "a list such as [a, b]"),
    "map": ((dict,), "a mapping such as {a: 1}"),
}


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


def parse_settings(hparams_file: str | os.PathLike, settings: Iterable[str]) -> dict[str, Any]:
    r"""Read ``KEY=VALUE`` settings of a command line, as values of keys that a YAML file has.

    Arguments
    ---------
    hparams_file : path
        The YAML file. Where it gives a number, a truth value or a text, a setting must be one, too;
        numbers must not be negative.
    settings : iterable of str
        Values are written as in YAML.

    Returns
    -------
    dict
        Values by key, in the order given.

    Raises
    ------
    ValueError
        If a setting is no such pair, given twice, not known, or of another kind.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.yaml"
    >>> _ = path.write_text("lr: 1.0\nheads: !new:collections.Counter {}")
    >>> parse_settings(path, ["lr=1e-3", "heads=null"])
    {'lr': 0.001, 'heads': None}
    >>> parse_settings(path, ["LR=1"])
    Traceback (most recent call last):
    ...
    ValueError: There is no setting 'LR'; a.yaml has lr, heads
    """
    name, found = Path(hparams_file).name, {}
    node = compose(Path(hparams_file).read_text(encoding="utf-8"))
    tags = {
        key.value: value.tag.removeprefix(_PLAIN) for key, value in (node.value if node else ())
    }
    for key, text in parse_key_values(settings).items():
        if key not in tags:
            raise ValueError(f"There is no setting {key!r}; {name} has {', '.join(tags)}")
        try:
            value = safe_load(text)
        except YAMLError as error:
            raise ValueError(f"{key}={text}: the value is not valid YAML") from error
        if isinstance(value, str):
            with suppress(ValueError):  # YAML 1.1 takes 1e-3 for a text
                value = float(value)
        if tags[key] in _KINDS:
            types, what = _KINDS[tags[key]]
            if type(value) not in types:
                raise ValueError(f"{key} must be {what}, not {text!r}")
        if tags[key] in ("int", "float") and not 0 <= value < math.inf:
            raise ValueError(f"{key} must be finite and not negative, not {text}")
        found[key] = value
    return found
