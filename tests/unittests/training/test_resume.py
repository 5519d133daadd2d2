"""What a resumed training says of its settings."""

import pytest

from speechbrain_clsp.training.resume import SETTINGS, check_kind, find_changes


def test_changes_are_told_once_and_only_of_what_was_known(tmp_path):
    folder = tmp_path / "save"
    first = {"batch_size": 32, "batch_seconds": None, "train_manifest": "sha256 a", "sizes": (1, 2)}
    assert find_changes(folder, first) == []
    assert find_changes(folder, first) == []
    second = {**first, "batch_size": 16, "train_manifest": "sha256 b", "seed": 1}
    assert find_changes(folder, second) == [
        "batch_size was 32 and is 16",
        "train_manifest was sha256 a and is sha256 b",
    ]
    assert find_changes(folder, second) == []


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / SETTINGS).write_text("{")
    with pytest.raises(ValueError, match=SETTINGS):
        find_changes(tmp_path, {"seed": 1})


def test_fine_tuning_does_not_go_on_with_a_training_from_scratch(tmp_path):
    check_kind(tmp_path, {"base": "sha256 1"})  # nothing is there
    find_changes(tmp_path, {"seed": 1})
    check_kind(tmp_path, {})
    with pytest.raises(ValueError, match="holds a training from scratch: name another"):
        check_kind(tmp_path, {"base": "sha256 1"})
