"""The published zero-shot tasks: prompts, label rules, ensembles."""

import json

import pytest
import torch

from speechbrain_clsp.evaluation.zero_shot import Task, classify, read_tasks


def tasks(name: str, **options) -> dict[str, Task]:
    """Return a packaged set by task name."""
    return {task.name: task for task in read_tasks(name, **options)}


def texts_of(task: Task) -> list[str]:
    """Return what is embedded."""
    seen = []
    task.embed(lambda texts: (seen.extend(texts), torch.eye(len(texts)))[1])
    return seen


def test_prompts_are_the_published_ones():
    """If this fails, zero-shot figures cannot be compared with the paper's."""
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
    """If this fails, people at a group's border are counted as wrong."""
    task = tasks("crema_d")["age"]
    assert list(task.prompts)[task.label_of({"id": "a", "labels": {"age": age}})] == name
    with pytest.raises(ValueError, match="no number"):
        task.label_of({"id": "a", "labels": {"age": "old"}})


def test_excited_is_happy_and_other_emotions_are_left_out():
    """If this fails, IEMOCAP's four classes are other ones than everyone's."""
    task = tasks("iemocap")["emotion"]
    codes = ("hap", "exc", "ang", "neu", "sad", "fru", "xxx", "sur")
    labels = [task.label_of({"id": code, "labels": {"emotion": code}}) for code in codes]
    names = [list(task.prompts)[label] if label >= 0 else None for label in labels]
    assert names == ["happy", "happy", "angry", "neutral", "sad", None, None, None]
    assert task.label_of({"id": "a", "labels": {}}) == -1
    # Nearest to "excited" alone is an answer of happy, as with an argmax over five prompts.
    prompts, sizes = task.embed(lambda texts: torch.eye(len(texts)))
    position = texts_of(task).index("A speaker in a excited tone.")
    predicted = classify(torch.eye(5)[[position]], prompts, sizes, task.pool)
    assert list(task.prompts)[int(predicted)] == "happy"


def test_an_ensemble_averages_wordings_of_a_word_not_words():
    """If this fails, ensembles mix happy with excited, or change the classes."""
    plain, ensemble = tasks("iemocap")["emotion"], tasks("iemocap", ensemble=True)["emotion"]
    count = len(ensemble.templates)
    assert count > 1 and len(texts_of(ensemble)) == 5 * count
    prompts, sizes = ensemble.embed(lambda texts: torch.eye(len(texts)))
    assert prompts.shape[0] == 5 and sizes == plain.embed(lambda t: torch.eye(len(t)))[1]
    torch.testing.assert_close(prompts @ prompts.T, torch.eye(5))
    torch.testing.assert_close(prompts[0, :count], torch.full((count,), count**-0.5))
    for name, task in tasks("iemocap").items():
        assert set(texts_of(task)) <= set(texts_of(tasks("iemocap", ensemble=True)[name]))


def test_a_user_can_edit_prompts_and_gets_told_of_mistakes(tmp_path):
    """If this fails, an edited file is ignored, or a slip in it gives wrong figures."""
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
