"""Fine-tuning: a base model whose adapters are trained, and what that changed.

The recipe ``speechbrain_clsp/hparams/finetune.yaml`` is built from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from speechbrain_clsp.evaluation.models import ClspModel
from speechbrain_clsp.evaluation.result import Evaluation
from speechbrain_clsp.evaluation.suites import MERGED
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.pretrained.adapters import Base, adapt, save_adapters
from speechbrain_clsp.utils.checks import join_some, quote

FEW_CLIPS = 30  # of a test set: with fewer, intervals are themselves uncertain
AFTER, BEFORE = "fine-tuned", "base"  # names of the two models in tables
METRICS = ("R@1", "WA")  # of those that are compared, what a user is told first


@dataclass(frozen=True)
class FineTunedModel:
    """A base model with adapters, for a recipe in place of a model's definition.

    It answers what :class:`~speechbrain_clsp.training.new_model.NewModel` does.

    Arguments
    ---------
    base : Base
        What it is adapted from.
    options : dict
        Arguments of :class:`~speechbrain_clsp.lobes.adapters.AdaptedTower`.
    modules : dict of nn.Module
        Adapted towers and the logit scale.
    tokenizer : object
        That of the base model.
    trust_hparams : bool
        Whether the base model may run its ``hyperparams.yaml``.
    """

    base: Base
    options: Mapping[str, Any]
    modules: Mapping[str, nn.Module]
    tokenizer: Any
    trust_hparams: bool = False

    def __getitem__(self, name: str) -> Any:
        """Return a module or an attribute, as recipes look up parts of a model's definition."""
        return self.modules[name] if name in self.modules else getattr(self, name)

    def save_tokenizer(self, path: Path, source: str | None, texts: Iterable[str]) -> None:
        """Save the base model's tokenizer, whatever the texts are."""
        self.tokenizer.save(path)

    def provenance(self) -> dict[str, str]:
        """Return the hash of the base model's weights."""
        return {"base": f"sha256 {self.base.sha256}"}

    def save(
        self,
        folder: Path,
        modules: Mapping[str, nn.Module],
        metrics: Mapping[str, float],
        tokenizer_file: str | os.PathLike,
    ) -> None:
        """Write the adapters of trained modules; see :func:`save_adapters`."""
        save_adapters(folder, modules, self.base, self.options, metrics)

    def open_evaluated(self, folder: Path, device: str) -> dict[str, ClspModel]:
        """Open what is evaluated, by its name in tables: the saved model and its base."""
        base = self.base.source, self.base.revision
        return {
            AFTER: ClspModel.open(str(folder), None, device, self.trust_hparams),
            BEFORE: ClspModel.open(*base, device, self.trust_hparams),
        }

    def describe_base(self) -> str:
        """Return a paragraph for the card."""
        return self.base.describe()

    def describe_changes(self, evaluation: Evaluation, n_clips: int) -> list[str]:
        """Return lines on what fine-tuning changed; see :func:`describe_changes`."""
        return describe_changes(evaluation, n_clips)

    def describe_unknown(self, texts: Iterable[str]) -> str:
        """Return a sentence on characters that the base model does not know, "" if it knows all."""
        texts = list(dict.fromkeys(texts))
        unknown = [
            (text, each) for text, each in zip(texts, self.tokenizer.find_unknown(texts)) if each
        ]
        if not unknown:
            return ""
        found = join_some((f"{quote(each)} of {quote(text)}" for text, each in unknown[:3]), ", ")
        return (
            f"{len(unknown)} of {len(texts)} captions and prompts have characters that the base"
            f" model does not know, and that do not count: {found}."
        )


def open_base(
    source: str | os.PathLike,
    revision: str | None = None,
    trust_hparams: bool = False,
    tune: str = "lora",
    rank: int = 8,
    alpha: float | None = None,
    layers: str | Sequence[str] = ("*",),
) -> FineTunedModel:
    """Open a model to be fine-tuned, and put adapters into its towers.

    Arguments
    ---------
    source, revision, trust_hparams
        As for ``CLSP.from_pretrained``.
    tune, rank, alpha, layers
        As for :class:`~speechbrain_clsp.lobes.adapters.AdaptedTower`; the same for both towers.

    Raises
    ------
    FileNotFoundError, PermissionError, ConnectionError, ValueError
        As ``CLSP.from_pretrained`` and the towers.
    """
    clsp = CLSP.from_pretrained(source, revision, trust_hparams=trust_hparams)
    if clsp.exported is not None:
        raise ValueError(
            f"{source} was exported, and cannot be trained: give the model that it was made of"
        )
    layers = [layers] if isinstance(layers, str) else list(layers)
    options = {"tune": tune, "rank": rank, "alpha": alpha, "layers": layers}
    modules = adapt(clsp.mods, options)
    modules["logit_scale"].requires_grad_(True)
    base, tokenizer = Base.of(source, revision), clsp.hparams.tokenizer
    return FineTunedModel(base, options, modules, tokenizer, trust_hparams)


def describe_changes(evaluation: Evaluation, n_clips: int) -> list[str]:
    r"""Return lines on what fine-tuning changed, with intervals, and whether clips suffice to tell.

    Arguments
    ---------
    evaluation : Evaluation
        Of the models :data:`AFTER` and :data:`BEFORE`.
    n_clips : int
        Of the test set.

    Example
    -------
    >>> import numpy as np
    >>> from speechbrain_clsp.evaluation.statistics import Estimate, paired_comparison
    >>> found = paired_comparison(np.ones(50), np.arange(50) % 2)
    >>> evaluation = Evaluation("mini", 0, comparisons={("mood", "WA", AFTER, BEFORE): found})
    >>> evaluation.tables["mood"] = {AFTER: {"WA": Estimate(1.0)}, BEFORE: {"WA": Estimate(0.5)}}
    >>> print(*describe_changes(evaluation, 50), sep="\n")
    Before and after, in %, on 50 test clips, with the 95 % interval of the difference:
      mood WA: 50.0 -> 100.0, +50.0 (36.0-64.0)
    """
    lines = [
        f"Before and after, in %, on {n_clips} test clips, with the 95 % interval of the"
        " difference:"
    ]
    for (table, metric, first, second), comparison in evaluation.comparisons.items():
        tables = evaluation.tables[table]
        if (first, second) != (AFTER, BEFORE) or not metric.endswith(METRICS):
            continue
        if f"{table}, {MERGED}" in evaluation.tables:  # the same, and equal captions count as wrong
            continue
        before, after = (100 * tables[name][metric].value for name in (BEFORE, AFTER))
        found = comparison.difference
        sign = "+" if found.value >= 0 else ""
        line = f"  {table} {metric}: {before:.1f} -> {after:.1f}, "
        line += f"{sign}{found.format(percent=True)}"
        if found.low is not None and found.high is not None and found.low <= 0 <= found.high:
            line += ": too few clips to tell"
        lines.append(line)
    if n_clips < FEW_CLIPS:
        lines.append(
            f"{n_clips} test clips are too few to rely on intervals: test on {FEW_CLIPS} or more."
        )
    return lines
