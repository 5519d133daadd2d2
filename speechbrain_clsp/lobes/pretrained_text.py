"""A text tower around any pretrained encoder of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from speechbrain.lobes.models.transformer.Transformer import TransformerEncoder
from torch import Tensor, nn

from speechbrain_clsp.lobes.encoders import (
    choose_trained,
    config_of,
    enable_checkpointing,
    parse_config,
)
from speechbrain_clsp.lobes.head import ProjectionHead
from speechbrain_clsp.lobes.text_tower import TextTower
from speechbrain_clsp.nnet.masking import masked_mean

POOLINGS = ("mean", "first", "pooler", "tokens")


class PretrainedTextTower(TextTower):
    """A text encoder of transformers (BERT, RoBERTa, MPNet, ModernBERT, ...), pooling and head.

    The encoder has random weights until they are loaded:
    :func:`~speechbrain_clsp.training.initialization.from_pretrained_encoders` loads those of a
    folder or a Hub repository, a model folder its own. Code that comes with weights is never run.

    Arguments
    ---------
    config : dict
        The encoder's configuration, as in its ``config.json``; see
        :func:`~speechbrain_clsp.pretrained.hub.read_encoder_config`.
    pooling : str
        What the head gets. ``mean`` of the last layer over tokens, its ``first`` token, or the
        encoder's own ``pooler``: choose as the encoder's model card says. Or ``tokens``: a
        convolution and a small Transformer, trained from scratch, read a layer's states of all
        tokens and are averaged, beside the plain mean of the last layer. They find what an average
        loses, such as what comes first.
    tuning : str or int
        What of the encoder is trained: nothing (``frozen``), its last so many layers, ``all``, or
        low-rank adapters (``lora``, arXiv 2106.09685) of all linear layers.
    lora_rank : int
        Rank of the adapters.
    n_layers, dim, heads, feedforward, kernel : int
        Size of the Transformer and the convolution of the pooling ``tokens``.
    read_layer : int
        Layer that they read: 0 for the embeddings, -1 for the last. In the last layers of an
        encoder of sentences all tokens resemble the whole sentence; early ones tell them apart.
    joint_dim : int
        Size D of the shared space.
    dropout, head_dropout : float
        Rates inside that Transformer and the head, in training only.
    reader_dropout : float
        Fraction of captions of which, in training, the head gets the plain mean alone. What is
        trained from scratch knows the words of the training only; the mean of a pretrained encoder
        brings others near them, and the head learns to do with it.
    cache_gb : float
        Memory [GB] for what a frozen encoder gave in training, in float16, so that a caption is
        encoded once and not in every epoch. Worthwhile on a CPU.
    checkpoint_layers : bool
        Whether layers that are trained keep their inputs only, and are computed again in the
        backward pass.

    Raises
    ------
    ValueError
        If ``config`` is not that of an encoder that transformers knows, or an option is unknown.

    Example
    -------
    >>> size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    >>> config = {"model_type": "bert", "vocab_size": 40, "intermediate_size": 32, **size}
    >>> tower = PretrainedTextTower(config, tuning=1, joint_dim=8)
    >>> tokens = torch.tensor([[2, 4, 5, 3], [2, 6, 3, 0]])
    >>> tower(tokens, tokens == 0).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        pooling: str = "mean",
        tuning: str | int = "frozen",
        lora_rank: int = 8,
        n_layers: int = 1,
        dim: int = 128,
        heads: int = 4,
        feedforward: int = 256,
        kernel: int = 5,
        read_layer: int = -1,
        joint_dim: int = 512,
        dropout: float = 0.1,
        head_dropout: float = 0.1,
        reader_dropout: float = 0.0,
        cache_gb: float = 0.0,
        checkpoint_layers: bool = False,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {list(POOLINGS)}, not {pooling!r}")
        self.pooling = pooling
        self.encoder = build_encoder(config)
        own_pooler = getattr(self.encoder, "pooler", None)
        if pooling == "pooler" and own_pooler is None:
            raise ValueError(f"A {config['model_type']} encoder has no pooler: try mean or first")
        if pooling != "pooler" and own_pooler is not None:
            self.encoder.pooler = None  # parameters that nothing would use
        self.max_tokens = _max_tokens(self.encoder)
        self.vocab_size = self.encoder.config.vocab_size
        self.padding = self.encoder.config.pad_token_id or 0
        # Layers cannot be told apart in all families, and need not be unless some are tuned.
        layers = [] if isinstance(tuning, str) else list(_layers(self.encoder))
        self.trained = choose_trained(self.encoder, layers, tuning, lora_rank)
        if checkpoint_layers:
            enable_checkpointing(self.encoder)
        if layers and pooling == "pooler":
            self.encoder.pooler.requires_grad_(True)
            self.trained.append(self.encoder.pooler)
        size = self.encoder.config.hidden_size
        if pooling == "tokens":
            self.projection = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, dim))
            n_states = self.encoder.config.num_hidden_layers + 1
            if not -n_states <= read_layer < n_states:
                raise ValueError(
                    f"read_layer must be from {-n_states} to {n_states - 1}, as the encoder has"
                    f" {n_states - 1} layers after its embeddings, not {read_layer}"
                )
            self.read_layer = read_layer % n_states
            self.reads_last_layer = self.read_layer == n_states - 1
            self.convolution = nn.Conv1d(dim, dim, kernel, padding="same")
            self.reader_dropout = reader_dropout
            self.transformer = TransformerEncoder(
                num_layers=n_layers,
                nhead=heads,
                d_ffn=feedforward,
                d_model=dim,
                dropout=dropout,
                activation=nn.GELU,
                normalize_before=True,
            )
            size += dim
        self.head = ProjectionHead(size, joint_dim, head_dropout)
        self.cache = EncodedCaptions(cache_gb if tuning == "frozen" else 0.0)
        self.encoder.register_load_state_dict_post_hook(partial(_forget, self.cache))

    def train(self, mode: bool = True) -> PretrainedTextTower:
        """Switch dropout; frozen layers never have any."""
        super().train(mode)
        self.encoder.eval()
        for part in self.trained:
            part.train(mode)
        return self

    def pooled(self, tokens: Tensor, padding_mask: Tensor) -> Tensor:
        """Return what the head gets, [B, hidden size]; ``dim`` more with the pooling tokens."""
        if self.training and self.cache.limit > 0:
            found = self.cache(tokens, padding_mask, self._encode)
        else:
            found = self._encode(tokens, padding_mask)
        found = found.float()
        if self.pooling != "tokens":
            return found
        mean, states = found[:, 0], found[:, 1:]
        states = self.projection(states).masked_fill(padding_mask[..., None], 0.0)
        near = self.convolution(states.transpose(1, 2)).transpose(1, 2)
        states = states + nn.functional.gelu(near)
        states, _ = self.transformer(states, src_key_padding_mask=padding_mask)
        read = masked_mean(states, padding_mask)
        if self.training:
            read = read * (torch.rand(len(read), 1, device=read.device) >= self.reader_dropout)
        return torch.cat([read, mean], dim=-1)

    def _encode(self, tokens: Tensor, padding_mask: Tensor) -> Tensor:
        """Return what depends on the encoder alone, [B, hidden size].

        With the pooling tokens [B, 1 + L, hidden size]: the mean, and the tokens' states.
        """
        tokens = tokens.masked_fill(padding_mask, self.padding)
        outputs = self.encoder(
            input_ids=tokens,
            attention_mask=(~padding_mask).long(),
            output_hidden_states=self.pooling == "tokens" and not self.reads_last_layer,
        )
        if self.pooling == "pooler":
            return outputs.pooler_output
        if self.pooling == "first":
            return outputs.last_hidden_state[:, 0]
        mean = masked_mean(outputs.last_hidden_state, padding_mask)
        if self.pooling == "mean":
            return mean
        # Of some families hidden_states[-1] is without the last normalization.
        last = self.reads_last_layer
        states = outputs.last_hidden_state if last else outputs.hidden_states[self.read_layer]
        return torch.cat([mean[:, None], states], dim=1)

    def arguments(self) -> dict[str, Any]:
        """Return the configuration of the encoder, so that a model folder contains it."""
        return {"config": config_of(self.encoder)}

    def cast(self, dtype: torch.dtype) -> None:
        """Compute the encoder in another precision; what follows it stays float32."""
        self.encoder.to(dtype)


