"""Swaps of what happens when: the order, the direction or the place of a change.

They are called as :class:`~speechbrain_clsp.captions.perturbation.AttributeSwap` and, like it,
leave quoted text alone and return the caption itself where nothing applies.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from speechbrain_clsp.captions.perturbation import (
    QUOTED,
    TABLES,
    AttributeSwap,
    Tables,
    Wording,
    apply_changes,
    between_forms,
    change_of,
    draw_changes,
    outside_quotes,
)

ONSET, LATER = "onset", "later"
SENTENCES_APART = 2  # at most, between the sentences that state both parts of a change
SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
CLAUSE = re.compile(r"[,;:()\u2013\u2014]|\b(?:and|but|while|whereas|yet)\b", re.IGNORECASE)
FROM_TO = re.compile(r"\b(from)\b[^.!?;:]*?\b(to)\b", re.IGNORECASE)
# What follows such a word belongs to that part. "Begins to shout" is no beginning of the utterance.
_BEGIN = r"(?:begin(?:s|ning)?|began|start(?:s|ing|ed)|open(?:s|ing|ed))\b(?! to\b)"
_GO_ON = (
    r"then|before|afterwards?|later|subsequently|eventually|finally|"
    r"(?:end|finish|conclud|clos|turn|continu|mov|shift|transition|switch|chang|proceed|grow|"
    r"progress|evolv|settl|fad)(?:s|es|ing|ed)|"
    r"becom(?:es|ing)|became|grew|go(?:es|ing) on|drop(?:s|ping|ped)|ris(?:es|ing)|rose|"
    r"fall(?:s|ing)|fell|giv(?:es|ing) way|follow(?:s|ed|ing)"
)
WORDS = {part: re.compile(rf"\b(?:{cue})\b", re.I) for part, cue in
         ((ONSET, _BEGIN), (LATER, _GO_ON))}  # fmt: skip
# These may also follow what they belong to, and count more than the words above.
ADVERBIALS = {
    ONSET: re.compile(
        r"\b(?:initially|at first|"
        r"(?:at|in|from|near) the (?:very )?(?:start|beginning|outset|onset)|"
        r"in the (?:first|opening|initial) (?:part|half|phrase|segment|words|moments)|"
        r"the (?:opening|initial) (?:phrase|segment|words|part))\b",
        re.IGNORECASE,
    ),
    LATER: re.compile(
        r"\b(?:(?:at|by|near|toward|towards|until) the (?:very )?end|in the end|"
        r"(?:in|with|for|of|to) (?:the|a) (?:last|final|second|closing|latter|later) "
        r"(?:part|half|phrase|segment|words|section))\b",
        re.IGNORECASE,
    ),
}


def english_tables(kind: str) -> Tables:
    """Read general English phrases: of ``attribute``, ``level``, ``direction`` or ``place``.

    Attributes are those of which ParaSpeechCaps has no labels. Levels are for :class:`OrderSwap`,
    directions for :class:`DirectionSwap`, places for :class:`PlaceSwap`.

    Arguments
    ---------
    kind : str
        Which of them.

    Returns
    -------
    dict
        ``tables[attribute][value]`` is a list of Wording.

    Raises
    ------
    KeyError
        If ``kind`` is none of these.

    Example
    -------
    >>> english_tables("direction")["rate"]["rising"][3].opposites
    ['deceleration']
    """
    return between_forms(json.loads((TABLES / "english.json").read_text(encoding="utf-8"))[kind])


class Mention(NamedTuple):
    """A phrase of a caption that names a value of an attribute.

    Arguments
    ---------
    match : re.Match
        With the groups ``article`` and ``phrase``.
    value : str
        The value that it names.
    wording : Wording
        The wording that it belongs to.
    part : str or None
        Of the utterance that it is about: ``onset`` or ``later``, None if the caption does not say.
    sentence : int
        Number of its sentence.
    """

    match: re.Match
    value: str
    wording: Wording
    part: str | None
    sentence: int


class OrderSwap:
    """Exchanges what a caption says of the beginning with what it says of later.

    A caption tells the order of a change by words for the beginning (starts, begins, at first) and
    for what follows (then, ends, turns, later), each with a level of the same attribute. Both may
    stand in sentences of their own, at most two sentences apart.

    Arguments
    ---------
    tables : dict, or callable that returns one
        For each attribute its levels, as for
        :class:`~speechbrain_clsp.captions.perturbation.AttributeSwap`; see :func:`english_tables`.
    binding : bool
        Whether to exchange the levels of one attribute only, of the several that change: they are
        then bound to the wrong parts. Captions with only one such attribute are left as they are.
        Default: those of all attributes.

    Example
    -------
    >>> caption = "He begins slowly and softly and ends quickly and loudly."
    >>> OrderSwap(english_tables("level"))(caption, random.Random(0))
    'He begins quickly and loudly and ends slowly and softly.'
    >>> OrderSwap(english_tables("level"), binding=True)(caption, random.Random(0))
    'He begins slowly and loudly and ends quickly and softly.'
    """

    def __init__(self, tables: Tables | Callable[[], Tables], binding: bool = False) -> None:
        self.levels = AttributeSwap(tables)
        self.binding = binding

    def __call__(
        self, caption: str, generator: random.Random, row: Mapping[str, Any] | None = None
    ) -> str:
        """Return the false caption; the caption itself if it tells no order."""
        exchanges = self.exchanges(caption, generator)
        if self.binding:
            names = generator.sample(list(exchanges), 1) if len(exchanges) > 1 else []
        else:
            names = list(exchanges)
        return apply_changes(caption, [change for name in names for change in exchanges[name]])

    def exchanges(
        self, caption: str, generator: random.Random
    ) -> dict[str, list[tuple[int, int, str]]]:
        """Return, for every attribute whose order a caption tells, what would exchange its levels.

        An exchange is a list of start, end and replacement.

        Example
        -------
        >>> swap = OrderSwap(english_tables("level"))
        >>> swap.exchanges("At first loud, then soft.", random.Random(0))
        {'loudness': [(9, 13, 'soft'), (20, 24, 'loud')]}
        """
        exchanges = {}
        for attribute, mentions in _mentions(self.levels, caption).items():
            before, after = _statement(mentions)
            if before and (exchange := _exchange(self.levels, before, after, generator)):
                exchanges[attribute] = exchange
        return exchanges


def _mentions(swap: AttributeSwap, caption: str) -> dict[str, list[Mention]]:
    """Return the mentions of each attribute in the order of the caption."""
    pieces = list(_pieces(caption))
    found: dict[str, list[Mention]] = {}
    for attribute, values in swap.named(caption, outside_quotes(caption)).items():
        mentions = []
        for value, named in values.items():
            for match, wording in named:
                place = match.start("phrase")
                part, number = next(piece[2:] for piece in pieces if place < piece[1])
                mentions.append(Mention(match, value, wording, part, number))
        found[attribute] = sorted(mentions, key=lambda mention: mention.match.start())
    return found


def _exchange(
    swap: AttributeSwap, before: list[Mention], after: list[Mention], generator: random.Random
) -> list[tuple[int, int, str]]:
    """Return what exchanges two values: [] if the tables have no words of the forms needed.

    Two phrases of one form change places; otherwise each gets other words of its own form.
    """
    if len(before) == len(after) == 1:
        one, two = before[0], after[0]
        if set(one.wording.opposites) & set(two.wording.phrases):
            return [change_of(one.match, _spelled(two)), change_of(two.match, _spelled(one))]
    changes: list[tuple[int, int, str]] = []
    for mentions, value in ((before, after[0].value), (after, before[0].value)):
        narrowed: dict[int, Wording] = {}  # one object for each wording
        for mention in mentions:
            opposites = [p for p in mention.wording.opposites if _value_of(swap, p) == value]
            if not opposites:
                return []
            wording = mention.wording._replace(opposites=opposites, near=())
            narrowed.setdefault(id(mention.wording), wording)
        chosen = [(mention.match, narrowed[id(mention.wording)]) for mention in mentions]
        changes += draw_changes(chosen, generator)
    return changes


def _value_of(swap: AttributeSwap, phrase: str) -> str | None:
    """Return the value that a phrase names; None if the tables replace by it only."""
    _, value, _ = swap.meanings.get(phrase.lower(), (None, None, None))
    return value


def _spelled(mention: Mention) -> str:
    """Return a mention's phrase as its table writes it, without the capital of a sentence."""
    said = mention.match["phrase"].lower()
    return next(phrase for phrase in mention.wording.phrases if phrase.lower() == said)


