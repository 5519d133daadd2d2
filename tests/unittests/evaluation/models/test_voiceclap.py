"""A small VoiceCLAP from a folder of the published layout, against its formulas in float64."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import conv1d, gelu, layer_norm, linear, normalize
from transformers import BertConfig, BertModel, WhisperFeatureExtractor

from speechbrain_clsp.evaluation.models import open_model
from speechbrain_clsp.evaluation.models.base import read_at
from tests.utils.small import CAPTIONS, tone, write
from tests.utils.text_encoders import write_tokenizer

WIDTH, HEADS, LAYERS, CONTEXT, JOINT, HIDDEN = 16, 2, 2, 100, 12, 10  # 100 frames are 2 s
CONFIG = {
    "model_type": "voiceclap-small",
    "auto_map": {"AutoModel": "modeling_voiceclap.VoiceCLAPSmall"},
    **{"n_mels": 80, "n_ctx": CONTEXT, "n_state": WIDTH, "n_head": HEADS, "n_layer": LAYERS},
    **{"embed_dim": JOINT, "text_proj_hidden": HIDDEN, "text_hidden_dim": 8},
    **{"text_num_layers": 2, "text_num_heads": 2, "text_intermediate_size": 12},
    **{"text_vocab_size": 60, "text_max_position_embeddings": 64, "text_pad_token_id": 0},
    "text_layer_norm_eps": 1e-12,
}
BERT = BertConfig(
    vocab_size=60,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=64,
    pad_token_id=0,
)


def random_weights() -> dict[str, torch.Tensor]:
    """Return weights under OpenAI's names for Whisper, as open_clip has them."""
    torch.manual_seed(0)
    shapes = {
        "conv1.weight": (WIDTH, 80, 3),
        "conv2.weight": (WIDTH, WIDTH, 3),
        "positional_embedding": (CONTEXT, WIDTH),
        "proj.weight": (JOINT, WIDTH),
        **{f"{name}.bias": (WIDTH,) for name in ("conv1", "conv2", "ln_post")},
        "ln_post.weight": (WIDTH,),
        "proj.bias": (JOINT,),
    }
    for i in range(LAYERS):
        for name, rows, columns in (
            *((f"attn.{part}", WIDTH, WIDTH) for part in ("query", "key", "value", "out")),
            ("mlp.0", 4 * WIDTH, WIDTH),
            ("mlp.2", WIDTH, 4 * WIDTH),
        ):
            shapes[f"blocks.{i}.{name}.weight"] = (rows, columns)
            if name != "attn.key":
                shapes[f"blocks.{i}.{name}.bias"] = (rows,)
        for name in ("attn_ln", "mlp_ln"):
            shapes |= {f"blocks.{i}.{name}.{part}": (WIDTH,) for part in ("weight", "bias")}
    shapes = {f"audio_encoder.{name}": shape for name, shape in shapes.items()}
    for layer in (0, 2):
        shapes |= {
            f"audio_proj.{layer}.weight": (JOINT, JOINT),
            f"audio_proj.{layer}.bias": (JOINT,),
        }
    shapes |= {"text_proj.0.weight": (HIDDEN, 8), "text_proj.2.weight": (JOINT, HIDDEN)}
    weights = {name: 0.3 * torch.randn(shape) for name, shape in shapes.items()}
    text = BertModel(BERT, add_pooling_layer=False).state_dict()
    weights |= {
        f"text_encoder.{name}": 0.4 * torch.randn(value.shape)
        for name, value in text.items()
        if value.is_floating_point()
    }
    filters = WhisperFeatureExtractor(chunk_length=2).mel_filters.T
    scalars = {"logit_scale": torch.tensor(2.0), "logit_bias": torch.tensor(-10.0)}
    return {**weights, **scalars, "mel_filters": torch.tensor(filters.copy(), dtype=torch.float32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of the published layout."""
    folder = tmp_path_factory.mktemp("voiceclap")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(random_weights(), folder / "model.safetensors")
    write_tokenizer(folder, "bert", CAPTIONS)
    return folder


def attend(x: torch.Tensor, w: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute self-attention over [T, D] by its formula."""
    query = linear(x, w["query.weight"], w["query.bias"])
    key, value = linear(x, w["key.weight"]), linear(x, w["value.weight"], w["value.bias"])
    mixed = []
    for q, k, v in zip(*(part.chunk(HEADS, dim=1) for part in (query, key, value))):
        mixed.append(((q @ k.T) / (WIDTH // HEADS) ** 0.5).softmax(dim=1) @ v)
    return linear(torch.cat(mixed, dim=1), w["out.weight"], w["out.bias"])


def expected_speech(wav: np.ndarray, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute the embedding of a clip in float64, window by window of 2 s."""

    def of(prefix: str) -> dict[str, torch.Tensor]:
        return {
            name.removeprefix(prefix): value.double()
            for name, value in weights.items()
            if name.startswith(prefix)
        }

    def norm(x: torch.Tensor, w: dict, name: str) -> torch.Tensor:
        return layer_norm(x, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"])

    extractor, top = WhisperFeatureExtractor(chunk_length=2), of("audio_encoder.")
    vectors = []
    for start in range(0, len(wav), 32000):
        part = np.pad(wav[start : start + 32000], (0, max(0, start + 32000 - len(wav))))
        features = extractor(part, sampling_rate=16000, return_tensors="pt").input_features
        x = gelu(conv1d(features.double(), top["conv1.weight"], top["conv1.bias"], padding=1))
        x = gelu(conv1d(x, top["conv2.weight"], top["conv2.bias"], stride=2, padding=1))
        x = x[0].T + top["positional_embedding"]
        for i in range(LAYERS):
            w = of(f"audio_encoder.blocks.{i}.")
            own = of(f"audio_encoder.blocks.{i}.attn.")
            x = x + attend(norm(x, w, "attn_ln"), own)
            inner = gelu(linear(norm(x, w, "mlp_ln"), w["mlp.0.weight"], w["mlp.0.bias"]))
            x = x + linear(inner, w["mlp.2.weight"], w["mlp.2.bias"])
        x = norm((x[0::2] + x[1::2]) / 2, top, "ln_post")
        pooled = linear(x, top["proj.weight"], top["proj.bias"]).mean(dim=0)
        w = of("audio_proj.")
        inner = gelu(linear(pooled, w["0.weight"], w["0.bias"]))
        vectors.append(normalize(linear(inner, w["2.weight"], w["2.bias"]), dim=0))
    return normalize(torch.stack(vectors).mean(dim=0), dim=0)


def test_speech_is_embedded_by_the_published_formulas(folder, tmp_path):
    """Clips shorter than a window, of another rate, and of more than one window."""
    stereo = np.stack([tone(1.0, 48000, 220), tone(1.0, 48000, 330)], axis=1)
    clips = [
        str(write(tmp_path / "short.wav", tone(0.5))),
        str(write(tmp_path / "other.wav", stereo, 48000)),
        str(write(tmp_path / "long.wav", tone(4.7, frequency=300))),
    ]
    model, weights = open_model(f"voiceclap:{folder}"), load_file(folder / "model.safetensors")
    found = model.encode_files(clips)
    assert found.shape == (3, JOINT) and found.dtype == torch.float32
    for clip, vector in zip(clips, found):
        expected = expected_speech(read_at(clip, 16000), weights)
        torch.testing.assert_close(vector.double(), expected, rtol=0, atol=2e-5)
    assert (found @ found.T).fill_diagonal_(0).max() < 0.9999  # no two alike
    torch.testing.assert_close(model.encode_files(clips[:1])[0], found[0])


def test_captions_are_embedded_by_the_mean_of_their_tokens(folder):
    model, weights = open_model(f"voiceclap:{folder}"), load_file(folder / "model.safetensors")
    bert = BertModel(BERT, add_pooling_layer=False).double().eval()
    prefix = "text_encoder."
    own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    bert.load_state_dict(own, strict=False)
    found = model.encode_text(CAPTIONS)
    for caption, vector in zip(CAPTIONS, found):
        tokens = torch.tensor([model.tokenizer(caption)["input_ids"]])
        assert tokens[0, 0] == 2 and tokens[0, -1] == 3  # [CLS] and [SEP]
        with torch.no_grad():
            mean = bert(tokens).last_hidden_state[0].mean(dim=0)
        inner = gelu(linear(mean, weights["text_proj.0.weight"].double()))
        expected = normalize(linear(inner, weights["text_proj.2.weight"].double()), dim=0)
        torch.testing.assert_close(vector.double(), expected, rtol=0, atol=2e-5)
    assert (found @ found.T).fill_diagonal_(0).max() < 0.9999


def test_the_network_has_as_many_weights_as_the_published_one():
    """113,170,898, with scale, bias and mel filters, is what mteb states of voiceclap-small."""
    from speechbrain_clsp.evaluation.models.voiceclap import make_network

    published = CONFIG | {"n_ctx": 1500, "n_state": 768, "n_head": 12, "n_layer": 12}
    published |= {"embed_dim": 768, "text_proj_hidden": 576, "text_hidden_dim": 384}
    published |= {"text_num_layers": 6, "text_num_heads": 12, "text_intermediate_size": 1536}
    published |= {"text_vocab_size": 30522, "text_max_position_embeddings": 512}
    with torch.device("meta"):
        network = make_network(published)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count + 2 + 80 * 201 == 113_170_898


def test_what_is_no_small_voiceclap_is_named(folder, tmp_path):
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    weights = load_file(folder / "model.safetensors")

    def refusal(state: dict | None = None, **config) -> str:
        (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **config}))
        save_file(weights if state is None else state, tmp_path / "model.safetensors")
        with pytest.raises(ValueError) as caught:
            open_model(f"voiceclap:{tmp_path}")
        return str(caught.value)

    reason = refusal(model_type="qwen2_5_omni_thinker")
    assert "is a qwen2_5_omni_thinker, not a voiceclap-small: its network is remote code" in reason
    missing = {k: v for k, v in weights.items() if k != "audio_proj.2.bias"}
    assert "does not fit the model: missing audio_proj.2.bias" in refusal(missing)
    assert "unexpected head.weight" in refusal({**weights, "head.weight": torch.ones(2)})
    assert "has shape [16], not [24]" in refusal(n_state=24)
    other = {**weights, "mel_filters": weights["mel_filters"].flip(0)}
    assert "its mel_filters are not those of Whisper" in refusal(other)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "voiceclap-small"}))
    with pytest.raises(ValueError, match="config.json lacks 'n_state'"):
        open_model(f"voiceclap:{tmp_path}")
