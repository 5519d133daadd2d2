"""Wrong input of ``clsp evaluate`` is told in one line, before models are loaded."""

import json
import sqlite3
from contextlib import closing

import pytest

from speechbrain_clsp.cli.main import main
from speechbrain_clsp.dataio.manifest import write_manifest
from tests.utils.small import ROW


@pytest.fixture
def evaluate(tmp_path, capfd):
    """Return a function that runs the command with wrong input and returns what it says."""
    write_manifest(tmp_path / "one.arrow", [ROW])
    write_manifest(tmp_path / "none.arrow", [])

    def run(*words: str, data: str = "one.arrow", suite: str = "zero-shot") -> str:
        command = ["evaluate", "--suite", suite, "--model", "absent/model", "--data"]
        command += [str(tmp_path / data), "--output", str(tmp_path / "out"), *words]
        assert main(command) == 2
        error = capfd.readouterr().err
        assert error.startswith("clsp: error: ") and error.count("\n") == 1, error
        return error

    return run


@pytest.mark.parametrize(
    ("column", "hint"),
    [
        ("gendr", "gender, "),
        ("labels.loudnes", "did you mean labels.loudness?"),
        ("labels", "labels.<"),
        ("xyz", "gender, "),
    ],
)
def test_a_typo_in_a_column_of_a_prompt_file_is_named(evaluate, tmp_path, column, hint):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"task": {"column": column, "prompts": {"a": "A.", "b": "B."}}}))
    error = evaluate("--prompts", str(path))
    assert "prompts.json" in error and "'task'" in error and column in error and hint in error


@pytest.mark.parametrize("suite", ["zero-shot", "fcaps", "mini", "probes"])
def test_a_manifest_without_clips_is_named(evaluate, suite):
    assert "none.arrow holds no clips" in evaluate(data="none.arrow", suite=suite)


def test_other_commands_refuse_a_manifest_without_clips_and_a_file_as_folder(tmp_path, capfd):
    one, none = str(tmp_path / "one.arrow"), str(tmp_path / "none.arrow")
    write_manifest(one, [ROW])
    write_manifest(none, [])
    (tmp_path / "x.yaml").write_text("caption: {model: m}")
    (tmp_path / "a.csv").write_text("id,caption\nz,A man.\n")
    annotate = ["annotate", str(tmp_path / "x.yaml"), "--output"]
    sheet = ["judge", "sheet", "--captions", f"ours={tmp_path / 'a.csv'}", "--output"]
    out, file = str(tmp_path / "out"), str(tmp_path / "a.csv")
    for words, said in (
        ([*annotate, out, "--manifest", none], "none.arrow holds no clips"),
        ([*sheet, out, "--manifest", none], "none.arrow holds no clips"),
        (["check-leakage", one, none], "none.arrow holds no clips"),
        (["export-cuts", none, str(tmp_path / "x.jsonl")], "none.arrow holds no clips"),
        ([*annotate, file, "--manifest", one], "a.csv is a file: name a folder"),
        ([*sheet, file, "--manifest", one], "a.csv is a file: name a folder"),
        ([*sheet, out, "--manifest", one], "The first are of the manifest a, of ours z"),
    ):
        assert main(words) == 2
        error = capfd.readouterr().err
        assert said in error and error.count("\n") == 1


def test_a_cache_that_is_something_else_is_left_alone(evaluate, tmp_path):
    notes, store = tmp_path / "notes.txt", tmp_path / "store.sqlite"
    notes.write_text("my only copy")
    with closing(sqlite3.connect(store)) as base:
        base.execute("CREATE TABLE ratings (value REAL)")
    before = store.read_bytes()
    for path in (notes, store, tmp_path):
        assert f"{path} exists and is not a cache" in evaluate("--cache", str(path), suite="fcaps")
    assert notes.read_text() == "my only copy" and store.read_bytes() == before


def test_a_device_and_embeddings_that_cannot_be_used_are_named(evaluate, tmp_path):
    assert "--device meta cannot be used" in evaluate("--device", "meta")
    path = tmp_path / "x.npz"
    path.write_bytes(b"PK\x03\x04 cut off")
    for name, said in ((path, "is not an .npz file, or was cut off"), ("absent.npz", "no file")):
        assert said in evaluate("--model", f"file:{name}")


def test_an_output_that_is_a_file_is_refused(evaluate, tmp_path):
    (tmp_path / "out").write_text("my only copy")
    assert "is a file: name a folder" in evaluate(suite="fcaps")
    assert (tmp_path / "out").read_text() == "my only copy"
