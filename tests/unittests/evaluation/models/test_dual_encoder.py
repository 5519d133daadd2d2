"""ParaSpeechCLAP and ParaCLAP from checkpoints in their published form, with tiny true encoders."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    XLMRobertaConfig,
)

from speechbrain_clsp.dataio.audio import AudioError
from speechbrain_clsp.evaluation.models import open_model
from speechbrain_clsp.evaluation.models.base import read_at
from speechbrain_clsp.evaluation.models.dual_encoder import KNOWN, DualEncoder
from tests.utils.hub_server import COMMIT, HubServer
from tests.utils.small import CAPTIONS, tone, write

SPEECH = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": (16, 16, 16, 16, 16, 16, 16),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_feat_extract_layers": 7,
}
TEXT = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 514,
}
JOINT = 20


def configs(kind: str, norm: str = "layer") -> tuple:
    """Return settings of the encoders that a kind of model has, small."""
    shape = {**SPEECH, "feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer"}
    if kind == "paraclap":
        return Wav2Vec2Config(**shape), BertConfig(**TEXT, pad_token_id=1)
    return WavLMConfig(**shape), XLMRobertaConfig(**TEXT, pad_token_id=1)


def write_tokenizer(folder) -> None:
    """Write a tokenizer of whole words between <s> and </s>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = sorted({word for caption in CAPTIONS for word in caption.split()})
    vocabulary = {w: i for i, w in enumerate(["<s>", "<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)


def write_model(folder, kind: str = "paraspeechclap", norm: str = "layer", name="x.pth.tar"):
    """Write a model of random weights as it is published, encoders' settings beside it."""
    torch.manual_seed(0)
    speech, text = configs(kind, norm)
    network = DualEncoder(speech, text, JOINT)
    with torch.no_grad():  # livelier than initial weights, whose embeddings are nearly constant
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    speech.save_pretrained(folder / "speech")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder / "speech")
    text.save_pretrained(folder / "text")
    write_tokenizer(folder / "text")
    scale = "log_logit_scale" if kind == "paraspeechclap" else "logit_scale"
    torch.save({**network.state_dict(), scale: torch.tensor(2.66)}, folder / name)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Return clips of mixed lengths, the second of 44.1 kHz stereo, one of a constant."""
    folder = tmp_path_factory.mktemp("clips")
    stereo = np.stack([tone(0.7, 44100, 220), tone(0.7, 44100, 330)], axis=1)
    return [
        str(write(folder / "a.wav", tone(1.2))),
        str(write(folder / "b.wav", stereo, 44100)),
        str(write(folder / "c.wav", 0.3 + tone(0.31, frequency=90))),
        str(write(folder / "d.wav", tone(0.05, frequency=300))),
    ]


def projected(state: dict, side: str, vector: torch.Tensor) -> torch.Tensor:
    """Compute the projection and the norm by their formulas, in float64."""
    weights = {
        key.removeprefix(f"{side}_projection."): value.double()
        for key, value in state.items()
        if key.startswith(f"{side}_projection.")
    }
    linear = weights["linear1.weight"] @ vector
    gelu = linear * 0.5 * (1 + torch.erf(linear / 2**0.5))
    summed = linear + weights["linear2.weight"] @ gelu
    centered = summed - summed.mean()
    normed = centered / (centered.square().mean() + 1e-5).sqrt()
    embedding = normed * weights["layer_norm.weight"] + weights["layer_norm.bias"]
    return embedding / embedding.square().sum().sqrt()


@pytest.mark.parametrize("kind", ["paraspeechclap", "paraclap"])
@torch.no_grad()
def test_embeddings_are_those_of_transformers_own_modules(tmp_path, clips, kind):
    folder = write_model(tmp_path, kind)
    model = open_model(f"{kind}:{folder}")
    state = torch.load(folder / "x.pth.tar", weights_only=True)
    encoders = []
    for branch, config in zip(("audio_branch", "text_branch"), configs(kind)):
        encoder = nn.Module()
        encoder.base = AutoModel.from_config(config)
        own = {k.removeprefix(f"{branch}."): v for k, v in state.items() if k.startswith(branch)}
        encoder.load_state_dict(own)
        encoders.append(encoder.base.double().eval())

    speech, text = model.encode_files(clips), model.encode_text(CAPTIONS)
    assert speech.shape == (4, JOINT) and text.shape == (3, JOINT) and speech.dtype == torch.float32
    for clip, found in zip(clips, speech):
        wav = torch.from_numpy(read_at(clip, 16000)).double()
        if kind == "paraspeechclap":  # zero mean, unit variance
            wav = (wav - wav.mean()) / (wav.var(correction=0) + 1e-7).sqrt()
        mean = encoders[0](wav[None]).last_hidden_state[0].mean(dim=0)
        expected = projected(state, "audio", mean)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)
    for caption, found in zip(CAPTIONS, text):
        tokens = torch.tensor([model.tokenizer(caption)["input_ids"]])
        first = encoders[1](tokens).last_hidden_state[0, 0]
        expected = projected(state, "text", first)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)
    assert (speech @ speech.T).fill_diagonal_(0).max() < 0.999  # no two alike


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_a_clip_has_one_embedding_alone_and_among_longer_ones(tmp_path, clips, norm):
    model = open_model(f"paraspeechclap:{write_model(tmp_path, norm=norm)}")
    together = model.encode_files(clips * 3)  # more than a batch
    for i, clip in enumerate(clips):
        alone = model.encode_files([clip])[0]
        for j in (i, i + 4, i + 8):
            torch.testing.assert_close(together[j], alone, rtol=0, atol=2e-5)
    texts = model.encode_text([*CAPTIONS, "A male"])
    torch.testing.assert_close(model.encode_text(["A male"])[0], texts[3], rtol=0, atol=2e-5)


def test_other_rates_are_resampled_and_long_captions_cut(tmp_path, clips):
    model = open_model(f"paraspeechclap:{write_model(tmp_path / 'm')}")
    write(tmp_path / "48.wav", tone(1.2, 48000), 48000)
    wrong = str(write(tmp_path / "wrong.wav", tone(1.2, 48000), 16000))
    same, stretched = model.encode_files([str(tmp_path / "48.wav"), wrong])
    own = model.encode_files(clips[:1])[0]
    assert own @ same > own @ stretched + 0.001 and own @ same > 0.999
    assert model.encode_text([" ".join(CAPTIONS * 100)]).isfinite().all()
    short = str(write(tmp_path / "short.wav", tone(0.02)))
    with pytest.raises(AudioError, match="short.wav: lasts 0.020 s"):
        model.encode_files([short])


def test_older_names_of_weight_norm_and_safetensors_are_read(tmp_path, clips):
    from safetensors.torch import save_file

    folder = write_model(tmp_path / "new")
    expected = open_model(f"paraspeechclap:{folder}").encode_files(clips[:1])
    state = torch.load(folder / "x.pth.tar", weights_only=True)
    conv = "audio_branch.base.encoder.pos_conv_embed.conv."
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        state[conv + old] = state.pop(f"{conv}parametrizations.weight.{new}")
    state["text_branch.base.embeddings.position_ids"] = torch.arange(514)[None]
    before = open_model(f"paraspeechclap:{folder}").revision
    torch.save(state, folder / "x.pth.tar")
    model = open_model(f"paraspeechclap:{folder}")
    torch.testing.assert_close(model.encode_files(clips[:1]), expected)
    assert model.revision != before
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "x.safetensors")
    (folder / "x.pth.tar").write_bytes(b"must not be read")
    model = open_model(f"paraspeechclap:{folder}")
    torch.testing.assert_close(model.encode_files(clips[:1]), expected)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        """Return what the unpickler calls."""
        return open, (str(self.path), "w")


def test_a_checkpoint_with_code_or_with_wrong_keys_is_refused(tmp_path):
    folder = write_model(tmp_path)
    path, spec = folder / "x.pth.tar", f"paraspeechclap:{folder}"
    good = torch.load(path, weights_only=True)
    key = "text_projection.linear2.weight"
    for content, message in (
        ({**good, "x": Trap(tmp_path / "sprung")}, "more than tensors"),
        ({"state_dict": good, "epoch": 3}, "must hold a state dict"),
        ({k: v for k, v in good.items() if k != key}, rf"lacks \['{key}'\]"),
        ({**good, "head.weight": torch.ones(1)}, r"without a place for them, \['head.weight'\]"),
        ({**good, key: torch.ones(2, 2)}, f"does not fit(.|\n)*{key}"),
        ({"other": torch.ones(1)}, "not a checkpoint of a dual encoder"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            open_model(spec)
    assert not (tmp_path / "sprung").exists()
    path.write_bytes(b"PK\x03\x04" + b"\0" * 50)
    with pytest.raises(ValueError, match="x.pth.tar is damaged"):
        open_model(spec)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="one \\*.safetensors or one"):
        open_model(spec)


SCRIPT = """
import sys
from speechbrain_clsp.evaluation.models import open_model
model = open_model(sys.argv[1])
print(model.revision, *model.encode_files([sys.argv[2]])[0].tolist())
"""


def test_a_repository_gives_weights_and_the_authors_encoders_settings(tmp_path, clips):
    folder = write_model(tmp_path / "m")
    server, published = HubServer(), KNOWN["paraspeechclap"]
    for part, repository in (("speech", published.speech), ("text", published.text)):
        for path in (folder / part).iterdir():
            server.files[repository, path.name] = path.read_bytes()
    name = "ajd12342/paraspeechclap-combined"
    server.files[name, "slap-combined.pth.tar"] = (folder / "x.pth.tar").read_bytes()
    environment = {**os.environ, "HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home")}
    expected = open_model(f"paraspeechclap:{folder}").encode_files(clips[:1])[0]
    for offline in "01":  # the second time from the cache
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, f"paraspeechclap:{name}", clips[0]],
            capture_output=True,
            text=True,
            env={**environment, "HF_HUB_OFFLINE": offline},
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        *states, values = done.stdout.split(maxsplit=3)
        assert states == [COMMIT] * 3
        found = torch.tensor([float(value) for value in values.split()])
        torch.testing.assert_close(found, expected)
    server.shutdown()
    assert not any("safetensors" in each for each in server.downloads())
    with pytest.raises(FileNotFoundError, match="None of .*best.pth.tar"):
        open_model("paraclap:nobody/nothing")
