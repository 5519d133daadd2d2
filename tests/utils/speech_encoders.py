"""Small speech encoders of several families, as transformers saves them."""

import json
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
CONVOLUTIONS = {
    "conv_dim": [8, 8, 8],
    "conv_kernel": [10, 8, 4],
    "conv_stride": [8, 8, 5],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
# Name -> what is in its configuration. Base models have a group norm, large ones layer norms.
ENCODERS = {
    "wav2vec2-base": {"model_type": "wav2vec2", **CONVOLUTIONS, **GROUP},
    "wav2vec2-large": {"model_type": "wav2vec2", **CONVOLUTIONS, **LAYER},
    "hubert-base": {"model_type": "hubert", **CONVOLUTIONS, **GROUP},
    "hubert-large": {"model_type": "hubert", **CONVOLUTIONS, **LAYER},
    "wavlm-base": {"model_type": "wavlm", **CONVOLUTIONS, **GROUP},
    "wavlm-large": {"model_type": "wavlm", **CONVOLUTIONS, **LAYER},
    "unispeech": {"model_type": "unispeech", **CONVOLUTIONS, **LAYER},
    "unispeech-sat": {"model_type": "unispeech-sat", **CONVOLUTIONS, **GROUP},
    "w2v-bert": {"model_type": "wav2vec2-bert", "feature_projection_input_dim": 160},
    "whisper": {
        "model_type": "whisper",
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 16,
        "vocab_size": 40,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
        "num_mel_bins": 80,
        "max_source_positions": 100,  # 2 s
    },
}


def speech_encoder_config(name: str) -> dict:
    """Return a small encoder's ``config.json``."""
    own = ENCODERS[name]
    return own if name == "whisper" else {**SIZE, **own}


def feature_extractor(name: str):
    """Return the feature extractor of transformers for an encoder."""
    if name == "whisper":
        return WhisperFeatureExtractor(chunk_length=2)
    if name == "w2v-bert":
        return SeamlessM4TFeatureExtractor()
    return Wav2Vec2FeatureExtractor(do_normalize=name != "wavlm-base", return_attention_mask=True)


def write_speech_encoder(folder: Path, name: str) -> torch.nn.Module:
    """Write a random encoder with config.json, safetensors and preprocessor; returns it."""
    torch.manual_seed(0)
    encoder = AutoModel.from_config(AutoConfig.for_model(**speech_encoder_config(name))).eval()
    with torch.no_grad():  # far from where all frames look alike
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    encoder.save_pretrained(folder)
    feature_extractor(name).save_pretrained(folder)
    assert json.loads((folder / "preprocessor_config.json").read_text())["sampling_rate"] == 16000
    return encoder
