"""VoiceCLAP's small models: a Whisper encoder, a MiniLM, and a projection behind each.

Their network is remote code, which is never run here; this is one of the same parts, put together
from what is public about it:

- ``config.json`` and ``preprocessor_config.json`` of ``VoiceNet/voiceclap-small``: sizes, 16 kHz,
  80 mel bins, clips padded with zeros to 30 s;
- the card of ``laion/voiceclap-commercial``: the same network, on other data;
- ``open_clip`` (src/open_clip/whisper.py, audio.py, hf_model.py), whose CLAP of Whisper it is: the
  encoder's frames are averaged in pairs before the last norm, mapped by a linear layer, averaged
  over all 30 s and projected (linear, GELU, linear); token states are averaged without padding, and
  projected the same way without biases. The number of weights that mteb states, 113,170,898, is
  that of this network with mel filters, scale and bias;
- longer clips are cut into windows of 30 s, of which the last is padded; the unit vectors of
  windows are averaged.

Assumed and not checked against the published weights: names of their tensors, each of which must
find its place, and that short clips are padded by the authors' code, as by their preprocessor.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, pad
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.evaluation.models.base import DualEncoderBase, read_at, state_of, unit
from speechbrain_clsp.lobes.speech_inputs import WhisperInputs
from speechbrain_clsp.nnet.masking import masked_mean
from speechbrain_clsp.pretrained.folder import CONFIG, WEIGHTS, load_state, open_weights
from speechbrain_clsp.pretrained.hub import find_file
from speechbrain_clsp.utils.reading import read_json

KIND = "voiceclap-small"  # model_type of config.json
TOKENIZER = "tokenizer.json"
FILTERS = "mel_filters"
UNUSED = ("logit_scale", "logit_bias", FILTERS, "text_encoder.embeddings.position_ids")
# OpenAI's names of a Whisper's weights -> those of transformers.
NAMES = (
    (r"^audio_encoder\.blocks\.", "audio_encoder.layers."),
    (r"\.attn\.(out|q|k|v)(?:uery|ey|alue)?\.", r".self_attn.\1_proj."),
    (r"\.attn_ln\.", ".self_attn_layer_norm."),
    (r"\.mlp_ln\.", ".final_layer_norm."),
    (r"\.mlp\.0\.", ".fc1."),
    (r"\.mlp\.2\.", ".fc2."),
    (r"\.positional_embedding$", ".embed_positions.weight"),
    (r"^audio_encoder\.ln_post\.", "audio_encoder.layer_norm.norm."),
    (r"^audio_encoder\.proj\.", "frame_proj."),
)


class _PooledNorm(nn.Module):
    """The mean of each pair of frames, normed."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, frames: Tensor) -> Tensor:
        """Map [B, T, D] to [B, T // 2, D]."""
        return self.norm(avg_pool1d(frames.transpose(1, 2), 2).transpose(1, 2))


def make_network(config: dict[str, Any]) -> nn.ModuleDict:
    """Return the network of a ``config.json``, in eval mode.

    Its parts are ``audio_encoder``, ``frame_proj``, ``audio_proj``, ``text_encoder`` and
    ``text_proj``.

    Raises
    ------
    ValueError
        If the configuration lacks a size.
    """
    try:
        width, joint, hidden = (config[k] for k in ("n_state", "embed_dim", "text_proj_hidden"))
        whisper = WhisperConfig(
            d_model=width,
            encoder_layers=config["n_layer"],
            encoder_attention_heads=config["n_head"],
            encoder_ffn_dim=4 * width,
            num_mel_bins=config["n_mels"],
            max_source_positions=config["n_ctx"],
        )
        bert = BertConfig(
            vocab_size=config["text_vocab_size"],
            hidden_size=config["text_hidden_dim"],
            num_hidden_layers=config["text_num_layers"],
            num_attention_heads=config["text_num_heads"],
            intermediate_size=config["text_intermediate_size"],
            max_position_embeddings=config["text_max_position_embeddings"],
            layer_norm_eps=config["text_layer_norm_eps"],
            pad_token_id=config["text_pad_token_id"],
        )
    except KeyError as error:
        raise ValueError(f"{CONFIG} lacks {error}: it is not that of a {KIND}") from error
    encoder = WhisperEncoder(whisper)
    encoder.layer_norm = _PooledNorm(width)
    parts: dict[str, nn.Module] = {
        "audio_encoder": encoder,
        "frame_proj": nn.Linear(width, joint),
        "audio_proj": nn.Sequential(nn.Linear(joint, joint), nn.GELU(), nn.Linear(joint, joint)),
        "text_encoder": BertModel(bert, add_pooling_layer=False),
        "text_proj": nn.Sequential(
            nn.Linear(bert.hidden_size, hidden, bias=False),
            nn.GELU(),
            nn.Linear(hidden, joint, bias=False),
        ),
    }
    return nn.ModuleDict(parts).eval()


