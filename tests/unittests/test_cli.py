"""The command ``clsp`` as a user runs it: real processes, right and wrong input."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from small import CAPTIONS, model_folder, tone, write
from test_audio import bad_files

from speechbrain_clsp import CLSP
from speechbrain_clsp.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def wav(tmp_path_factory):
    return write(tmp_path_factory.mktemp("wav") / "a.wav", tone())


def command(*arguments, cwd=None, **environment) -> subprocess.CompletedProcess:
    """Run ``clsp`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "speechbrain_clsp.cli", *map(str, arguments)],
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


def test_wrong_input_gets_one_line_and_exit_code_2(folder, wav, tmp_path, capsys):
    """If this fails, a user's mistake ends in a traceback or goes unnoticed."""
    wrong = {name: ["score", str(path), "A."] for name, (path, _) in bad_files(tmp_path).items()}
    wrong["absent.wav"] = ["score", str(tmp_path / "absent.wav"), "A."]
    wrong["is empty"] = ["score", str(wav), " "]
    wrong[".npz"] = ["embed", str(wav), "--output", str(tmp_path / "x.txt")]
    wrong["cut.flac"] = ["embed", str(wav), str(tmp_path / "cut.flac"), "--output", "x.npz"]
    wrong["absent.json"] = ["classify", str(wav), "--prompts", "absent.json"]
    for pattern, arguments in wrong.items():
        assert main([*arguments, "--model", str(folder)]) == 2, pattern
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("clsp: error: ")
        assert printed.err.count("\n") == 1
        assert pattern in printed.err


@pytest.mark.parametrize(
    "arguments", [["score", "absent.wav", "A."], ["score", "a.wav"], ["score", "a.wav", "A."]]
)
def test_a_process_fails_without_traceback(folder, tmp_path, arguments):
    """If this fails, scripts cannot tell that clsp failed. The last case has no model at all."""
    environment = {} if arguments[1] == "a.wav" else {"CLSP_MODEL": str(folder)}
    environment.setdefault("CLSP_MODEL", str(tmp_path / "nowhere" / "model"))
    done = command(*arguments, cwd=tmp_path, **environment)
    assert done.returncode == 2
    assert "error" in done.stderr and "Traceback" not in done.stderr


def test_importing_the_package_is_cheap():
    """If this fails, ``clsp --help`` and every import wait seconds for torch."""
    code = "import sys, speechbrain_clsp, speechbrain_clsp.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False"
