import copy
import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from speechbrain_clsp import CLSP
from speechbrain_clsp.integrations import CLSPModule
from speechbrain_clsp.pretrained.adapters import Base, adapt, save_adapters
from tests.utils.small import CAPTIONS, model_folder, tone, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def clsp(folder):
    return CLSP.from_pretrained(folder)


@pytest.fixture(scope="module")
def transformer(folder):
    return SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")


def test_texts_get_the_vectors_of_the_clsp(transformer, clsp):
    expected = clsp.encode_text(CAPTIONS).numpy()
    np.testing.assert_allclose(transformer.encode(CAPTIONS), expected, atol=1e-6)
    np.testing.assert_allclose(transformer.encode(CAPTIONS[0]), expected[0], atol=1e-6)
    together = transformer.encode(["talks slowly in a low voice."], prompt="A male speaker ")
    np.testing.assert_allclose(together[0], expected[0], atol=1e-6)


def test_files_of_any_rate_and_length_get_the_vectors_of_the_clsp(transformer, clsp, tmp_path):
    """The second is longer than a window: cut, or as one piece, it would be another vector."""
    paths = [
        write(tmp_path / "a.wav", tone(0.5)),
        write(tmp_path / "b.wav", np.concatenate([tone(30), tone(5, frequency=300)])),
        write(tmp_path / "c.flac", tone(2, rate=44100, frequency=220), 44100),
    ]
    expected = clsp.encode_files(paths, progress=False).numpy()
    assert np.abs(expected[0] - expected[2]).max() > 1e-3
    found = transformer.encode([str(path) for path in paths])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_samples_are_taken_with_their_rate_or_at_16_khz(transformer, clsp):
    for rate, given in (
        (8000, {"array": tone(rate=8000), "sampling_rate": 8000}),
        (8000, {"audio": {"array": torch.from_numpy(tone(rate=8000)), "sampling_rate": 8000}}),
        (16000, tone()),
        (16000, torch.from_numpy(np.stack([tone(), tone()]))),
    ):
        samples = {"array": tone(rate=rate), "sampling_rate": rate}
        expected = clsp.encode_files([samples], progress=False).numpy()
        np.testing.assert_allclose(transformer.encode([given]), expected, atol=1e-5)


def test_the_library_knows_what_the_model_is(transformer, clsp):
    assert transformer.get_embedding_dimension() == 32
    assert transformer.max_seq_length == clsp.mods.text_tower.max_tokens
    texts = transformer.encode(CAPTIONS, convert_to_tensor=True)
    assert torch.allclose(transformer.similarity(texts, texts).diagonal(), torch.ones(3))


def test_a_saved_copy_is_the_same_model(transformer, tmp_path):
    transformer.save_pretrained(str(tmp_path / "copy"))
    again = SentenceTransformer(str(tmp_path / "copy"), trust_remote_code=True, device="cpu")
    np.testing.assert_array_equal(again.encode(CAPTIONS), transformer.encode(CAPTIONS))
    opened = CLSP.from_pretrained(tmp_path / "copy")
    np.testing.assert_array_equal(opened.encode_text(CAPTIONS), again.encode(CAPTIONS))


def test_a_saved_copy_of_a_fine_tuned_model_is_the_same(folder, clsp, tmp_path):
    options = {"tune": "lora", "rank": 2, "alpha": None, "layers": ["*"]}
    parts = adapt(copy.deepcopy(clsp.mods), options)
    for name in ("speech_tower", "text_tower"):
        for value in parts[name].tuned_state().values():
            value.add_(0.04)
    save_adapters(tmp_path / "tuned", parts, Base.of(folder), options, {})
    tuned = SentenceTransformer(str(tmp_path / "tuned"), trust_remote_code=True, device="cpu")
    assert np.abs(tuned.encode(CAPTIONS) - clsp.encode_text(CAPTIONS).numpy()).max() > 1e-3
    tuned.save_pretrained(str(tmp_path / "copy"))
    again = SentenceTransformer(str(tmp_path / "copy"), trust_remote_code=True, device="cpu")
    np.testing.assert_array_equal(again.encode(CAPTIONS), tuned.encode(CAPTIONS))


def test_an_open_model_needs_no_trust_and_cannot_be_saved(clsp, tmp_path):
    transformer = SentenceTransformer(modules=[CLSPModule(clsp)], device="cpu")
    expected = clsp.encode_text(CAPTIONS).numpy()
    np.testing.assert_allclose(transformer.encode(CAPTIONS), expected, atol=1e-6)
    with pytest.raises(ValueError, match="clsp convert"):
        transformer.save_pretrained(str(tmp_path / "copy"))


def test_a_folder_is_not_run_unless_it_is_trusted(folder):
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(folder), device="cpu")
    (module,) = json.loads((folder / "modules.json").read_text())
    assert module["type"] == f"{CLSPModule.__module__}.CLSPModule"


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ([CAPTIONS[0], tone()], "multiple modalities"),
        ([("A man.", "A woman.")], "must be a list of str"),
        ([""], "is empty"),
        (["loud " * 500], "tokens"),
        ([np.zeros(100, np.float32)], r"inputs\[0\]: lasts 0.006 s"),
        ([{"array": np.full(9000, np.nan, np.float32), "sampling_rate": 16000}], "NaN"),
    ],
)
def test_what_cannot_be_embedded_is_named(transformer, inputs, error):
    with pytest.raises((TypeError, ValueError), match=error):
        transformer.encode(inputs)
