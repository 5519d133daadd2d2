"""Styles and clips that differ from a given one in exactly one thing.

A kind and an attribute name the thing: ``attribute`` (gender, accent, rate, pitch, loudness,
expressiveness), ``order`` (the two levels of a change), ``direction`` (what a global caption says
of it), ``binding`` (one of two changes at the same point), ``place`` (of the change or the pause)
and ``event`` (whether there is a change or a pause).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from speechbrain_clsp.mini_fcaps.corpus import PlannedClip, Script, with_places
from speechbrain_clsp.mini_fcaps.recording import NO_RECORDING
from speechbrain_clsp.mini_fcaps.style import (
    ACCENTS,
    EXPRESSIVENESSES,
    LEVELS,
    NO_PAUSE,
    PLACES,
    Change,
    Style,
)
from speechbrain_clsp.mini_fcaps.voices import VOICES

Thing = tuple[str, str]  # kind and attribute
GENDERS = ("male", "female")
# Speaking time of a twin, and the shortest time beside a change [s].
TWIN_SECONDS, TWIN_MIN_SECONDS_BESIDE_CHANGE = (1.0, 4.0), 0.4
# How likely a training clip's twin differs in each kind of thing. Of place and event, captions
# often say nothing: they are then true of both clips, though each is a negative for the other.
TWIN_KINDS = {"attribute": 4.0, "order": 2.0, "binding": 3.0, "place": 2.0, "event": 1.5}
# The same for attributes; those that are not here have 1.
TWIN_ATTRIBUTES = {"accent": 1.5, "expressiveness": 3.0}


@dataclass(frozen=True)
class Contrast:
    """Two clips that differ in one thing."""

    kind: str
    attribute: str
    clips: tuple[PlannedClip, PlannedClip]


def variations(style: Style) -> dict[Thing, list[Style]]:
    """Return the styles that differ from one in one thing, by kind and attribute.

    Example
    -------
    >>> style = Style("whisper", "British", "slow", None, "loud", None, pause="late")
    >>> for (kind, attribute), styles in variations(style).items():
    ...     print(kind, attribute, len(styles))
    attribute accent 3
    attribute rate 2
    attribute loudness 2
    event change 12
    place pause 2
    event pause 1
    """
    found = {
        **_attributes(style),
        ("place", "change"): _with_others(style, "change_place", PLACES),
        ("event", "change"): _without_change(style) if style.changes else _with_change(style),
    }
    if style.pause != NO_PAUSE:
        found["place", "pause"] = _with_others(style, "pause", PLACES)
        found["event", "pause"] = [replace(style, pause=NO_PAUSE)]
    else:
        found["event", "pause"] = [replace(style, pause=place) for place in PLACES]
    for change in style.changes:
        found["direction", change.dimension] = [style.exchanged(change.dimension)]
    if style.change is not None:
        found["order", style.change.dimension] = [style.exchanged(style.change.dimension)]
    elif style.changes:
        dimensions = [change.dimension for change in style.changes]
        found["binding", "+".join(dimensions)] = [style.exchanged(name) for name in dimensions]
    return {thing: styles for thing, styles in found.items() if styles}


def _attributes(style: Style) -> dict[Thing, list[Style]]:
    genders = _with_others(style, "kind", GENDERS) if style.kind in GENDERS else []
    return {
        ("attribute", "gender"): genders,
        ("attribute", "accent"): _with_others(style, "accent", list(ACCENTS)),
        **{("attribute", name): _with_others(style, name, LEVELS[name]) for name in LEVELS},
        ("attribute", "expressiveness"): _with_others(style, "expressiveness", EXPRESSIVENESSES),
    }


def _with_others(style: Style, field: str, values: Sequence[str]) -> list[Style]:
    """Return the style with each other value of a field; nothing if it has none."""
    own = getattr(style, field)
    return [_replace(style, {field: value}) for value in values if own not in (None, value)]


def _replace(style: Style, values: Mapping[str, Any]) -> Style:
    """Return the style with other values of the fields that are named."""
    return replace(style, **values)


def _with_change(style: Style) -> list[Style]:
    """Return the style with each change from its level of rate or loudness, at each place."""
    return [
        _replace(
            style,
            {name: None, "changes": (Change(name, own, other),), "change_place": place},
        )
        for name in ("rate", "loudness")  # a change of pitch takes the expressiveness away
        if (own := getattr(style, name)) is not None
        for other in LEVELS[name]
        if other != own
        for place in PLACES
    ]


def _without_change(style: Style) -> list[Style]:
    """Return the styles that keep the levels before the change, or those after it."""
    return [
        _replace(
            style,
            {
                **{change.dimension: getattr(change, side) for change in style.changes},
                "changes": (),
                "change_place": None,
            },
        )
        for side in ("before", "after")
    ]


def with_twins(clips: Sequence[PlannedClip], seed: int) -> list[PlannedClip]:
    """Make every second training clip a twin of the one before it, in one thing.

    In a batch with its twin, a clip can be told from it by that thing alone. Twins have no style
    that is held out. A clip whose sentence allows no twin keeps its successor.

    Arguments
    ---------
    clips : sequence of PlannedClip
        Clips of all splits.
    seed : int
        Of the choice of things.

    Returns
    -------
    list of PlannedClip
        With the same ids in the same order.

    Example
    -------
    >>> from speechbrain_clsp.mini_fcaps.corpus import plan_clips
    >>> clips = with_twins(plan_clips({"test": 0, "valid": 0, "train": 4}, seed=0), seed=0)
    >>> clips[0].script.phrases == clips[1].script.phrases, clips[0].style == clips[1].style
    (True, False)
    """
    held_out = {clip.style.signature for clip in clips if clip.split != "train"}
    training = [clip for clip in clips if clip.split == "train"]
    planned = {clip.id: clip for clip in clips}
    for clip, successor in zip(training[::2], training[1::2]):
        twin = _draw_twin(clip, held_out, random.Random(f"{seed} twin {clip.id}"))
        if twin is not None:
            planned[successor.id] = replace(twin, id=successor.id, split="train")
    return list(planned.values())


def _draw_twin(
    clip: PlannedClip, held_out: set[tuple], generator: random.Random
) -> PlannedClip | None:
    """Return a twin in one thing, of a kind drawn by its weight; None if there is none."""
    by_kind: dict[str, list[Thing]] = {}
    possible = variations(clip.style)
    for thing in possible:
        # A direction is that of an order or a binding, said by a global caption.
        if thing[0] != "direction" and not _needs_other_voice(clip, thing):
            by_kind.setdefault(thing[0], []).append(thing)
    while by_kind:
        kind = generator.choices(list(by_kind), [TWIN_KINDS[kind] for kind in by_kind])[0]
        things = by_kind[kind]
        weights = [TWIN_ATTRIBUTES.get(attribute, 1.0) for _, attribute in things]
        thing = things.pop(generator.choices(range(len(things)), weights)[0])
        if not things:
            del by_kind[kind]
        styles = [style for style in possible[thing] if style.signature not in held_out]
        if found := _contrasts(clip, thing, styles, generator):
            return found[0].clips[1]
    return None


def _needs_other_voice(clip: PlannedClip, thing: Thing) -> bool:
    """Whether a recorded clip's voice, which was drawn for its F0, may not serve for the twin."""
    attributes = ("gender", "pitch", "expressiveness")
    return clip.script.recording != NO_RECORDING and thing[1] in attributes


