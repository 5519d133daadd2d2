"""Models behind one protocol: ours, a CLAP of transformers, files; and the cache."""

import numpy as np
import pytest
import torch

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio.manifest import write_manifest
from speechbrain_clsp.evaluation.models.adapters import MOVING, RandomModel, open_model, read_at
from speechbrain_clsp.evaluation.models.cache import CachedModel
from speechbrain_clsp.evaluation.retrieval.metrics import retrieval_ranks
from tests.utils.small import CAPTIONS, model_folder, tone, write


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Return three clips: 16 kHz, 48 kHz stereo, and one of 25 s, longer than a CLAP's window."""
    folder = tmp_path_factory.mktemp("clips")
    stereo = np.stack([tone(1.0, 48000, 220)] * 2, axis=1)
    return [
        str(write(folder / "a.wav", tone(0.5))),
        str(write(folder / "b.wav", stereo, 48000)),
        str(write(folder / "c.wav", tone(25.0, 16000, 300))),
    ]


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory):
    """Return a folder with a tiny CLAP of random weights, as transformers saves it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clap")
    torch.manual_seed(0)
    audio = {
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "patch_embeds_hidden_size": 16,
        "hidden_size": 32,
        "projection_dim": 24,
    }
    text = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "projection_dim": 24,
        "pad_token_id": 1,
    }
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=24)).save_pretrained(
        folder
    )
    ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(folder)
    words = sorted({word for caption in CAPTIONS for word in caption.split()})
    vocabulary = {"<unk>": 0, "<pad>": 1} | {word: i + 2 for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def test_a_clap_hears_48_khz_whole_and_the_same_every_time(clap_folder, clips):
    """If this fails, a rival gets the wrong rate, or a random crop: its figures are not its own."""
    clap = open_model(f"clap:{clap_folder}")
    first = clap.encode_files(clips)
    np.random.seed(7)  # what transformers' random crop draws from
    torch.testing.assert_close(clap.encode_files(clips), first, rtol=0, atol=0)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(clap.encode_files(clips[1:2])[0], first[1])

    inputs = clap.extractor(read_at(clips[1], 48000), sampling_rate=48000, return_tensors="pt")
    with torch.no_grad():
        direct = clap.clap.get_audio_features(input_features=inputs["input_features"])
    direct = torch.nn.functional.normalize(getattr(direct, "pooler_output", direct), dim=-1)
    torch.testing.assert_close(first[1], direct[0], rtol=0, atol=1e-5)
    text = clap.encode_text(CAPTIONS)
    assert text.shape == (3, 24)
    torch.testing.assert_close(clap.encode_text(CAPTIONS[1:2])[0], text[1], rtol=0, atol=1e-5)
    assert clap.revision.startswith("sha256:")


def test_our_own_folder_gives_what_the_interface_gives(tmp_path, clips):
    """If this fails, our model is evaluated on something else than what users get."""
    folder = model_folder(tmp_path)
    adapter, clsp = open_model(str(folder)), CLSP.from_hparams(folder)
    torch.testing.assert_close(adapter.encode_files(clips[:1])[0], clsp.encode_file(clips[0]))
    torch.testing.assert_close(adapter.encode_text(CAPTIONS), clsp.encode_text(CAPTIONS))
    before = adapter.revision
    weights = next(folder.glob("*.safetensors"), None) or next(folder.glob("*.ckpt"))
    weights.write_bytes(weights.read_bytes() + b"x")
    from speechbrain_clsp.evaluation.models.adapters import folder_revision

    assert folder_revision(folder) != before


def test_precomputed_vectors_are_found_by_path_then_by_name(tmp_path):
    """If this fails, a file's vectors go to other clips."""
    path = tmp_path / "x.npz"
    arrays = {"paths": ["/old/a.wav", "/old/b.wav", "/one/c.wav", "/two/c.wav"]}
    arrays |= {"embeddings": 2 * np.eye(4), "texts": ["A."], "text_embeddings": np.ones((1, 4))}
    np.savez(path, **arrays, model="other", revision="abc")
    model = open_model(f"file:{path}")
    assert (model.model, model.revision) == ("other", "abc")
    assert model.encode_files(["/new/b.wav", "/old/a.wav"]).tolist() == np.eye(4)[[1, 0]].tolist()
    torch.testing.assert_close(model.encode_text(["A."])[0], torch.full((4,), 0.5))
    for ask in (lambda: model.encode_files(["/new/c.wav"]), lambda: model.encode_text(["B."])):
        with pytest.raises(ValueError, match="no embedding of 1"):
            ask()
    np.savez(path, paths=["a"], embeddings=np.eye(1))
    with pytest.raises(ValueError, match="texts"):
        open_model(f"file:{path}")


