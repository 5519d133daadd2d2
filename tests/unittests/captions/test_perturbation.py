"""Perturbed captions are false in exactly one attribute, and still English."""

import json
import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_clsp.captions.perturbation import (
    AttributeSwap,
    article,
    between_values,
    read_tables,
)
from tests.utils.reference import FOLDER

TABLES = read_tables()
SWAP = AttributeSwap(TABLES)
VALUES = json.loads((FOLDER / "attribute_values.json").read_text(encoding="utf-8"))
TAGS = ("pitch", "speaking_rate", "intrinsic_tags", "situational_tags")
TEMPLATES = (
    'A {gender} speaker with {an} {accent} accent says "a loud American man, slowly" in {article}'
    " {one} voice.",
    "{Gender} voice, {one} and {two}. The accent is {accent}.",
    "{Article} {one}, then {two} delivery by a {gender} with {an} {accent} accent; {one} again.",
)


def attributes_of(caption: str) -> dict[str, set[str]]:
    """Return what a caption says, outside of quotes."""
    caption = re.sub('"[^"]*"', "", caption)
    found = {name: set(values) for name, values in SWAP.named(caption).items()}
    gendered = SWAP.gender.changes(caption, lambda match: True)
    words = {caption[start:end].lower() for start, end, _ in gendered}
    if words:
        found["gender"] = {"female" if words & set(SWAP.gender.to_male) else "male"}
    return found


def caption_of(draw: random.Random) -> str:
    """Write a caption with some phrases of the tables."""
    attributes = draw.sample(TAGS, 2)
    phrases = []
    for attribute in attributes:
        wordings = draw.choice(list(TABLES[attribute].values()))
        phrases.append(draw.choice(draw.choice(wordings).phrases))
    accent = draw.choice(draw.choice(list(TABLES["accent"].values()))[0].phrases)
    gender, one = draw.choice(["male", "female"]), phrases[0]
    return draw.choice(TEMPLATES).format(
        gender=gender,
        Gender=gender.capitalize(),
        accent=accent,
        an=article(accent),
        one=one,
        two=phrases[1],
        article=article(one),
        Article=article(one).capitalize(),
    )


def test_every_labelled_value_can_be_swapped():
    assert {"male", "female"} == set(VALUES["gender"])
    for attribute in (*TAGS, "accent"):
        assert set(TABLES[attribute]) == set(VALUES[attribute]), attribute
        for value, wordings in TABLES[attribute].items():
            for wording in wordings:
                assert wording.phrases and wording.opposites, value
                assert not {p.lower() for p in wording.phrases} & {
                    p.lower() for p in (*wording.opposites, *wording.near)
                }, value


def test_thousands_of_captions_change_in_exactly_one_attribute():
    changed = Counter()
    for seed in range(4000):
        draw = random.Random(seed)
        caption = caption_of(draw)
        false = SWAP(caption, draw)
        before, after = attributes_of(caption), attributes_of(false)
        differing = {
            name for name in {*before, *after} if before.get(name) != after.get(name, set())
        }
        assert len(differing) == 1, (caption, false)
        changed[differing.pop()] += 1
        assert re.findall('"[^"]*"', false) == re.findall('"[^"]*"', caption)
        assert "  " not in false and false[0].isupper() and false != caption
        outside = re.sub('"[^"]*"', "", false)
        for found in re.finditer(r"\b(an?) (\w+)", outside, flags=re.IGNORECASE):
            assert found[1].lower() == article(found[2]), false
    assert set(changed) == {*TAGS, "accent", "gender"} and min(changed.values()) > 200, changed


def test_one_accent_in_five_stays_in_its_group():
    drawn = Counter(
        SWAP("A Scottish accent.", random.Random(seed)).split(" ", 1)[1] for seed in range(4000)
    )
    near = drawn["Irish accent."]  # the only one of its group that is not British too
    assert near / 4000 == pytest.approx(0.2, abs=0.03)
    # What is British too does not contradict Scottish.
    assert not {"British accent.", "English accent.", "Welsh accent."} & set(drawn)