def plan_contrasts(clips: Sequence[PlannedClip], seed: int) -> list[Contrast]:
    """Plan twins of clips: same sentence, voice and draws, and one thing that differs.

    Every clip with a change gets twins with its levels exchanged, and others where change and pause
    lie elsewhere in the sentence, if it allows that. Of the other things each clip gets one, the
    rarest so far; a twin that gets a change gets a twin with its levels exchanged, too.

    Arguments
    ---------
    clips : sequence of PlannedClip
        The clips that get twins.
    seed : int
        Of what is drawn.

    Returns
    -------
    list of Contrast
        Pairs of clips, and what they differ in.

    Example
    -------
    >>> from speechbrain_clsp.mini_fcaps.corpus import plan_clips
    >>> clips = plan_clips({"test": 5, "valid": 0, "train": 0}, seed=0)
    >>> contrast = plan_contrasts(clips, seed=0)[0]
    >>> contrast.kind, contrast.attribute, [clip.id for clip in contrast.clips]
    ('attribute', 'gender', ['test_00000', 'test_00000_attribute_gender'])
    """
    generator = random.Random(f"{seed} contrasts")
    contrasts: list[Contrast] = []
    counts: Counter[Thing] = Counter()
    for clip in clips:
        possible = variations(clip.style)
        rarest_first = sorted(
            (thing for thing in possible if thing[0] in ("attribute", "event")),
            key=lambda thing: counts[thing],
        )
        for thing in possible:
            if thing[0] == "binding":
                contrasts += _bindings(clip, thing[1])
            elif thing[0] in ("order", "place"):
                contrasts += _contrasts(clip, thing, possible[thing], generator)
        for thing in rarest_first:
            styles = possible[thing]
            if thing == ("event", "change") and not clip.style.changes:
                # Of the rate: its exchange fits fewer sentences than that of the loudness.
                styles = [style for style in styles if style.rate is None]
            found = _contrasts(clip, thing, styles, generator)
            contrasts += found
            counts[thing] += len(found)
            if found:
                break
        else:
            continue
        twin = found[0].clips[1]
        if thing == ("event", "change") and twin.style.changes:
            styles = [twin.style.exchanged("rate")]
            contrasts += _contrasts(twin, ("order", "rate"), styles, generator)
    return contrasts


