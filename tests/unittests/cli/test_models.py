"""Commands that use models, as a user runs them: real processes, right and wrong input."""

import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechbrain_clsp import CLSP
from speechbrain_clsp.cli.main import main
from speechbrain_clsp.cli.models import read_prompts
from speechbrain_clsp.inference.checks import check_prompts
from tests.utils.bad_audio import bad_files
from tests.utils.command_line import clsp_command
from tests.utils.small import CAPTIONS, model_folder, tone, write

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def wav(tmp_path_factory):
    return write(tmp_path_factory.mktemp("wav") / "a.wav", tone())


def test_score_prints_each_caption_with_its_score(folder, wav):
    done = clsp_command("score", wav, *CAPTIONS, CLSP_MODEL=str(folder))
    assert done.returncode == 0, done.stderr
    expected = CLSP.from_hparams(folder, run_opts={"device": "cpu"}).score_file(wav, CAPTIONS)
    lines = done.stdout.splitlines()
    assert lines == [f"{s:+.3f}  {caption}" for s, caption in zip(expected.tolist(), CAPTIONS)]


def test_embed_writes_paths_and_embeddings(folder, wav, tmp_path, capsys):
    output = tmp_path / "x.npz"
    assert main(["embed", str(wav), str(wav), "--output", str(output), "--model", str(folder)]) == 0
    arrays = np.load(output)
    assert arrays["paths"].tolist() == [str(wav)] * 2
    clsp = CLSP.from_hparams(folder, run_opts={"device": "cpu"})
    torch.testing.assert_close(torch.from_numpy(arrays["embeddings"][1]), clsp.encode_file(wav))
    assert "2 embeddings" in capsys.readouterr().out


def test_classify_prints_probabilities_best_first(folder, wav, tmp_path, capsys):
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"man": CAPTIONS[0], "child": CAPTIONS[2]}))
    for choice in (CAPTIONS, [str(prompts)]):
        assert (
            main(["classify", str(wav), "--model", str(folder), "--json", "--prompts", *choice])
            == 0
        )
        answer = json.loads(capsys.readouterr().out)
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert abs(sum(answer["probabilities"].values()) - 1) < 1e-5
    assert set(answer["probabilities"]) == {"man", "child"}


def test_wrong_input_gets_one_line_and_exit_code_2(folder, wav, tmp_path, capfd):
    wrong = {name: ["score", str(path), "A."] for name, (path, _) in bad_files(tmp_path).items()}
    wrong["absent.wav"] = ["score", str(tmp_path / "absent.wav"), "A."]
    wrong["is empty"] = ["score", str(wav), " "]
    wrong[".npz"] = ["embed", str(wav), "--output", str(tmp_path / "x.txt")]
    wrong["cut.flac"] = ["embed", str(wav), str(tmp_path / "cut.flac"), "--output", "x.npz"]
    wrong["nowhere first"] = ["embed", str(wav), "--output", str(tmp_path / "nowhere" / "x.npz")]
    wrong["2 bad files"] = ["embed", str(tmp_path / "cut.flac"), "absent.wav", "--output", "x.npz"]
    wrong["absent.json"] = ["classify", str(wav), "--prompts", "absent.json"]
    contents = {"not JSON": "{", "must hold": '"A."', "'task'": '{"task": {"label": "A."}}'}
    for number, (pattern, content) in enumerate(contents.items()):
        path = tmp_path / f"{number}.json"
        path.write_text(content)
        wrong[pattern] = ["classify", str(wav), "--prompts", str(path)]
    wrong["--device gpu"] = ["score", str(wav), "A.", "--device", "gpu"]
    for pattern, arguments in wrong.items():
        assert main([*arguments, "--model", str(folder)]) == 2, pattern
        printed = capfd.readouterr()  # the mp3 decoder writes to the descriptor itself
        assert printed.out == ""
        assert printed.err.startswith("clsp: error: ")
        assert printed.err.count("\n") == 1
        assert pattern in printed.err


@pytest.mark.parametrize("case", ["absent file", "not audio", "no model", "no caption"])
def test_a_process_fails_without_traceback(folder, tmp_path, case):
    (tmp_path / "text.mp3").write_text("this is no audio\n" * 100)
    environment = {"CLSP_MODEL": "" if case == "no model" else str(folder)}
    arguments = ["absent.wav" if case == "absent file" else "text.mp3", "A."]
    done = clsp_command(
        "score", *arguments[: 1 if case == "no caption" else 2], cwd=tmp_path, **environment
    )
    assert done.returncode == 2
    assert done.stderr.startswith("clsp: error: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "text.mp3"]


@pytest.fixture
def bad(tmp_path):
    """Return names of 20 files that are no audio."""
    paths = [tmp_path / f"bad{number:02}.wav" for number in range(20)]
    for path in paths:
        path.write_text("no audio")
    return [str(path) for path in paths]


def run(folder, *words: object) -> int:
    return main([*map(str, words), "--model", str(folder)])


def test_prompts_come_from_a_text_file(folder, wav, tmp_path, capsys):
    path = tmp_path / "prompts.txt"
    path.write_text(f"\ufeff{CAPTIONS[0]}\r\n\r\n  {CAPTIONS[2]}  \r\n", encoding="utf-8")
    assert run(folder, "classify", wav, "--json", "--prompts", path) == 0
    answer = json.loads(capsys.readouterr().out)
    assert list(answer["probabilities"]) == [CAPTIONS[0], CAPTIONS[2]]
    assert abs(sum(answer["probabilities"].values()) - 1) < 1e-5


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.txt", b"\n \n", "empty.txt holds no prompt: write one per line"),
        (
            "latin.txt",
            "Ein Mann fl\u00fcstert.".encode("latin-1"),
            "latin.txt, line 1: the byte 0xfc is not UTF-8",
        ),
        ("twice.txt", b"A man.\nA man.\n", "The prompt 'A man.' is given twice"),
        ("twice.json", b'{"m": "A man.", "m": "A boy."}', "has the key 'm' twice"),
        ("deep.json", b"[" * 100_000, "deep.json: is not JSON that can be used"),
        ("absent.txt", None, "absent.txt"),
        ("prompts.csv", b"A man.\n", "prompts.csv is a file, not a text"),
        ("absent.csv", None, "absent.csv looks like the name of a file"),
    ],
)
def test_prompt_files_that_hold_no_prompts_are_refused(
    folder, wav, tmp_path, capfd, name, content, said
):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert run(folder, "classify", wav, "--prompts", tmp_path / name) == 2
    error = capfd.readouterr().err
    assert said in error and error.count("\n") == 1


