"""Misspelled keys of a recipe's YAML file."""

import pytest

from speechbrain_clsp.training import recipe
from speechbrain_clsp.training.yaml_keys import check_keys
from tests.utils.recipes import ROOT

RECIPE = ROOT / "recipes/FCaps/CLSP"


def test_a_misspelled_option_of_speechbrain_is_named(tmp_path):
    script, copy = recipe.__file__, tmp_path / "mine.yaml"
    yaml = (RECIPE / "hparams/mini.yaml").read_text(encoding="utf-8")
    copy.write_text(yaml, encoding="utf-8")
    check_keys(copy, script)
    copy.write_text(yaml.replace("\nmax_grad_norm:", "\nmax_grad_nrom:"), encoding="utf-8")
    with pytest.raises(ValueError, match="mine.yaml.*'max_grad_nrom'"):
        check_keys(copy, script)
