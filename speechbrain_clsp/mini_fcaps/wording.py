"""Captions that state a style, in varied words and order.

A global caption states everything that holds for the clip as a whole; a fine caption also says
what happens when. Wordings of one level are paraphrases, so that every caption is true. Captions
of two styles that are written with the same seed differ only where the styles do.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from speechbrain_clsp.captions.perturbation import Tables, article, between_values
from speechbrain_clsp.mini_fcaps.style import ACCENTS, LEVELS, NO_PAUSE, PLACES, Style

# Levels of one attribute have equally many wordings: a seed gives corresponding ones.
NOUNS = {
    "male": ("man", "male speaker", "male voice"),
    "female": ("woman", "female speaker", "female voice"),
    "whisper": ("whispering speaker", "whispering voice", "speaker who whispers"),
    "croak": ("croaky speaker", "croaking voice", "speaker with a creaky voice"),
}
PRONOUNS = {"male": "He", "female": "She", "whisper": "The speaker", "croak": "The speaker"}
MANNERS = {
    "whisper": ("in a whisper", "in breathy whispers"),
    "croak": ("in a croak", "in a hoarse tone"),
}
RATE: dict[str, tuple[str, ...]] = {
    "slow": ("slowly", "at a slow pace", "with a slow delivery"),
    "measured": ("at a medium speed", "at a measured pace", "at a middling tempo"),
    "fast": ("quickly", "at a fast pace", "with a rapid delivery"),
}
PITCH: dict[str, tuple[str, ...]] = {
    "low": ("low-pitched", "deep", "low-register"),
    "medium": ("medium-pitched", "mid-range", "mid-register"),
    "high": ("high-pitched", "treble", "high-register"),
}
LOUDNESS: dict[str, tuple[str, ...]] = {
    "quiet": ("quietly", "at a low volume", "softly"),
    "moderate": ("at a normal loudness", "at a moderate volume", "with a normal volume"),
    "loud": ("loudly", "at a high volume", "with a powerful volume"),
}
EXPRESSIVENESS: dict[str, tuple[str, ...]] = {
    "monotone": ("monotone", "flat"),
    "natural": ("natural", "naturally expressive"),
    "lively": ("lively", "animated"),
}
OVERALL_CHANGE = {
    ("rate", True): ("speeding up", "gaining speed", "accelerating"),
    ("rate", False): ("slowing down", "losing speed", "decelerating"),
    ("pitch", True): ("rising in pitch", "moving to a higher pitch", "going up in pitch"),
    ("pitch", False): ("dropping in pitch", "moving to a lower pitch", "going down in pitch"),
    ("loudness", True): ("growing louder", "gaining volume", "going up in volume"),
    ("loudness", False): ("growing softer", "losing volume", "going down in volume"),
}
NO_CHANGE = ("staying the same throughout", "keeping an even manner", "holding steady")
PLACE = {
    "early": ("early on", "soon after the start", "after the first part", "a little way in"),
    "middle": ("half-way through", "in the middle", "midway", "at the halfway point"),
    "late": ("near the end", "towards the end", "in the final part", "close to the end"),
}

STEADY = ("throughout", "from start to finish", "all the way", "the whole time")
PAUSES = (
    "there is a clear pause {place}",
    "a distinct pause comes {place}",
    "{place}, a clear pause is made",
    "the speech stops for a clear pause {place}",
)
FLOWS = (
    "the sentence flows on in one breath",
    "the words run on in one stretch",
    "one phrase leads straight into the next",
    "the speech flows straight through",
)
# {where} is empty or a place after a blank, {opening} the same at the beginning of a sentence.
CHANGES = (
    "{pronoun} starts {before}, then{where} goes on {after}",
    "{pronoun} begins {before} and{where} continues {after}",
    "{pronoun} begins {before} and ends {after}{coming}",
    "at first {pronoun} speaks {before}, then{where} {after}",
    "{opening}the delivery changes: {pronoun} begins {before} and ends {after}",
)
NO_CHANGE_PROBABILITY = 0.4  # of a global caption to say that nothing changes
T = TypeVar("T")


def swap_tables() -> Tables:
    """Return the wordings of all values for attribute swaps (hard negatives).

    Returns
    -------
    dict
        ``tables[attribute][value]`` is a list of Wording.

    Example
    -------
    >>> sorted(swap_tables())
    ['accent', 'change', 'expressiveness', 'loudness', 'pitch', 'rate']
    """
    values: dict[str, Sequence[Sequence[str]]] = {
        "accent": [(accent,) for accent in ACCENTS],
        "rate": list(RATE.values()),
        "pitch": list(PITCH.values()),
        "loudness": list(LOUDNESS.values()),
        "expressiveness": list(EXPRESSIVENESS.values()),
        "change": [*OVERALL_CHANGE.values(), NO_CHANGE],
    }
    return between_values(values)


def direction_tables() -> Tables:
    """Return the wordings of a change of each attribute in both directions.

    Example
    -------
    >>> sorted(direction_tables()["loudness"])
    ['growing louder', 'growing softer']
    """
    return between_values(
        {name: [OVERALL_CHANGE[name, rises] for rises in (True, False)] for name in LEVELS}
    )


def place_tables() -> Tables:
    """Return the wordings of the places of changes and pauses.

    Example
    -------
    >>> list(place_tables()["place"])
    ['early on', 'half-way through', 'near the end']
    """
    return between_values({"place": list(PLACE.values())})


def pause_tables() -> Tables:
    """Return the wordings of a pause and of speech that flows on.

    Example
    -------
    >>> [len(wordings[0].phrases) for wordings in pause_tables()["pause"].values()]
    [48, 4]
    """
    places = [place for phrases in PLACE.values() for place in phrases]
    pauses = [pause.format(place=place) for pause in PAUSES for place in places]
    return between_values({"pause": [pauses, FLOWS]})


def read_prompts(many: bool = False) -> dict[str, Any]:
    """Return prompts that say each value of each attribute in other words than captions.

    No content word of the prompts in unseen wording (``evaluation/prompts/mini_unseen.json``) is
    among them.

    Arguments
    ---------
    many : bool
        Whether in several dozen wordings, colloquial and indirect ones included, for text encoders
        that know English. A tower that is trained from scratch gets those words in pieces.

    Returns
    -------
    dict
        For :class:`~speechbrain_clsp.dataio.labels.AttributePrompts`.

    Example
    -------
    >>> read_prompts()["labels.voice"][0]["words"]["male"][0]
    'A man.'
    """
    name = "prompts_many.json" if many else "prompts.json"
    return json.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))


class _Choices:
    """Named random choices: each depends on the seed and its name, not on the others."""

    def __init__(self, generator: random.Random) -> None:
        self._seed = generator.getrandbits(64)

    def number(self, name: str) -> float:
        """Return a random number in [0, 1)."""
        return random.Random(f"{self._seed} {name}").random()

    def pick(self, name: str, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[int(self.number(name) * len(options))]

    def order(self, name: str, options: Sequence[T]) -> list[T]:
        """Return the options as they are or in reverse."""
        return list(options) if self.number(name) < 0.5 else list(options)[::-1]


def global_caption(style: Style, generator: random.Random) -> str:
    """Write one sentence that states a style's signature.

    Arguments
    ---------
    style : Style
        What is true of the clip.
    generator : random.Random
        Draws the wording.

    Returns
    -------
    str
        The caption.

    Example
    -------
    >>> from speechbrain_clsp.mini_fcaps.style import draw_style
    >>> global_caption(draw_style("male", random.Random(2)), random.Random(2))[-1]
    '.'
    """
    choices = _Choices(generator)
    subject, manner, adverbs = (words(style, choices) for words in (_subject, _manner, _adverbs))
    change = _overall_change(style, choices)
    layouts = [
        (subject, "speaks", adverbs, manner),
        (subject, "speaks", manner, adverbs),
        ("speaking", f"{adverbs},", subject, "is heard", manner) if adverbs
        else (subject, "is heard", manner),
        (f"{manner},", subject, "speaks", adverbs) if manner else (subject, "speaks", adverbs),
    ]  # fmt: skip
    layout = choices.pick("layout", layouts)
    if not change:
        return _sentence(*layout)
    if choices.number("change first") < 0.25:
        return _sentence(f"{change},", subject, "speaks", adverbs, manner)
    *parts, last = (part for part in layout if part)
    return _sentence(*parts, f"{last},", change)


def fine_caption(style: Style, generator: random.Random) -> str:
    """Write two to four sentences that also say what happens when.

    The place of a change is not said if it is None; neither is anything about pauses.

    Arguments
    ---------
    style : Style
        What is true of the clip.
    generator : random.Random
        Draws the wording.

    Returns
    -------
    str
        The caption.

    Example
    -------
    >>> from speechbrain_clsp.mini_fcaps.style import Change
    >>> style = Style("whisper", "Scottish", None, None, "loud", None,
    ...               changes=(Change("rate", "slow", "fast"),), change_place="late", pause="none")
    >>> for sentence in fine_caption(style, random.Random(3)).split(". "):
    ...     print(sentence)
    A Scottish speaker who whispers speaks loudly in a whisper
    The speaker starts at a slow pace, then towards the end goes on with a rapid delivery
    The sentence flows on in one breath.
    """
    choices, pronoun = _Choices(generator), PRONOUNS[style.kind]
    subject, manner, adverbs = (words(style, choices) for words in (_subject, _manner, _adverbs))
    events = []  # with their places, to be sorted by time
    if style.changes:
        about = (adverbs, manner) if choices.number("first") < 0.5 else (manner, adverbs)
        sentences = [_sentence(subject, "speaks", *about)]
        events.append((style.change_place, _change(style, pronoun, choices)))
    else:
        sentences = [_sentence(subject, "speaks", manner)]
        sentences.append(_sentence(pronoun, "talks", adverbs, choices.pick("steady", STEADY)))
    if style.pause == NO_PAUSE:
        events.append((None, _sentence(choices.pick("pause", FLOWS))))
    elif style.pause is not None:
        place = choices.pick("place of pause", PLACE[style.pause])
        events.append((style.pause, _sentence(choices.pick("pause", PAUSES).format(place=place))))
    events = choices.order("events", events)
    if all(place is not None for place, _ in events):
        events.sort(key=lambda event: PLACES.index(event[0]))
    return " ".join([*sentences, *(text for _, text in events)])


def _change(style: Style, pronoun: str, choices: _Choices) -> str:
    """Word both parts of a change, as in ``He begins slowly and ends quickly``."""
    changes = choices.order("changes", style.changes)
    before, after = (
        " and ".join(_level(each.dimension, getattr(each, side), choices) for each in changes)
        for side in ("before", "after")
    )
    place = style.change_place
    where = choices.pick("place of change", PLACE[place]) if place is not None else ""
    template = choices.pick("change", CHANGES)
    if not template.startswith("{pronoun}"):
        pronoun = pronoun.lower()
    return _sentence(
        template.format(
            pronoun=pronoun,
            before=before,
            after=after,
            where=where and f" {where}",
            coming=where and f", the change coming {where}",
            opening=where and f"{where}, ",
        )
    )


def _level(dimension: str, level: str, choices: _Choices) -> str:
    """Word a level on one side of a change; exchanged levels keep their words."""
    words = {"rate": RATE, "pitch": PITCH, "loudness": LOUDNESS}[dimension][level]
    word = choices.pick(f"{dimension} {level}", words)
    return f"in {_article(word)} tone" if dimension == "pitch" else word


def _overall_change(style: Style, choices: _Choices) -> str:
    """Word the directions of the changes, or that there is none; empty to say nothing."""
    words = [
        choices.pick(f"{change.dimension} overall", OVERALL_CHANGE[change.dimension, change.rises])
        for change in style.changes
    ]
    if not words and choices.number("no change") < NO_CHANGE_PROBABILITY:
        words = [choices.pick("no change in words", NO_CHANGE)]
    return " and ".join(choices.order("changes", words))


def _adverbs(style: Style, choices: _Choices) -> str:
    """Word the rate and the loudness, those that hold throughout."""
    levels = {"rate": (RATE, style.rate), "loudness": (LOUDNESS, style.loudness)}
    adverbs = [
        choices.pick(name, words[level])
        for name, (words, level) in levels.items()
        if level is not None
    ]
    return " and ".join(choices.order("adverbs", adverbs))


def _subject(style: Style, choices: _Choices) -> str:
    noun, accent = choices.pick("noun", NOUNS[style.kind]), style.accent
    if choices.number("accent first") < 0.4 and "voice" not in noun:
        return _article(f"{accent} {noun}")
    link = "and" if " with " in noun else "with"
    return f"{_article(noun)} {link} {_article(accent)} accent"


def _manner(style: Style, choices: _Choices) -> str:
    """Word pitch and expressiveness, as ``in a deep, flat tone``; empty if the pitch changes."""
    if style.kind in MANNERS:
        return choices.pick("manner", MANNERS[style.kind])
    levels = {
        "pitch": (PITCH, style.pitch),
        "expressiveness": (EXPRESSIVENESS, style.expressiveness),
    }
    words = [
        choices.pick(name, wordings[level])
        for name, (wordings, level) in levels.items()
        if level is not None
    ]
    return f"in {_article(', '.join(choices.order('tone', words)))} tone" if words else ""


def _article(phrase: str) -> str:
    return f"{article(phrase)} {phrase}"


def _sentence(*parts: str) -> str:
    text = " ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}."
