"""The clean-up of captions, rule by rule."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_clsp.captions.cleanup import (
    RULES,
    clean_caption,
    display_accent,
    repair_accent,
)
from tests.utils.reference import FOLDER

VALUES = json.loads((FOLDER / "attribute_values.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("A man whispers. (or) A male voice is soft.", "A man whispers."),
        ("A man whispers. (OR) He is calm.", "A man whispers."),
        ("A man (aged 40 (or so)) whispers [softly].", "A man whispers."),
        ("A man whispers. Note: pitch unknown.", "A man whispers."),
        ("A man whispers.\n\nOr: He is calm.", "A man whispers."),
        ("Description: a man whispers.", "A man whispers."),
        ("A man whispers. Description: he is calm.", "A man whispers."),
        ("Here is the caption: A man whispers.", "A man whispers."),
        ("A women's voice is calm.", "A woman's voice is calm."),
        ("A men speaks; women listen.", "A man speaks; woman listen."),
        ("Men's voice, omen's specimen.", "Man's voice, omen's specimen."),
        ("A man, Scottish in origin, whispers.", "A man, Scottish accent, whispers."),
        ("A man of Irish origin.", "A man of Irish accent."),
        ("A man from the African continent.", "A man from the African accent."),
        ("He has Irish accents.", "He has Irish accent."),
        ("He is Scottish in accent.", "He is Scottish accent."),
        ("An aussie whispers. AUSSIE!", "An Australian whispers. Australian!"),
        ("He is loud; however, he is calm.", "He is loud; he is calm."),
        ("However, he is calm.", "He is calm."),
        ("he whispers , softly..  then  loudly,", "He whispers, softly. Then loudly."),
        ('"A man whispers."', "A man whispers."),
        ('He says "go" softly.', 'He says "go" softly.'),
        ("- A man whispers", "A man whispers."),
        ("A man,with a voice.he is calm!", "A man, with a voice.he is calm!"),
        ("Élégant, naïve speech", "Élégant, naïve speech."),
        ("At 3:30 a man whispers.", "At 3:30 a man whispers."),
        ("Men with a women's voice, and specimen.", "Man with a woman's voice, and specimen."),
        ("A Scot in origin with two accents.", "A Scot accent with two accent."),
        ("However, he whispers; he is, however, loud.", "He whispers; he is loud."),
        ('  "A man , with,,  voice. . Softly,"', "A man, with, voice. Softly."),
        ("(or)", ""),
        ("", ""),
    ],
)
def test_each_rule_does_what_it_says(text, expected):
    assert clean_caption(text) == expected


CLEAN = "A woman speaks at a measured speed, with a crisp British-American accent."


def test_a_clean_caption_stays():
    assert clean_caption(CLEAN) == CLEAN
    assert clean_caption(clean_caption("a men , aussie in origin")) == "A man, Australian accent."
    assert len(RULES) == 9


@given(st.text(alphabet="aA ,.;:()[]\"'\n-?é", max_size=40))
def test_any_text_is_cleaned(text):
    once = clean_caption(text)
    assert "\n" not in once and "(or)" not in once
    assert once == "" or once[-1] in '.!?"'


@pytest.mark.parametrize(
    "text, label, expected",
    [
        ("With a scotish accent.", "scottish", "With a Scottish accent."),
        ("A scottish man.", "Scottish", "A Scottish man."),
        ("An amrican voice.", "american", "An American voice."),
        ("A amrican voice.", "american", "An American voice."),
        ("An british-american tone.", "british-american", "A British-American tone."),
        ("From brooklin/new york.", "brooklyn/new york", "From Brooklyn/New York."),
        ("A new zeland man.", "new zealand", "A New Zealand man."),
        ("A crisp voice.", "irish", "A crisp voice, with an Irish accent."),
        ("A rude voice.", "dari", "A rude voice, with a Dari accent."),
        ("Has a soft accent.", "welsh", "Has a soft Welsh accent."),
        ("An accent is heard.", "welsh", "A Welsh accent is heard."),
        ("A man.", "klingon", "A man, with a Klingon accent."),
        ("A man.", "ukrainian", "A man, with a Ukrainian accent."),
        ("Has an accent.", "ukrainian", "Has a Ukrainian accent."),
        ("A man.", None, "A man."),
        ("A man.", " ", "A man."),
        ("", "irish", ""),
    ],
)
def test_the_labelled_accent_is_named(text, label, expected):
    assert repair_accent(text, label) == expected
    assert repair_accent(expected, label) == expected


def test_every_known_accent_survives_two_typing_errors():
    for accent in VALUES["accent"]:
        shown = display_accent(accent)
        assert (
            repair_accent(f"He has the {accent} accent.", accent) == f"He has the {shown} accent."
        )
        if len(accent) > 5:
            typo = f"{accent[:2]}{accent[3:-1]}x"
            assert repair_accent(f"The {typo} man.", accent) == f"The {shown} man.", typo


@given(st.text("ab", max_size=7))
def test_only_words_within_the_distance_are_taken_for_the_accent(word):
    def distance(x: str, y: str) -> int:
        if not x or not y:
            return len(x) + len(y)
        both = distance(x[1:], y[1:]) + (x[0] != y[0])
        return min(both, distance(x[1:], y) + 1, distance(x, y[1:]) + 1)

    for accent, allowed in (("abab", 1), ("ababab", 2)):
        is_near = bool(word) and distance(word, accent) <= allowed
        repaired = repair_accent(f"{word}!", accent)
        assert (repaired == f"{display_accent(accent)}!") == is_near
