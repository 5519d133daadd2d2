"""Attributes as classes, and prompts that say them."""

import random
from itertools import product

import pytest

from speechbrain_clsp.dataio.labels import AttributeLabels, AttributePrompts
from speechbrain_clsp.evaluation.zero_shot import read_tasks
from speechbrain_clsp.mini_fcaps.wording import read_prompts

LABELS = AttributeLabels({"rate": ["slow", "fast"], "mood": ["sad"], "pitch": ["low", "high"]})
RATE = {"templates": ["It is {}.", "{}!"], "words": {"slow": ["slow"], "fast": ["fast", "quick"]}}


def test_prompts_of_an_attribute_share_a_template_and_come_in_the_order_of_classes():
    prompts = AttributePrompts(
        LABELS, {"_note": "", "rate": RATE, "pitch": {"low": ["L"], "high": ["H"]}}
    )
    assert prompts.n_values == [2, 0, 2]
    drawn = {tuple(prompts.draw(random.Random(seed))) for seed in range(50)}
    pairs = product(RATE["templates"], RATE["words"]["slow"], RATE["words"]["fast"])
    assert drawn == {(form.format(one), form.format(other), "L", "H") for form, one, other in pairs}


def test_prompts_of_a_batch_come_from_one_of_several_sets():
    sentences = {"slow": ["S", "T"], "fast": ["F"]}
    prompts = AttributePrompts(LABELS, {"rate": [RATE, sentences]})
    drawn = {tuple(prompts.draw(random.Random(seed))) for seed in range(99)}
    words = product(RATE["templates"], RATE["words"]["slow"], RATE["words"]["fast"])
    expected = {(form.format(one), form.format(other)) for form, one, other in words}
    assert drawn == expected | {("S", "F"), ("T", "F")}
    assert set(prompts.texts()) == {text for pair in drawn for text in pair}
    assert prompts.n_values == [2, 0, 0]


def test_prompts_are_read_from_a_file(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text('{"mood": {"sad": ["A sad voice."]}}')
    assert AttributePrompts(LABELS, path).draw(random.Random(0)) == ["A sad voice."]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"rates": RATE}, "rates.*not among.*mood.*pitch.*rate"),
        ({"rate": {"slow": ["S"]}}, "'rate' has no prompt for .'fast'"),
        ({"rate": {"templates": ["{}"], "words": {"slow": ["S"], "fast": []}}}, "'fast'"),
        ({"rate": [RATE, {"fast": ["F"]}]}, "'slow'"),
    ],
)
def test_attributes_and_values_without_prompts_are_named(prompts, message):
    with pytest.raises(ValueError, match=message):
        AttributePrompts(LABELS, prompts)


def test_the_prompts_of_evaluations_are_not_trained_on():
    trained = {
        template.format(text)
        for many in (False, True)
        for name, sets in read_prompts(many).items()
        if name[0] != "_"
        for prompts in sets
        for template in prompts["templates"]
        for texts in prompts["words"].values()
        for text in texts
    }
    for suite in ("mini", "mini_unseen"):
        for task in read_tasks(suite):
            assert not trained & {text for texts in task.prompts.values() for text in texts}
