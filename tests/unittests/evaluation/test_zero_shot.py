"""Zero-shot tasks: published prompts, label rules, ensembles, accuracy."""

import json

import numpy as np
import pytest
import torch

from speechbrain_clsp.evaluation.zero_shot import (
    Task,
    check_tasks,
    classify,
    compare_with_labels,
    read_tasks,
)


def tasks(name: str, **options) -> dict[str, Task]:
    """Return a packaged set by task name."""
    return {task.name: task for task in read_tasks(name, **options)}


def texts_of(task: Task) -> list[str]:
    """Return what is embedded."""
    seen = []
    task.embed(lambda texts: (seen.extend(texts), torch.eye(len(texts)))[1])
    return seen


def test_prompts_are_the_published_ones():
    iemocap = tasks("iemocap")["emotion"]
    assert sorted(texts_of(iemocap)) == sorted(
        f"A speaker in a {word} tone." for word in ("happy", "excited", "angry", "sad", "neutral")
    )
    ravdess = tasks("ravdess")
    assert texts_of(ravdess["gender"]) == ["A male speaker.", "A female speaker."]
    assert len(texts_of(ravdess["emotion"])) == 8
    crema = tasks("crema_d")
    assert "A speaker in a disgust tone." in texts_of(crema["emotion"])
    assert len(crema["emotion"].prompts) == 6
    assert texts_of(crema["age"]) == [
        "A child or young teenager speaker.",
        "An adult speaker.",
        "A middle-aged speaker.",
        "An older or elder speaker.",
    ]


@pytest.mark.parametrize(
    "age, name",
    [("19.9", "child"), ("20", "adult"), ("39", "adult"), ("40", "middle-aged"), ("60", "older")],
)
def test_ages_fall_into_the_published_groups(age, name):
    task = tasks("crema_d")["age"]
    assert list(task.prompts)[task.label_of({"id": "a", "labels": {"age": age}})] == name
    with pytest.raises(ValueError, match="not a number"):
        task.label_of({"id": "a", "labels": {"age": "old"}})


def test_excited_is_happy_and_other_emotions_are_left_out():
    task = tasks("iemocap")["emotion"]
    codes = ("hap", "exc", "ang", "neu", "sad", "fru", "xxx", "sur")
    labels = [task.label_of({"id": code, "labels": {"emotion": code}}) for code in codes]
    names = [list(task.prompts)[label] if label >= 0 else None for label in labels]
    assert names == ["happy", "happy", "angry", "neutral", "sad", None, None, None]
    assert task.label_of({"id": "a", "labels": {}}) == -1
    # Nearest to "excited" alone is an answer of happy, as with an argmax over five prompts.
    classes = task.embed(lambda texts: torch.eye(len(texts)))
    position = texts_of(task).index("A speaker in a excited tone.")
    predicted = classify(torch.eye(5)[[position]], classes, task.pool)
    assert list(task.prompts)[int(predicted)] == "happy"


def test_an_ensemble_averages_wordings_of_a_word_not_words():
    plain, ensemble = tasks("iemocap")["emotion"], tasks("iemocap", ensemble=True)["emotion"]
    count = len(ensemble.templates)
    assert count > 1 and len(texts_of(ensemble)) == 5 * count
    classes = ensemble.embed(lambda texts: torch.eye(len(texts)))
    prompts = torch.cat(classes)
    assert len(prompts) == 5
    assert [*map(len, classes)] == [*map(len, plain.embed(lambda t: torch.eye(len(t))))]
    torch.testing.assert_close(prompts @ prompts.T, torch.eye(5))
    torch.testing.assert_close(prompts[0, :count], torch.full((count,), count**-0.5))
    for name, task in tasks("iemocap").items():
        assert set(texts_of(task)) <= set(texts_of(tasks("iemocap", ensemble=True)[name]))


