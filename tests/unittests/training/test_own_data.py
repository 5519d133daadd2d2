"""A user's table becomes data to train on, or one sentence."""

import json
import random

import pandas
import pytest

from speechbrain_clsp.dataio.checks import check_clips
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.prepare.entry import ReadOptions
from speechbrain_clsp.training.own_data import describe_leaks, prepare_own_data
from tests.utils.small import tone, write

HEADER = "wav,caption,speaker,gender,labels.mood,split"


def table(folder, lines, name="clips.csv"):
    """Write a table whose ``{i}.wav`` are there; returns its path."""
    for i in range(len(lines)):
        path = folder / f"{i}.wav"
        if not path.exists():
            write(path, tone(0.3 + i / 100, 8000, 100 + 10 * i), 8000)
    (folder / name).write_text("\n".join([HEADER, *lines]), encoding="utf-8")
    return folder / name


def usual(number=24, speakers=8, caption="{he} sounds {mood}."):
    lines = []
    for i in range(number):
        he, gender, mood = ("He", "She")[i % 2], "mf"[i % 2], ("calm", "glad")[i // 2 % 2]
        text = caption.format(he=he, mood=mood, i=i)
        lines.append(f"{i}.wav,{text},s{i % speakers},{gender},{mood},")
    return lines


def test_manifests_attributes_and_prompts_are_made_and_told(tmp_path, capsys):
    data = prepare_own_data(table(tmp_path, usual()), tmp_path / "model")
    printed = capsys.readouterr().out
    rows = {split: list(Manifest(path)) for split, path in data.manifests.items()}
    assert sum(map(len, rows.values())) == 24 and data.n_train == len(rows["train"])
    assert data.attribute_values == {"gender": ["f", "m"], "labels.mood": ["calm", "glad"]}
    row = next(row for row in rows["train"] if row["gender"] == "f")
    assert data.labels(row)[0] == 0
    assert data.prompts is not None and len(data.prompts.draw(random.Random(0))) == 4
    assert [task.column for task in data.tasks] == ["gender", "labels.mood"]
    for text in ("24 clips", "4 different captions", "by speaker", "Attribute gender: ", "prompts"):
        assert text in printed
    assert data.batch_size(32) == data.n_train and data.passes(10 * data.n_train) == 10


@pytest.mark.parametrize("column, classes", [("labels.mode", 2), ("labels.mood", 1)])
def test_a_task_that_the_table_cannot_teach_is_named(tmp_path, column, classes):
    prompts = {value: f"A {value} voice." for value in ("calm", "glad")[:classes]}
    task = {"column": column, "values": dict(zip(prompts, prompts)), "prompts": prompts}
    (tmp_path / "mine.json").write_text(json.dumps({"my task": task}))
    clips = table(tmp_path, usual())
    found = f"training clips have .* of the classes of 'my task', whose column is '{column}'"
    with pytest.raises(ValueError, match=f"mine.json: {found} .*gender, labels.mood.*take it out"):
        prepare_own_data(clips, tmp_path / "model", tmp_path / "mine.json")


@pytest.mark.parametrize(
    "caption, column, change",
    [
        ("{he} sounds {mood}.", "gender", 0.15),
        ("{he} speaks slowly.", "gender", 0.06),
        ("{he} sounds {mood}.", "speaking_rate", 0.06),
    ],
    ids=["none", "captions", "labels"],
)
def test_speeds_change_less_where_captions_or_labels_are_about_them(
    tmp_path, caption, column, change
):
    path = table(tmp_path, usual(caption=caption))
    path.write_text(path.read_text().replace("gender", column, 1))
    assert prepare_own_data(path, tmp_path / "model").speed_change == change


def test_values_without_training_clips_are_named_and_unlabeled(tmp_path, capsys):
    lines = [line + ("train", "test", "valid")[i % 3] for i, line in enumerate(usual())]
    lines[1] = lines[1].replace("glad", "calm").replace(",calm,", ",furious,")
    data = prepare_own_data(table(tmp_path, lines), tmp_path / "model")
    assert "Not learned, since no training clip has them: furious." in capsys.readouterr().out
    (row,) = [r for r in Manifest(data.manifests["test"]) if r["labels"]["mood"] == "furious"]
    assert data.tasks[1].label_of(row) == -1 and data.labels(row)[1] == -1


@pytest.mark.parametrize(
    "lines, message",
    [
        (usual(1), "1 clips are too few"),
        (usual(3), "3 clips are too few"),
        ([f"{i}.wav,One.,,,," for i in range(12)], "there is nothing to tell them apart by"),
        ([f"{line}fold{i % 3}" for i, line in enumerate(usual())], "The column split has 'fold0'"),
        ([f"{line}test" for line in usual()], "No clip has the split 'train'"),
        ([*usual(), "absent.wav,A.,,,,"], "no file .*absent.wav"),
    ],
    ids=["one", "three", "alike", "folds", "test", "absent"],
)
def test_what_cannot_be_trained_on_is_one_sentence(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        prepare_own_data(table(tmp_path, lines), tmp_path / "model")


@pytest.mark.parametrize(
    "lines",
    [
        [f"{i}.wav,Caption number {i}.,,,," for i in range(12)],
        [f"{i}.wav,One.,s{i % 4},{'mf'[i % 2]},," for i in range(12)],
        [f"{i}.wav,{chr(0x4E00 + i)}聲,,,," for i in range(12)],
    ],
    ids=["all_captions_differ", "one_caption_with_labels", "chinese"],
)
def test_what_can_be_trained_on_is_prepared(tmp_path, lines):
    data = prepare_own_data(table(tmp_path, lines), tmp_path / "model")
    assert data.n_train >= 6 and bool(data.tasks) == (data.prompts is not None)


def test_bad_rows_and_long_clips_are_listed(tmp_path, capsys):
    path = table(tmp_path, [*usual(), "absent.wav,A.,,,,"])
    data = prepare_own_data(path, tmp_path / "model", skip_bad=True, longest=0.45)
    listed = (tmp_path / "model" / "left_out.txt").read_text()
    assert "absent.wav" in listed and "s are not 0.2 to 0.45 s" in listed
    assert max(Manifest(data.manifests["train"]).column("duration")) <= 0.45
    assert "left_out.txt" in capsys.readouterr().out


def test_a_manifest_with_one_kind_of_captions_is_taken_too(tmp_path):
    table(tmp_path, usual())
    rows = [
        {"id": f"c{i}", "audio": f"{i}.wav", "duration": 0.3, "global_captions": [f"G{i}"]}
        for i in range(12)
    ]
    write_manifest(tmp_path / "all.arrow", rows)
    data = prepare_own_data(tmp_path / "all.arrow", tmp_path / "model")
    assert all(row["fine_captions"] for row in Manifest(data.manifests["train"]))
    with pytest.raises(ValueError, match="all.arrow: is a manifest, which --split cannot change"):
        reading = ReadOptions(split="train")
        prepare_own_data(tmp_path / "all.arrow", tmp_path / "model", reading=reading)
    (tmp_path / "3.wav").unlink()
    with pytest.raises(ValueError, match="1 of 12 clips cannot be read"):
        prepare_own_data(tmp_path / "all.arrow", tmp_path / "model")


def test_texts_that_stand_for_no_value_are_none_and_are_told(tmp_path, capsys):
    lines = [f"{i}.wav,He talks.,s{i % 8},{'mf'[i % 2]}," for i in range(24)]
    lines = [line + ("calm,", "glad,", "nan,", "none,")[i // 2 % 4] for i, line in enumerate(lines)]
    lines[0] = lines[0].replace(",m,", ",N/A,")
    data = prepare_own_data(table(tmp_path, lines), tmp_path / "model")
    assert data.attribute_values == {"gender": ["f", "m"], "labels.mood": ["calm", "glad", "none"]}
    printed = capsys.readouterr().out
    assert "labels.mood: 'nan' (6 clips) counts as no value." in printed
    assert "gender: 'N/A' (1 clips) counts as no value." in printed


def test_sound_that_came_as_bytes_is_found_when_the_folder_has_moved(tmp_path):
    table(tmp_path, usual(12, 4))
    columns = {"caption": [f"Caption {i}." for i in range(12)], "speaker": list("abcd") * 3}
    columns["wav"] = [(tmp_path / f"{i}.wav").read_bytes() for i in range(12)]
    pandas.DataFrame(columns).to_parquet(tmp_path / "clips.parquet")
    prepare_own_data(tmp_path / "clips.parquet", tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / "moved")
    for split in ("train", "valid", "test"):
        check_clips(Manifest(tmp_path / "moved" / "data" / f"{split}.arrow"), split)


def test_leaks_of_any_training_data_are_told_and_shared_speakers_are_no_leaks(tmp_path):
    table(tmp_path, usual(12, 4))
    rows = [{"audio": f"{i}.wav", "duration": 0.3 + i / 100, "speaker": "s"} for i in range(12)]
    write_manifest(tmp_path / "old.arrow", [row | {"id": f"o{i}"} for i, row in enumerate(rows)])
    write_manifest(tmp_path / "test.arrow", [rows[3] | {"id": "t"}])
    old, test = Manifest(tmp_path / "old.arrow"), Manifest(tmp_path / "test.arrow")
    lines = describe_leaks(old, {"test": test}, "rehearsal", ("id", "audio", "speaker"))
    assert lines == [
        "LEAK: 1 test clips have the audio of a rehearsal clip, such as t that of o3.",
        "SHARED, is it intended?: 1 test clips have the speaker of a rehearsal clip, such as t that"
        " of o0.",
    ]


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "letter.txt").write_text("Dear")
    with pytest.raises(FileExistsError, match="holds something else"):
        prepare_own_data(table(tmp_path, usual()), tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["letter.txt"]
    with pytest.raises(NotADirectoryError):
        prepare_own_data(tmp_path / "clips.csv", tmp_path / "clips.csv")


def test_edited_prompts_are_kept_and_others_made_anew_with_the_table(tmp_path):
    model = tmp_path / "model"
    prepare_own_data(table(tmp_path, usual()), model)
    lines = [line.replace("glad", "sad") for line in usual()]
    data = prepare_own_data(table(tmp_path, lines), model)
    assert data.attribute_values["labels.mood"] == ["calm", "sad"]
    prompts = json.loads((model / "prompts.json").read_text())
    prompts["mood"]["prompts"]["sad"] = ["Down in the mouth."]
    (model / "prompts.json").write_text(json.dumps(prompts))
    data = prepare_own_data(table(tmp_path, lines), model)
    assert data.tasks[1].prompts["sad"] == ["Down in the mouth."]
    elsewhere = prepare_own_data(tmp_path / "clips.csv", tmp_path / "b", model / "prompts.json")
    assert elsewhere.tasks == data.tasks and not (tmp_path / "b" / "prompts.json").exists()


@pytest.mark.parametrize(
    "was, becomes, what",
    [("sounds", "seems", "clips"), (",glad,", ",calm,", "clips"), (",m,", ",x,", "clips")],
    ids=["captions", "labels", "gender"],
)
def test_a_training_does_not_go_on_with_other_data(tmp_path, was, becomes, what):
    model = tmp_path / "model"
    prepare_own_data(table(tmp_path, usual()), model)
    (model / "save" / "CKPT+1").mkdir(parents=True)
    prompts = (model / "prompts.json").read_text()
    prepare_own_data(tmp_path / "clips.csv", model)
    with pytest.raises(ValueError, match="holds a training on other clips"):
        prepare_own_data(table(tmp_path, usual(20)), model)
    with pytest.raises(ValueError, match=f"holds a training on other {what}"):
        prepare_own_data(table(tmp_path, [x.replace(was, becomes) for x in usual()]), model)
    assert len(Manifest(model / "data" / "train.arrow")) > 10
    assert (model / "prompts.json").read_text() == prompts


def test_a_training_does_not_go_on_with_other_prompts(tmp_path):
    model = tmp_path / "model"
    prepare_own_data(table(tmp_path, usual()), model)
    (model / "save" / "CKPT+1").mkdir(parents=True)
    prompts = (model / "prompts.json").read_text()
    (model / "prompts.json").write_text(prompts.replace("calm", "very calm"))
    with pytest.raises(ValueError, match="holds a training on other prompts"):
        prepare_own_data(tmp_path / "clips.csv", model)


def test_the_list_of_an_earlier_call_does_not_stay(tmp_path):
    path = table(tmp_path, [*usual(), "absent.wav,A.,,,,"])
    prepare_own_data(path, tmp_path / "model", skip_bad=True)
    assert (tmp_path / "model" / "left_out.txt").is_file()
    prepare_own_data(table(tmp_path, usual()), tmp_path / "model")
    assert not (tmp_path / "model" / "left_out.txt").exists()
