"""The data commands explain themselves at once, and list what they leave out."""

import subprocess
import sys

from speechbrain_clsp.cli.main import main
from tests.utils.small import tone, write


def test_data_commands_need_no_torch_to_explain_themselves():
    code = "import sys, speechbrain_clsp.cli.data; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False"
    for name in ("prepare", "check-leakage", "export-cuts"):
        command = [sys.executable, "-m", "speechbrain_clsp.cli.main", name, "--help"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert f"example: clsp {name} " in done.stdout


def test_rows_that_are_left_out_are_counted_cut_and_listed(tmp_path, capsys):
    write(tmp_path / "a.wav", tone())
    rows = ["wav,caption", "a.wav,A man speaks.", *(f"{n}.wav,A man speaks." for n in range(200))]
    (tmp_path / "data.csv").write_text("\n".join(rows))
    output, listed = tmp_path / "train.arrow", tmp_path / "train.arrow.bad.txt"
    words = ["prepare", str(tmp_path / "data.csv"), "--output", str(output), "--skip-bad"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"1 clips written to {output}", f"200 rows left out, see {listed}:"]
    assert len(lines) == 13 and lines[-1] == f"  and 190 more: {listed}"
    assert len(listed.read_text().splitlines()) == 201
    listed.write_text("my only copy")
    assert main(words) == 2 and listed.read_text() == "my only copy"
    assert "is not a list of clsp" in capsys.readouterr().err
