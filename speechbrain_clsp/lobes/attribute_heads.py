"""Classifiers of labelled attributes, which help both towers while they are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

UNLABELED = -1  # the class of a clip that has none


class AttributeHeads(nn.Module):
    """One linear classifier per attribute, on embeddings; not part of the model itself.

    In a small batch the plainest attributes already tell all clips apart, and the contrastive loss
    says little about the others. Labels, where a corpus has them, say it of every clip, and of
    every caption that states them. The same classifiers on both give an attribute the same
    direction in both.

    Arguments
    ---------
    joint_dim : int
        Size D of the embeddings.
    values : dict of list of str
        The attributes and their values, as for
        :class:`~speechbrain_clsp.dataio.labels.AttributeLabels`.

    Example
    -------
    >>> heads = AttributeHeads(8, {"gender": ["male", "female"]})
    >>> clips = nn.functional.normalize(torch.randn(2, 8), dim=-1)
    >>> bool(heads(clips, torch.tensor([[0], [-1]])) > 0)
    True
    """

    def __init__(self, joint_dim: int, values: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(joint_dim, len(each)) for each in values.values())

    def logits(self, embeddings: Tensor) -> list[Tensor]:
        """Return, for each attribute, [B, values] for [B, D] embeddings of unit norm."""
        x = embeddings * embeddings.shape[-1] ** 0.5  # components of about unit size
        return [head(x) for head in self.heads]

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the sum over attributes of the cross-entropy, averaged over the batch.

        Arguments
        ---------
        embeddings : Tensor
            [B, D] of unit norm, of clips or of their captions.
        labels : Tensor
            [B, A] int64, the clips' classes; -1 where a clip has none, which then adds nothing.

        Returns
        -------
        Tensor
            0-dim float32. The mean of equal batches' losses is the loss of the joined batch.
        """
        losses = [
            cross_entropy(logits.float(), classes, ignore_index=UNLABELED, reduction="sum")
            for logits, classes in zip(self.logits(embeddings), labels.unbind(dim=1), strict=True)
        ]
        return sum(losses, embeddings.new_zeros((), dtype=torch.float32)) / len(embeddings)
