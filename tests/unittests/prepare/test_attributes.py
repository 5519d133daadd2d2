"""Which columns of a user's table label attributes, and the prompts for them."""

import json

import pytest

from speechbrain_clsp.dataio.labels import AttributeLabels, AttributePrompts
from speechbrain_clsp.evaluation.zero_shot import read_tasks
from speechbrain_clsp.prepare.attributes import find_attributes, make_prompts


def rows_of(**columns):
    """Return rows with the values of ``columns``, lists of the same length."""
    rows = []
    for values in zip(*columns.values()):
        row = dict.fromkeys(("gender", "accent", "pitch", "speaking_rate")) | {"labels": {}}
        for name, value in zip(columns, values):
            if name in row:
                row[name] = value
            elif value is not None:
                row["labels"][name] = value
        rows.append(row)
    return rows


def test_spellings_of_one_value_are_one_class():
    found = find_attributes(rows_of(gender=["F", "female", "Male", "male", "male", "W", None]))
    assert len(set(found.classes["gender"].values())) == 2
    assert found.classes["gender"]["F"] == found.classes["gender"]["W"]
    assert found.classes["gender"]["Male"] == "male"
    # Prompts say them alike: as classes of their own, nothing would tell them apart.
    found = find_attributes(rows_of(level=["very_loud", "very loud", "Very  Loud", "calm"] * 2))
    assert len(set(found.classes["labels.level"].values())) == 2


@pytest.mark.parametrize(
    "values, reason",
    [
        (["one"] * 12, "has one value, 'one'"),
        ([f"{i}.5" for i in range(12)] * 2, "holds 12 different numbers"),
        ([f"id{i}" for i in range(24)], "holds 24 different values in 24 training clips"),
        ([f"id{i}" for i in range(60)] * 3, "holds 60 different values"),
        (["He told us a story of his time at sea, long ago.", "x"] * 6, "holds texts, such as"),
    ],
)
def test_a_column_that_labels_nothing_is_none_and_the_reason_is_kept(values, reason):
    found = find_attributes(rows_of(note=values))
    assert not found.classes and reason in found.left_out["labels.note"]


def test_few_numbers_are_classes_and_a_value_of_one_clip_is_not():
    found = find_attributes(rows_of(age=["20", "30"] * 6 + ["90"]))
    assert found.classes == {"labels.age": {"20": "20", "30": "30"}}
    assert found.rare == {"labels.age": ["90"]}


def test_prompts_serve_training_and_evaluation(tmp_path):
    classes = {
        "gender": {"f": "f", "m": "m"},
        "labels.speaking_style": {"very_calm": "very_calm", "{odd}": "{odd}"},
    }
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(make_prompts(classes)))
    gender, style = read_tasks(path)
    assert gender.prompts["f"][0] == "A female voice." and gender.values == classes["gender"]
    assert style.name == "speaking style" and "The style is very calm." in style.texts
    words = {task.column: {"words": task.prompts} for task in (gender, style)}
    prompts = AttributePrompts(AttributeLabels(classes), words)
    assert set(prompts.texts()) == {*gender.texts, *style.texts}


def test_no_attribute_takes_the_place_of_another_or_of_other_results():
    """If this fails, a column is left out without a word, or hides the results of retrieval."""
    values = {"a": "a", "b": "b"}
    columns = ["gender", "labels.gender", "labels.my x", "labels.my_x", "labels.fine"]
    prompts = make_prompts(dict.fromkeys(columns, values))
    assert [task["column"] for task in prompts.values()] == columns
    assert list(prompts) == ["gender", "labels.gender", "my x", "labels.my_x", "labels.fine"]
