"""``clsp index`` and ``clsp search``, as a user runs them."""

import json

import pytest

from speechbrain_clsp import CLSP
from speechbrain_clsp.cli.main import main
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.search.store import EmbeddingStore
from tests.utils.small import CAPTIONS, model_folder
from tests.utils.stores import buzzes, random_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a model, clips, their store and its index."""
    folder = tmp_path_factory.mktemp("corpus")
    model_folder(folder)
    buzzes(folder, 9)
    embed = ["embed", folder / "clips.arrow", "--output", folder / "store"]
    assert main([*map(str, embed), "--model", str(folder / "model")]) == 0
    assert run("index", folder / "store", "--output", folder / "index") == 0
    return folder


def run(*words: object) -> int:
    return main([*map(str, words)])


def test_search_prints_hits_and_writes_them(folder, tmp_path, capsys):
    query = ["search", folder / "index", CAPTIONS[0], "--top", 3]
    assert run(*query, "--explain", "--output", tmp_path / "hits.arrow") == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed if not line.startswith("     ")] == ["1", "2", "3"]
    assert len(Manifest(tmp_path / "hits.arrow")) == 3
    assert run(*query, "--json", "--like", folder / "3.wav", "--not", CAPTIONS[1], "--fold") == 0
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert run(*query, "--where", "gender = 'male'", "--per", "speaker", "--json") == 0
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {hit["gender"] for hit in hits} == {"male"}
    assert len({hit["speaker"] for hit in hits}) == len(hits)


def test_index_adds_and_deletes(folder, tmp_path, capsys):
    index = tmp_path / "index"
    assert run("index", folder / "store", "--output", index) == 0
    assert capsys.readouterr().out == f"9 clips are in {index} (engine exact, size 32)\n"
    assert run("index", "--output", index, "--delete", "clip1", "none") == 0
    assert "1 of 2 clips deleted\n8 clips are in" in capsys.readouterr().out
    assert run("index", folder / "store", "--output", index) == 0
    assert f"9 clips of {folder / 'store'} added\n9 clips are in" in capsys.readouterr().out


def test_coverage_counts_the_classes_of_the_clips(folder, tmp_path, capsys):
    prompts = {"voice": {"column": "gender", "prompts": {"slow": CAPTIONS[0], "fast": CAPTIONS[1]}}}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    words = ["coverage", folder / "store", "--prompts", tmp_path / "prompts.json"]
    assert run(*words, "--json", "--output", tmp_path / "c.html") == 0
    counts = json.loads(capsys.readouterr().out)["voice"]
    clsp = CLSP.from_pretrained(folder / "model")
    audio = [folder / f"{n}.wav" for n in range(9)]
    cosines = clsp.encode_files(audio, progress=False) @ clsp.encode_text(CAPTIONS[:2]).T
    slow = int((cosines.argmax(dim=1) == 0).sum())
    assert counts == {"slow": slow, "fast": 9 - slow}
    assert "<svg" in (tmp_path / "c.html").read_text()
    assert run(*words, "--output", tmp_path / "c.html") == 0
    assert "voice\n" in capsys.readouterr().out


def test_dedupe_finds_copies_and_lists_what_to_delete(folder, tmp_path, capsys):
    rows = list(Manifest(folder / "clips.arrow"))
    rows += [{**row, "id": f"copy of {row['id']}"} for row in rows[2:4]]
    write_manifest(tmp_path / "more.arrow", rows)
    store, index = tmp_path / "store", tmp_path / "index"
    embed = ["embed", tmp_path / "more.arrow", "--output", store, "--model", folder / "model"]
    assert run(*embed) == 0 and run("index", store, "--output", index) == 0
    words = ["dedupe", store, "--index", index, "--output", tmp_path / "d.json"]
    assert run(*words, "--cosine", "0.99999") == 0
    printed = capsys.readouterr().out
    groups = json.loads((tmp_path / "d.json").read_text())["groups"]
    assert [["clip2", "copy of clip2"], ["clip3", "copy of clip3"]] == groups
    assert "2 of 11 clips repeat others" in printed
    assert run("index", "--output", index, "--delete", tmp_path / "d.txt") == 0
    assert "2 of 2 clips deleted\n9 clips are in" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, pattern",
    [
        (["search", "index", "A.", "--where", "duration > 99"], "no clip of 9 fulfils --where"),
        (["search", "index", "A.", "--where", "speeker = 'a'"], "did you mean 'speaker'?"),
        (["search", "index", "A.", "--offset", "20"], "no hits behind the first 20"),
        (["search", "index"], "at least one caption or one recording"),
        (["search", "index", "A.", "--output", "hits.txt"], "must end in .jsonl, .arrow or .html"),
        (["search", "index", "clips.arrow"], "is a file, not a text"),
        (["search", "store", "A."], "store is not an index: make one by clsp index"),
        (["search", "absent", "A."], "absent is not an index"),
        (["coverage", "store", "--prompts", "absent.json"], "No prompt file absent.json"),
        (["coverage", "store", "--prompts", "mini", "--output", "x"], "must end in .html"),
        (["dedupe", "store", "--index", "index", "--output", "x"], "must end in .json"),
        (["dedupe", "foreign", "--index", "index", "--output", "x.json"], "the models differ"),
        (["dedupe", "others", "--index", "index", "--output", "x.json"], "it has other clips"),
        (["coverage", "moved", "--prompts", "mini"], "which is not there: give --model"),
        (["dedupe", "captions", "--index", "index", "--output", "x.json"], "one is of captions"),
        (["index", "absent", "--output", "new"], "absent is not an embedding store"),
        (["index", "--output", "index"], "Name a store to add"),
        (["index", "store", "--output", "index", "--engine", "lancedb"], "has the engine exact"),
        (
            ["index", "foreign", "--output", "index", "--manifest", "clips.arrow"],
            "weights_sha256 is",
        ),
    ],
    ids=range(19),
)
def test_wrong_input_gets_one_line(folder, monkeypatch, capfd, words, pattern):
    monkeypatch.chdir(folder)
    if not (folder / "foreign").is_dir():
        random_store(folder / "foreign", ["a", "b"], 32, weights_sha256="11")
        weights = EmbeddingStore(folder / "store").provenance.weights_sha256
        random_store(folder / "others", ["a", "b"], 32, weights_sha256=weights)
        random_store(folder / "moved", ["a"], 32, model="/moved/model", weights_sha256=weights)
        random_store(folder / "captions", ["a"], 32, weights_sha256=weights, kind="fine")
    assert run(*words) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and pattern in error