def _statement(mentions: list[Mention]) -> tuple[list[Mention], list[Mention]]:
    """Return the mentions of the level before a change and of that after it; [] if none is told.

    Between them the attribute must not be mentioned without a word of time.
    """
    before: list[Mention] = []
    after: list[Mention] = []
    for mention in mentions:
        if after:
            if mention.part != LATER or mention.value != after[0].value:
                break
            after.append(mention)
        elif mention.part == ONSET:
            if before and mention.value != before[0].value:
                before = []
            before.append(mention)
        elif before and (
            mention.part is None or mention.sentence - before[-1].sentence > SENTENCES_APART
        ):
            before = []
        elif before and mention.value == before[0].value:  # "starts softly, goes on softly, ends"
            before.append(mention)
        elif before:
            after.append(mention)
    return (before, after) if after else ([], [])


def _without_quotes(caption: str) -> str:
    """Return a caption of the same length with quoted text crossed out."""
    return QUOTED.sub(lambda match: "_" * len(match[0]), caption)


def _pieces(caption: str) -> Iterator[tuple[int, int, str | None, int]]:
    """Cut a caption into pieces (start, end, part of the utterance, number of the sentence).

    A piece without a word of time is about the same part as the one before it in its sentence.
    """
    text = _without_quotes(caption)
    ends = [0, *(match.end() for match in SENTENCE_END.finditer(text)), len(text)]
    for number, (start, end) in enumerate(pairwise(ends)):
        cues: dict[int, str] = {}
        for part, pattern in WORDS.items():
            cues |= {match.start(): part for match in pattern.finditer(text, start, end)}
        for match in FROM_TO.finditer(text, start, end):
            cues |= {match.start(1): ONSET, match.start(2): LATER}
        cuts = {start, *cues, *(match.start() for match in CLAUSE.finditer(text, start, end))}
        current: str | None = None
        for first, last in pairwise([*sorted(cuts), end]):
            current = cues.get(first, current)
            for part, pattern in ADVERBIALS.items():
                if pattern.search(text, first, last):
                    current = part
            yield first, last, current, number