def to_ours(key: str) -> str:
    """Return the name that a tensor of a checkpoint has in the network.

    Example
    -------
    >>> to_ours("audio_encoder.blocks.3.attn.query.weight")
    'audio_encoder.layers.3.self_attn.q_proj.weight'
    >>> to_ours("text_proj.0.weight")
    'text_proj.0.weight'
    """
    for pattern, name in NAMES:
        key = re.sub(pattern, name, key)
    return key


class VoiceClapModel(DualEncoderBase):
    """A small VoiceCLAP, such as ``laion/voiceclap-commercial``, as a model to evaluate.

    Arguments
    ---------
    source : str
        Folder or Hub repository with ``config.json``, ``model.safetensors`` and
        ``tokenizer.json``; no code of it is run.
    revision : str, optional
        Of the repository.
    device : str
        Where it runs.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    ValueError
        If it is another model, such as VoiceCLAP-Large, or a tensor has no place, or none is there
        for a place.
    """

    def __init__(self, source: str, revision: str | None = None, device: str = "cpu") -> None:
        config = read_json(find_file(source, CONFIG, revision))
        kind = config.get("model_type") if isinstance(config, dict) else None
        if kind != KIND:
            raise ValueError(
                f"{source} is a {kind}, not a {KIND}: its network is remote code, which is not run;"
                " embed with the authors' code, and give file:x.npz"
            )
        self.network = make_network(config)
        self.inputs = WhisperInputs(config["n_mels"], config["n_ctx"])
        self._load(find_file(source, WEIGHTS, revision))
        self.network.to(device)
        self.inputs.to(device)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(find_file(source, TOKENIZER, revision)), pad_token="[PAD]"
        )
        super().__init__(
            source, state_of(source, revision, WEIGHTS), self.inputs, tokenizer, device
        )

    def _load(self, path: Path) -> None:
        with open_weights(path) as file:
            names = list(file.keys())
            state = {to_ours(name): file.get_tensor(name) for name in names if name not in UNUSED}
            filters = file.get_tensor(FILTERS) if FILTERS in names else self.inputs.banks
        load_state(state, dict(self.network.items()), path)
        self.network.float()
        banks = self.inputs.banks
        if filters.shape != banks.shape or not torch.allclose(filters.float(), banks, atol=1e-4):
            raise ValueError(f"{path}: its {FILTERS} are not those of Whisper")

    def _read(self, path: str) -> np.ndarray:
        return read_at(path, SAMPLE_RATE)

    def _embed_speech(self, wavs: list[np.ndarray]) -> Tensor:
        """Embed a single clip."""
        (wav,), size = wavs, self.inputs.max_samples
        samples = torch.from_numpy(wav).to(self.device)
        windows = pad(samples, (0, -len(samples) % size)).view(-1, size)
        n_samples = torch.full((len(windows),), size, device=self.device)
        features, _ = self.inputs(windows, n_samples)
        frames = self.network["audio_encoder"](**features).last_hidden_state
        pooled = self.network["frame_proj"](frames).mean(dim=1)
        return unit(self.network["audio_proj"](pooled)).mean(dim=0, keepdim=True)

    def _embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.network["text_encoder"](input_ids, attention_mask).last_hidden_state
        return self.network["text_proj"](masked_mean(states, attention_mask == 0))
