"""What a built package holds."""

import json
import shutil
import zipfile

import pytest

from speechbrain_clsp import __version__
from tests.consistency import release
from tests.consistency.release import ROOT

FILES = sorted(release.tracked()) if (ROOT / ".git").exists() else []
DATA = [name for name in FILES if name.startswith(f"{release.PACKAGE}/") and name.endswith(".json")]
pytestmark = pytest.mark.skipif(not FILES, reason="only git knows which files there should be")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Return a copy of the tree without what is built, so that nothing is left in ours."""
    folder = tmp_path_factory.mktemp("tree")
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def built(tree, tmp_path_factory):
    """Return the paths of an sdist and a wheel that were built without network."""
    return release.build(tree, tmp_path_factory.mktemp("built"), "--no-isolation")


def test_sdist_and_wheel_hold_every_file(built):
    release.check_contents(*built, set(FILES))


def test_a_file_that_is_left_out_is_named(built):
    with pytest.raises(SystemExit, match=r"lacks \['speechbrain_clsp/hparams/own\.toml'\]"):
        release.check_contents(*built, {*FILES, "speechbrain_clsp/hparams/own.toml"})
    with pytest.raises(SystemExit, match=r"lacks \['recipes/new\.yaml'\]: see MANIFEST"):
        release.check_contents(*built, {*FILES, "recipes/new.yaml"})


def test_the_changelog_s_newest_release_and_the_file_names_have_the_version(built, monkeypatch):
    release.check_version(*built)
    monkeypatch.setattr(release, "__version__", "9.0.0")
    with pytest.raises(SystemExit, match="not of version 9"):
        release.check_version(*built)


def test_the_wheel_declares_the_command_and_extras(built):
    wheel = zipfile.ZipFile(built[1])
    info = f"speechbrain_clsp-{__version__}.dist-info"
    points = wheel.read(f"{info}/entry_points.txt").decode()
    assert "clsp = speechbrain_clsp.cli.main:main" in points
    metadata = wheel.read(f"{info}/METADATA").decode()
    for line in ("Requires-Python: >=3.10", "License-Expression: Apache-2"):
        assert line in metadata
    extras = set(release.extras_of(built[1]))
    assert {"mini", "serve", "search"} < extras and "dev" not in extras


@pytest.mark.parametrize("name", DATA)
def test_data_files_are_json(name):
    json.loads((ROOT / name).read_text(encoding="utf-8"))
