"""Checkpoints survive a kill between any two files."""

import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from speechbrain.utils.checkpoints import METAFNAME, Checkpointer

from speechbrain_clsp.training.checkpointer import AtomicCheckpointer
from tests.utils.processes import run_processes


class KilledError(Exception):
    """Stands for SIGKILL."""


def kill(*args):
    """Die."""
    raise KilledError


def interrupted(checkpointer_class, folder) -> list:
    """Save once, then die during the second save, after the first file; returns what is seen."""
    nets = {"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)}
    checkpointer = checkpointer_class(folder, nets)
    checkpointer.save_checkpoint(meta={"step": 1}, name="first")
    checkpointer.custom_save_hooks = {"b": kill}
    with pytest.raises(KilledError):
        checkpointer.save_checkpoint(meta={"step": 2}, name="second")
    return checkpointer_class(folder, nets).list_checkpoints()


def test_a_kill_while_saving_leaves_the_older_checkpoint(tmp_path):
    """If this fails, a preempted training cannot be resumed. SpeechBrain's own does fail."""
    assert [c.meta["step"] for c in interrupted(AtomicCheckpointer, tmp_path / "ours")] == [1]
    assert len(interrupted(Checkpointer, tmp_path / "theirs")) == 2


def test_leftovers_are_removed_by_the_next_save(tmp_path):
    """If this fails, every kill leaves a folder of weights on the disk."""
    interrupted(AtomicCheckpointer, tmp_path)
    AtomicCheckpointer(tmp_path, {"a": torch.nn.Linear(2, 2)}).save_checkpoint(name="third")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CKPT+first", "CKPT+third"]


def test_a_kill_while_deleting_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    """If this fails, a checkpoint whose weights are gone is taken for the best one."""
    checkpointer = AtomicCheckpointer(tmp_path, {"a": torch.nn.Linear(2, 2)})
    checkpointer.save_checkpoint(meta={"step": 1}, name="first")
    checkpointer.save_checkpoint(meta={"step": 2}, name="second")

    def delete_one_file_and_die(folder):
        (folder / "a.ckpt").unlink()
        raise KilledError

    monkeypatch.setattr(shutil, "rmtree", delete_one_file_and_die)
    with pytest.raises(KilledError):
        checkpointer.delete_checkpoints(num_to_keep=1)
    assert [c.meta["step"] for c in checkpointer.list_checkpoints()] == [2]


def save_twice_with_a_slow_disk(rank: int, folder: str) -> None:
    """Save and delete in one of two processes, of which the first renames slowly."""
    rename = os.replace

    def rename_slowly(*args):
        time.sleep(0.3)
        rename(*args)

    os.replace = rename_slowly
    checkpointer = AtomicCheckpointer(f"{folder}/save", {"a": torch.nn.Linear(2, 2)})
    for step in (1, 2, 3):
        checkpointer.save_and_keep_only(meta={"step": step}, max_keys=["step"])
    steps = [checkpoint.meta["step"] for checkpoint in checkpointer.list_checkpoints()]
    Path(f"{folder}/seen_{rank}").write_text(str(steps))


def test_all_processes_see_the_same_checkpoints(tmp_path):
    """If this fails, processes disagree on what to delete, and wait for each other forever."""
    run_processes(save_twice_with_a_slow_disk, 2, tmp_path)
    assert [(tmp_path / f"seen_{rank}").read_text() for rank in (0, 1)] == ["[3]", "[3]"]


def saved(folder, *steps: int) -> list[Path]:
    """Save a checkpoint per step; returns their folders."""
    save = AtomicCheckpointer(folder, {"a": torch.nn.Linear(2, 2)}).save_checkpoint
    return [save(meta={"step": step}, name=str(step)).path for step in steps]


@pytest.mark.parametrize("name", [METAFNAME, "a.ckpt"])
def test_lost_files_of_the_only_checkpoint_are_an_error_and_nothing_is_deleted(tmp_path, name):
    """If this fails, a training whose checkpoint was copied badly begins anew, and deletes it."""
    (folder,) = saved(tmp_path, 1)
    (folder / name).unlink()
    left = set(folder.iterdir())
    again = AtomicCheckpointer(tmp_path, {"a": torch.nn.Linear(2, 2)})
    with pytest.raises(ValueError, match=r"CKPT\+1: CKPT.yaml or files .* restore them, or move"):
        again.recover_if_possible()
    again.save_checkpoint(name="2")
    assert set(folder.iterdir()) == left


def test_lost_files_of_one_checkpoint_among_others_are_said(tmp_path, caplog):
    first, second = saved(tmp_path, 1, 2)
    (second / METAFNAME).unlink()
    again = AtomicCheckpointer(tmp_path, {"a": torch.nn.Linear(2, 2)})
    with caplog.at_level("WARNING"):
        assert again.recover_if_possible().path == first
    assert "CKPT+2: CKPT.yaml or files that it lists are missing: not used" in caplog.text


def test_a_kill_while_saving_is_nothing_to_tell(tmp_path, caplog):
    interrupted(AtomicCheckpointer, tmp_path)
    (tmp_path / "CKPT+empty").mkdir()
    nets = {"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)}
    with caplog.at_level("WARNING"):
        assert AtomicCheckpointer(tmp_path, nets).recover_if_possible().meta["step"] == 1
    assert "WARNING" not in caplog.text


def test_a_checkpoint_of_another_model_is_told_in_one_line(tmp_path):
    AtomicCheckpointer(tmp_path, {"net": torch.nn.Linear(2, 2)}).save_checkpoint()
    other = AtomicCheckpointer(tmp_path, {"net": torch.nn.Linear(3, 2)})
    with pytest.raises(ValueError, match="does not fit the model .*name another output") as error:
        other.recover_if_possible()
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
