"""One form of words for all scripts."""

import unicodedata

import pytest

from speechbrain_clsp.utils.words import words_of


@pytest.mark.parametrize("apostrophe", "'\u2018\u2019\u02bb\u02bc\uff07`\u00b4")
def test_apostrophes_are_one(apostrophe):
    assert words_of(f"Don{apostrophe}t {apostrophe}go{apostrophe}") == ["don't", "go"]


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_the_form_of_accents_does_not_count(form):
    assert words_of(unicodedata.normalize(form, "Ça élève Ấ Å")) == ["ça", "élève", "ấ", "å"]


def test_marks_belong_to_their_words():
    """If this fails, vowel signs of Indic scripts, or Thai tones, are thrown away."""
    assert words_of("\u0928\u092e\u0938\u094d\u0924\u0947, \u0928\u093e!") == [
        "\u0928\u092e\u0938\u094d\u0924\u0947",
        "\u0928\u093e",
    ]
    assert words_of("\u0e17\u0e35\u0e48\u0e19\u0e35\u0e48") == [
        "\u0e17\u0e35\u0e48",
        "\u0e19\u0e35\u0e48",
    ]


def test_scripts_without_spaces_are_cut_into_characters():
    assert words_of("\u6771\u4eac\u3067OK\u3002") == ["\u6771", "\u4eac", "\u3067", "ok"]
    assert words_of("\ud55c\uad6d\uc5b4 \ubb38\uc7a5") == ["\ud55c\uad6d\uc5b4", "\ubb38\uc7a5"]


def test_emoji_and_forms_of_characters_are_no_words():
    """If this fails, a text with a heart has a word that no recognizer can give."""
    assert words_of("I \u2764\ufe0f you, press 5\ufe0f\u20e3!") == ["i", "you", "press", "5"]
    assert words_of("\u0130stanbul o\ufe0fk") == ["istanbul", "ok"]
    assert words_of("\u0640\u0633\u0644\u0640\u0627\u0645") == ["\u0633\u0644\u0627\u0645"]


def test_punctuation_is_no_word():
    assert words_of("-- ' \u2014 ... \u3002 snake_case well-known") == [
        *("snake", "case", "well", "known")
    ]
    assert words_of("") == []
