"""The command ``clsp`` as a user runs it: real processes, right and wrong input."""

import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from speechbrain_clsp import CLSP
from speechbrain_clsp.cli.main import main
from tests.utils.bad_audio import bad_files
from tests.utils.small import CAPTIONS, model_folder, tone, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def wav(tmp_path_factory):
    return write(tmp_path_factory.mktemp("wav") / "a.wav", tone())


def command(*arguments, cwd=None, **environment) -> subprocess.CompletedProcess:
    """Run ``clsp`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "speechbrain_clsp.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=120,
    )


def test_score_prints_each_caption_with_its_score(folder, wav):
    """If this fails, the first thing that a user tries does not work."""
    done = command("score", wav, *CAPTIONS, CLSP_MODEL=str(folder))
    assert done.returncode == 0, done.stderr
    expected = CLSP.from_hparams(folder, run_opts={"device": "cpu"}).score_file(wav, CAPTIONS)
    lines = done.stdout.splitlines()
    assert lines == [f"{s:+.3f}  {caption}" for s, caption in zip(expected.tolist(), CAPTIONS)]


def test_embed_writes_paths_and_embeddings(folder, wav, tmp_path, capsys):
    """If this fails, embeddings cannot be taken elsewhere."""
    output = tmp_path / "x.npz"
    assert main(["embed", str(wav), str(wav), "--output", str(output), "--model", str(folder)]) == 0
    arrays = np.load(output)
    assert arrays["paths"].tolist() == [str(wav)] * 2
    clsp = CLSP.from_hparams(folder, run_opts={"device": "cpu"})
    torch.testing.assert_close(torch.from_numpy(arrays["embeddings"][1]), clsp.encode_file(wav))
    assert "2 embeddings" in capsys.readouterr().out


def test_classify_prints_probabilities_best_first(folder, wav, tmp_path, capsys):
    """If this fails, the label shown is not the most probable one."""
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
    """If this fails, a user's mistake ends in a traceback or goes unnoticed."""
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


def test_a_wrong_command_line_gets_one_line(capfd):
    """If this fails, a forgotten caption is answered with the whole usage text."""
    for arguments, pattern in ((["score", "a.wav"], "captions"), ([], "score,embed,classify")):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        error = capfd.readouterr().err
        assert error.startswith("clsp: error: ") and error.count("\n") == 1
        assert pattern in error


@pytest.mark.parametrize("case", ["absent file", "not audio", "no model", "no caption"])
def test_a_process_fails_without_traceback(folder, tmp_path, case):
    """If this fails, scripts cannot tell that clsp failed, or users see a traceback."""
    (tmp_path / "text.mp3").write_text("this is no audio\n" * 100)
    environment = {"CLSP_MODEL": "" if case == "no model" else str(folder)}
    arguments = ["absent.wav" if case == "absent file" else "text.mp3", "A."]
    done = command(
        "score", *arguments[: 1 if case == "no caption" else 2], cwd=tmp_path, **environment
    )
    assert done.returncode == 2
    assert done.stderr.startswith("clsp: error: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "text.mp3"]


@pytest.mark.parametrize("name", ["score", "embed", "classify"])
def test_help_ends_with_an_example(name, capsys):
    """If this fails, users must guess how a command is written."""
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert f"example: clsp {name} " in capsys.readouterr().out.split("options:")[1]


def test_logging_comes_back(folder, wav):
    """If this fails, a program that calls main loses its own log from then on."""
    main(["score", str(wav), "A.", "--model", str(folder)])
    assert logging.getLogger("other").isEnabledFor(logging.WARNING)


def test_importing_the_package_is_cheap():
    """If this fails, ``clsp --help`` and every import wait seconds for torch."""
    code = "import sys, speechbrain_clsp, speechbrain_clsp.cli.main; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False"