def test_a_user_can_edit_prompts_and_gets_told_of_mistakes(tmp_path):
    path = tmp_path / "mine.json"
    entry = {"column": "gender", "prompts": {"m": "A man.", "f": "A woman."}}
    path.write_text(json.dumps({"_note": "x", "sex": entry | {"values": {"male": "m"}}}))
    (task,) = read_tasks(path)
    assert task.label_of({"id": "a", "gender": "male"}) == 0
    assert task.label_of({"id": "a", "gender": "female"}) == -1
    for wrong in ({"values": {"male": "man"}}, {"below": {"x": 3}}, {"template": "A speaker."}):
        path.write_text(json.dumps({"sex": entry | wrong}))
        with pytest.raises(ValueError, match="man|x|must hold"):
            read_tasks(path)


def test_accuracy_equals_hand_counts():
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])
    found = compare_with_labels(predicted, labels, ["a", "b", "c", "absent"])
    accuracy, recall = found.metrics["WA"], found.metrics["UAR"]
    assert accuracy.value == 4 / 6
    assert abs(recall.value - (2 / 3 + 1 + 0) / 3) < 1e-12
    counts = [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert found.to_dict()["confusion"] == counts and found.to_dict()["n"] == 6
    assert (accuracy.chance, recall.chance) == (0.5, 0.25)


def test_several_prompts_of_a_class_are_averaged():
    draw = torch.Generator().manual_seed(6)
    speech, prompts = torch.nn.functional.normalize(
        torch.randn(2, 6, 8, generator=draw), dim=2
    ).unbind()
    expected = torch.stack([prompts[:4].mean(0), prompts[4:].mean(0)])
    expected = (speech @ torch.nn.functional.normalize(expected, dim=1).T).argmax(1)
    assert torch.equal(classify(speech, prompts.split([4, 2])), expected)


def test_prompt_files_are_checked(tmp_path):
    with pytest.raises(FileNotFoundError, match="mini"):
        read_tasks(tmp_path / "absent.json")
    (tmp_path / "a.json").write_text(json.dumps({"gender": {"prompts": {}}}))
    with pytest.raises(ValueError, match="column"):
        read_tasks(tmp_path / "a.json")
    task = read_tasks("mini")[0]
    assert task.label_of({"id": "a", "gender": None}) == -1
    with pytest.raises(ValueError, match="'robot'"):
        task.label_of({"id": "a", "gender": "robot"})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"column": "gendre"}, "column of 'sex' is 'gendre', which no manifest has"),
        ({"column": "labels"}, "must be labels.<key> or one of"),
        ({"column": "gender.x"}, "which no manifest has"),
        ({"prompts": {}}, "needs at least one prompt"),
        ({"prompts": {"man": []}}, "needs at least one prompt"),
        ({"prompts": {"man": [" "]}}, "'man'"),
        ({"prompts": {"man": ["A.", 3]}}, r"'man'\[1\] is 3"),
        ({"prompts": ["A."]}, "prompts"),
        ({"column": 3}, "prompt file|column"),
        (3, "prompt file"),
    ],
)
def test_a_wrong_entry_of_a_prompt_file_is_named_with_the_file(tmp_path, entry, message):
    right = {"column": "gender", "prompts": {"man": "A man."}}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"sex": right | entry if isinstance(entry, dict) else entry}))
    with pytest.raises(ValueError, match=rf"mine\.json.*{message}"):
        read_tasks(path)


def test_a_prompt_file_may_be_saved_on_windows_and_may_name_a_task_once(tmp_path):
    path = tmp_path / "mine.json"
    entry = '"sex": {"column": "gender", "prompts": {"man": "Ein “Mann”."}}'
    path.write_text(f"{{{entry}}}", encoding="utf-16")
    assert read_tasks(path)[0].prompts == {"man": ["Ein “Mann”."]}
    path.write_text(f"{{{entry}, {entry}}}")
    with pytest.raises(ValueError, match="mine.json.*key 'sex' twice"):
        read_tasks(path)


def test_classes_without_a_prompt_are_all_named():
    mood = Task("mood", "labels.mood", {"calm": ["Calm."], "glad": ["Glad."]})
    rows = [{"id": name, "labels": {"mood": name}} for name in ("calm", "sad", "mad")]
    check_tasks([mood], rows[:1], "test.arrow")
    with pytest.raises(ValueError, match="test.arrow: 2 clips have no class of a task") as error:
        check_tasks([mood], rows, "test.arrow")
    assert len(error.value.entries) == 2 and "'sad', for which 'mood'" in error.value.entries[0]
