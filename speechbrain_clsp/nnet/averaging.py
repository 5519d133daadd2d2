"""The running average of a model's weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.optim.swa_utils import AveragedModel


class ModelAverage(AveragedModel):
    """Mean of the weights at every ``period``-th step, as torch's ``AveragedModel`` keeps it.

    The weights that a decaying learning rate leaves behind still fluctuate; their mean is a better
    model (Zipformer, arXiv 2310.11230; the released CLSP is such an average). ``module`` holds the
    averaged copies, in eval mode, and ``n_averaged`` the number of samples. A recoverable of
    SpeechBrain's checkpointer like any module.

    Arguments
    ---------
    modules : dict
        Name -> module, the bare ones, not DDP's wrappers.
    period : int
        Steps between samples. Published: 200.

    Example
    -------
    >>> layer = nn.Linear(1, 1)
    >>> average = ModelAverage({"layer": layer}, period=1)
    >>> for step, value in enumerate([1.0, 2.0, 6.0], start=1):
    ...     _ = nn.init.constant_(layer.weight, value)
    ...     average.update(step)
    >>> average.module["layer"].weight.item(), layer.weight.item()
    (3.0, 6.0)
    """

    def __init__(self, modules: Mapping[str, nn.Module], period: int = 200) -> None:
        source = nn.ModuleDict(modules)
        super().__init__(source)
        self.eval()
        self.requires_grad_(False)
        self.period = period
        self._source = (source,)  # in a tuple: not a part of the state

    @property
    def modules_by_name(self) -> dict[str, nn.Module]:
        """The averaged modules, under the names of those that they are averages of."""
        return dict(self.module.named_children())

    def update(self, step: int) -> None:
        """Take a sample, if it is time.

        Arguments
        ---------
        step : int
            Optimizer steps done so far.
        """
        if step % self.period == 0:
            self.update_parameters(self._source[0])
