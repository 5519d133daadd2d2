"""A speech tower around a pretrained encoder of transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_clsp.lobes.encoders import (
    choose_trained,
    config_of,
    enable_checkpointing,
    parse_config,
)
from speechbrain_clsp.lobes.features import SAMPLE_RATE
from speechbrain_clsp.lobes.head import ProjectionHead
from speechbrain_clsp.lobes.pooling import MomentPooling
from speechbrain_clsp.lobes.speech_inputs import (
    PaddedFrontEnd,
    SampleInputs,
    StackedFbankInputs,
    WhisperInputs,
)
from speechbrain_clsp.nnet.masking import full_precision, padding_mask, valid_lengths

LAYERS = ("last", "weighted")
# Encoders whose frames do not depend on padding. Others let it in, for instance data2vec-audio by
# its stacked positional convolutions and the Conformer of wav2vec 2.0 by its convolution modules.
FAMILIES = ("hubert", "unispeech", "unispeech-sat", "wav2vec2", "wav2vec2-bert", "wavlm", "whisper")
# Nothing in training that draws from numpy's generator, or leaves parameters without gradients.
PLAIN = {"layerdrop": 0.0, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "add_adapter": False}
SHORTEST = 1600  # samples: 0.1 s, the shortest clip that any tower takes


class PretrainedSpeechTower(nn.Module):
    """A speech encoder of transformers (WavLM, HuBERT, wav2vec 2.0, w2v-BERT, Whisper) and a head.

    A clip has the same embedding alone and in any batch, to 1e-4, with every encoder that is taken:
    ``hubert``, ``unispeech``, ``unispeech-sat``, ``wav2vec2``, ``wav2vec2-bert``, ``wavlm`` and
    ``whisper``. Group norms over time, as in the base models of wav2vec 2.0, HuBERT and WavLM, see
    a clip's own frames only (:class:`~speechbrain_clsp.lobes.speech_inputs.PaddedFrontEnd`).
    Whisper's encoder computes 30 s for each clip, however short, and takes none that is longer.

    The encoder has random weights until they are loaded:
    :func:`~speechbrain_clsp.training.initialization.from_pretrained_encoders` loads those of a
    folder or a Hub repository, a model folder its own. Code that comes with weights is never run.
    SpeechBrain's lobes around such encoders fetch weights when they are built, which a model folder
    must not; normalize samples and levels over the whole batch; and keep frozen dropout on.

    Arguments
    ---------
    config : dict
        The encoder's configuration, as in its ``config.json``; see
        :func:`~speechbrain_clsp.pretrained.hub.read_encoder_config`. SpecAugment, skipped layers
        and added adapters in it are turned off.
    do_normalize : bool
        Whether the encoder reads samples of zero mean and unit variance; see
        :func:`~speechbrain_clsp.pretrained.hub.read_do_normalize`. w2v-BERT and Whisper have
        features of their own.
    layers : str
        What the head gets: the ``last`` layer, or a ``weighted`` sum of all, whose weights are
        trained.
    tuning : str or int
        What of the encoder is trained: nothing (``frozen``), its last so many layers, ``all``, or
        low-rank adapters (``lora``, arXiv 2106.09685) of all linear layers.
    lora_rank : int
        Rank of the adapters.
    checkpoint_layers : bool
        Whether layers that are trained keep their inputs only, and are computed again in the
        backward pass.
    joint_dim : int
        Size D of the shared space.
    moments, moment_gain : int, float
        See :class:`~speechbrain_clsp.lobes.pooling.MomentPooling`.
    head_dropout : float
        Rate inside the head, in training only.

    Raises
    ------
    ValueError
        If ``config`` is not that of an encoder that is taken, or an option is unknown.

    Example
    -------
    >>> size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    >>> config = {"model_type": "wavlm", "intermediate_size": 32, **size}
    >>> tower = PretrainedSpeechTower(config, tuning=1, joint_dim=8).eval()
    >>> tower(torch.randn(2, 16000), torch.tensor([1.0, 0.7])).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        do_normalize: bool = True,
        layers: str = "weighted",
        tuning: str | int = "frozen",
        lora_rank: int = 8,
        checkpoint_layers: bool = False,
        joint_dim: int = 512,
        moments: int = 0,
        moment_gain: float = 0.0,
        head_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if layers not in LAYERS:
            raise ValueError(f"layers must be one of {list(LAYERS)}, not {layers!r}")
        self.options = {
            "config": dict(config),
            "do_normalize": do_normalize,
            "layers": layers,
            "tuning": tuning,
            "lora_rank": lora_rank,
            "checkpoint_layers": checkpoint_layers,
            "joint_dim": joint_dim,
            "moments": moments,
            "moment_gain": moment_gain,
            "head_dropout": head_dropout,
        }
        self.encoder = build_speech_encoder(config)
        self.do_normalize = do_normalize
        self.is_weighted = layers == "weighted"
        self.inputs = _make_inputs(self.encoder.config, do_normalize)
        self.trained = choose_trained(self.encoder, _layers(self.encoder), tuning, lora_rank)
        if checkpoint_layers:
            enable_checkpointing(self.encoder)
        self.head = LayersHead(
            self.encoder.config.num_hidden_layers + 1 if self.is_weighted else 1,
            self.encoder.config.hidden_size,
            joint_dim,
            moments,
            moment_gain,
            head_dropout,
        )

    def train(self, mode: bool = True) -> PretrainedSpeechTower:
        """Switch dropout; frozen layers never have any."""
        super().train(mode)
        self.encoder.eval()
        for part in self.trained:
            part.train(mode)
        return self

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed speech.

        Arguments
        ---------
        wavs : Tensor
            [B, T] float32, 16 kHz, in [-1, 1], zero padded.
        lengths : Tensor, optional
            [B] relative to T; default: no padding.

        Returns
        -------
        Tensor
            [B, D] float32 of unit norm.

        Raises
        ------
        ValueError
            If a clip is shorter than 0.1 s, or longer than the encoder takes.
        """
        states, mask = self.encode(wavs, lengths)
        return self.head(states, mask)

    def encode(
        self, wavs: Tensor, lengths: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return what the head gets: states of layers, each [B, F, H], and their padding mask."""
        n_samples = valid_lengths(lengths, wavs.shape[1], wavs.shape[0], wavs.device)
        if rows := (n_samples < SHORTEST).nonzero().flatten().tolist():
            raise ValueError(f"The clips in rows {rows} are shorter than 0.1 s: leave them out")
        inputs, n_frames = self.inputs(wavs, n_samples)
        own = next(self.encoder.parameters()).dtype
        if "input_features" in inputs:
            inputs["input_features"] = inputs["input_features"].to(own)
        outputs = self.encoder(**inputs, output_hidden_states=self.is_weighted)
        states = (outputs.last_hidden_state,)
        if self.is_weighted:  # the last one behind the encoder's last norm, so that all is used
            states = (*outputs.hidden_states[:-1], *states)
        return states, padding_mask(n_frames, states[0].shape[1])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle options and weights, since torch does not pickle modules with weight norm."""
        is_trained = [p.requires_grad for p in self.parameters()]
        return _rebuild, (self.options, self.state_dict(), is_trained, self.training)

    @property
    def max_seconds(self) -> float:
        """Length of the longest clip that the encoder takes."""
        inputs = self.inputs
        return inputs.max_samples / SAMPLE_RATE if isinstance(inputs, WhisperInputs) else math.inf

    def arguments(self) -> dict[str, Any]:
        """Return what describes the encoder, so that a model folder contains it."""
        return {"config": config_of(self.encoder), "do_normalize": self.do_normalize}

    def cast(self, dtype: torch.dtype) -> None:
        """Compute the encoder in another precision; features and head stay float32."""
        self.encoder.to(dtype)


class LayersHead(nn.Module):
    """What is trained from scratch on an encoder: weights of its layers, pooling, projection.

    Arguments
    ---------
    n_states : int
        Layers that are summed, with a softmax of trained weights; 1 for no sum.
    dim : int
        Size H of their states.
    joint_dim : int
        Size D of the shared space.
    moments, moment_gain : int, float
        Of the pooling.
    dropout : float
        Of the projection.

    Example
    -------
    >>> head = LayersHead(3, 8, joint_dim=4)
    >>> states, mask = [torch.randn(2, 5, 8)] * 3, torch.zeros(2, 5, dtype=torch.bool)
    >>> head(states, mask).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        n_states: int,
        dim: int,
        joint_dim: int = 512,
        moments: int = 0,
        moment_gain: float = 0.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        # Ones, since ScaledAdam steps in proportion to a parameter's size.
        self.layer_weights = nn.Parameter(torch.ones(n_states)) if n_states > 1 else None
        self.pooling = MomentPooling(dim, moments, moment_gain)
        self.projection = ProjectionHead(dim, joint_dim, dropout)

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Map states, each [B, F, H], with a mask that is True on padding, to [B, D]."""
        frames = full_precision(states[0])
        if self.layer_weights is not None:
            weights = full_precision(self.layer_weights).softmax(dim=0)
            frames = frames * weights[0]
            for weight, layer in zip(weights[1:], states[1:]):
                frames = frames + weight * full_precision(layer)
        return self.projection(self.pooling(frames, mask))


def _rebuild(
    options: dict[str, Any], state: dict[str, Tensor], is_trained: list[bool], training: bool
) -> PretrainedSpeechTower:
    """Build the tower that was pickled or copied."""
    tower = PretrainedSpeechTower(**options)
    tower.load_state_dict(state, assign=True)
    for parameter, each in zip(tower.parameters(), is_trained):
        parameter.requires_grad_(each)
    return tower.to(next(tower.parameters()).device).train(training)


def build_speech_encoder(config: Mapping[str, Any]) -> Any:
    """Build a speech encoder of transformers with random weights.

    Arguments
    ---------
    config : dict
        As in a ``config.json``. Of a Whisper only the encoder is built.

    Raises
    ------
    ValueError
        If it is of a family whose frames depend on padding, or is not a speech encoder.
    """
    from transformers import AutoModel  # takes seconds to import

    kind = config.get("model_type")
    made = parse_config(config)
    if kind not in FAMILIES:
        raise ValueError(
            f"A {kind} is not a speech encoder, or its frames depend on padding: choose one of"
            f" {list(FAMILIES)}"
        )
    if getattr(made, "conv_pos_batch_norm", False):
        raise ValueError(
            f"This {kind} has a batch norm before its positional convolution, so that its frames"
            " depend on padding: choose one with conv_pos_batch_norm false"
        )
    for name, value in PLAIN.items():
        if hasattr(made, name):
            setattr(made, name, value)
    if kind == "whisper":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        made.encoder_layerdrop = 0.0
        return WhisperEncoder(made)
    encoder = AutoModel.from_config(made, trust_remote_code=False)
    if kind != "wav2vec2-bert":
        encoder.feature_extractor = PaddedFrontEnd(encoder.feature_extractor)
    return encoder


def _make_inputs(config: Any, do_normalize: bool) -> nn.Module:
    if config.model_type == "whisper":
        return WhisperInputs(config.num_mel_bins, config.max_source_positions)
    if config.model_type == "wav2vec2-bert":
        return StackedFbankInputs(config.feature_projection_input_dim // 2)
    return SampleInputs(config, do_normalize)


def _layers(encoder: Any) -> list[nn.Module]:
    return list(getattr(encoder, "encoder", encoder).layers)
