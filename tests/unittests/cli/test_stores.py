"""``clsp embed`` of a corpus, as a user runs it."""

import json

import pytest

from speechbrain_clsp.cli.main import main
from speechbrain_clsp.search.store import EmbeddingStore
from tests.utils.small import model_folder
from tests.utils.stores import buzzes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    model_folder(folder)
    buzzes(folder, 9, bad=(7,))
    return folder


def embed(folder, *words: object) -> int:
    return main(["embed", *map(str, words), "--model", str(folder / "model")])


def test_a_manifest_a_folder_and_captions_become_stores(folder, tmp_path, capfd):
    manifest, store = folder / "clips.arrow", tmp_path / "s"
    options = ["--shard-rows", "4", "--skip-bad"]
    assert embed(folder, manifest, "--output", store, *options) == 0
    captured = capfd.readouterr()
    assert captured.out.startswith("8 embeddings of 0.00 hours, of size 32, are in")
    assert "1 left out" in captured.err and "clip7: " in (store / "bad.txt").read_text()
    again = [folder, "--output", tmp_path / "t", "--skip-bad", "--json", "--reuse", store]
    assert embed(folder, *again) == 0
    assert json.loads(capfd.readouterr().out)["embeddings"] == 8
    assert EmbeddingStore(tmp_path / "t").ids()[0] == "0.wav"
    assert embed(folder, manifest, "--output", tmp_path / "c", "--captions", "fine") == 0
    assert len(EmbeddingStore(tmp_path / "c")) == 18


@pytest.mark.parametrize(
    "words, pattern",
    [
        (["clips.arrow", "--output", "new"], "1 of 9 clips of shard 0 cannot be embedded: clip7"),
        (["clips.arrow", "--output", "."], "is not an embedding store, it holds"),
        (["absent.arrow", "--output", "new"], "No manifest at absent.arrow"),
        (["nothing/*.wav", "--output", "new"], r"nothing/*.wav: no audio file"),
        (["clips.arrow", "--output", "new", "--reuse", "model"], "it has no store.json"),
        (["clips.arrow", "--output", "new", "--ray", "head"], "--ray head: write HOST:PORT"),
        (["0.wav", "--output", "a.npz", "--captions", "fine"], "--captions is for a store"),
    ],
    ids=["bad clip", "foreign folder", "no manifest", "no file", "no store", "no port", "npz"],
)
def test_wrong_input_gets_one_line(folder, monkeypatch, capfd, tmp_path, words, pattern):
    monkeypatch.chdir(folder)
    words = [str(tmp_path / "new") if word == "new" else word for word in words]
    assert embed(folder, *words) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and pattern in error
