"""The data commands explain themselves at once."""

import subprocess
import sys


def test_data_commands_need_no_torch_to_explain_themselves():
    code = "import sys, speechbrain_clsp.cli.data; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False"
    for name in ("prepare", "check-leakage", "export-cuts"):
        command = [sys.executable, "-m", "speechbrain_clsp.cli.main", name, "--help"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert f"example: clsp {name} " in done.stdout
