"""A small MiniFCaps, made once for all tests of this folder."""

import sys
from pathlib import Path

import pytest

from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.mini_fcaps.contrasts import plan_contrasts, with_twins
from speechbrain_clsp.mini_fcaps.corpus import plan_clips
from tests.utils.mini_fcaps import SIZES

RECORDED = 0.65  # of the training clips

sys.path.insert(0, str(Path(__file__).parents[3] / "recipes" / "FCaps"))
from mini_fcaps_prepare import prepare_mini_fcaps


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini")
    sizes = {f"n_{split}": size for split, size in SIZES.items()}
    prepare_mini_fcaps(folder, **sizes, recorded=RECORDED, n_jobs=1)
    return folder


@pytest.fixture(scope="session")
def clips():
    return with_twins(plan_clips(SIZES, seed=1986, recorded=RECORDED), seed=1986)


@pytest.fixture(scope="session")
def contrasts(clips):
    return plan_contrasts([clip for clip in clips if clip.split == "test"], seed=1986)


@pytest.fixture(scope="session")
def twins(contrasts):
    """Return the clips that differ from a test clip, or from its twin, in one thing."""
    found = {clip.id: clip for contrast in contrasts for clip in contrast.clips}
    return [clip for clip in found.values() if clip.split == "probes"]


@pytest.fixture(scope="session")
def rows(folder):
    """Return the manifests' rows by id."""
    return {row["id"]: row for split in SIZES for row in Manifest(folder / f"{split}.arrow")}