class EncodedCaptions:
    """What a frozen encoder gave for captions that it has seen, in float16 on the CPU.

    Captions of one length are encoded together, without padding.

    Arguments
    ---------
    limit : float
        Memory [GB] that may be filled; captions beyond it are encoded every time.

    Example
    -------
    >>> tokens = torch.tensor([[3, 4, 5], [6, 7, 0], [6, 7, 0]])
    >>> cache = EncodedCaptions(limit=1.0)
    >>> cache(tokens, tokens == 0, lambda tokens, padding_mask: tokens[..., None])[1].tolist()
    [[6.0], [7.0], [0.0]]
    >>> len(cache)
    2
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.clear()

    def clear(self) -> None:
        """Forget all captions, as when the encoder's weights change."""
        self.encoded: dict[tuple[int, ...], Tensor] = {}
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self.encoded)

    def __deepcopy__(self, memo: dict) -> EncodedCaptions:
        return EncodedCaptions(self.limit)  # of a copied encoder, whose weights may change

    @torch.no_grad()
    def __call__(
        self, tokens: Tensor, padding_mask: Tensor, encode: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Encode captions.

        Arguments
        ---------
        tokens, padding_mask : Tensor
            [B, L] as for the tower.
        encode : callable
            (tokens, padding_mask) -> [B, D], or [B, L + N, D] for N vectors and those of tokens.

        Returns
        -------
        Tensor
            As ``encode`` returns, float16, zero on padding.
        """
        n_tokens = (~padding_mask).sum(dim=1).tolist()
        rows = [tuple(row[:n]) for row, n in zip(tokens.tolist(), n_tokens)]
        found = {row: self.encoded[row] for row in rows if row in self.encoded}
        missing: dict[int, list[tuple[int, ...]]] = {}
        for row in dict.fromkeys(rows):
            if row not in found:
                missing.setdefault(len(row), []).append(row)
        for group in missing.values():
            batch = torch.tensor(group, device=tokens.device)
            # Copies: a view would keep the whole batch in memory.
            encoded = encode(batch, torch.zeros_like(batch, dtype=torch.bool)).half().cpu()
            new = {row: states.clone() for row, states in zip(group, encoded)}
            found |= new
            size = encoded.element_size() * encoded.numel()
            if self.n_bytes + size <= self.limit * 1e9:
                self.encoded |= new
                self.n_bytes += size
        states = [found[row] for row in rows]
        if states[0].dim() == 1:
            return torch.stack(states).to(tokens.device)
        further = len(states[0]) - len(rows[0])  # vectors, beside those of tokens
        joined = states[0].new_zeros(len(rows), tokens.shape[1] + further, states[0].shape[-1])
        for place, part in zip(joined, states):
            place[: len(part)] = part
        return joined.to(tokens.device)


def _forget(cache: EncodedCaptions, *_: Any) -> None:
    cache.clear()


def build_encoder(config: Mapping[str, Any]) -> Any:
    """Build an encoder of transformers with random weights.

    Arguments
    ---------
    config : dict
        As in a ``config.json``.

    Raises
    ------
    ValueError
        If transformers itself has no such encoder of text; code from elsewhere is not run.
    """
    from transformers import MODEL_MAPPING, AutoModel  # takes seconds to import

    made = parse_config(config)
    if type(made) not in MODEL_MAPPING or made.is_encoder_decoder:
        raise ValueError(f"A {made.model_type} is not a text encoder")
    encoder = AutoModel.from_config(made, trust_remote_code=False)
    if not hasattr(encoder, "embeddings") or not hasattr(made, "vocab_size"):
        raise ValueError(f"A {made.model_type} is not a text encoder")
    return encoder


def _layers(encoder: Any) -> nn.ModuleList:
    """Return the list of an encoder's layers, which has another name in each family."""
    for module in encoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == encoder.config.num_hidden_layers:
            return module
    raise ValueError(
        f"The layers of a {encoder.config.model_type} encoder cannot be told apart: tune all of"
        " it, adapters, or nothing"
    )


def _max_tokens(encoder: Any) -> int:
    """Return how long a caption may be; RoBERTa and MPNet count positions from padding + 1."""
    table = getattr(encoder.embeddings, "position_embeddings", None)
    first = getattr(table, "padding_idx", None)
    return encoder.config.max_position_embeddings - (0 if first is None else first + 1)
