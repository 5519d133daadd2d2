"""Attributes that a user's table labels: their values, and prompts that say them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechbrain_clsp.dataio.labels import value_of
from speechbrain_clsp.utils.checks import quote
from speechbrain_clsp.utils.reading import read_json

COLUMNS = ("gender", "accent", "pitch", "speaking_rate")  # and labels.<key>
TEMPLATES = Path(__file__).with_name("templates.json")
MOST_VALUES = 50  # a column with more is one of names or ids
MOST_NUMBERS = 10  # different numbers that are classes; more are measured
LONGEST_VALUE = 40  # characters; longer ones are sentences
# What programs write where there is no value. Not "none", which is one: of pauses, for example.
NO_VALUES = (
    "nan",
    "NaN",
    "NAN",
    "None",
    "null",
    "NULL",
    "NA",
    "<NA>",
    "N/A",
    "n/a",
    "#N/A",
    "-",
    "?",
)
FEWEST_CLIPS = 2  # of a value: from one clip its speaker is learned, not the value
RESULTS = ("global", "fine", "probes")  # tables beside which those of attributes stand
SAME_ATTRIBUTES = {"style": ("style", "speaking_style"), "emotion": ("emotion", "mood", "feeling")}


@dataclass
class Attributes:
    """The attributes of a table.

    Arguments
    ---------
    classes : dict of dict of str
        For each column the class that each value means: itself, or what the same is called more
        often, in other capitals, with other blanks or in full.
    left_out : dict of str
        For each other column that has values, the reason why it is no attribute.
    rare : dict of list of str
        For each column values that too few clips have.

    Example
    -------
    >>> Attributes({"gender": {"F": "female", "female": "female"}}).classes["gender"]["F"]
    'female'
    """

    classes: dict[str, dict[str, str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    rare: dict[str, list[str]] = field(default_factory=dict)


def clear_missing(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Take texts such as ``nan``, which stand for no value, out of labels and speakers, in place.

    Returns
    -------
    list of str
        A sentence for each column that had some.

    Example
    -------
    >>> row = {"speaker": "s1", "gender": None, "accent": None, "pitch": None,
    ...        "speaking_rate": None, "labels": {"mood": "nan", "pause": "none"}}
    >>> clear_missing([row]), row["labels"]
    (["labels.mood: 'nan' (1 clips) counts as no value."], {'pause': 'none'})
    """
    counts: dict[str, Counter] = {}
    for row in rows:
        for column in ("speaker", *COLUMNS):
            if row[column] in NO_VALUES:
                counts.setdefault(column, Counter())[row[column]] += 1
                row[column] = None
        for key in [key for key, value in row["labels"].items() if value in NO_VALUES]:
            counts.setdefault(f"labels.{key}", Counter())[row["labels"].pop(key)] += 1
    listed = {
        column: ", ".join(f"{value!r} ({n} clips)" for value, n in sorted(of_column.items()))
        for column, of_column in sorted(counts.items())
    }
    return [f"{column}: {found} counts as no value." for column, found in listed.items()]


def find_attributes(rows: Iterable[Mapping[str, Any]]) -> Attributes:
    """Find columns that label clips with one of a few values.

    Arguments
    ---------
    rows : iterable of dict
        Rows of a manifest: those of training, since other values cannot be learned.

    Returns
    -------
    found : Attributes
        Also the columns that are none, and why.

    Example
    -------
    >>> rows = [{"gender": g, "accent": "US", "pitch": None, "speaking_rate": None,
    ...          "labels": {"mood": m}} for g, m in zip(["f", "m", "M", "f"], ["sad"] * 4)]
    >>> found = find_attributes(rows)
    >>> found.classes
    {'gender': {'M': 'M', 'm': 'M', 'f': 'f'}}
    >>> found.left_out["accent"], found.rare
    ("has one value, 'US'", {})
    """
    counts: dict[str, Counter] = {}
    for row in rows:
        for column in (*COLUMNS, *(f"labels.{key}" for key in row["labels"])):
            value = value_of(row, column)
            if value is not None:
                counts.setdefault(column, Counter())[value] += 1
    found, templates = Attributes(), read_json(TEMPLATES)
    for column in sorted(counts, key=lambda name: (name.startswith("labels."), name)):
        classes, rare = _merge_spellings(
            counts[column], _kind_of(column, templates).get("words", {})
        )
        reason = _why_no_attribute(counts[column], classes)
        if reason:
            found.left_out[column] = reason
        else:
            found.classes[column] = classes
            if rare:
                found.rare[column] = rare
    return found


