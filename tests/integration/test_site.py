"""The site of the documentation: built whole, offline and without warnings; tutorials are run."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INVENTORIES = sorted((ROOT / "docs" / "inventories").glob("*.inv"))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Build the site as ``make docs`` does, but elsewhere."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-c", "docs", "-b", "html", "-W", "--keep-going"]
    nowhere = "http://127.0.0.1:9"  # whatever asks the network fails
    environment = {"CLSP_TUTORIALS": str(folder / "tutorials"), **os.environ}  # trained anew
    environment |= {"http_proxy": nowhere, "https_proxy": nowhere}
    done = subprocess.run(
        [*command, "-d", str(folder / "doctrees"), ".", str(folder / "html")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1700,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return folder / "html"


@pytest.mark.timeout(1800)
def test_every_public_name_has_an_entry(site):
    for path in sorted((ROOT / "speechbrain_clsp").glob("*/__init__.py")):
        room = importlib.import_module(f"speechbrain_clsp.{path.parent.name}")
        if names := getattr(room, "__all__", None):
            page = (site / f"docs/api/{path.parent.name}.html").read_text(encoding="utf-8")
            missing = [name for name in names if f'id="{room.__name__}.{name}"' not in page]
            assert not missing, room.__name__


@pytest.mark.timeout(1800)
def test_classes_link_to_those_of_torch_and_speechbrain_and_of_other_rooms(site):
    towers = (site / "docs/api/lobes.html").read_text(encoding="utf-8")
    assert "https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn" in towers
    training = (site / "docs/api/training.html").read_text(encoding="utf-8")
    brain = "https://speechbrain.readthedocs.io/en/latest/API/speechbrain.core.html"
    assert f"{brain}#speechbrain.core.Brain" in training
    inference = (site / "docs/api/inference.html").read_text(encoding="utf-8")
    assert 'href="captions.html#speechbrain_clsp.captions.AttributeSwap"' in inference


@pytest.mark.timeout(1800)
def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(
            r'<(?:script|img|link|audio|iframe)[^>]*(?:src|href)="(https?:[^"]+)', text
        )
        assert not loaded, page


@pytest.mark.parametrize("path", INVENTORIES, ids=[path.stem for path in INVENTORIES])
def test_inventories_name_what_exists(path):
    for line in path.read_text(encoding="utf-8").splitlines()[3:]:
        name, kind, _ = line.split()
        module, _, last = name.rpartition(".")
        assert kind == "class"
        assert isinstance(getattr(importlib.import_module(module), last), type), name