class DirectionSwap:
    """Turns a change into its opposite: "speeding up" into "slowing down".

    Captions that name both directions of an attribute ("rising and falling") are left as they are.

    Arguments
    ---------
    tables : dict, or callable that returns one
        For each attribute its two directions, with their wordings; see :func:`english_tables`.

    Example
    -------
    >>> swap = DirectionSwap(english_tables("direction"))
    >>> swap("A man speaks, losing volume.", random.Random(1))
    'A man speaks, rising in volume.'
    """

    def __init__(self, tables: Tables | Callable[[], Tables]) -> None:
        self.directions = AttributeSwap(tables)

    def __call__(
        self, caption: str, generator: random.Random, row: Mapping[str, Any] | None = None
    ) -> str:
        """Return the false caption; the caption itself if it names no direction."""
        named = self.directions.named(caption, outside_quotes(caption))
        single = [mentions for mentions in named.values() if len(mentions) == 1]
        if not single:
            return caption
        (mentions,) = generator.choice(single).values()
        return apply_changes(caption, draw_changes(mentions, generator))


class PlaceSwap:
    """Moves what happens to another place: from "early on" to "near the end".

    Two places of one sentence change places. Otherwise one is replaced by a place that the caption
    does not name.

    Arguments
    ---------
    tables : dict, or callable that returns one
        For each attribute, such as ``place``, its values with their wordings; see
        :func:`english_tables`.

    Example
    -------
    >>> swap = PlaceSwap(english_tables("place"))
    >>> swap("Early on, a pause is made.", random.Random(3))
    'Halfway through, a pause is made.'
    >>> swap("Soft at the start and loud at the end.", random.Random(0))
    'Soft at the end and loud at the start.'
    """

    def __init__(self, tables: Tables | Callable[[], Tables]) -> None:
        self.places = AttributeSwap(tables)

    def __call__(
        self, caption: str, generator: random.Random, row: Mapping[str, Any] | None = None
    ) -> str:
        """Return the false caption; the caption itself if it names no place."""
        named = _mentions(self.places, caption)
        if not named:
            return caption
        mentions = named[generator.choice(list(named))]
        by_sentence = [list(group) for _, group in groupby(mentions, lambda m: m.sentence)]
        pairs = [group for group in by_sentence if len({m.value for m in group}) == 2]
        if pairs:
            pair = generator.choice(pairs)
            first = [mention for mention in pair if mention.value == pair[0].value]
            second = [mention for mention in pair if mention.value != pair[0].value]
            return apply_changes(caption, _exchange(self.places, first, second, generator))
        moved = generator.choice(mentions)
        said = {phrase for mention in mentions for phrase in mention.wording.phrases}
        opposites = moved.wording.opposites
        free = [phrase for phrase in opposites if phrase not in said]
        new = generator.choice(free or opposites)
        return apply_changes(caption, [change_of(moved.match, new)])


def reorder_sentences(
    caption: str, generator: random.Random, row: Mapping[str, Any] | None = None
) -> str:
    """Put a caption's sentences in another order in which it says the same.

    A caption is returned as it is if it has one sentence, or one that goes on from another ("Then
    she ...").

    Arguments
    ---------
    caption : str
        One or more sentences.
    generator : random.Random
        Draws the order.
    row : dict, optional
        The clip; it changes nothing.

    Returns
    -------
    str
        The same sentences.

    Example
    -------
    >>> caption = "A man speaks slowly. His voice is deep."
    >>> reorder_sentences(caption, random.Random(0))
    'His voice is deep. A man speaks slowly.'
    >>> reorder_sentences("A man whispers. Then he shouts.", random.Random(0))
    'A man whispers. Then he shouts.'
    """
    text = _without_quotes(caption)
    ends = [0, *(match.end() for match in SENTENCE_END.finditer(text))]
    if len(ends) < 3 or text[ends[-1] :].strip():
        return caption
    spans = list(pairwise(ends))
    if any(_goes_on(text, *span) for span in spans):
        return caption
    sentences = [caption[start:end].strip() for start, end in spans]
    order = list(range(len(sentences)))
    while order == sorted(order):
        generator.shuffle(order)
    return " ".join(sentences[number] for number in order)


def _goes_on(text: str, start: int, end: int) -> bool:
    """Tell whether a sentence says what comes later without saying what was before."""
    later = WORDS[LATER].search(text, start, end)
    onset = any(table[ONSET].search(text, start, end) for table in (WORDS, ADVERBIALS))
    return later is not None and not onset and not FROM_TO.search(text, start, end)
