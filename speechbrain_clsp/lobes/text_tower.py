"""The text tower: caption tokens to unit vectors.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

from speechbrain.lobes.models.transformer.Transformer import (
    NormalizedEmbedding,
    PositionalEncoding,
    TransformerEncoder,
)
from torch import Tensor, nn

from speechbrain_clsp.lobes.head import ProjectionHead
from speechbrain_clsp.lobes.pooling import masked_mean


class TransformerTextTower(nn.Module):
    """A small SpeechBrain Transformer, masked mean and head, trained from scratch.

    Arguments
    ---------
    vocab_size : int
        Number of token ids.
    dim, n_layers, heads, feedforward : int
        Size of the Transformer.
    joint_dim : int
        Size D of the shared space.
    max_tokens : int
        Longest caption that it takes.
    dropout : float
        Rate inside the Transformer, in training only.
    head_dropout : float
        Rate inside the head, in training only.

    Example
    -------
    >>> import torch
    >>> tower = TransformerTextTower(40, dim=16, n_layers=1, heads=2, feedforward=32, joint_dim=8)
    >>> tokens = torch.tensor([[3, 4, 5], [6, 0, 0]])
    >>> tower(tokens, tokens > 0).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int = 192,
        n_layers: int = 3,
        heads: int = 4,
        feedforward: int = 512,
        joint_dim: int = 512,
        max_tokens: int = 512,
        dropout: float = 0.1,
        head_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.max_tokens = max_tokens
        self.embedding = NormalizedEmbedding(dim, vocab_size)
        self.positions = PositionalEncoding(dim, max_tokens)
        self.encoder = TransformerEncoder(
            num_layers=n_layers,
            nhead=heads,
            d_ffn=feedforward,
            d_model=dim,
            dropout=dropout,
            activation=nn.GELU,
            normalize_before=True,
        )
        self.head = ProjectionHead(dim, joint_dim, head_dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embed captions.

        Arguments
        ---------
        tokens : Tensor
            [B, L] int64.
        mask : Tensor
            [B, L] bool, True on tokens, False on padding.

        Returns
        -------
        Tensor
            [B, D] float32 of unit norm.

        Raises
        ------
        ValueError
            If L exceeds ``max_tokens``.
        """
        if tokens.shape[1] > self.max_tokens:
            raise ValueError(
                f"A caption has {tokens.shape[1]} tokens, at most {self.max_tokens} fit: shorten it"
            )
        x = self.embedding(tokens)
        x = x + self.positions(x)
        x, _ = self.encoder(x, src_key_padding_mask=~mask)
        return self.head(masked_mean(x, ~mask))
