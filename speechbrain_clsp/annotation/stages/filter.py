"""Rules on the text of captions: what the published pipeline drops, and words of the transcript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from speechbrain_clsp.annotation.answers import found_markup
from speechbrain_clsp.utils.words import words_of

# Words by which a caption says what is absent, and phrases by which it speaks of several people.
ABSENCE = (
    *("no", "not", "neither", "nor", "without", "lacking"),
    *("free from", "with no", "rather than"),
)
SEVERAL = ("speakers", "first speaker", "second speaker")
DROPS_CLIP = "several speakers"


@dataclass(frozen=True)
class FilterSettings:
    """What captions must be like.

    Arguments
    ---------
    shortest, longest : int
        Characters.
    absence : sequence of str
        Words and phrases that drop a caption, in any case, as whole words.
    several : sequence of str
        Words and phrases that drop all captions of a clip.
    transcript_words : int
        A caption that shares so many successive words with the transcript quotes it; 0: any may.
    """

    shortest: int = 128
    longest: int = 768
    absence: Sequence[str] = ABSENCE
    several: Sequence[str] = SEVERAL
    transcript_words: int = 4


def found_phrases(text: str, phrases: Sequence[str]) -> list[str]:
    """Return the phrases that occur in a text as whole words.

    Example
    -------
    >>> found_phrases("Not a note, rather than noise", ABSENCE)
    ['not', 'rather than']
    """
    line = f" {' '.join(words_of(text))} "
    return [phrase for phrase in phrases if f" {phrase.lower()} " in line]


def longest_quotation(text: str, transcript: str) -> str:
    """Return the longest run of words that a text shares with a transcript; "" if there is none.

    Example
    -------
    >>> longest_quotation("He says come to the window, softly.", "Oh, come to the window now.")
    'come to the window'
    """
    ours, theirs = words_of(text), words_of(transcript)
    match = SequenceMatcher(None, ours, theirs, autojunk=False).find_longest_match()
    return " ".join(ours[match.a : match.a + match.size])


def caption_faults(
    caption: str, settings: FilterSettings, transcript: str | None = None
) -> list[tuple[str, str]]:
    """Return the rules that a caption breaks, each with a reason.

    Example
    -------
    >>> caption_faults("A man, not young.", FilterSettings(shortest=10))
    [('absence', 'not')]
    """
    faults = []
    if "\n" in caption.strip():
        faults.append(("newline", "more than one line"))
    if tags := found_markup(caption):
        faults.append(("markup", ", ".join(tags)))
    if not settings.shortest <= len(caption) <= settings.longest:
        faults.append(("length", f"{len(caption)} characters"))
    if absent := found_phrases(caption, settings.absence):
        faults.append(("absence", ", ".join(absent)))
    if several := found_phrases(caption, settings.several):
        faults.append((DROPS_CLIP, ", ".join(several)))
    if settings.transcript_words and transcript:
        quotation = longest_quotation(caption, transcript)
        if len(quotation.split()) >= settings.transcript_words:
            faults.append(("transcript", quotation))
    return faults


def filter_captions(
    captions: Sequence[str], settings: FilterSettings, transcript: str | None = None
) -> tuple[list[str], list[dict[str, str]]]:
    """Split captions of a clip into those to keep and those to drop.

    Returns
    -------
    tuple
        Captions, and for each dropped one a dict with ``caption``, ``rule`` and ``reason``. If one
        speaks of several speakers, the clip probably has several, and all are dropped.

    Example
    -------
    >>> settings = FilterSettings(shortest=5)
    >>> filter_captions(["Two speakers.", "A man."], settings)[0]
    []
    """
    kept, dropped, several = [], [], ""
    for caption in captions:
        faults = caption_faults(caption, settings, transcript)
        several = several or dict(faults).get(DROPS_CLIP, "")
        if faults:
            dropped.append(_drop(caption, *faults[0]))
        elif caption in kept:
            dropped.append(_drop(caption, "repeated", "equal to another candidate"))
        else:
            kept.append(caption)
    if several:
        dropped += [_drop(caption, DROPS_CLIP, f"another caption: {several}") for caption in kept]
        kept = []
    return kept, dropped


def _drop(caption: str, rule: str, reason: str) -> dict[str, str]:
    return {"caption": caption, "rule": rule, "reason": reason}
