"""False captions that differ from a true one in one attribute only.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

Tables = Mapping[str, Sequence[Sequence[str]]]
QUOTED = re.compile(r'"[^"]*"|\u201c[^\u201d]*\u201d')


class AttributeSwap:
    """Swaps one attribute of a caption for another value of it; quoted text is left alone.

    Arguments
    ---------
    tables : dict, or callable that returns one
        For each attribute its values, each a list of phrases that mean it.

    Example
    -------
    >>> swap = AttributeSwap({"accent": [["American"], ["Scottish"]]})
    >>> swap("An American man speaks.", random.Random(0))
    'A Scottish man speaks.'
    """

    def __init__(self, tables: Tables | Callable[[], Tables]) -> None:
        self.tables = tables() if callable(tables) else tables
        self.patterns = {}
        for attribute, values in self.tables.items():
            # The longest first, or "fast" would be found in "at a fast pace".
            phrases = sorted((p for value in values for p in value), key=len, reverse=True)
            either = "|".join(map(re.escape, phrases))
            self.patterns[attribute] = re.compile(rf"(?:\b(an?) )?\b({either})(?![\w-])", re.I)

    def __call__(self, caption: str, generator: random.Random) -> str:
        """Return the false caption; the caption itself if it names no attribute of the tables.

        Arguments
        ---------
        caption : str
            A true caption.
        generator : random.Random
            Chooses attribute and value.

        Returns
        -------
        str
            The caption with one phrase replaced.
        """
        quotes = [match.span() for match in QUOTED.finditer(caption)]
        found = {}
        for attribute, pattern in self.patterns.items():
            matches = [
                match
                for match in pattern.finditer(caption)
                if not any(start <= match.start() < end for start, end in quotes)
            ]
            if matches:
                found[attribute] = generator.choice(matches)
        if not found:
            return caption
        attribute = generator.choice(list(found))
        match = found[attribute]
        return (
            caption[: match.start()]
            + self._replace(attribute, match, generator)
            + caption[match.end() :]
        )

    def _replace(self, attribute: str, match: re.Match, generator: random.Random) -> str:
        """Word another value, with the article and the capital that it needs."""
        article, phrase = match.groups()
        others = [
            value
            for value in self.tables[attribute]
            if phrase.lower() not in (known.lower() for known in value)
        ]
        new = generator.choice(generator.choice(others))
        if article:
            new = f"{'an' if new[0].lower() in 'aeiou' else 'a'} {new}"
        return new[0].upper() + new[1:] if match.group()[0].isupper() else new
