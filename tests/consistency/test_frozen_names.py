"""Names and options that others build on do not change by accident."""

import importlib

import pytest

from speechbrain_clsp import CLSP
from tests.consistency.frozen_names import NAMES_FILE, OPTIONS_FILE, cli_options, public_names
from tests.utils.recipes import ROOT

PACKAGE = ROOT / "speechbrain_clsp"
HELP = "changed; if that is meant: python -m tests.consistency.frozen_names, and CHANGELOG.md"
# What docs/, recipes and other packages may rely on.
PROMISED = {
    "speechbrain_clsp": "CLSP StyleReward",
    "speechbrain_clsp.inference": "CLSP StyleReward",
    "speechbrain_clsp.lobes": "KaldiFbank SpeechTower RobertaTextTower TransformerTextTower",
    "speechbrain_clsp.lobes.zipformer": "Balancer Whiten",
    "speechbrain_clsp.nnet": "contrastive_loss hard_negative_loss ScaledAdam Eden",
    "speechbrain_clsp.evaluation": "retrieval_metrics run_suite",
}
CLSP_METHODS = """encode_batch encode_file encode_files encode_text score_batch score_file
 classify_batch classify_file timeline from_pretrained from_hparams"""


@pytest.mark.parametrize(
    "path, found", [(NAMES_FILE, public_names), (OPTIONS_FILE, cli_options)], ids=["names", "cli"]
)
def test_public_names_and_options_are_those_of_the_list(path, found):
    frozen, now = set(path.read_text(encoding="utf-8").splitlines()), set(found())
    assert (sorted(frozen - now), sorted(now - frozen)) == ([], []), HELP


@pytest.mark.parametrize("room", PROMISED)
def test_promised_names_are_handed_on(room):
    module = importlib.import_module(room)
    assert set(PROMISED[room].split()) <= set(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


def test_the_interface_has_its_methods():
    assert not [name for name in CLSP_METHODS.split() if not hasattr(CLSP, name)]


@pytest.mark.parametrize("room", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_a_room_says_what_belongs_there_and_hands_it_on(room):
    module = importlib.import_module(f"speechbrain_clsp.{room}")
    assert module.__doc__
    assert room == "cli" or module.__all__  # the command line's module and function share a name
