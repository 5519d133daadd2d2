"""What is rated, and on which scale."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Scale:
    """The values that a rating may have.

    Arguments
    ---------
    low, high : float
        The smallest and the largest.
    whole : bool
        Whether only whole numbers count.

    Example
    -------
    >>> Scale(1, 5, whole=True).values
    (1, 2, 3, 4, 5)
    """

    low: float
    high: float
    whole: bool = False

    @property
    def values(self) -> tuple[int, ...]:
        """All whole numbers of the scale."""
        return tuple(range(math.ceil(self.low), math.floor(self.high) + 1))

    def check(self, value: Any) -> float:
        """Return a value as float; raise ValueError if it is not a number of this scale."""
        kind = "a whole number" if self.whole else "a number"
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not self.low <= value <= self.high or (self.whole and value % 1):
            raise ValueError(f"{value!r} is not {kind} from {self.low:g} to {self.high:g}")
        return float(value)


STYLE = "style"  # how well a caption fits the style of a clip
SLIDER = Scale(0, 5)  # of style similarity, as in the paper
SCORES = Scale(1, 5, whole=True)  # of each of the dimensions


@lru_cache
def dimensions() -> dict[str, str]:
    """Return the dimensions on which captions are judged, with the question that is asked.

    Example
    -------
    >>> list(dimensions())
    ['correctness', 'coverage', 'naturalness']
    """
    return json.loads(Path(__file__).with_name("dimensions.json").read_text(encoding="utf-8"))
