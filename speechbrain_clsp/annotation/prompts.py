"""Prompts from template files, whose wording is ours and whose rules are the published ones.

A template is a text with ``${names}``. Those of the package are in ``annotation/templates``; copy
one, edit it, and name the copy in the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import Any

from speechbrain_clsp.utils.reading import read_text

TEMPLATES = Path(__file__).with_name("templates")
SAID_AS = {  # the labels that the published prompt gives, and what it calls them
    "accent": "accent",
    "speaking_rate": "speaking rate",
    "situational_tags": "emotion and expressiveness",
}


@lru_cache
def template_text(name: str | Path) -> str:
    """Return a template of the package by name, or else the file of that path.

    Raises
    ------
    FileNotFoundError
        If there is neither.

    Example
    -------
    >>> "${labels}" in template_text("caption.txt")
    True
    """
    path = TEMPLATES / name
    path = path if path.is_file() else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(p.name for p in TEMPLATES.iterdir()))
        raise FileNotFoundError(f"Template {name}: no such file, nor one of {known}")
    return read_text(path)


def fill(name: str | Path, **values: str) -> str:
    """Return a template with its names filled in.

    Raises
    ------
    ValueError
        If the template asks for a name that is not given.

    Example
    -------
    >>> fill("caption_labels.txt", lines="- accent: Scottish").splitlines()[-1]
    '- accent: Scottish'
    """
    try:
        return Template(template_text(name)).substitute(values)
    except (KeyError, ValueError) as error:
        known = ", ".join(f"${{{value}}}" for value in values)
        raise ValueError(f"Template {name}: {error}; known names are {known or 'none'}") from error


def label_lines(row: Mapping[str, Any]) -> list[str]:
    """Return a line per label that a clip has, of those that the published prompt gives.

    Example
    -------
    >>> label_lines({"accent": "Scottish", "speaking_rate": None, "situational_tags": ["happy"]})
    ['- accent: Scottish', '- emotion and expressiveness: happy']
    """
    labels = {name: row.get(label) for label, name in SAID_AS.items()}
    return [
        f"- {name}: {value if isinstance(value, str) else ', '.join(value)}"
        for name, value in labels.items()
        if value
    ]


def caption_prompt(
    row: Mapping[str, Any],
    template: str | Path = "caption.txt",
    labels_template: str | Path = "caption_labels.txt",
) -> str:
    """Return the captioner's prompt; it speaks of labels only if the clip has any.

    Arguments
    ---------
    row : mapping
        A row of the manifest.
    template, labels_template : str or path
        Templates with ``${labels}`` and with ``${lines}``.

    Example
    -------
    >>> "Scottish" in caption_prompt({"accent": "Scottish"})
    True
    """
    lines = label_lines(row)
    block = fill(labels_template, lines="\n".join(lines)) if lines else ""
    return fill(template, labels=block)
