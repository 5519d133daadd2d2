"""Attribute swaps: false captions that differ from a true one in exactly one attribute."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speechbrain_clsp.utils.checks import as_list, check_texts
from speechbrain_clsp.utils.reading import read_json

QUOTED = re.compile(r'"[^"]*"|\u201c[^\u201d]*\u201d')
TABLES = Path(__file__).parent / "swaps"
# Probability that an accent is swapped for another of its own group, as published.
WITHIN_GROUP = 0.2
# Words that can follow a "her" or "his" that is not a determiner ("with her, and").
NOT_OWNED = (
    "a about across after against along also and are around as at before behind but by can "
    "during for from had has if in into is it like more not now of on once or quite rather "
    "she so still than that the then this through to too toward towards under until up very "
    "was were when where which while who with without yet he"
).split()
_FOLLOWING = re.compile(r"\s+([^\W\d_][\w'-]*)")


class Wording(NamedTuple):
    """Phrases of one meaning and one part of speech, and phrases that contradict them.

    Arguments
    ---------
    phrases : sequence of str
        Phrases to find in a caption.
    opposites : sequence of str
        Phrases that may replace them.
    near : sequence of str
        Opposites of the same group, which are harder to tell apart; chosen with probability
        :data:`WITHIN_GROUP`.
    alike : bool
        Whether the opposites mean much the same, so that several mentions may get different ones.

    Example
    -------
    >>> Wording(["slow"], ["fast", "quick"]).near
    ()
    """

    phrases: Sequence[str]
    opposites: Sequence[str]
    near: Sequence[str] = ()
    alike: bool = True


Tables = Mapping[str, Mapping[str, Sequence[Wording]]]


def between_values(values: Mapping[str, Sequence[Sequence[str]]]) -> Tables:
    """Make tables of attributes whose values exclude each other and are worded alike.

    Arguments
    ---------
    values : dict
        For each attribute its values, each a list of phrases that mean it.

    Returns
    -------
    dict
        ``tables[attribute][value]`` is a list of Wording.

    Example
    -------
    >>> between_values({"rate": [["slowly"], ["fast"]]})["rate"]["slowly"][0].opposites
    ['fast']
    """
    return between_forms(
        {
            attribute: [{phrases[0]: phrases for phrases in lists}]
            for attribute, lists in values.items()
        }
    )


def between_forms(
    attributes: Mapping[str, Sequence[Mapping[str, Sequence[str]]]],
) -> Tables:
    """Make tables of attributes whose values exclude each other and have several forms.

    Arguments
    ---------
    attributes : dict
        For each attribute a list of forms, such as adjectives and adverbs. A form maps values to
        phrases, which replace each other within the form only.

    Returns
    -------
    dict
        ``tables[attribute][value]`` is a list of Wording.

    Example
    -------
    >>> forms = [{"slow": ["slow"], "fast": ["fast"]}, {"slow": ["slowly"], "fast": ["quickly"]}]
    >>> [wording.opposites for wording in between_forms({"rate": forms})["rate"]["slow"]]
    [['fast'], ['quickly']]
    """
    tables: dict[str, dict[str, list[Wording]]] = {}
    for attribute, forms in attributes.items():
        tables[attribute] = {}
        for form in forms:
            for value, phrases in form.items():
                opposites = [p for other, words in form.items() if other != value for p in words]
                wording = Wording(phrases, opposites, alike=False)
                tables[attribute].setdefault(value, []).append(wording)
    return tables


def read_tables(path: str | os.PathLike = TABLES / "paraspeechcaps.json") -> Tables:
    """Read tables from JSON; by default those for ParaSpeechCaps and FCaps.

    The file holds ``{attribute: {value: [{"phrases": [...], "opposites": [...]}]}}``, with values
    named as the manifest labels them. ``accent`` has instead ``groups``, ``overlaps`` (accents of
    which one does not contradict the other) and ``display`` (how accents are written, where that is
    not their name with capitals); ``gender`` has ``pairs`` of words.

    Arguments
    ---------
    path : str or path
        The file. Default: that for ParaSpeechCaps and FCaps.

    Returns
    -------
    dict
        ``tables[attribute][value]`` is a list of Wording.

    Raises
    ------
    ValueError
        If the file is not of this form.

    Example
    -------
    >>> tables = read_tables()
    >>> len(tables["accent"]), tables["situational_tags"]["bored"][1].opposites
    (53, ['fascination'])
    """
    tables = read_json(path)
    try:
        if "accent" in tables:
            tables["accent"] = _accents(**tables["accent"])
        for attribute, values in tables.items():
            if attribute not in ("accent", "gender"):
                tables[attribute] = {
                    value: [_checked(Wording(**wording)) for wording in wordings]
                    for value, wordings in values.items()
                }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is no table of wordings ({type(error).__name__}: {error}): it must map"
            ' attributes to {value: [{"phrases": [...], "opposites": [...]}]}'
        ) from error
    return tables


def _checked(wording: Wording) -> Wording:
    """Return a wording; raise TypeError or ValueError if its phrases are no lists of texts."""
    for name in ("phrases", "opposites", "near"):
        phrases = as_list(getattr(wording, name), name, "phrases")
        if phrases or name == "phrases":
            check_texts(phrases, name)
    return wording


def _accents(
    groups: Mapping[str, Sequence[str]],
    overlaps: Sequence[Sequence[str]],
    display: Mapping[str, Sequence[str]],
) -> dict[str, list[Wording]]:
    names = {
        accent: display.get(accent, [accent.title()])
        for group in groups.values()
        for accent in group
    }
    table = {}
    for group in groups.values():
        for accent in group:
            same = {accent}.union(*(overlap for overlap in overlaps if accent in overlap))
            far = [names[other][0] for other in names if other not in same and other not in group]
            near = [names[other][0] for other in group if other not in same]
            table[accent] = [Wording(names[accent], far, near, alike=False)]
    return table


class GenderSwap:
    """Replaces all gendered words of a caption at once.

    Arguments
    ---------
    pairs : sequence of (str, str)
        Words for a man and for a woman that replace each other. The forms of "his" and "her" need
        not be among them: they are chosen by the word that follows.

    Example
    -------
    >>> swap = GenderSwap([("man", "woman"), ("he", "she")])
    >>> swap.changes("She speaks; her voice suits her.", lambda match: True)
    [(0, 3, 'He'), (12, 15, 'his'), (28, 31, 'him')]
    """

    def __init__(self, pairs: Sequence[Sequence[str]]) -> None:
        self.to_male = {female: male for male, female in pairs}
        self.to_female = {male: female for male, female in pairs}
        words = {*self.to_male, *self.to_female, "his", "him", "her", "hers"}
        either = "|".join(sorted(words, key=len, reverse=True))
        self.pattern = re.compile(rf"(?<![\w-])({either})(?!\w)", re.IGNORECASE)

    def changes(
        self, caption: str, is_free: Callable[[re.Match], bool]
    ) -> list[tuple[int, int, str]]:
        """Return start, end and replacement of every gendered word for which ``is_free`` is true.

        There is none if there are words of both genders: a caption about a man and a woman stays
        true when they change places.
        """
        matches = [match for match in self.pattern.finditer(caption) if is_free(match)]
        female = {match[0].lower() in (*self.to_male, "her", "hers") for match in matches}
        if len(female) != 1:
            return []
        change = self._male if female.pop() else self._female
        return [(*match.span(), cased_like(change(match), match[0])) for match in matches]

    def _male(self, match: re.Match) -> str:
        word = match[0].lower()
        if word == "her":
            return "his" if _owns(match) else "him"
        return "his" if word == "hers" else self.to_male[word]

    def _female(self, match: re.Match) -> str:
        word = match[0].lower()
        if word == "his":
            return "her" if _owns(match) else "hers"
        return "her" if word == "him" else self.to_female[word]


def _owns(match: re.Match) -> bool:
    """Return whether "her" or "his" is a determiner ("her voice") or not ("with her, and")."""
    following = _FOLLOWING.match(match.string, match.end())
    return following is not None and following[1].lower() not in NOT_OWNED


class AttributeSwap:
    """Makes a caption false in one attribute; quoted text is not changed.

    One of the attributes that the caption names is drawn, then one of its values. All mentions of
    that value are replaced; articles and capitals are adapted.

    Arguments
    ---------
    tables : dict, or callable that returns one
        For each attribute its values, each with its wordings; see :func:`read_tables`.

    Example
    -------
    >>> swap = AttributeSwap(between_values({"accent": [["American"], ["Scottish"]]}))
    >>> swap("An American man speaks.", random.Random(0))
    'A Scottish man speaks.'
    >>> AttributeSwap(read_tables)("She talks to her dog.", random.Random(0))
    'He talks to his dog.'
    """

    def __init__(self, tables: Tables | Callable[[], Tables]) -> None:
        tables = dict(tables() if callable(tables) else tables)
        pairs: Any = tables.pop("gender")["pairs"] if "gender" in tables else None
        self.gender = GenderSwap(pairs) if pairs is not None else None
        self.tables = tables
        self.pattern, self.meanings = _compile(tables)

    def __call__(
        self, caption: str, generator: random.Random, row: Mapping[str, Any] | None = None
    ) -> str:
        """Return the false caption; the caption itself if it names no attribute of the tables.

        If the labels of the manifest row confirm some of the values that the caption names, one of
        these is drawn.
        """
        is_free = outside_quotes(caption)
        named = self.named(caption, is_free)
        gender = self.gender.changes(caption, is_free) if self.gender else []
        confirmed = {
            attribute: kept
            for attribute, values in named.items()
            if (kept := {v: m for v, m in values.items() if _is_label(v, attribute, row)})
        }
        choices = confirmed or named
        attributes = [*choices, *(["gender"] if gender else [])]
        if not attributes:
            return caption
        attribute = generator.choice(attributes)
        if attribute == "gender":
            return apply_changes(caption, gender)
        value = generator.choice(list(choices[attribute]))
        return apply_changes(caption, draw_changes(choices[attribute][value], generator))

    def named(
        self, caption: str, is_free: Callable[[re.Match], bool] = lambda match: True
    ) -> dict[str, dict[str, list[tuple[re.Match, Wording]]]]:
        """Find the attributes that a caption names.

        Returns ``found[attribute][value]``, a list of (match, :class:`Wording`) of those matches
        for which ``is_free`` is true.

        Example
        -------
        >>> swap = AttributeSwap(between_values({"rate": [["slowly"], ["fast"]]}))
        >>> list(swap.named("He speaks slowly.")["rate"])
        ['slowly']
        """
        found: dict[str, dict[str, list]] = {}
        for match in self.pattern.finditer(caption):
            if is_free(match):
                attribute, value, wording = self.meanings[match["phrase"].lower()]
                found.setdefault(attribute, {}).setdefault(value, []).append((match, wording))
        return found


class OneOf:
    """Several swaps as one: in a random order, until one of them changes the caption.

    Arguments
    ---------
    swaps : list of callable
        (caption, random.Random, row) -> caption, as :class:`AttributeSwap`.
    weights : list of float, optional
        How likely each swap is to be tried before the others; 0 for never. Default: all alike.

    Raises
    ------
    ValueError
        If there is not one weight per swap, or one is negative.

    Example
    -------
    >>> gender = AttributeSwap({"gender": {"pairs": [("man", "woman")]}})
    >>> rate = AttributeSwap(between_values({"rate": [["slowly"], ["fast"]]}))
    >>> OneOf([gender, rate], weights=[100, 1])("It speaks slowly.", random.Random(0))
    'It speaks fast.'
    """

    def __init__(
        self, swaps: Sequence[Callable[..., str]], weights: Sequence[float] | None = None
    ) -> None:
        weights = [1.0] * len(swaps) if weights is None else list(weights)
        if len(weights) != len(swaps) or min(weights, default=0.0) < 0:
            raise ValueError(f"{len(swaps)} swaps need as many weights of 0 or more: {weights}")
        self.weighted = [(swap, weight) for swap, weight in zip(swaps, weights) if weight > 0]

    def __call__(
        self, caption: str, generator: random.Random, row: Mapping[str, Any] | None = None
    ) -> str:
        """Return the false caption; the caption itself if no swap changes it."""
        left = list(self.weighted)
        while left:
            weights = [weight for _, weight in left]
            swap, _ = left.pop(generator.choices(range(len(left)), weights)[0])
            swapped = swap(caption, generator, row)
            if swapped != caption:
                return swapped
        return caption


def _compile(tables: Tables) -> tuple[re.Pattern, dict[str, tuple[str, str, Wording]]]:
    """Return a pattern of all phrases, and what each means."""
    meanings = {
        phrase.lower(): (attribute, value, wording)
        for attribute, values in tables.items()
        for value, wordings in values.items()
        for wording in wordings
        for phrase in wording.phrases
    }
    # The longest first, or "fast" would be found in "at a fast pace".
    phrases = "|".join(re.escape(phrase) for phrase in sorted(meanings, key=len, reverse=True))
    pattern = rf"(?<![\w-])(?:(?P<article>an?) )?(?P<phrase>{phrases or '(?!)'})(?![\w-])"
    return re.compile(pattern, re.IGNORECASE), meanings


def _is_label(value: str, attribute: str, row: Mapping[str, Any] | None) -> bool:
    labels = (row or {}).get(attribute) or []
    return value in [labels] if isinstance(labels, str) else value in labels


def outside_quotes(caption: str) -> Callable[[re.Match], bool]:
    """Return whether a match in a caption is not within quoted text, as a function of the match.

    Example
    -------
    >>> caption = 'She says "go slowly" slowly.'
    >>> list(map(outside_quotes(caption), re.finditer("slowly", caption)))
    [False, True]
    """
    quotes = [match.span() for match in QUOTED.finditer(caption)]
    return lambda match: not any(start <= match.start() < end for start, end in quotes)


def draw_changes(
    mentions: Sequence[tuple[re.Match, Wording]], generator: random.Random
) -> list[tuple[int, int, str]]:
    """Choose new words, with the article and the capital that they need.

    ``mentions`` are as :meth:`AttributeSwap.named` returns them. Different phrases of one value
    ("calm and relaxed") get different words if the wording's opposites are alike, otherwise all get
    the same word. Returns start, end and replacement of each mention.
    """
    chosen: dict[tuple, str] = {}
    changes = []
    for match, wording in mentions:
        key = (id(wording), match["phrase"].lower() if wording.alike else None)
        if key not in chosen:
            near = wording.near and (not wording.opposites or generator.random() < WITHIN_GROUP)
            words = list(wording.near if near else wording.opposites)
            unused = [word for word in words if word not in chosen.values()]
            chosen[key] = generator.choice(unused or words)
        changes.append(change_of(match, chosen[key]))
    return changes


def change_of(match: re.Match, new: str) -> tuple[int, int, str]:
    """Return start, end and replacement of a mention: ``new``, with its article and capital."""
    if match["article"]:
        new = f"{article(new)} {new}"
    return (*match.span(), cased_like(new, match[0]))


def article(phrase: str) -> str:
    """Return the indefinite article that a phrase takes.

    Example
    -------
    >>> article("Ukrainian"), article("unsure"), article("slow")
    ('a', 'an', 'a')
    """
    word = phrase.lower()
    return "an" if word[0] in "aeiou" and not word.startswith(("uk", "uni", "eu", "one")) else "a"


def cased_like(word: str, model: str) -> str:
    """Return a word with a capital if another one has it."""
    return word[0].upper() + word[1:] if model[0].isupper() else word


def apply_changes(caption: str, changes: Sequence[tuple[int, int, str]]) -> str:
    """Return a caption with each (start, end, replacement) made; they must not overlap."""
    for start, end, new in sorted(changes, reverse=True):
        caption = caption[:start] + new + caption[end:]
    return caption
