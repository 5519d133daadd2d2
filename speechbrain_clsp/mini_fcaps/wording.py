"""Captions that state a style, in varied words and order.

A global caption states everything that holds for the clip as a whole; a fine caption also says
what happens when. Wordings of one level are paraphrases, so that every caption is true.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from speechbrain_clsp.captions.perturbation import Tables, article, between_values
from speechbrain_clsp.mini_fcaps.style import ACCENTS, LEVELS, Change, Style

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
    "measured": ("at a measured pace", "at a medium speed", "at a middling tempo"),
    "fast": ("quickly", "at a fast pace", "with a rapid delivery"),
}
PITCH: dict[str, tuple[str, ...]] = {
    "low": ("low-pitched", "deep", "low"),
    "medium": ("medium-pitched", "mid-range"),
    "high": ("high-pitched", "high"),
}
LOUDNESS: dict[str, tuple[str, ...]] = {
    "quiet": ("quietly", "at a low volume", "softly"),
    "moderate": ("at a moderate volume", "at a normal loudness"),
    "loud": ("loudly", "at a high volume", "with a powerful volume"),
}
EXPRESSIVENESS = {
    "monotone": ("monotone", "flat"),
    "natural": ("natural", "naturally expressive"),
    "lively": ("lively", "animated"),
}
OVERALL_CHANGE = {
    ("rate", True): ("speeding up", "gaining speed", "at an accelerating pace"),
    ("rate", False): ("slowing down", "losing speed", "at a slackening pace"),
    ("pitch", True): ("rising in pitch", "moving to a higher pitch"),
    ("pitch", False): ("dropping in pitch", "moving to a lower pitch"),
    ("loudness", True): ("growing louder", "gaining volume"),
    ("loudness", False): ("growing softer", "losing volume"),
}
PLACE = {
    "early": ("early on", "soon after the start", "after the first part"),
    "middle": ("half-way through", "in the middle", "midway"),
    "late": ("near the end", "towards the end", "in the final part"),
}

STEADY = ("throughout", "from start to finish", "all the way")
PAUSES = (
    "there is a clear pause {place}",
    "a distinct pause comes {place}",
    "{place}, a clear pause is made",
)


def swap_tables() -> Tables:
    """Return the wordings of all values for attribute swaps (hard negatives).

    Example
    -------
    >>> sorted(swap_tables())
    ['accent', 'change', 'expressiveness', 'loudness', 'pitch', 'rate']
    """
    values: dict[str, Sequence[Sequence[str]]] = {
        "accent": [(accent,) for accent in ACCENTS],
        "rate": list(RATE.values()),
        # Not "low" and "high", which are also said of the volume.
        "pitch": [
            tuple(p for p in phrases if p not in ("low", "high")) for phrases in PITCH.values()
        ],
        "loudness": list(LOUDNESS.values()),
        "expressiveness": list(EXPRESSIVENESS.values()),
        "change": list(OVERALL_CHANGE.values()),
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


def global_caption(style: Style, generator: random.Random) -> str:
    """Write one sentence that states a style's signature.

    Example
    -------
    >>> from speechbrain_clsp.mini_fcaps.style import draw_style
    >>> global_caption(draw_style("male", random.Random(2)), random.Random(2))[-1]
    '.'
    """
    pick = generator.choice
    subject, manner, adverbs = (words(style, generator) for words in (_subject, _manner, _adverbs))
    change = style.change and pick(OVERALL_CHANGE[style.change.dimension, style.change.rises])
    layouts = [
        (subject, "speaks", adverbs, manner),
        (subject, "speaks", manner, adverbs),
        ("speaking", f"{adverbs},", subject, "is heard", manner),
    ]
    if manner:
        layouts.append((f"{manner},", subject, "speaks", adverbs))
    if not change:
        return _sentence(*pick(layouts))
    if generator.random() < 0.25:
        return _sentence(f"{change},", subject, "speaks", adverbs, manner)
    *parts, last = (part for part in pick(layouts) if part)
    return _sentence(*parts, f"{last},", change)


def fine_caption(
    style: Style, place: str | None, pause_place: str | None, generator: random.Random
) -> str:
    """Write two or three sentences that also say what happens when.

    The places of the change and of the pause are ``early``, ``middle`` or ``late``.

    Raises
    ------
    ValueError
        If the style has a change, but it has no place.
    """
    pick, pronoun = generator.choice, PRONOUNS[style.kind]
    subject, manner, adverbs = (words(style, generator) for words in (_subject, _manner, _adverbs))
    if style.change is None:
        sentences = [_sentence(subject, "speaks", manner)]
        sentences.append(_sentence(pronoun, "talks", adverbs, pick(STEADY)))
    else:
        sentences = [_sentence(subject, "speaks", *pick(((adverbs, manner), (manner, adverbs))))]
    events = []  # with their places, to be sorted by time
    if style.change is not None:
        if place is None:
            raise ValueError("A change needs a place")
        change = _change(style.change, pronoun, place, generator)
        events.append((list(PLACE).index(place), _sentence(change)))
    if pause_place is not None:
        pause = pick(PAUSES).format(place=pick(PLACE[pause_place]))
        events.append((list(PLACE).index(pause_place), _sentence(pause)))
    sentences += [text for _, text in sorted(events, key=lambda event: event[0])]
    return " ".join(sentences)


def _change(change: Change, pronoun: str, place: str, generator: random.Random) -> str:
    pick = generator.choice
    where = pick(PLACE[place])
    if change.dimension == "pitch":
        before, after = (pick(PITCH[level]) for level in (change.before, change.after))
        tones = f"{_article(before)} tone", f"{_article(after)} one"
        return pick(
            (
                f"the voice starts {before} and turns {after} {where}",
                f"{pronoun} begins with {tones[0]}, then moves to {tones[1]} {where}",
            )
        )
    words = {"rate": RATE, "loudness": LOUDNESS}[change.dimension]
    before, after = (pick(words[level]) for level in (change.before, change.after))
    return pick(
        (
            f"{pronoun} starts {before}, then {where} goes on {after}",
            f"{where}, the delivery changes: {pronoun.lower()} begins {before} and ends {after}",
            f"{pronoun} begins {before} and {where} continues {after}",
        )
    )


def _adverbs(style: Style, generator: random.Random) -> str:
    """Word the rate and the loudness, those that hold throughout."""
    adverbs = []
    for words, level in ((RATE, style.rate), (LOUDNESS, style.loudness)):
        if level is not None:
            adverbs.append(generator.choice(words[level]))
    generator.shuffle(adverbs)
    return " and ".join(adverbs)


def _subject(style: Style, generator: random.Random) -> str:
    noun, accent = generator.choice(NOUNS[style.kind]), style.accent
    if generator.random() < 0.4 and "voice" not in noun:
        return _article(f"{accent} {noun}")
    link = "and" if " with " in noun else "with"
    return f"{_article(noun)} {link} {_article(accent)} accent"


def _manner(style: Style, generator: random.Random) -> str:
    """Word pitch and expressiveness, as ``in a deep, flat tone``; empty if the pitch changes."""
    if style.kind in MANNERS:
        return generator.choice(MANNERS[style.kind])
    words = []
    if style.pitch is not None:
        words.append(generator.choice(PITCH[style.pitch]))
    if style.expressiveness is not None:
        words.append(generator.choice(EXPRESSIVENESS[style.expressiveness]))
    generator.shuffle(words)
    return f"in {_article(', '.join(words))} tone" if words else ""


def _article(phrase: str) -> str:
    return f"{article(phrase)} {phrase}"


def _sentence(*parts: str) -> str:
    text = " ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}."
