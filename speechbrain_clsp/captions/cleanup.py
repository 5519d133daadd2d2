"""Rule-based cleanup of captions written by people and language models.

ParaSpeechCaps' captions carry traces of how they were made: alternatives, notes, headings, forms
like "men" for one man. Each rule is a function; :data:`RULES` holds them in the order in which
:func:`clean_caption` applies them.
"""

from __future__ import annotations

import re

from rapidfuzz.distance import Levenshtein

from speechbrain_clsp.captions.perturbation import article, cased_like

NOTES = re.compile(r"\b(?:note|or|description)\s*:", re.I)
BRACKETED = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}")
SINGULAR = {
    "women's": "woman's",
    "men's": "man's",
    "women": "woman",
    "men": "man",
    "females": "female",
    "males": "male",
}
_PLURALS = re.compile(rf"\b({'|'.join(map(re.escape, SINGULAR))})(?![\w'])", re.I)
_LOWER_PARTS = re.compile(r"[A-Za-z]+")


def _cut_alternatives(text: str) -> str:
    """Keep the first of several wordings."""
    return re.split(r"\(\s*or\s*\)", text, maxsplit=1, flags=re.I)[0]


def _drop_bracketed(text: str) -> str:
    """Drop text in brackets, nested ones too."""
    while (shorter := BRACKETED.sub("", text)) != text:
        text = shorter
    return text


def _cut_notes(text: str) -> str:
    """Cut at "Note:", "Or:" and "Description:"; where the text starts with one, drop just that."""
    match = NOTES.match(text.lstrip(" \t\n*#\"'"))
    if match:
        return _cut_notes(text[text.index(":") + 1 :])
    return NOTES.split(text, maxsplit=1)[0]


def _drop_headings(text: str) -> str:
    """Drop what stands before a colon."""
    parts = re.split(r":(?!\d)", text)
    return next((part for part in reversed(parts) if part.strip(" \n\"'")), "")


def _name_one_person(text: str) -> str:
    """Replace plural nouns that stand for the one speaker by the singular."""
    return _PLURALS.sub(lambda match: cased_like(SINGULAR[match[0].lower()], match[0]), text)


def _name_accents(text: str) -> str:
    """Replace wordings of origin by "accent"."""
    text = re.sub(r"\bin (?:origin|accents?)\b", "accent", text, flags=re.I)
    text = re.sub(r"\b(?:origin|continent|accents)\b", "accent", text, flags=re.I)
    text = re.sub(r"\baccent(?: accent)+\b", "accent", text, flags=re.I)
    return re.sub(r"\baussie\b", "Australian", text, flags=re.I)


def _drop_however(text: str) -> str:
    """Drop the word "however" with its commas."""
    return re.sub(r",?\s*\bhowever\b,?", "", text, flags=re.I)


def _tidy_punctuation(text: str) -> str:
    """Repair spaces and punctuation; end with a full stop."""
    text = re.sub(r"\s+", " ", text).strip(" *#-_`")
    if text.count('"') % 2 or (text[:1] == '"' == text[-1:] and text.count('"') == 2):
        text = text.replace('"', "")
    text = re.sub(r"\s+([,.;:!?])", r"\1", text)
    text = re.sub(r"([,;:])(?:\s*[,;:])+", r"\1", text)
    text = re.sub(r"[,;:]+\s*([.!?])", r"\1", text)
    text = re.sub(r"([.!?])(?:\s*[.,;])+", r"\1", text)
    text = re.sub(r"([,;!?])(?=[^\W\d])", r"\1 ", text)
    text = text.strip().lstrip(",;:.!? ").rstrip(" ,;:-")
    return text if not text or text.endswith((".", "!", "?", '."', '!"', '?"')) else text + "."


def _use_sentence_case(text: str) -> str:
    """Start sentences with capitals."""
    return re.sub(r"(^|[.!?]\s+)(\w)", lambda match: match[1] + match[2].upper(), text)


RULES = (
    _cut_alternatives,
    _drop_bracketed,
    _cut_notes,
    _drop_headings,
    _name_one_person,
    _name_accents,
    _drop_however,
    _tidy_punctuation,
    _use_sentence_case,
)


def clean_caption(text: str) -> str:
    """Apply all rules in order.

    Arguments
    ---------
    text : str
        A caption.

    Returns
    -------
    str
        The caption, perhaps empty.

    Example
    -------
    >>> clean_caption("Caption: a men speaks slowly (very), however ,calm. (or) He is slow.")
    'A man speaks slowly, calm.'
    """
    for rule in RULES:
        text = rule(text)
    return text


def display_accent(label: str) -> str:
    """Return an accent as captions write it.

    Example
    -------
    >>> display_accent("brooklyn/new york"), display_accent("british-american")
    ('Brooklyn/New York', 'British-American')
    """
    return _LOWER_PARTS.sub(lambda match: match[0].capitalize(), label.strip())


def repair_accent(text: str, label: str | None) -> str:
    """Make a caption name the labelled accent with the right spelling and case.

    Words within a Levenshtein distance of two from the label are taken for a misspelling of it;
    for labels of up to five letters the limit is one, since two would turn "crisp" into "Irish".
    If no word is close enough, the accent is added; without a label the caption stays as it is.

    Arguments
    ---------
    text : str
        A caption.
    label : str, optional
        The accent that people labelled.

    Returns
    -------
    str
        The caption with that accent.

    Example
    -------
    >>> repair_accent("A man with a scotish accent.", "scottish")
    'A man with a Scottish accent.'
    >>> repair_accent("A man with a strong accent.", "irish"), repair_accent("A man.", "irish")
    ('A man with a strong Irish accent.', 'A man, with an Irish accent.')
    """
    if not label or not label.strip() or not text:
        return text
    accent = display_accent(label)
    n_words = len(accent.split())
    words = list(re.finditer(r"[^\s,.;:!?\"()]+", text))
    allowed = 2 if len(accent) > 5 else 1
    near = []
    for first in range(len(words) - n_words + 1):
        start, end = words[first].start(), words[first + n_words - 1].end()
        written = text[start:end].lower()
        distance = Levenshtein.distance(written, accent.lower(), score_cutoff=allowed)
        if distance <= allowed:
            near.append((distance, start, end))
    if near:
        best = min(near)[0]
        for _, start, end in reversed([found for found in near if found[0] == best]):
            text = _with_article(text[:start], accent) + text[end:]
        return text
    match = re.search(r"\baccent\b", text)
    if match:
        return _with_article(text[: match.start()], accent) + " " + text[match.start() :]
    return f"{text.rstrip('.!? ')}, with {article(accent)} {accent} accent."


def _with_article(before: str, accent: str) -> str:
    """Put an accent after a text, whose last word may be the article that it needs."""
    match = re.search(r"\b(an?)(\s+)$", before, flags=re.I)
    if match:
        before = before[: match.start()] + cased_like(article(accent), match[1]) + match[2]
    return before + accent
