"""What captions of MiniFCaps say, read from their words, to compare it with styles."""

import re

from speechbrain_clsp.mini_fcaps import wording
from speechbrain_clsp.mini_fcaps.style import Style

GENDERS = {"male": r"\b(man|male)\b", "female": r"\b(woman|female)\b"}
LEVELS = {
    "rate": wording.RATE,
    "pitch": wording.PITCH,
    "loudness": wording.LOUDNESS,
    "expressiveness": wording.EXPRESSIVENESS,
}


def facts_in(caption: str) -> dict:
    """Read what a caption says, by its words alone.

    Levels are in the order of their mention, so that a change has two of them; ``change`` is
    whether there is one.
    """
    text = caption.lower()
    genders = [name for name, pattern in GENDERS.items() if re.search(pattern, text)]
    facts: dict = {
        "gender": genders[0] if genders else None,
        "accent": re.search("American|British|Scottish|Caribbean", caption)[0],
        **{name: tuple(mentions(text, table)) for name, table in LEVELS.items()},
        "directions": tuple(sorted(mentions(text, wording.OVERALL_CHANGE))),
        **_events(text),
    }
    if any(phrase in text for phrase in (*wording.STEADY, *wording.NO_CHANGE)):
        facts["change"] = False
    elif facts["directions"] or re.search("begins|starts|at first", text):
        facts["change"] = True
    return {name: fact for name, fact in facts.items() if fact != ()}


def _events(text: str) -> dict:
    places = {"pause": [], "change_place": []}
    for sentence in text.split(". "):
        key = "pause" if "pause" in sentence else "change_place"
        places[key] += mentions(sentence, wording.PLACE)
    if any(flow in text for flow in wording.FLOWS):
        places["pause"].append("none")
    assert all(len(found) <= 1 for found in places.values()), text
    return {key: found[0] for key, found in places.items() if found}


def mentions(text: str, table: dict) -> list:
    """Return the values whose wordings a text has, in order."""
    found = [
        (match.start(), value)
        for value, phrases in table.items()
        for phrase in phrases
        for match in re.finditer(rf"(?<![\w-]){phrase}(?![\w-])", text)
    ]
    return [value for _, value in sorted(found)]


def facts_of(style: Style) -> dict:
    """Return all that a true caption of a style can say, in the form of :func:`facts_in`."""
    facts = {
        "gender": style.kind if style.kind in ("male", "female") else None,
        "accent": style.accent,
        "pause": style.pause,
        "change": bool(style.changes),
        "change_place": style.change_place,
        "directions": tuple(sorted((each.dimension, each.rises) for each in style.changes)),
    }
    for name in LEVELS:
        levels = tuple(dict.fromkeys(style.level(name, after) for after in (False, True)))
        facts[name] = levels
    return facts


def contradictions(said: dict, facts: dict) -> set[str]:
    """Return of which facts a text says something else."""
    return {name for name, value in said.items() if facts.get(name, value) != value}
