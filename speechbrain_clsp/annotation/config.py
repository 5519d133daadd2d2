"""The configuration of the annotation stages, from a plain YAML file that runs no code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from speechbrain_clsp.annotation.judge import JudgeSettings
from speechbrain_clsp.annotation.stages.caption import CaptionSettings
from speechbrain_clsp.annotation.stages.filter import FilterSettings
from speechbrain_clsp.annotation.stages.select import SelectSettings
from speechbrain_clsp.annotation.stages.verify import VerifySettings
from speechbrain_clsp.utils.files import parse_key_values
from speechbrain_clsp.utils.reading import read_text


@dataclass(frozen=True)
class AnnotationSettings:
    """The settings of the stages, in the order in which they run, and of ``clsp judge``.

    Arguments
    ---------
    caption, verify, filter, select, judge
        Each of its own class, such as
        :class:`~speechbrain_clsp.annotation.stages.caption.CaptionSettings`.
    transcripts : str, optional
        File of what is said in the clips, with a column ``text``; see
        :func:`~speechbrain_clsp.annotation.texts.read_texts`.

    Example
    -------
    >>> AnnotationSettings(select=SelectSettings(most=3)).select.most
    3
    """

    caption: CaptionSettings = field(default_factory=CaptionSettings)
    verify: VerifySettings = field(default_factory=VerifySettings)
    filter: FilterSettings = field(default_factory=FilterSettings)
    select: SelectSettings = field(default_factory=SelectSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    transcripts: str | None = None


KINDS: dict[Any, str] = {  # what types are called in messages
    str: "text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
    Mapping: "a mapping from names",
    NoneType: "null",
}
SECTIONS: dict[str, Any] = {
    each.name: each.default_factory
    for each in fields(AnnotationSettings)
    if each.name != "transcripts"
}


def read_settings(
    path: str | os.PathLike | None, overrides: Sequence[str] = ()
) -> AnnotationSettings:
    """Read a configuration.

    Arguments
    ---------
    path : str or path, optional
        YAML with a mapping per section; what is left out has its default.
    overrides : sequence of str
        ``section.name=value``, the value as in YAML.

    Returns
    -------
    AnnotationSettings
        Checked.

    Raises
    ------
    ValueError
        If a name is unknown, a value of another type than its setting or out of its range, or the
        file not a mapping of mappings.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.yaml"
    >>> _ = path.write_text("caption: {model: m}")
    >>> read_settings(path, ["caption.candidates=3"]).caption.candidates
    3
    """
    content: dict[str, Any] = {} if path is None else _read(path)
    _override(content, overrides)
    where = " with ".join([*([str(path)] if path else []), *(["--set"] if overrides else [])])
    made: dict[str, Any] = {"transcripts": content.pop("transcripts", None)}
    if not _fits(made["transcripts"], str | None):
        raise ValueError(f"{where}: transcripts is {made['transcripts']!r}, not the name of a file")
    for name, section in content.items():
        if name not in SECTIONS:
            raise ValueError(f"{where}: no section {name!r}; known are {', '.join(SECTIONS)}")
        try:
            made[name] = _make(SECTIONS[name], section or {})
        except ValueError as error:
            raise ValueError(f"{where}: {name}{error}") from error
    return AnnotationSettings(**made)


def _override(content: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set what ``section.name=value`` says."""
    for name, value in parse_key_values(overrides, "--set").items():
        section, _, key = name.partition(".")
        if not key and section != "transcripts":
            raise ValueError(f"--set {name}: must be section.name=value")
        if key and content.get(section) is None:
            content[section] = {}
        target = content[section] if key else content
        if not isinstance(target, dict):
            raise ValueError(f"--set {name}: {section} is not a section")
        try:
            target[key or section] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"--set {name}={value}: the value is not YAML: {error}") from error


def _make(settings: type, section: Any) -> Any:
    """Return a section's settings; messages continue its name."""
    if not isinstance(section, dict):
        raise ValueError(" must be a mapping")
    known = [known.name for known in fields(settings)]
    for key in section:
        if key not in known:
            raise ValueError(f".{key} is unknown; known are {', '.join(known)}")
    try:
        check_types(settings, section)
        return settings(**section)
    except ValueError as error:
        raise ValueError(f".{error}") from error


def check_types(settings: type, values: Mapping[str, Any]) -> None:
    """Raise ValueError if a value, as YAML gives it, is of another type than its setting.

    Arguments
    ---------
    settings : type
        A dataclass.
    values : mapping
        Some of its arguments.

    Example
    -------
    >>> check_types(FilterSettings, {"shortest": "128"})
    Traceback (most recent call last):
    ...
    ValueError: shortest is '128', text, but must be a whole number
    """
    hints = get_type_hints(settings)
    for name, value in values.items():
        if not _fits(value, hints[name]):
            kind = "a number" if isinstance(value, float) else KINDS.get(type(value), "a value")
            raise ValueError(f"{name} is {value!r}, {kind}, but must be {_describe(hints[name])}")


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value of YAML is of a type, of those that settings have."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is tuple:
        right = isinstance(value, list | tuple) and len(value) == len(inner)
        return right and all(_fits(each, one) for each, one in zip(value, inner))
    if kind is Mapping:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if kind in (list, Sequence):
        return isinstance(value, list | tuple) and all(_fits(each, inner[0]) for each in value)
    return isinstance(value, kind)


def _describe(hint: Any) -> str:
    """Return what a type is called in messages."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return " or ".join(_describe(each) for each in inner)
    if kind is tuple:
        return f"a list of {len(inner)} finite numbers"
    if kind in (list, Sequence):
        return f"a list, each {_describe(inner[0])} (in quotes, where YAML reads it otherwise)"
    return KINDS[kind]


def _read(path: str | os.PathLike) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_text(path)) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must be a mapping of sections {', '.join(SECTIONS)}")
    return content
