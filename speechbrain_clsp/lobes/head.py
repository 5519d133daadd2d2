"""The projection head that ends both towers."""

from __future__ import annotations

from torch import Tensor, nn

from speechbrain_clsp.nnet.masking import full_precision


class ProjectionHead(nn.Module):
    """Two small perceptrons, then L2 normalization.

    Arguments
    ---------
    input_dim : int
        Size of the pooled vector.
    joint_dim : int
        Size of the shared space.
    dropout : float
        Rate inside the second perceptron, in training only.

    Example
    -------
    >>> import torch
    >>> ProjectionHead(8, 16)(torch.randn(2, 8)).norm(dim=-1).round(decimals=4).tolist()
    [1.0, 1.0]
    """

    def __init__(self, input_dim: int, joint_dim: int = 512, dropout: float = 0.1) -> None:
        super().__init__()
        self.projection = nn.Sequential(
            nn.Linear(input_dim, joint_dim), nn.ReLU(), nn.Linear(joint_dim, joint_dim)
        )
        self.transform = nn.Sequential(
            nn.Linear(joint_dim, joint_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(joint_dim, joint_dim),
        )

    def forward(self, pooled: Tensor) -> Tensor:
        """Map [B, input_dim] to [B, joint_dim] float32 of unit norm."""
        joint = full_precision(self.transform(self.projection(pooled)))
        return nn.functional.normalize(joint, dim=-1)
