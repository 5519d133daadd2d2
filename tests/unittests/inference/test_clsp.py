"""CLSP: how it is opened, and what its methods return and refuse."""

import logging
import math
import pickle
import random
import re
import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.signal import resample_poly

from speechbrain_clsp import CLSP, StyleReward
from speechbrain_clsp.dataio.audio import AudioError, read_audio
from speechbrain_clsp.dataio.tokenizers import train_sentencepiece
from speechbrain_clsp.pretrained.folder import extract_definition, save_model_folder
from tests.utils.small import CAPTIONS, model_folder, tone, write

WAVS = torch.zeros(2, 16000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def clsp(folder):
    return CLSP.from_hparams(folder, run_opts={"device": "cpu"})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    lengths = [1.3, 0.4, 2.2, 0.9, 1.7]
    return [
        write(folder / f"{i}.wav", tone(s, frequency=90 + 40 * i)) for i, s in enumerate(lengths)
    ]


def test_a_moved_folder_gives_the_same_embedding(folder, clsp, files, tmp_path, monkeypatch):
    """If this fails, a model folder works only where it was written, or loads random weights."""
    shutil.copytree(folder, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    moved = CLSP.from_hparams("elsewhere/../elsewhere", run_opts={"device": "cpu"})
    assert torch.equal(moved.encode_file(files[0]), clsp.encode_file(files[0]))
    assert torch.equal(moved.encode_text(CAPTIONS), clsp.encode_text(CAPTIONS))
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]  # nothing else is created


def test_the_model_is_frozen_and_in_eval_mode(clsp):
    """If this fails, dropout makes embeddings random, or a reward would train the model."""
    assert not any(module.training for module in clsp.modules())
    assert not any(p.requires_grad for p in clsp.parameters())


def test_a_frozen_model_stays_in_eval_mode_inside_a_module_that_is_trained(folder):
    """If this fails, dropout makes the rewards of a policy random."""
    policy = torch.nn.Module()
    policy.reward, policy.head = CLSP.from_hparams(folder), torch.nn.Dropout()
    assert policy.train() is policy
    assert policy.head.training
    assert not any(module.training for module in policy.reward.modules())
    trained = CLSP.from_hparams(folder, freeze_params=False)
    assert trained.mods.training and not trained.eval().mods.training
    assert trained.train().mods.training


def embed_in_a_process(clsp, reward, results):
    """Put what a model that was sent to another process computes into a queue."""
    results.put((clsp.encode_text(CAPTIONS).numpy(), reward(WAVS, CAPTIONS[:2]).numpy()))


def test_a_loaded_model_is_copied_pickled_and_sent_to_a_spawned_process(folder, clsp):
    """If this fails, a model cannot be used in workers that are spawned, as on GPUs."""
    copy, again = deepcopy(clsp), pickle.loads(pickle.dumps(clsp))
    expected = clsp.encode_text(CAPTIONS)
    for other in (copy, again):
        torch.testing.assert_close(other.encode_text(CAPTIONS), expected, atol=1e-5, rtol=0)
        assert other.mods.text_tower is not clsp.mods.text_tower
        assert other.hparams.modules["text_tower"] is other.mods.text_tower
    context = torch.multiprocessing.get_context("spawn")
    results, reward = context.Queue(), StyleReward(clsp)
    process = context.Process(target=embed_in_a_process, args=(clsp, reward, results))
    process.start()
    texts, rewards = results.get(timeout=120)
    process.join()
    torch.testing.assert_close(torch.from_numpy(texts), expected, atol=1e-5, rtol=0)
    rewards = torch.from_numpy(rewards)
    torch.testing.assert_close(rewards, reward(WAVS, CAPTIONS[:2]), atol=1e-5, rtol=0)


def test_embeddings_are_unit_vectors_in_input_order_whatever_the_batches(clsp, files):
    """If this fails, encode_files mixes up files, or batching changes embeddings."""
    alone = torch.stack([clsp.encode_file(path) for path in files])
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(len(files)))
    for seconds in (0.1, 4.0, 60.0):
        together = clsp.encode_files(files, max_batch_seconds=seconds, progress=False)
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert (alone @ alone.T).fill_diagonal_(0).max() < 0.99999


