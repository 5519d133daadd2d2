import json
import re
import subprocess
import sys

import pytest

from speechbrain_clsp.cli.main import parser
from speechbrain_clsp.serve.space import publish_space, write_space
from tests.utils.command_line import clsp_command


def test_a_space_holds_all_that_its_command_needs(small_folder, tmp_path):
    files = write_space(small_folder, "Ann/my_style", tmp_path / "space")
    assert {"Dockerfile", "README.md", "requirements.txt", "model/model.safetensors"} <= set(files)
    assert "speechbrain_clsp/serve/page.html" in files
    assert not any("__pycache__" in name for name in files)
    needed = (tmp_path / "space/requirements.txt").read_text()
    assert {"torch", "speechbrain"} <= set(re.findall(r"^[\w-]+", needed, flags=re.M))
    assert "pytest" not in needed
    dockerfile = (tmp_path / "space/Dockerfile").read_text()
    assert "ann-my-style.hf.space" in dockerfile
    words = json.loads(dockerfile.split("CMD ")[1])
    options = parser().parse_args(words[3:])  # the command exists, with these options
    assert options.host == "0.0.0.0" and options.port == 7860
    card = (tmp_path / "space/README.md").read_text()
    assert card.startswith("---\ntitle: my_style\nsdk: docker\napp_port: 7860\n")
    # The package in the Space is what runs there.
    code = "import speechbrain_clsp.serve as s; print(s.__file__)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "space",
        env={"PATH": "", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
    )
    assert str(tmp_path / "space") in run.stdout, run.stderr
    with pytest.raises(FileExistsError, match="is not empty"):
        write_space(small_folder, "Ann/my_style", tmp_path / "space")


def test_a_dry_run_lists_and_sends_nothing(small_folder):
    found = clsp_command("publish", small_folder, "ann/style", "--space", "--dry-run")
    assert found.returncode == 0, found.stderr
    assert "Dockerfile" in found.stdout and "would be uploaded to ann/style" in found.stdout
    for name in ("an ann/style", "ann/my style", "ann/-", "a/b/c"):
        with pytest.raises(ValueError, match="must be user/name"):
            publish_space(small_folder, name, dry_run=True)
    found = clsp_command("publish", small_folder, "style", "--space", "--dry-run")
    assert found.returncode == 2 and "must be user/name" in found.stderr