def test_all_mentions_change_together():
    caption = "An Australian woman; the Aussie accent is clear. Australian throughout."
    swap = AttributeSwap({"accent": TABLES["accent"]})
    new = swap(caption, random.Random(1))
    accent = re.match(r"An? ([\w/ -]+) woman", new)[1]
    assert new.count(accent) == 3 and "Aus" not in new
    calm = AttributeSwap({"situational_tags": TABLES["situational_tags"]})
    assert calm("A calm and relaxed voice.", random.Random(0)) in (
        "An agitated and frantic voice.",
        "A frantic and agitated voice.",
    )


def test_what_labels_confirm_is_swapped_first():
    caption = "A crisp, angry voice with a deep sigh."
    row = {"intrinsic_tags": ["crisp"], "situational_tags": [], "accent": None}
    for seed in range(20):
        assert "angry voice with a deep sigh" in SWAP(caption, random.Random(seed), row)
    unlabelled = {SWAP(caption, random.Random(seed), {"intrinsic_tags": []}) for seed in range(40)}
    assert any("deep" not in text for text in unlabelled)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.integers(0, 9))
def test_any_text_survives(text, seed):
    assert isinstance(SWAP(text, random.Random(seed)), str)
    assert SWAP(text, random.Random(seed)) == SWAP(text, random.Random(seed))


def test_a_word_inside_another_is_left_alone():
    for text in ("Aloud, the calmest lowercase.", "Unhappyish slowlyness", "half-crisp crisp-ish"):
        assert SWAP(text, random.Random(0)) == text


def test_tables_between_values_need_no_opposites():
    swap = AttributeSwap(between_values({"rate": [["fast", "quickly"], ["slowly"], ["evenly"]]}))
    drawn = {swap("Quickly said.", random.Random(seed)) for seed in range(20)}
    assert drawn == {"Slowly said.", "Evenly said."}


SMALL_SWAP = AttributeSwap(
    between_values(
        {"rate": [["slowly"], ["at a fast pace"]], "accent": [["American"], ["Scottish"]]}
    )
)


def test_swapped_captions_differ_in_one_attribute():
    """If this fails, a hard negative is true, or differs in more than it should."""
    caption = 'An American man speaks slowly: "go slowly".'
    swapped = {SMALL_SWAP(caption, random.Random(seed)) for seed in range(20)}
    assert swapped == {
        'A Scottish man speaks slowly: "go slowly".',
        'An American man speaks at a fast pace: "go slowly".',
    }
    assert SMALL_SWAP("Slowly, he speaks.", random.Random(0)) == "At a fast pace, he speaks."


def test_a_caption_without_attributes_stays_as_it_is():
    """If this fails, a caption in other words stops the training."""
    for caption in ("", "He speaks.", '"slowly"'):
        assert SMALL_SWAP(caption, random.Random(0)) == caption


@pytest.mark.parametrize(
    "caption, wanted",
    [
        (
            "A woman speaks; she raises her voice.",
            "A man speaks; he raises his voice.",
        ),
        ("Her tone is hers, and it suits her.", "His tone is his, and it suits him."),
        ("The boy's words fail him; his breath too.", "The girl's words fail her; her breath too."),
        ("Masculine, he talks to himself.", "Feminine, she talks to herself."),
        ('He says "she is a woman".', 'She says "she is a woman".'),
        ("A man and a woman speak.", "A man and a woman speak."),
        ("The human manages the chef's theme.", "The human manages the chef's theme."),
    ],
)
def test_gender_changes_in_all_words_or_none(caption, wanted):
    swap = AttributeSwap({"gender": TABLES["gender"]})
    assert swap(caption, random.Random(0)) == wanted


@pytest.mark.parametrize(
    "content",
    ["[]", '{"mood": {"calm": [{"phrases": "calm", "opposites": []}]}}', '{"mood": 3}', '{"a": 1'],
)
def test_a_file_that_is_no_table_of_wordings_is_named(tmp_path, content):
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(ValueError, match=r"mine\.json.* is (no table of wordings|not JSON)"):
        read_tables(tmp_path / "mine.json")
