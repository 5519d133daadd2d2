"""The configuration of the annotation stages, from a plain YAML file that runs no code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from speechbrain_clsp.annotation.judge import JudgeSettings
from speechbrain_clsp.annotation.stages.caption import CaptionSettings
from speechbrain_clsp.annotation.stages.filter import FilterSettings
from speechbrain_clsp.annotation.stages.select import SelectSettings
from speechbrain_clsp.annotation.stages.verify import VerifySettings
from speechbrain_clsp.utils.files import parse_key_values


@dataclass(frozen=True)
class AnnotationSettings:
    """The settings of every stage; see the classes of its fields.

    Arguments
    ---------
    caption, verify, filter, select
        Of the stages, in the order in which they run.
    transcripts : str, optional
        File of what is said in the clips; see :func:`~speechbrain_clsp.annotation.texts.read_texts`
        (column ``text``).
    """

    caption: CaptionSettings = field(default_factory=CaptionSettings)
    verify: VerifySettings = field(default_factory=VerifySettings)
    filter: FilterSettings = field(default_factory=FilterSettings)
    select: SelectSettings = field(default_factory=SelectSettings)
    transcripts: str | None = None


SECTIONS = {
    "caption": CaptionSettings,
    "verify": VerifySettings,
    "filter": FilterSettings,
    "select": SelectSettings,
}


def read_judge_settings(
    path: str | os.PathLike | None, overrides: Sequence[str] = ()
) -> JudgeSettings:
    """Read the section ``judge`` of a configuration.

    Arguments
    ---------
    path : str or path, optional
        YAML; default: all defaults.
    overrides : sequence of str
        ``name=value``.

    Returns
    -------
    JudgeSettings
        The settings.

    Raises
    ------
    ValueError
        As :func:`read_settings`.

    Example
    -------
    >>> read_judge_settings(None, ["rounds=3"]).rounds
    3
    """
    content = _read(path) if path is not None else {}
    _apply(content, [f"judge.{override}" for override in overrides])
    return _section(path or "--set", "judge", content.get("judge"), JudgeSettings)


def read_settings(path: str | os.PathLike, overrides: Sequence[str] = ()) -> AnnotationSettings:
    """Read a configuration.

    Arguments
    ---------
    path : str or path
        YAML with a mapping per stage; what is left out has its default.
    overrides : sequence of str
        ``section.name=value``, the value as in YAML.

    Returns
    -------
    AnnotationSettings
        The settings.

    Raises
    ------
    ValueError
        If a name is unknown, or the file is not a mapping of mappings.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.yaml"
    >>> _ = path.write_text("caption: {model: m}")
    >>> read_settings(path, ["caption.candidates=3"]).caption.candidates
    3
    """
    content = _read(path)
    _apply(content, overrides)
    transcripts = content.pop("transcripts", None)
    for name in content:
        if name not in SECTIONS:
            raise ValueError(f"{path}: no section {name!r}; known are {', '.join(SECTIONS)}")
    made = {name: _section(path, name, content.get(name), SECTIONS[name]) for name in SECTIONS}
    return AnnotationSettings(**made, transcripts=transcripts)


def _read(path: str | os.PathLike) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must be a mapping of sections {', '.join(SECTIONS)}")
    return content


def _apply(content: dict[str, Any], overrides: Sequence[str]) -> None:
    for name, value in parse_key_values(overrides, "--set").items():
        section, _, key = name.partition(".")
        if not key and section != "transcripts":
            raise ValueError(f"--set {name}: must be section.name=value")
        target = content.setdefault(section, {}) if key else content
        if not isinstance(target, dict):
            raise ValueError(f"--set {name}: {section} is not a section")
        target[key or section] = yaml.safe_load(value)


def _section(path: Any, name: str, content: Mapping[str, Any] | None, kind: type) -> Any:
    known = [known.name for known in fields(kind)]
    if not isinstance(content or {}, dict):
        raise ValueError(f"{path}: section {name!r} must be a mapping")
    for key in content or {}:
        if key not in known:
            raise ValueError(f"{path}: {name}.{key} is unknown; known are {', '.join(known)}")
    return kind(**(content or {}))
