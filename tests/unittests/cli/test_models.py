"""Commands that use models, as a user runs them: real processes, right and wrong input."""

import json

import numpy as np
import pytest
import torch

from speechbrain_clsp import CLSP
from speechbrain_clsp.cli.main import main
from tests.utils.bad_audio import bad_files
from tests.utils.command_line import clsp_command
from tests.utils.small import CAPTIONS, model_folder, tone, write


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
