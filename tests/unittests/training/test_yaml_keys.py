"""Misspelled keys of a recipe's YAML file."""

from pathlib import Path

import pytest

from speechbrain_clsp.training import recipe, yaml_keys
from speechbrain_clsp.training.yaml_keys import check_keys, parse_settings
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


OWN_DATA = Path(yaml_keys.__file__).parents[1] / "hparams" / "own_data.yaml"


@pytest.mark.parametrize(
    "setting, value",
    [
        ("lr=1e-3", 0.001),
        ("longest=20", 20),
        ("max_grad_norm=0.5", 0.5),
        ("batch_size=4", 4),
        ("tokenizer_source=user/name=1", "user/name=1"),
        ("augmentation=null", None),
        ("valid_dataloader_opts={batch_size: 8}", {"batch_size": 8}),
    ],
)
def test_a_setting_has_the_type_that_it_has_in_the_file(setting, value):
    found = parse_settings(OWN_DATA, [setting])
    assert found == {setting.partition("=")[0]: value}
    assert type(*found.values()) is type(value)


@pytest.mark.parametrize(
    "setting, message",
    [
        ("lr=abc", "lr must be a number, not 'abc'"),
        ("lr=", "lr must be a number, not ''"),
        ("lr=nan", "lr must be finite"),
        ("epoch_clips=-5", "epoch_clips must be finite and not negative"),
        ("vocab_size=1.5", "vocab_size must be a whole number, not '1.5'"),
        ("num_threads=True", "num_threads must be a whole number"),
        ("skip_bad=3", "skip_bad must be True or False"),
        ("precision=16", "precision must be a text"),
        ("valid_dataloader_opts=3", "valid_dataloader_opts must be a mapping"),
        ("ignore_columns=a", "ignore_columns must be a list"),
        ("longest=[", "the value is not valid YAML"),
        ("=3", "not of the form KEY=VALUE"),
        ("help=1", "There is no setting 'help'"),
    ],
)
def test_a_setting_of_another_kind_is_named(setting, message):
    with pytest.raises(ValueError, match=message):
        parse_settings(OWN_DATA, [setting])


def test_a_setting_that_is_given_twice_is_named():
    with pytest.raises(ValueError, match="'lr' is given twice"):
        parse_settings(OWN_DATA, ["lr=1", "lr=2"])