def _merge_spellings(counts: Counter, words: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return each value's most frequent spelling, and the values that too few clips have."""
    spellings: dict[str, list[str]] = {}
    for value in sorted(counts):
        key = " ".join(_spoken(value).casefold().split())
        spellings.setdefault(words.get(key, key), []).append(value)
    classes: dict[str, str] = {}
    rare: list[str] = []
    for values in spellings.values():
        if sum(counts[value] for value in values) < FEWEST_CLIPS:
            rare += values
            continue
        name = max(values, key=lambda value: counts[value])
        classes |= dict.fromkeys(values, name)
    return classes, rare


def _why_no_attribute(counts: Counter, classes: Mapping[str, str]) -> str:
    """Return why a column with these values labels nothing that can be learned, "" if it does."""
    names = set(classes.values())
    n_clips, example = counts.total(), quote(max(counts, key=len))
    if max(map(len, counts)) > LONGEST_VALUE:
        return f"holds texts, such as {example}"
    if len(counts) > MOST_NUMBERS and all(map(_is_number, counts)):
        return f"holds {len(counts)} different numbers: name ranges of them, such as young and old"
    if len(counts) > MOST_VALUES or sum(counts[value] for value in classes) < n_clips / 2:
        return f"holds {len(counts)} different values in {n_clips} training clips"
    if len(names) == 1:
        return f"has one value, {min(names)!r}"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def make_prompts(classes: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return prompts in the form of a prompt file; see :func:`read_tasks` of the evaluation.

    Arguments
    ---------
    classes : dict of dict of str
        As of :class:`Attributes`.

    Returns
    -------
    dict
        For each task its column, values and prompts.

    Example
    -------
    >>> prompts = make_prompts({"accent": {"US": "US", "Irish": "Irish"}})
    >>> prompts["accent"]["column"], prompts["accent"]["prompts"]["Irish"][0]
    ('accent', 'An Irish accent.')
    """
    templates = read_json(TEMPLATES)
    found: dict[str, Any] = {}
    for column, known in classes.items():
        name = column.removeprefix("labels.")
        kind = _kind_of(column, templates)
        words = kind.get("words", {})
        spoken = {value: _spoken(words.get(each.casefold(), each)) for value, each in known.items()}
        names = {each: value for value, each in known.items()}  # of each class
        task = _spoken(name)
        # Not that of a further column, such as labels.gender, nor that of a table of results.
        found[column if task in found or task in RESULTS else task] = {
            "column": column,
            "values": dict(known),
            "prompts": {
                each: _filled(kind["templates"], spoken[value], _spoken(name))
                for each, value in sorted(names.items())
            },
        }
    return found


def _kind_of(column: str, templates: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the templates of a column's attribute."""
    name = column.removeprefix("labels.").casefold()
    name = next((kind for kind, names in SAME_ATTRIBUTES.items() if name in names), name)
    return templates.get(name, templates["other"])


def _spoken(text: str) -> str:
    return text.replace("_", " ").strip()


def _filled(templates: Sequence[str], value: str, name: str) -> list[str]:
    article = "an" if value[:1].casefold() in "aeiou" else "a"
    texts = []
    for template in templates:
        text = template.replace("{A}", article).replace("{a}", article)
        text = text.replace("{name}", name).replace("{}", value)
        texts.append(text[0].upper() + text[1:])
    return texts