def test_names_of_files_are_no_captions(folder, wav, tmp_path, capfd):
    path = tmp_path / "p.txt"
    path.write_text("A man.")
    for words in (
        ["score", wav, wav, "A man."],
        ["score", wav, path],
        ["score", wav, "other.wav"],
        ["score", wav, "--captions", "A man.", wav],
        ["classify", wav, "--prompts", "A man.", path],
    ):
        assert run(folder, *words) == 2
        assert "file, not " in capfd.readouterr().err


def test_several_recordings_are_scored_and_classified(folder, wav, tmp_path, capsys):
    other = write(tmp_path / "other.wav", tone(frequency=220.0))
    assert run(folder, "score", wav, other, "--json", "--captions", *CAPTIONS) == 0
    scores = json.loads(capsys.readouterr().out)
    assert run(folder, "score", other, "--json", *CAPTIONS) == 0
    assert scores[str(other)] == json.loads(capsys.readouterr().out)
    assert run(folder, "score", wav, "--captions", *CAPTIONS) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(CAPTIONS)
    assert run(folder, "classify", wav, other, "--json", "--prompts", *CAPTIONS) == 0
    answers = json.loads(capsys.readouterr().out)
    assert run(folder, "classify", wav, other, "--prompts", *CAPTIONS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1:] for line in lines] == [
        [path, answers[path]["label"]] for path in (str(wav), str(other))
    ]


def test_bad_recordings_are_skipped_counted_and_listed(folder, wav, bad, tmp_path, capfd):
    output, listed = tmp_path / "x.npz", tmp_path / "x.npz.bad.txt"
    words = ["embed", bad[0], wav, *bad[1:], "--output", output]
    assert run(folder, *words) == 2 and not output.exists() and not listed.exists()
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "bad09.wav" in error and "bad10.wav" not in error
    assert "20 bad files" in error and "and 10 more (all are in" in error
    assert run(folder, *words, "--skip-bad") == 0
    arrays = np.load(output)
    assert arrays["paths"].tolist() == [str(wav)] and len(arrays["embeddings"]) == 1
    assert "20 of 21 files left out" in capfd.readouterr().err
    lines = listed.read_text().splitlines()[1:]
    assert len(lines) == 20 and all(path in line for path, line in zip(bad, lines))
    assert run(folder, "embed", wav, "--output", output) == 0 and not listed.exists()
    for command in (
        ["score", *bad, wav, "--captions", "A man."],
        ["classify", *bad, wav, "--prompts", "A man.", "A woman."],
    ):
        assert run(folder, *command) == 2
        assert capfd.readouterr().err.startswith("clsp: error: 20 bad files")
        assert run(folder, *command, "--skip-bad") == 0
        printed = capfd.readouterr()
        assert len(printed.out.splitlines()) == 1 and str(wav) in printed.out
        assert printed.err.startswith("20 of 21 files left out:\n") and "10 more: " in printed.err
        for few in bad[:2], bad[:1]:  # none is left
            others = [word for word in command[1:] if word not in (wav, *bad)]
            assert run(folder, command[0], *few, *others, "--skip-bad") == 2
            assert "bad00.wav" in capfd.readouterr().err


def test_files_of_somebody_else_are_not_replaced(folder, wav, tmp_path, capfd):
    np.savez(tmp_path / "mine.npz", a=np.zeros(3))
    (tmp_path / "x.npz.bad.txt").write_text("my only copy")
    (tmp_path / "y.npz").write_text("my only copy")
    for name, said in (
        ("mine.npz", "mine.npz exists and is not a file of embeddings"),
        ("x.npz", "x.npz.bad.txt exists and is not a list of clsp"),
        ("y.npz", "y.npz exists and is not a file of embeddings"),
    ):
        assert run(folder, "embed", wav, "--output", tmp_path / name) == 2
        assert said in capfd.readouterr().err
    assert np.load(tmp_path / "mine.npz")["a"].tolist() == [0, 0, 0]
    assert (tmp_path / "x.npz.bad.txt").read_text() == "my only copy"


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=60) | JSON.map(lambda found: json.dumps(found).encode()))
def test_any_prompt_file_is_read_or_refused(tmp_path, content):
    for name in ("p.txt", "p.json"):
        path = tmp_path / name
        path.write_bytes(content)
        try:
            assert len(check_prompts(read_prompts([str(path)])))
        except (ValueError, TypeError) as error:
            assert str(error)