def _contrasts(
    clip: PlannedClip, thing: Thing, styles: Sequence[Style], generator: random.Random
) -> list[Contrast]:
    """Return the contrast with one of the styles, if the sentence allows one of them."""
    for style in generator.sample(styles, len(styles)):
        for script in _scripts(clip.script, *thing, style):
            placed = _place(style, script)
            if placed is None:
                continue
            # An exchanged rate moves the boundary in time; captions then do not say where it is.
            place = style.change_place if thing[0] == "order" else placed.change_place
            if replace(placed, change_place=place) == style:
                twin = PlannedClip(f"{clip.id}_{'_'.join(thing)}", "probes", placed, script)
                return [Contrast(*thing, (clip, twin))]
    return []


def _place(style: Style, script: Script) -> Style | None:
    return with_places(style, script, TWIN_SECONDS, TWIN_MIN_SECONDS_BESIDE_CHANGE)


def _scripts(script: Script, kind: str, attribute: str, style: Style) -> list[Script]:
    """Return the scripts that may give a style which differs in one thing."""
    if attribute == "gender":
        other, own = (VOICES[g] for g in GENDERS[:: 1 if style.kind == "male" else -1])
        return [replace(script, voice=other[own.index(script.voice) % len(other)])]
    if kind not in ("place", "event"):
        return [script]
    is_there = bool(style.changes) if attribute == "change" else style.pause != NO_PAUSE
    places = range(1, len(script.phrases)) if is_there else [None]
    if attribute == "change":
        return [replace(script, boundary=place) for place in places]
    return [replace(script, pause=place) for place in places]


def _bindings(clip: PlannedClip, attribute: str) -> list[Contrast]:
    """Return the pairs among a clip with two changes and the three with exchanged levels."""
    twins: dict[tuple[str, ...], PlannedClip] = {(): clip}
    dimensions = attribute.split("+")
    for exchanged in (*[(name,) for name in dimensions], tuple(dimensions)):
        placed = _place(clip.style.exchanged(*exchanged), clip.script)
        if placed is not None and placed.pause == clip.style.pause:
            name = f"{clip.id}_exchanged_{'_'.join(exchanged)}"
            twins[exchanged] = PlannedClip(name, "probes", placed, clip.script)
    return [
        Contrast("binding", attribute, (twins[one], twins[other]))
        for one, other in combinations(twins, 2)
        if abs(len(one) - len(other)) == 1
    ]
