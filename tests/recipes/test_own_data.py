"""The recipe for a user's own data as SpeechBrain's users start it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from speechbrain_clsp import CLSP
from tests.utils.recipes import ROOT
from tests.utils.small import tone, write

FOLDER = ROOT / "recipes" / "FCaps" / "CLSP"
YAML = ROOT / "speechbrain_clsp" / "hparams" / "own_data.yaml"
SHORT = ("--number_of_epochs=1", "--epoch_clips=8", "--most_clips=3", "--num_threads=1")


@pytest.fixture
def clips(tmp_path):
    """Return a table of 16 buzzes of eight speakers."""
    lines = ["wav,caption,speaker,gender"]
    for i in range(16):
        write(tmp_path / f"{i}.wav", tone(0.4, 8000, 90 + 15 * i), 8000)
        who, gender = ("A man", "A woman")[i % 2], ("male", "female")[i % 2]
        lines.append(f"{i}.wav,{who} hums.,s{i % 8},{gender}")
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    return tmp_path / "clips.csv"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Start Python in the recipe's folder."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=600)


def test_two_processes_train_together_and_say_what_they_found_once(clips):
    output = clips.parent / "model"
    flags = [f"--source={clips}", f"--output_folder={output}", *SHORT, "--noprogressbar"]
    flags += ["--distributed_backend=gloo", "--device=cpu"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = run(*launcher, "train.py", str(YAML), *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("16 clips, ") == 1 and done.stdout.count("## gender") == 1
    log = (output / "train_log.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"^epoch: \d", log, flags=re.M)) == 1
    clsp = CLSP.from_pretrained(str(output / "model"))
    assert clsp.encode_text(["A man hums."]).isfinite().all()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--source=absent.csv", "--output_folder=OUT"], "absent.csv"),
        (["--source=CLIPS"], "'output_folder' is a !PLACEHOLDER and must be replaced."),
        (["--source=CLIPS", "--output_folder=OUT", "--rl=1"], "Override 'rl' not found"),
        (["--source=CLIPS", "--output_folder=OUT", "--lr={a: [}"], "is not valid YAML: while"),
    ],
    ids=["source", "placeholder", "key", "yaml"],
)
def test_wrong_input_ends_in_one_sentence_that_names_a_traceback(clips, flags, message):
    places = {"CLIPS": str(clips), "OUT": str(clips.parent / "out")}
    for name, place in places.items():
        flags = [flag.replace(name, place) for flag in flags]
    done = run("train.py", str(YAML), *flags, "--device=cpu")
    assert done.returncode == 2 and "Traceback" not in done.stderr + done.stdout
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("train.py: error: "))
    assert message in line
    (path,) = re.findall(r"\(traceback in (\S+)\)$", line)
    assert "Traceback (most recent call last)" in Path(path).read_text(encoding="utf-8")
    Path(path).unlink()