def as_file(path: Path, samples: np.ndarray, rate: int) -> Path:
    """Write 16 kHz samples as stereo of another rate, in the format of the path's suffix."""
    divisor = math.gcd(rate, 16000)
    stereo = np.stack([resample_poly(samples, rate // divisor, 16000 // divisor)] * 2, axis=1)
    return write(path, stereo, rate)


@pytest.mark.parametrize("suffix, rate", [("flac", 16000), ("mp3", 44100), ("ogg", 48000)])
def test_the_format_of_a_recording_hardly_matters(clsp, tmp_path, suffix, rate):
    """If this fails, the same recording scores differently as wav, flac, mp3 or ogg."""
    # Noise, as any recording has: digital silence in a band is what lossy formats do change.
    noise = 0.02 * np.random.default_rng(0).standard_normal(32000)
    clip, other_clip = tone(2.0) + noise, tone(2.0, frequency=300) + noise
    reference = clsp.encode_file(write(tmp_path / "a.wav", clip))
    assert clsp.encode_file(as_file(tmp_path / f"a.{suffix}", clip, rate)) @ reference > 0.999
    assert clsp.encode_file(write(tmp_path / "b.wav", other_clip)) @ reference < 0.95


def test_all_bad_files_are_named_at_once(clsp, files, tmp_path):
    """If this fails, a user with many bad files finds them one run at a time."""
    (tmp_path / "empty.wav").touch()
    paths = [files[0], tmp_path / "empty.wav", files[1], tmp_path / "absent.wav"]
    with pytest.raises(AudioError, match="2 bad files: .*empty.wav.*absent.wav"):
        clsp.encode_files(paths, progress=False)
    with pytest.raises(FileNotFoundError, match="absent.wav"):
        clsp.encode_files(paths[2:], progress=False)


def test_scores_are_cosines(clsp, files):
    """If this fails, score_batch and score_file say something else than the embeddings."""
    expected = clsp.encode_file(files[0]) @ clsp.encode_text(CAPTIONS).T
    torch.testing.assert_close(clsp.score_file(files[0], CAPTIONS), expected)
    wav = read_audio(files[0])
    torch.testing.assert_close(clsp.score_batch(wav, CAPTIONS)[0], expected)


def test_classify_returns_what_encoder_classifier_returns(clsp, files):
    """If this fails, code written for SpeechBrain's EncoderClassifier breaks on a CLSP."""
    out_prob, score, index, text_lab = clsp.classify_file(files[0], CAPTIONS)
    assert out_prob.shape == (1, 3)
    torch.testing.assert_close(out_prob.exp().sum(1), torch.ones(1))
    assert torch.equal(score, out_prob.max(dim=1).values)
    assert text_lab == [CAPTIONS[index.item()]]
    scale = clsp.mods.logit_scale()
    expected = (scale * clsp.score_file(files[0], CAPTIONS)).log_softmax(0)
    torch.testing.assert_close(out_prob[0], expected)


def test_several_prompts_per_label_are_averaged(clsp, files):
    """If this fails, a prompt ensemble is ignored or mislabelled."""
    prompts = {"a": CAPTIONS[:2], "b": CAPTIONS[2]}
    out_prob, _, index, text_lab = clsp.classify_file(files[1], prompts)
    mean = torch.nn.functional.normalize(clsp.encode_text(CAPTIONS[:2]).mean(0), dim=0)
    classes = torch.stack([mean, clsp.encode_text(CAPTIONS[2:])[0]])
    logits = clsp.mods.logit_scale() * clsp.encode_file(files[1]) @ classes.T
    torch.testing.assert_close(out_prob[0], logits.log_softmax(0))
    assert text_lab == [["a", "b"][index.item()]]


def test_prompts_of_the_model_folder_are_the_default(clsp, files):
    """If this fails, a model published with its classes cannot be used as a classifier."""
    prompts = {"man": CAPTIONS[0], "child": CAPTIONS[2]}
    hparams = {"tokenizer": clsp.hparams.tokenizer, "prompts": prompts, "device": "cpu"}
    classifier = CLSP(dict(clsp.mods), hparams)
    wavs = torch.from_numpy(np.stack([tone(), tone(frequency=250.0)]))
    given = clsp.classify_batch(wavs, prompts=prompts)
    default = classifier(wavs)
    for mine, theirs in zip(default[:3], given[:3]):
        torch.testing.assert_close(mine, theirs)
    assert default[3] == given[3]


def test_what_a_clsp_is_made_of_is_checked(clsp):
    """If this fails, a missing part shows up later, as an error from somewhere else."""
    modules = dict(clsp.mods)
    with pytest.raises(ValueError, match="tokenizer"):
        CLSP(modules, {"device": "cpu"})
    del modules["logit_scale"]
    with pytest.raises(ValueError, match="logit_scale"):
        CLSP(modules, {"tokenizer": clsp.hparams.tokenizer})


def test_gradients_reach_a_waveform_that_asks_for_them_and_only_then(clsp):
    """If this fails, a CLSP is no use as a reward, or memory fills up in inference."""
    wav = torch.from_numpy(tone())[None]
    assert not clsp.encode_batch(wav).requires_grad
    wanting = wav.clone().requires_grad_()
    clsp.score_batch(wanting, CAPTIONS).sum().backward()
    assert wanting.grad.abs().max() > 0
    with torch.inference_mode():
        torch.testing.assert_close(clsp.encode_batch(wav), clsp.encode_batch(wanting.detach()))


def test_no_random_state_is_touched(clsp, files):
    """If this fails, scoring in the middle of a training changes the training."""
    torch.manual_seed(1)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    clsp.score_file(files[0], CAPTIONS)
    clsp.encode_files(files[:2], num_workers=1, progress=False)
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


@pytest.mark.parametrize(
    "call, error, pattern",
    [
        (lambda c, f: c.encode_text("a caption"), TypeError, "list of captions"),
        (lambda c, f: c.score_file(f, "a caption"), TypeError, "list of captions"),
        (lambda c, f: c.encode_text([]), ValueError, "at least one"),
        (lambda c, f: c.encode_text(["a", " "]), ValueError, "Caption 1 is empty"),
        (
            lambda c, f: c.encode_text(["A.", 1]),
            TypeError,
            r"texts\[1\] is 1, a int: .* list of str",
        ),
        (lambda c, f: c.encode_text(pd.Series(["A.", None])), TypeError, r"texts\[1\]"),
        (lambda c, f: c.encode_text(["A.", "\ud800"]), ValueError, r"texts\[1\] is .*Unicode"),
        (lambda c, f: c.score_file(f, {"m": "A man."}), TypeError, r"a dict: give list\(texts.val"),
        (lambda c, f: c.score_file(f, {"A man.", "B."}), TypeError, r"no order: give sorted"),
        (lambda c, f: c.encode_text(pd.DataFrame({"a": ["A."]})), TypeError, "of its columns"),
        (lambda c, f: c.encode_text(7), TypeError, "must be a list of captions, not a int"),
        (lambda c, f: c.encode_text(["slowly " * 200]), ValueError, "shorten"),
        (lambda c, f: c.encode_files(str(f)), TypeError, "list of paths"),
        (lambda c, f: c.encode_files([]), ValueError, "at least one"),
        (lambda c, f: c.encode_files({"a": f}), TypeError, "list of paths, not a dict"),
        (
            lambda c, f: c.encode_files([f], max_batch_seconds=0),
            ValueError,
            "max_batch_seconds must",
        ),
        (lambda c, f: c.encode_files([f], math.nan), ValueError, "max_batch_seconds must be posi"),
        (lambda c, f: c.encode_files([f], "x"), TypeError, "max_batch_seconds must be a number"),
        (lambda c, f: c.encode_text(["A."], batch_size=0), ValueError, "batch_size must be posi"),
        (lambda c, f: c.timeline(f, ["A."], window=math.nan), ValueError, "window must be posit"),
        (lambda c, f: c.timeline(f, ["A."], hop="x"), TypeError, "hop must be a number"),
        (lambda c, f: c.timeline(f, ["A."], hop=math.inf), ValueError, "both finite"),
        (lambda c, f: c.timeline(f, ["A."], hop=1e-7), ValueError, "hop 0.001 s"),
        (
            lambda c, f: c.timeline(f, ["A."], window=0.01),
            ValueError,
            "window must be at least 0.1",
        ),
        (lambda c, f: c.encode_files([f, math.nan]), TypeError, r"paths\[1\] is nan, a float"),
        (lambda c, f: c.classify_file(f, {"A man.", "B."}), TypeError, "prompts must be a list"),
        (lambda c, f: c.classify_file(f, ["A.", "B.", "A."]), ValueError, "'A.' is given twice"),
        (lambda c, f: c.classify_file(f, ["A.", "A. "]), ValueError, "'A. ' is given twice"),
        (lambda c, f: c.classify_file(f, {"m": "A.", "f": ["A. ", "A."]}), ValueError, "same pr"),
        (lambda c, f: c.score_file("", ["A."]), FileNotFoundError, "name of the audio file is emp"),
        (lambda c, f: c.encode_batch(WAVS.to_sparse()), TypeError, "not a sparse one"),
        (lambda c, f: c.classify_file(f, {"m": "A.", "f": ["A."]}), ValueError, "'m' and 'f' have"),
        (lambda c, f: c.classify_file(f, {"m": ["A.", 1]}), TypeError, r"prompts\['m'\]\[1\] is 1"),
        (lambda c, f: c.classify_file(f), ValueError, "prompts"),
        (lambda c, f: c.classify_file(f, "a prompt"), TypeError, "not a str"),
        (lambda c, f: c.classify_file(f, {}), ValueError, "prompts is empty"),
        (lambda c, f: c.classify_file(f, {"man": []}), ValueError, "'man' has no prompt"),
        (lambda c, f: c.classify_file(f, {"man": {"a": "b"}}), TypeError, "'man'"),
        (lambda c, f: c.encode_batch(f), TypeError, "Tensor"),
        (lambda c, f: c.encode_batch(torch.zeros(0, 16000)), ValueError, "not empty"),
        (lambda c, f: c.encode_batch(torch.zeros(1, 2, 16000)), ValueError, r"\[B, T\]"),
        (lambda c, f: c.encode_batch(torch.full((1, 16000), 1e20)), ValueError, r"\[0\]"),
        (lambda c, f: c.encode_batch(50 * WAVS.bernoulli(0.5)), ValueError, r"\[0, 1\].*32768"),
        (lambda c, f: c.encode_batch(torch.full((1, 16000), 3000).short()), ValueError, "32768"),
        (
            lambda c, f: c.encode_batch(torch.full((1, 16000), 9).short()),
            ValueError,
            "int16.*32768",
        ),
        (lambda c, f: c.encode_batch(np.full((1, 16000), 9, np.int16)), ValueError, "32768"),
        (lambda c, f: c.encode_batch(WAVS.to(torch.complex64)), ValueError, "complex64"),
        (lambda c, f: c.encode_batch([[0.0] * 16000]), TypeError, "not a list"),
        (
            lambda c, f: c.encode_batch(np.zeros((16000, 1))),
            ValueError,
            r"\[16000, 1\]: of \[T, ch",
        ),
        (lambda c, f: c.encode_batch(WAVS, ["a", "b"]), TypeError, "wav_lens must hold 2 numbers"),
        (lambda c, f: c.encode_batch(WAVS, [-0.5, 1.0]), ValueError, "relative"),
        (lambda c, f: c.encode_batch(WAVS, [0.0, 1.0]), ValueError, r"\[0\] has the relative len"),
        (lambda c, f: c.encode_batch(WAVS, torch.ones(3)), ValueError, r"must be \[2\]"),
        (lambda c, f: c.encode_batch(WAVS, torch.tensor([1, 8000])), ValueError, "relative"),
        (lambda c, f: c.encode_batch(WAVS, torch.tensor([1, torch.nan])), ValueError, "relative"),
        (lambda c, f: c.encode_batch(torch.full((2, 16000), torch.nan)), ValueError, r"\[0, 1\]"),
        (lambda c, f: c.encode_batch(torch.zeros(1, 200)), ValueError, "0.1 s"),
    ],
)
def test_wrong_input_is_refused(clsp, files, call, error, pattern):
    """If this fails, a mistake gives a wrong number or an error from deep inside torch."""
    with pytest.raises(error, match=pattern):
        call(clsp, files[0])


def test_captions_that_are_too_long_are_all_named_before_anything_is_embedded(clsp, monkeypatch):
    """If this fails, one long caption of a hundred stops everything half-way, unnamed."""
    monkeypatch.setattr(clsp.mods.text_tower, "forward", None)
    texts = [*CAPTIONS * 50, "slowly " * 200, "softly", "quickly " * 300]
    with pytest.raises(ValueError, match="Too long: .*; at most 64 fit, shorten it") as caught:
        clsp.encode_text(texts)
    for pattern in (r"texts\[150\] has \d{3,} tokens \('slowly", r"texts\[152\] has \d{3,} tokens"):
        assert re.search(pattern, str(caught.value))
    with pytest.raises(ValueError, match="and 90 more; at most 64 fit") as caught:
        clsp.encode_text(["slowly " * (200 + n) for n in range(100)])
    assert len(str(caught.value)) < 2000


def test_a_tower_names_the_rows_of_captions_that_are_too_long(clsp):
    tokens = torch.ones(3, 70, dtype=torch.long)
    tokens[1, 9:] = 0
    with pytest.raises(ValueError, match="has 70 tokens, at most 64 fit: .* rows 0, 2$"):
        clsp.text_tower(tokens, tokens == 0)


def test_a_tokenizer_of_another_model_is_refused(folder, tmp_path):
    """If this fails, tokens that the tower does not have end in an index error."""
    shutil.copytree(folder, tmp_path / "model")
    captions = [*CAPTIONS, "Zebras quarrel jovially with vexed quokkas, foxes, wombats."]
    train_sentencepiece(captions, tmp_path / "model" / "tokenizer.model", vocab_size=90)
    clsp = CLSP.from_pretrained(tmp_path / "model", run_opts={"device": "cpu"})
    with pytest.raises(ValueError, match="gives the token .*, and the text tower has 60: put"):
        clsp.encode_text(captions)


def test_characters_that_the_model_does_not_know_are_told(clsp, files, caplog):
    """If this fails, captions in another script all get one vector, and nobody knows."""
    texts = ["你好", "A man says café 3.", "A man, who whispers!", "!?", "Мужчина"]
    assert clsp.find_unknown(texts) == ["你好", "é3", "", "!?", "мужчина"]
    logging.getLogger("speechbrain_clsp").propagate = True
    with caplog.at_level(logging.WARNING):
        clsp.score_file(files[0], texts)
    assert "4 of 5 captions have characters that the model does not know" in caplog.text
    for part in ("texts[0], '你好': '你好'", "texts[1], 'A man says café 3.': 'é3'"):
        assert part in caplog.text
    caplog.clear()
    clsp.encode_text(CAPTIONS)
    assert not caplog.text


def test_inputs_follow_a_model_that_is_moved(folder):
    """If this fails, a policy's `to` moves a reward's weights, and not what they are applied to."""
    outer = torch.nn.Module()
    outer.clsp = CLSP.from_hparams(folder, run_opts={"device": torch.device("cpu")})
    assert outer.clsp.device == "cpu"
    outer.to("meta")
    assert outer.clsp.device == "meta"


def test_arrays_columns_and_generators_are_taken(clsp, files):
    """If this fails, what data frames and soundfile give raises, or means something else."""
    wavs = np.stack([tone(), tone(frequency=250.0)])
    lens = torch.tensor([1.0, 0.5])
    expected = clsp.encode_batch(torch.from_numpy(wavs), lens)
    for some in ([1, 0.5], np.array([1.0, 0.5]), pd.Series([1.0, 0.5]), (1.0, 0.5), lens.double()):
        torch.testing.assert_close(clsp.encode_batch(wavs[:, ::1].astype(float), some), expected)
    backwards = clsp.encode_batch(wavs[:, ::-1])
    torch.testing.assert_close(backwards, clsp.encode_batch(torch.from_numpy(wavs).flip(1)))
    text = clsp.encode_text(CAPTIONS)
    for texts in (iter(CAPTIONS), np.array(CAPTIONS), pd.Series(CAPTIONS), tuple(CAPTIONS)):
        assert torch.equal(clsp.encode_text(texts), text)
    speech = clsp.encode_files(files, progress=False)
    for paths in (map(str, files), pd.Series(files, index=range(7, 12)), np.array(files, str)):
        assert torch.equal(clsp.encode_files(paths, progress=False), speech)
    assert clsp.timeline(files[2], (text for text in CAPTIONS)).texts == tuple(CAPTIONS)


@pytest.mark.parametrize(
    "source, error, pattern",
    [
        (None, TypeError, "A model is a folder or a Hub repository user/name, not None"),
        ("", TypeError, "A model is a folder or .*, not ''"),
        (3, TypeError, "not 3"),
        ("user/na me", FileNotFoundError, "a Hub repository has the form user/name"),
        ("a\0/b", FileNotFoundError, "a Hub repository has the form user/name"),
        ("https://example.com/yfyeung/CLSP", FileNotFoundError, "give the repository, yfye.*SP$"),
        ("http://example.com/yfyeung/CLSP/tree/x", FileNotFoundError, "repository, yfyeung/CLSP$"),
    ],
)
def test_what_is_no_model_is_refused_without_asking_the_hub(source, error, pattern):
    for load in (CLSP.from_pretrained, CLSP.from_hparams):
        with pytest.raises(error, match=pattern):
            load(source)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", 3.5, torch.device("cuda:77")])
def test_a_device_that_is_not_there_is_refused(folder, device):
    with pytest.raises(ValueError, match=f"The device {device} cannot be used: "):
        CLSP.from_pretrained(folder, run_opts={"device": device})


def test_wrong_folders_are_refused(folder, tmp_path):
    """If this fails, weights stay random in silence, or a typo is taken for a Hub repository."""
    with pytest.raises(FileNotFoundError, match="results/nowhere/model"):
        CLSP.from_hparams("results/nowhere/model")
    with pytest.raises(FileNotFoundError, match="hyperparams.yaml"):
        CLSP.from_hparams(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = load_file(broken / "model.safetensors")
    key = next(iter(weights))
    save_file({k: v for k, v in weights.items() if k != key}, broken / "model.safetensors")
    with pytest.raises(ValueError, match=f"missing {key}"):
        CLSP.from_hparams(broken)
    save_file({**weights, "extra": torch.zeros(1)}, broken / "model.safetensors")
    with pytest.raises(ValueError, match="unexpected extra"):
        CLSP.from_hparams(broken)
    (broken / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged"):
        CLSP.from_hparams(broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        CLSP.from_hparams(broken)
    with pytest.raises(
        FileNotFoundError, match="nobody/nothing is not a folder and could not be downloaded"
    ):
        CLSP.from_hparams("nobody/nothing")


@pytest.mark.parametrize(
    "definition",
    ["", "- 1\n", "a: [", "modules: {}\n", "a: !new:speechbrain_clsp.pretrained.folder.Nothing\n"],
)
def test_wrong_definitions_are_refused(folder, tmp_path, definition):
    """If this fails, a broken hyperparams.yaml gives an error that does not name it."""
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "hyperparams.yaml").write_text(definition)
    with pytest.raises(ValueError, match="broken/hyperparams.yaml does not define a CLSP"):
        CLSP.from_hparams(tmp_path / "broken")


def test_a_model_folder_is_replaced_but_nothing_else(folder, clsp, tmp_path):
    """If this fails, saving a model deletes a user's folder, or a second training cannot save."""
    parts = (
        (folder / "hyperparams.yaml").read_text(),
        dict(clsp.mods),
        {"tokenizer.model": folder / "tokenizer.model"},
    )
    save_model_folder(tmp_path / "model", *parts)
    save_model_folder(tmp_path / "model", *parts, metrics={"R@1": 0.25})
    assert "| R@1 | 0.25 | " in (tmp_path / "model" / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    again = CLSP.from_hparams(tmp_path / "model", run_opts={"device": "cpu"})
    assert torch.equal(again.encode_text(CAPTIONS), clsp.encode_text(CAPTIONS))
    (tmp_path / "photos").mkdir()
    with pytest.raises(FileExistsError, match="photos"):
        save_model_folder(tmp_path / "photos", *parts)


def test_a_copy_in_savedir_is_complete(folder, clsp, tmp_path):
    """If this fails, a model fetched with savedir, SpeechBrain's usual way, cannot be reused."""
    from speechbrain.utils.fetching import LocalStrategy

    arguments = {"savedir": tmp_path / "copy", "run_opts": {"device": "cpu"}}
    CLSP.from_hparams(folder, local_strategy=LocalStrategy.COPY, **arguments)
    copied = CLSP.from_hparams(tmp_path / "copy", run_opts={"device": "cpu"})
    assert torch.equal(copied.encode_text(CAPTIONS), clsp.encode_text(CAPTIONS))


def test_a_definition_is_cut_out_with_its_overrides():
    """If this fails, a model trained with overridden sizes cannot be loaded again."""
    recipe = "# note\nlr: 1\nmodel:\n  # sizes\n  dims: &id1 [3, 4]\n"
    recipe += "  tower: !new:dict\n    dims: *id1\n"
    definition = extract_definition(recipe, "model")
    assert "lr" not in definition and "#" not in definition
    assert definition.startswith("dims: &id1 [3, 4]")
    assert "tower: !new:dict" in definition


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Return files at 48 kHz with what recordings have: pauses, noise, an offset, two channels."""
    folder, generator = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    paths = []
    for number, frequency in enumerate((95, 130, 180, 240)):
        samples = tone(1.2 + 0.4 * number, rate=48000, frequency=frequency)
        samples[len(samples) // 3 : len(samples) // 2] = 0
        samples = samples + 0.01 * generator.standard_normal(len(samples)) + 0.002
        stereo = np.stack([samples, 0.8 * samples], axis=1)
        paths.append(write(folder / f"{number}.wav", stereo, 48000))
    return paths


def test_recordings_of_other_rates_are_encoded(clsp, recordings):
    embeddings = clsp.encode_files(recordings, progress=False)
    assert embeddings.isfinite().all()
    torch.testing.assert_close(embeddings[3], clsp.encode_file(recordings[3]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("suffix, rate", [("flac", 48000), ("mp3", 44100), ("ogg", 48000)])
def test_recordings_score_alike_in_every_format(clsp, recordings, tmp_path, suffix, rate):
    for recording in (recordings[0], recordings[3]):
        path = as_file(tmp_path / f"a.{suffix}", read_audio(recording).numpy(), rate)
        assert clsp.encode_file(path) @ clsp.encode_file(recording) > 0.99


def test_captions_are_embedded_in_batches(clsp):
    captions = CAPTIONS * 3
    expected = clsp.encode_text(captions)
    found = clsp.encode_text(captions, batch_size=2)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_both_ways_to_open_a_folder_give_the_same_model(folder, clsp, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    opened = CLSP.from_pretrained(f"~/{folder.name}", run_opts={"device": "cpu"})
    assert torch.equal(opened.encode_text(CAPTIONS), clsp.encode_text(CAPTIONS))
    (tmp_path / "config.json").write_text('{"speechbrain_interface": "CLSP"}')
    with pytest.raises(FileNotFoundError, match=r"it has no hyperparams.yaml"):
        CLSP.from_pretrained(tmp_path)


def test_the_folder_of_a_training_names_its_model_folder(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "mini" / "model")
    # The recipe's own definition, which must not be run.
    (tmp_path / "mini" / "hyperparams.yaml").write_text("a: !apply:sys.exit [1]")
    for load in (CLSP.from_pretrained, CLSP.from_hparams):
        with pytest.raises(FileNotFoundError, match="mini is not a model folder, but .*mini/model"):
            load(tmp_path / "mini")
