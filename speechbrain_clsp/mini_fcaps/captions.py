"""From a style to captions that state it, in varied words and order.

A global caption states everything that holds for the clip as a whole; a fine caption also says
what happens when. Wordings of one level are paraphrases, so that every caption is true.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import random

from speechbrain_clsp.mini_fcaps.style import Style

NOUNS = {
    "male": ("man", "male speaker", "male voice"),
    "female": ("woman", "female speaker", "female voice"),
    "whisper": ("whispering speaker", "whispering voice", "speaker who whispers"),
    "croak": ("croaky speaker", "croaking voice", "speaker with a creaky voice"),
}
PRONOUNS = {"male": "He", "female": "She", "whisper": "The speaker", "croak": "The speaker"}
MANNERS = {"whisper": ("in a whisper", "under the breath"), "croak": ("in a croak", "hoarsely")}
RATE = {
    "slow": ("slowly", "at a slow pace", "with a slow delivery"),
    "measured": ("at a measured pace", "at a medium speed", "with a steady tempo"),
    "fast": ("quickly", "at a fast pace", "with a rapid delivery"),
}
PITCH = {
    "low": ("low-pitched", "deep", "low"),
    "medium": ("medium-pitched", "mid-range"),
    "high": ("high-pitched", "high"),
}
LOUDNESS = {
    "quiet": ("quietly", "at a low volume", "softly"),
    "moderate": ("at a moderate volume", "at a normal loudness"),
    "loud": ("loudly", "at a high volume", "with a powerful volume"),
}
EXPRESSIVENESS = {
    "monotone": ("monotone", "flat"),
    "natural": ("natural", "evenly expressive"),
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


def global_caption(style: Style, generator: random.Random) -> str:
    """Write one sentence that states the clip's signature.

    Arguments
    ---------
    style : Style
        What is heard.
    generator : random.Random
        Chooses words and order.

    Returns
    -------
    str
        The caption.

    Example
    -------
    >>> from speechbrain_clsp.mini_fcaps.style import draw_style
    >>> global_caption(draw_style(random.Random(2)), random.Random(2))[-1]
    '.'
    """
    adverbs = _adverbs(style, generator)
    generator.shuffle(adverbs)
    subject, manner = _subject(style, generator), _manner(style, generator)
    layouts = (
        (subject, "speaks", _series(adverbs), manner),
        (subject, "speaks", manner, _series(adverbs)),
        ("speaking", _series(adverbs) + ",", subject, "is heard", manner),
    )
    return _sentence(*generator.choice(layouts))


def fine_caption(style: Style, place: str | None, pause_place: str | None, generator) -> str:
    """Write two or three sentences that also say what happens when.

    Arguments
    ---------
    style : Style
        What is heard.
    place : str or None
        Where the change happens: ``early``, ``middle``, ``late``.
    pause_place : str or None
        Where the pause is.
    generator : random.Random
        Chooses words and order.

    Returns
    -------
    str
        The caption.
    """
    pick, pronoun = generator.choice, PRONOUNS[style.kind]
    subject, manner = _subject(style, generator), _manner(style, generator)
    adverbs = _adverbs(style, generator, with_change=False)
    generator.shuffle(adverbs)
    if style.change is None:
        opening = _sentence(subject, "speaks", manner)
        details = [_sentence(pronoun, "talks", _series(adverbs), pick(STEADY))]
    else:
        opening = _sentence(subject, "speaks", _series(adverbs), manner)
        details = [_sentence(_change(style, place, generator))]
    if pause_place is not None:
        details.append(_sentence(pick(PAUSES).format(place=pick(PLACE[pause_place]))))
    generator.shuffle(details)
    return " ".join([opening, *details])


def _change(style: Style, place: str, generator: random.Random) -> str:
    change, pick, pronoun = style.change, generator.choice, PRONOUNS[style.kind]
    where = pick(PLACE[place])
    if change.dimension == "pitch":
        before, after = (pick(PITCH[level]) for level in (change.before, change.after))
        return pick(
            (
                f"the voice starts {before} and turns {after} {where}",
                f"{pronoun} begins with {_article(before)} tone, then moves to {_article(after)} one {where}",
            )
        )
    words = {"rate": RATE, "loudness": LOUDNESS}[change.dimension]
    before, after = (pick(words[level]) for level in (change.before, change.after))
    return pick(
        (
            f"{pronoun} starts {before}, then goes on {after} {where}",
            f"{where}, the delivery changes: {pronoun.lower()} begins {before} and ends {after}",
            f"{pronoun} begins {before} and {where} continues {after}",
        )
    )


def _adverbs(style: Style, generator: random.Random, with_change: bool = True) -> list[str]:
    """Word the rate, the loudness, and the change as a whole."""
    adverbs = []
    for words, level in ((RATE, style.rate), (LOUDNESS, style.loudness)):
        if level is not None:
            adverbs.append(generator.choice(words[level]))
    if style.change is not None and with_change:
        adverbs.append(generator.choice(OVERALL_CHANGE[style.change.dimension, style.change.rises]))
    return adverbs


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


def _series(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def _sentence(*parts: str) -> str:
    text = " ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}."
