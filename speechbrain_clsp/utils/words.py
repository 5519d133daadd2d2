"""Words of a text, in one normal form for all that compares words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

APOSTROPHES = dict.fromkeys(
    map(ord, "\u2018\u2019\u201b\u02bb\u02bc\u02bd\u02b9\u2032\u0060\u00b4"), "'"
)
# Scripts without spaces between words: Chinese characters, kana, Bopomofo, Thai, Lao, Burmese,
# Khmer. Each of their characters is a word.
UNSPACED = re.compile(
    "[\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff\u3041-\u30ff\u31f0-\u31ff\u3100-\u312f\u31a0-\u31bf"
    "\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff]"
)
ZERO_WIDTH_SPACE = "\u200b"
# Characters that change how others look: variation selectors, circles and keys, and the tatweel,
# which lengthens Arabic words.
FORMS = re.compile("[\ufe00-\ufe0f\u180b-\u180d\u180f\u20dd-\u20e4\U000e0100-\U000e01ef\u0640]")
DOTTED_I = "i\u0307"  # what the Turkish capital becomes


def words_of(text: str) -> list[str]:
    """Return a text's words, as they are compared.

    Case, punctuation, forms of apostrophes, and whether accents are characters of their own (NFKC),
    make no difference. Vowel signs and accents belong to their words. Of scripts without spaces,
    such as Chinese and Thai, every character is a word.

    Example
    -------
    >>> words_of("Don\u2019t \u2014 he said: 'go!'")
    ["don't", 'he', 'said', 'go']
    >>> words_of("\u6162\u6162\u8bf4 OK\uff01")
    ['\u6162', '\u6162', '\u8bf4', 'ok']
    """
    text = FORMS.sub("", text.translate(APOSTROPHES).replace(ZERO_WIDTH_SPACE, " "))
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = text.replace(DOTTED_I, "i")
    words = [word.strip("'") for word in "".join(_spaced(text.translate(APOSTROPHES))).split()]
    return [word for word in words if word]


def _spaced(text: str) -> Iterator[str]:
    """Yield letters, digits, marks and apostrophes, with spaces around words."""
    ends_word = False  # the next letter begins another word
    within = False  # a word, to which a mark belongs; those of emoji and keys are dropped
    for character in text:
        kind = unicodedata.category(character)
        if character == "'" or (kind[0] == "M" and within):
            yield character
        elif kind[0] in "LN":
            within = True
            is_word = UNSPACED.match(character) is not None
            yield f" {character}" if is_word or ends_word else character
            ends_word = is_word
        elif kind[0] != "M" and kind != "Cf":  # joiners, soft hyphens
            yield " "
            ends_word = within = False
