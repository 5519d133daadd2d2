"""Swap of the speaker's gender in a caption, with all words that depend on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

# Words that can follow a "her" or "his" that is not a determiner ("with her, and").
NOT_OWNED = (
    "a about across after against along also and are around as at before behind but by can "
    "during for from had has if in into is it like more not now of on once or quite rather "
    "she so still than that the then this through to too toward towards under until up very "
    "was were when where which while who with without yet he"
).split()
WORD = re.compile(r"\s+([^\W\d_][\w'-]*)")


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
        """Find the replacement of every gendered word.

        Arguments
        ---------
        caption : str
            Any text.
        is_free : callable
            Takes a match and tells whether it may be changed (quoted text may not).

        Returns
        -------
        list of (int, int, str)
            Start, end and new word. Empty if there is no gendered word, or if there are words of
            both genders: a caption about a man and a woman stays true when they change places.
        """
        matches = [match for match in self.pattern.finditer(caption) if is_free(match)]
        female = {match[0].lower() in (*self.to_male, "her", "hers") for match in matches}
        if len(female) != 1:
            return []
        change = self._male if female.pop() else self._female
        return [(*match.span(), _like(match[0], change(match))) for match in matches]

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
    following = WORD.match(match.string, match.end())
    return following is not None and following[1].lower() not in NOT_OWNED


def _like(old: str, new: str) -> str:
    return new.capitalize() if old[0].isupper() else new
