"""Captions whose gender is swapped stay consistent and grammatical."""

import random

import pytest

from speechbrain_clsp.captions.perturbation import AttributeSwap, read_tables


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
    swap = AttributeSwap({"gender": read_tables()["gender"]})
    assert swap(caption, random.Random(0)) == wanted
