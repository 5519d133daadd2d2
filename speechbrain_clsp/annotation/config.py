"""The configuration of the annotation stages, from a plain YAML file that runs no code."""

from __future__ import annotations

import os
from collections.abc import Sequence
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
    """The settings of the stages, in the order in which they run, and of ``clsp judge``.

    ``transcripts`` is a file of what is said in the clips, with a column ``text``; see
    :func:`~speechbrain_clsp.annotation.texts.read_texts`.
    """

    caption: CaptionSettings = field(default_factory=CaptionSettings)
    verify: VerifySettings = field(default_factory=VerifySettings)
    filter: FilterSettings = field(default_factory=FilterSettings)
    select: SelectSettings = field(default_factory=SelectSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    transcripts: str | None = None


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
    content: dict[str, Any] = {} if path is None else _read(path)
    for name, value in parse_key_values(overrides, "--set").items():
        section, _, key = name.partition(".")
        if not key and section != "transcripts":
            raise ValueError(f"--set {name}: must be section.name=value")
        target = content.setdefault(section, {}) if key else content
        if not isinstance(target, dict):
            raise ValueError(f"--set {name}: {section} is not a section")
        target[key or section] = yaml.safe_load(value)
    where = path or "--set"
    made: dict[str, Any] = {"transcripts": content.pop("transcripts", None)}
    for name, section in content.items():
        if name not in SECTIONS:
            raise ValueError(f"{where}: no section {name!r}; known are {', '.join(SECTIONS)}")
        if not isinstance(section or {}, dict):
            raise ValueError(f"{where}: section {name!r} must be a mapping")
        known = [known.name for known in fields(SECTIONS[name])]
        for key in section or {}:
            if key not in known:
                raise ValueError(f"{where}: {name}.{key} is unknown; known are {', '.join(known)}")
        made[name] = SECTIONS[name](**(section or {}))
    return AnnotationSettings(**made)


def _read(path: str | os.PathLike) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must be a mapping of sections {', '.join(SECTIONS)}")
    return content