class Counting(RandomModel):
    """Counts what it is asked for."""

    def __init__(self, revision: str) -> None:
        self.revision, self.asked = revision, []

    def encode_files(self, paths):
        """Embed and count."""
        self.asked += paths
        return super().encode_files(paths)


def test_the_cache_knows_model_revision_and_content(tmp_path, clips):
    """If this fails, figures are those of an older model or of another file."""
    path = tmp_path / "cache" / "embeddings.sqlite"
    first = CachedModel(Counting("1"), path)
    vectors = first.encode_files([clips[0], clips[1], clips[0]])
    assert first.inner.asked == [clips[0], clips[1]] and torch.equal(vectors[0], vectors[2])
    again = CachedModel(Counting("1"), path)
    assert torch.equal(again.encode_files(clips[:2]), vectors[:2]) and again.inner.asked == []
    copy = tmp_path / "moved.wav"
    copy.write_bytes(open(clips[0], "rb").read())
    again.encode_files([str(copy)])
    assert again.inner.asked == []
    copy.write_bytes(open(clips[1], "rb").read() + b"\0")
    again.encode_files([str(copy)])
    assert again.inner.asked == [str(copy)]
    other = CachedModel(Counting("2"), path)
    other.encode_files(clips[:1])
    assert other.inner.asked == clips[:1]
    for _ in range(2):
        moving = CachedModel(Counting(MOVING), path)
        moving.encode_files(clips[:1])
        assert moving.inner.asked == clips[:1]


def test_an_untrained_model_is_the_folder_without_its_training(tmp_path, clips):
    """If this fails, the bound that training is compared with is the trained model itself."""
    folder = model_folder(tmp_path)
    state = torch.get_rng_state()
    first, again = (open_model(f"untrained:{folder}") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    untrained, trained = first.encode_text(CAPTIONS), open_model(str(folder)).encode_text(CAPTIONS)
    assert torch.equal(again.encode_text(CAPTIONS), untrained)
    assert not torch.allclose(untrained, trained, atol=0.05)
    assert first.revision != open_model(str(folder)).revision
    with pytest.raises(FileNotFoundError, match="hyperparams"):
        open_model("untrained:nowhere")


def test_the_oracle_knows_attributes_and_only_these(tmp_path, clips):
    """If this fails, the upper bound of MiniFCaps is none."""
    common = {"duration": 1.0, "accent": "Scottish", "global_captions": []}
    rows = [
        {"id": "a", "gender": "male", "fine_captions": ["A."], "audio": clips[0]},
        {"id": "b", "gender": "female", "fine_captions": ["B."], "audio": clips[1]},
        {"id": "c", "gender": "female", "fine_captions": ["C."], "audio": clips[2]},
    ]
    write_manifest(tmp_path / "test.arrow", [common | row for row in rows])
    oracle = open_model(f"oracle:{tmp_path / 'test.arrow'}")
    speech, text = oracle.encode_files(clips), oracle.encode_text(["A.", "B.", "C."])
    assert retrieval_ranks(speech, text).tolist() == [1, 2, 2]  # b and c cannot be told apart
    prompts = oracle.encode_text(["A male speaker.", "A female speaker."])
    assert (speech @ prompts.T).argmax(dim=1).tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="lacks 1"):
        oracle.encode_text(["D."])
