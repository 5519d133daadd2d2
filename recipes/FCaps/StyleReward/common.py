"""What the trainings of this folder have in common: their start and their log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.train_logger import TrainLogger
from torch import Tensor

from speechbrain_clsp.utils.distributed import join_processes


def start_experiment(arguments: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a recipe's command line, join other processes if any, and make the output folder.

    Returns what the YAML file defines, and options for the Brain.
    """
    hparams_file, run_opts, overrides = sb.parse_arguments(arguments)
    join_processes(run_opts)
    with open(hparams_file, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    sb.create_experiment_directory(hparams["output_folder"], hparams_file, overrides)
    return hparams, run_opts


class MeanLoggingBrain(sb.Brain):
    """A Brain that logs the mean of each value over an epoch, anneals, and saves a checkpoint.

    Arguments
    ---------
    *args
        As for ``speechbrain.Brain``.
    train_logger : TrainLogger
        Where the means go.
    lr_annealing : callable, optional
        A schedule of SpeechBrain: epoch -> (old rate, new rate).
    """

    def __init__(
        self,
        *args,
        train_logger: TrainLogger,
        lr_annealing: Callable[[int], tuple[float, float]] | None = None,
    ) -> None:
        super().__init__(*args)
        self.train_logger = train_logger
        self.lr_annealing = lr_annealing

    def log_values(self, values: Mapping[str, Tensor | float]) -> None:
        """Add the values of a batch to the means of this epoch."""
        for name, value in values.items():
            self.values.setdefault(name, []).append(float(torch.as_tensor(value).detach()))

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Start new means."""
        self.values: dict[str, list[float]] = {}

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Log the means, anneal if there is a schedule, and save."""
        means = {name: sum(values) / len(values) for name, values in self.values.items()}
        if stage == sb.Stage.TRAIN:
            self.train_means = means
        elif stage == sb.Stage.VALID:
            meta = {"epoch": epoch}
            if self.lr_annealing is not None:
                _, meta["lr"] = self.lr_annealing(epoch)
                sb.nnet.schedulers.update_learning_rate(self.optimizer, meta["lr"])
            self.train_logger.log_stats(meta, train_stats=self.train_means, valid_stats=means)
            self.checkpointer.save_and_keep_only(meta=means, num_to_keep=1)
