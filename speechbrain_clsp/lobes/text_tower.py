"""Text towers: caption tokens to unit vectors."""

from __future__ import annotations

from typing import Any

import torch
from speechbrain.lobes.models.transformer.Transformer import TransformerEncoder
from torch import Tensor, nn

from speechbrain_clsp.lobes.head import ProjectionHead
from speechbrain_clsp.nnet.masking import masked_mean
from speechbrain_clsp.utils.checks import join_some

EMBEDDING_STD = 0.7  # of tokens and of positions, so that their sum has about unit size
LENGTH_GROUPS, MIN_GROUP = 6, 16  # of captions that are encoded at a time, and captions in each


class TextTower(nn.Module):
    """A tower from caption tokens to unit vectors; what differs is in ``pooled``.

    Attributes
    ----------
    max_tokens : int
        Longest caption that it takes.
    vocab_size : int
        Number of token ids that it knows.
    head : ProjectionHead
        From the pooled vector to the shared space.
    """

    max_tokens: int
    vocab_size: int
    head: ProjectionHead

    def pooled(self, tokens: Tensor, padding_mask: Tensor) -> Tensor:
        """Return [B, input size of the head] for what :meth:`forward` gets."""
        raise NotImplementedError

    def forward(self, tokens: Tensor, padding_mask: Tensor) -> Tensor:
        """Embed captions.

        Arguments
        ---------
        tokens : Tensor
            [B, L] int64, padded as by the tower's tokenizer.
        padding_mask : Tensor
            [B, L] bool, True on padding.

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
            rows = ((~padding_mask).sum(dim=1) > self.max_tokens).nonzero().flatten().tolist()
            raise ValueError(
                f"A caption has {tokens.shape[1]} tokens, at most {self.max_tokens} fit: shorten"
                f" those in rows {join_some(rows, ', ')}"
            )
        return self.head(self._pooled_by_length(tokens, padding_mask))

    def _pooled_by_length(self, tokens: Tensor, padding_mask: Tensor) -> Tensor:
        """Pool captions of about equal length together: less padding to compute."""
        groups = min(LENGTH_GROUPS, len(tokens) // MIN_GROUP)
        if groups < 2:
            return self.pooled(tokens, padding_mask)
        n_tokens = (~padding_mask).sum(dim=1)
        order = n_tokens.argsort()
        pooled = []
        for rows in order.chunk(groups):
            longest = max(int(n_tokens[rows[-1]]), 1)
            pooled.append(self.pooled(tokens[rows, :longest], padding_mask[rows, :longest]))
        return torch.cat(pooled)[order.argsort()]

    def cast(self, dtype: torch.dtype) -> None:
        """Compute in another precision, where a tower gains from it; the head stays float32."""

    def arguments(self) -> dict[str, Any]:
        """Return arguments that replace those of the definition when the tower is saved.

        For a tower whose definition in a recipe refers to files outside the model folder.
        """
        return {}


class TransformerTextTower(TextTower):
    """A small SpeechBrain Transformer, masked mean and head, trained from scratch.

    Tokens and their learned positions start with the same size. SpeechBrain's own
    ``NormalizedEmbedding`` is sqrt(dim) times as large as its positions, which then hardly count.
    A convolution tells neighbors, such as "begins softly", apart from the same words elsewhere:
    attention alone learns that much later.

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
    kernel : int
        Tokens that the convolution sees at a time, an odd number; 0 for no convolution.
    dropout : float
        Rate inside the Transformer, in training only.
    head_dropout : float
        Rate inside the head, in training only.

    Example
    -------
    >>> import torch
    >>> tower = TransformerTextTower(40, dim=16, n_layers=1, heads=2, feedforward=32, joint_dim=8)
    >>> tokens = torch.tensor([[3, 4, 5], [6, 0, 0]])
    >>> tower(tokens, tokens == 0).shape
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
        kernel: int = 0,
        dropout: float = 0.1,
        head_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.max_tokens, self.vocab_size = max_tokens, vocab_size
        self.convolution = nn.Conv1d(dim, dim, kernel, padding="same") if kernel else None
        self.embedding = nn.Embedding(vocab_size, dim)
        self.positions = nn.Embedding(max_tokens, dim)
        for table in (self.embedding, self.positions):
            nn.init.normal_(table.weight, std=EMBEDDING_STD)
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

    def pooled(self, tokens: Tensor, padding_mask: Tensor) -> Tensor:
        """Return the mean of the last layer over tokens, [B, dim]."""
        x = self.embedding(tokens) + self.positions.weight[: tokens.shape[1]]
        if self.convolution is not None:
            x = x.masked_fill(padding_mask[..., None], 0.0)  # as the convolution's own padding
            x = x + nn.functional.gelu(self.convolution(x.transpose(1, 2)).transpose(1, 2))
        x, _ = self.encoder(x, src_key_padding_mask=padding_mask)
        return masked_mean(x, padding_mask)


class RobertaTextTower(TextTower):
    """RoBERTa (arXiv 1907.11692), its pooler, and head: the published CLSP's text side.

    The pooled vector is tanh of a linear layer on the first token, as in transformers'
    ``pooler_output``.

    Arguments
    ---------
    vocab_size : int
        Number of token ids.
    dim, n_layers, heads, feedforward : int
        Size of RoBERTa.
    joint_dim : int
        Size D of the shared space.
    n_positions : int
        Rows of the position table; two more than the longest caption's tokens.
    dropout, head_dropout : float
        Rates inside RoBERTa and the head, in training only.

    Example
    -------
    >>> import torch
    >>> tower = RobertaTextTower(40, dim=16, n_layers=1, heads=2, feedforward=32, joint_dim=8)
    >>> tokens = torch.tensor([[0, 4, 5, 2], [0, 6, 2, 1]])
    >>> tower(tokens, tokens == 1).shape
    torch.Size([2, 8])
    """

    PAD = 1  # RoBERTa counts positions from PAD + 1

    def __init__(
        self,
        vocab_size: int = 50265,
        dim: int = 768,
        n_layers: int = 12,
        heads: int = 12,
        feedforward: int = 3072,
        joint_dim: int = 512,
        n_positions: int = 514,
        dropout: float = 0.1,
        head_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        from transformers import RobertaConfig, RobertaModel  # takes seconds to import

        self.max_tokens, self.vocab_size = n_positions - self.PAD - 1, vocab_size
        self.encoder = RobertaModel(
            RobertaConfig(
                vocab_size=vocab_size,
                hidden_size=dim,
                num_hidden_layers=n_layers,
                num_attention_heads=heads,
                intermediate_size=feedforward,
                max_position_embeddings=n_positions,
                type_vocab_size=1,
                layer_norm_eps=1e-5,
                pad_token_id=self.PAD,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
            )
        )
        with torch.device("cpu"):  # constants, also where parameters are made on the meta device
            embeddings = self.encoder.embeddings
            embeddings.position_ids = torch.arange(n_positions)[None]
            embeddings.token_type_ids = torch.zeros(1, n_positions, dtype=torch.long)
        self.head = ProjectionHead(dim, joint_dim, head_dropout)

    def pooled(self, tokens: Tensor, padding_mask: Tensor) -> Tensor:
        """Return RoBERTa's pooled first token, [B, dim]."""
        attention_mask = (~padding_mask).long()
        return self.encoder(tokens, attention_mask=attention_mask).pooler_output.float()

    def cast(self, dtype: torch.dtype) -> None:
        """Compute RoBERTa in another precision; the head stays float32."""
        self.encoder.to(dtype)
