"""The published checkpoint's form: from folders, and from a server that behaves as the Hub."""

import contextlib
import copy
import json
import os
import pickle
import subprocess
import sys

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from speechbrain.utils.fetching import LocalStrategy

import speechbrain_clsp.pretrained.hub
from speechbrain_clsp import CLSP
from speechbrain_clsp.pretrained.hub import Pin, find_file, load_pretrained_encoder
from speechbrain_clsp.pretrained.official import to_official, to_ours
from tests.utils.hub_server import COMMIT, HubServer
from tests.utils.official_model import official_weights, write_official, write_tokenizer
from tests.utils.reference import stored
from tests.utils.small import model_folder

REPOSITORY = "someone/tiny"
FILES = ("model.safetensors", "config.json", "tokenizer.json")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Return the folder of the small published model, with a tokenizer."""
    folder = write_official(tmp_path_factory.mktemp("published"))
    write_tokenizer(folder)
    from speechbrain_clsp.dataio.tokenizers import FastTokenizerCaptions

    FastTokenizerCaptions(folder).save(folder / "tokenizer.json")
    return folder


@pytest.fixture
def hub(published, monkeypatch, tmp_path):
    """Return a server with the model, which huggingface_hub takes for the Hub."""
    server = HubServer()
    for name in FILES:
        server.files[REPOSITORY, name] = (published / name).read_bytes()
    constants = huggingface_hub.constants
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_the_published_form_gives_the_published_embeddings(tmp_path, prefix):
    """If this fails, a published checkpoint is loaded but means something else."""
    clsp = CLSP.from_pretrained(write_official(tmp_path, prefix))
    reference = stored("clsp_tiny")
    padding_mask = reference["attention_mask"] == 0
    text = clsp.text_tower(reference["input_ids"], padding_mask)
    torch.testing.assert_close(text, reference["text_embedding"], atol=1e-5, rtol=0)
    tower = clsp.speech_tower
    with torch.no_grad():
        features, counts = reference["features"][:1], reference["feature_lengths"][:1]
        encoded, counts = tower.encoder(*tower.encoder_embed(features, counts))
        speech = tower.head(encoded.mean(dim=1))
    torch.testing.assert_close(speech, reference["speech_embedding"][:1], atol=1e-5, rtol=0)
    torch.testing.assert_close(clsp.mods.logit_scale()[0], reference["logit_scale_exp"].squeeze())
    assert clsp.speech_tower(torch.randn(2, 8000), torch.ones(2)).shape == (2, 512)


def test_every_key_goes_there_and_back():
    """If this fails, a converted model cannot be published under the official names."""
    keys = [key for key in official_weights() if not speechbrain_clsp.pretrained.hub.is_unused(key)]
    assert len(keys) > 250
    assert [to_official(to_ours(key)) for key in keys] == keys


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("audio_transform.sequential.0.bias"), "missing speech_tower.head"),
        (lambda w: w.update({"encoder.extra": torch.ones(1)}), "unexpected .*encoder.extra"),
        (lambda w: w.update({"novelty": torch.ones(1)}), "unexpected unknown novelty"),
        (lambda w: w.update({"text_projection.0.bias": torch.ones(3)}), r"shape \[3\], not \[512"),
        (lambda w: [w.pop(k) for k in list(w) if k.startswith("encoder.enc")], "not a CLSP's"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, change, message):
    """If this fails, a wrong file is loaded in part, and the rest stays random."""
    weights = official_weights()
    change(weights)
    write_official(tmp_path)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        CLSP.from_pretrained(tmp_path)


def test_config_and_weights_must_agree(tmp_path):
    """If this fails, the configuration of another model goes unnoticed."""
    heads = {"text_config": {"hidden_size": 48, "num_attention_heads": 4}}
    good = {"encoder": {"downsampling_factor": "1,2,4,2", "num_heads": 4, "pos_dim": [48]}, **heads}
    CLSP.from_pretrained(write_official(tmp_path / "good", config=good))
    with pytest.raises(ValueError, match="encoder_dim '64,96' in config.json"):
        CLSP.from_pretrained(
            write_official(tmp_path / "bad", config={"encoder_dim": "64,96", **heads})
        )
    with pytest.raises(ValueError, match="num_attention_heads"):
        CLSP.from_pretrained(write_official(tmp_path / "silent", config={}))


def test_damaged_and_foreign_files_are_named(tmp_path):
    """If this fails, a broken download ends in a traceback that names no file."""
    folder = write_official(tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        CLSP.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(whole)
    (folder / "config.json").write_text("[")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        CLSP.from_pretrained(folder)
    (folder / "config.json").unlink()
    save_file({"speech_tower.x": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="in SpeechBrain's format"):
        CLSP.from_pretrained(folder)
    with pytest.raises(FileNotFoundError, match="has no model.safetensors"):
        CLSP.from_pretrained(tmp_path.parent)


def test_without_a_tokenizer_speech_is_still_encoded(tmp_path, hub):
    """If this fails, a folder of weights alone is useless, or its text embeddings are wrong."""
    clsp = CLSP.from_pretrained(write_official(tmp_path / "bare"))
    assert clsp.encode_batch(torch.randn(1, 8000)).shape == (1, 512)
    with pytest.raises(FileNotFoundError, match="no tokenizer in .*bare.*hf download"):
        clsp.encode_text(["slowly"])
    assert hub.requests == []  # a folder never makes the machine go online


def test_either_form_of_tokenizer_gives_the_same_tokens(published, tmp_path):
    """If this fails, captions mean something else after a conversion."""
    from speechbrain_clsp.dataio.tokenizers import FastTokenizerCaptions

    write_tokenizer(tmp_path)
    pair, single = (
        FastTokenizerCaptions(tmp_path),
        FastTokenizerCaptions(published / "tokenizer.json"),
    )
    texts = ["a male speaker", "speaks slowly, a female speaker whispers"]
    tokens, padding_mask = pair(texts)
    assert torch.equal(tokens, single(texts)[0]) and torch.equal(padding_mask, tokens == 1)
    assert tokens[:, 0].tolist() == [0, 0] and int(tokens[0][~padding_mask[0]][-1]) == 2


def test_the_second_load_is_offline(hub):
    """If this fails, every start of a service depends on the Hub."""
    first = CLSP.from_pretrained(REPOSITORY, revision=COMMIT)
    assert sorted(hub.downloads()) == sorted(FILES)
    hub.requests.clear()
    hub.status = 503
    second = CLSP.from_pretrained(REPOSITORY, revision=COMMIT)
    assert hub.requests == []
    wavs = torch.randn(1, 8000)
    assert torch.equal(first.encode_batch(wavs), second.encode_batch(wavs))
    assert torch.equal(first.encode_text(["slowly"]), second.encode_text(["slowly"]))


PUBLISHED = (  # all that yfyeung/CLSP has; code is never asked for
    ".gitattributes",
    "README.md",
    "config.json",
    "configuration_clsp.py",
    "model.safetensors",
    "modeling_clsp.py",
)


@pytest.fixture
def published_list(hub, published, monkeypatch):
    """Let the repository have the published files, RoBERTa's its tokenizer; spare waiting."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.files.clear()
    for name in PUBLISHED:
        there = (published / name).is_file()
        hub.files[REPOSITORY, name] = (published / name).read_bytes() if there else b"x"
    tokenizer = (published / "tokenizer.json").read_bytes()
    hub.files[speechbrain_clsp.pretrained.hub.TEXT_MODEL, "tokenizer.json"] = tokenizer
    return hub


def cut_off(way, hub, monkeypatch):
    """Take the Hub away."""
    hub.requests.clear()
    if way == "offline":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    elif way == "503":
        hub.status = 503
    elif way == "closed":
        hub.status = 0
    else:
        hub.shutdown()
        hub.server_close()


@pytest.mark.parametrize("revision", [COMMIT, "main", None])
@pytest.mark.parametrize("way", ["offline", "503", "unreachable", "closed"])
def test_a_cached_repository_without_a_tokenizer_loads_without_the_hub(
    published_list, monkeypatch, way, revision
):
    wavs = torch.randn(1, 8000)
    first = CLSP.from_pretrained(REPOSITORY, revision=revision)
    expected = first.encode_batch(wavs), first.encode_text(["slowly"])
    cut_off(way, published_list, monkeypatch)
    second = CLSP.from_pretrained(REPOSITORY, revision=revision)
    assert torch.equal(second.encode_batch(wavs), expected[0])
    assert torch.equal(second.encode_text(["slowly"]), expected[1])
    if revision == COMMIT or way == "offline":
        assert published_list.requests == []


@pytest.mark.parametrize("revision", [COMMIT, "main"])
@pytest.mark.parametrize("way", ["offline", "503", "unreachable", "closed"])
@pytest.mark.parametrize("known", [True, False])
def test_speech_is_encoded_without_the_hub_if_no_tokenizer_is_cached(
    published_list, monkeypatch, way, revision, known
):
    roberta = speechbrain_clsp.pretrained.hub.TEXT_MODEL
    del published_list.files[roberta, "tokenizer.json"]
    names = ("config.json", "model.safetensors", *(["tokenizer.json"] if known else []))
    for name in names:  # as `hf download` does; known: that the repository has no tokenizer
        with contextlib.suppress(FileNotFoundError):
            find_file(REPOSITORY, name, revision)
    cut_off(way, published_list, monkeypatch)
    clsp = CLSP.from_pretrained(REPOSITORY, revision=revision)
    assert clsp.encode_batch(torch.randn(1, 8000)).isfinite().all()
    reason = f"no tokenizer in {REPOSITORY}.*hf download {roberta}" if known else REPOSITORY
    with pytest.raises(FileNotFoundError, match=f"Text cannot be encoded: .*{reason}") as caught:
        clsp.encode_text(["slowly"])
    assert "\n" not in str(caught.value)


def test_what_a_pinned_revision_lacks_is_not_asked_for(published_list, monkeypatch):
    """If this fails, a download of the published files alone is of no use without the Hub."""
    pin = Pin(COMMIT, absent=("tokenizer.json",))
    monkeypatch.setitem(speechbrain_clsp.pretrained.hub.PINS, REPOSITORY, pin)
    for repository, name in list(published_list.files):
        find_file(repository, name)
    cut_off("offline", published_list, monkeypatch)
    assert CLSP.from_pretrained(REPOSITORY).encode_text(["slowly"]).isfinite().all()


def test_an_interrupted_download_goes_on(hub, published):
    """If this fails, half a file is taken for a whole, or a bad line stops the load."""
    hub.dropped["model.safetensors"] = 2
    clsp = CLSP.from_pretrained(REPOSITORY, revision=COMMIT)
    assert hub.downloads().count("model.safetensors") == 3
    wavs = torch.randn(1, 8000)
    assert torch.equal(clsp.encode_batch(wavs), CLSP.from_pretrained(published).encode_batch(wavs))


@pytest.mark.parametrize(
    ("repository", "revision", "status", "error", "message"),
    [
        ("someone/else", COMMIT, None, FileNotFoundError, "no such repository or revision"),
        (REPOSITORY, "no-such", None, FileNotFoundError, "no-such: no such repository or rev"),
        (REPOSITORY, COMMIT, 401, PermissionError, "not open to you: try `hf auth login`"),
        (REPOSITORY, COMMIT, 400, ConnectionError, "could not be downloaded: Bad request"),
    ],
)
def test_refusals_of_the_hub_are_told_in_one_line(
    hub, repository, revision, status, error, message
):
    """If this fails, users see HTTP tracebacks."""
    hub.status = status
    with pytest.raises(error, match=message) as caught:
        CLSP.from_pretrained(repository, revision=revision)
    assert "\n" not in str(caught.value)


def test_a_missing_or_damaged_file_is_told(hub):
    """If this fails, an incomplete repository ends in an unexplained error."""
    del hub.files[REPOSITORY, "model.safetensors"]
    with pytest.raises(FileNotFoundError, match=r"no such file \(model.safetensors\)"):
        CLSP.from_pretrained(REPOSITORY, revision=COMMIT)
    hub.files[REPOSITORY, "model.safetensors"] = b"<html>"
    with pytest.raises(ValueError, match="damaged"):
        CLSP.from_pretrained(REPOSITORY, revision="f" * 40)


def test_a_wrong_hash_stops_with_both_shown(hub, monkeypatch):
    """If this fails, a swapped checkpoint is loaded as if it were the published one."""
    pin = Pin(COMMIT, {"model.safetensors": "f" * 64})
    monkeypatch.setitem(speechbrain_clsp.pretrained.hub.PINS, REPOSITORY, pin)
    with pytest.raises(ValueError, match=f"has SHA-256 [0-9a-f]{{64}}, and {'f' * 64} is pinned"):
        CLSP.from_pretrained(REPOSITORY)
    assert all(f"/resolve/{COMMIT}/" in path for _, path, _ in hub.requests)
    CLSP.from_pretrained(REPOSITORY, revision="main")  # trusts what is there


def test_a_new_process_finds_the_hub_by_its_variable(hub, tmp_path):
    """If this fails, mirrors and HF_ENDPOINT do not work, or loading touches random states."""
    script = (
        "import random, sys, torch; from speechbrain_clsp import CLSP\n"
        "states = random.getstate(), torch.get_rng_state()\n"
        f"clsp = CLSP.from_pretrained({REPOSITORY!r}, revision={COMMIT!r})\n"
        "clsp.encode_batch(torch.ones(1, 8000) / 9), clsp.encode_text(['slowly'])\n"
        "assert random.getstate() == states[0], 'Python'\n"
        "assert torch.equal(torch.get_rng_state(), states[1]), 'torch'\n"
        "assert 'transformers_modules' not in sys.modules\n"
    )
    variables = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    variables["HF_HUB_OFFLINE"] = "0"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **variables, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(hub.downloads()) == sorted(FILES)


def test_a_pretrained_encoder_starts_a_tower(published, tmp_path):
    """If this fails, training starts from random weights in spite of a SPEAR checkpoint."""
    clsp = CLSP.from_pretrained(published)
    weights = load_file(published / "model.safetensors")
    spear = {k: v for k, v in weights.items() if k.startswith("model.encoder")}
    save_file(spear, tmp_path / "model.safetensors")
    tower = clsp.speech_tower
    head = {k: v.clone() for k, v in tower.head.state_dict().items()}
    expected = {k: v.clone() for k, v in tower.state_dict().items()}
    with torch.no_grad():
        for parameter in [*tower.encoder.parameters(), *tower.encoder_embed.parameters()]:
            parameter.zero_()
    load_pretrained_encoder(tower, tmp_path)
    assert all(torch.equal(v, expected[k]) for k, v in tower.state_dict().items())
    assert all(torch.equal(v, head[k]) for k, v in tower.head.state_dict().items())
    del spear["model.encoder_embed.out.bias"]
    save_file(spear, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="missing encoder_embed.out.bias"):
        load_pretrained_encoder(tower, tmp_path)


def test_no_python_or_yaml_of_a_folder_is_read(published, tmp_path):
    """If this fails, loading a stranger's checkpoint runs the stranger's code."""
    for name in FILES:
        (tmp_path / name).write_bytes((published / name).read_bytes())
    trap = tmp_path / "trapped"
    (tmp_path / "modeling_clsp.py").write_text(f"open({str(trap)!r}, 'w')")
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_clsp.CLSP"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    yaml = f"x: !apply:builtins.open [{str(trap)!r}, w]\n"
    (tmp_path / "hyperparams.yaml").write_text(yaml)
    CLSP.from_pretrained(tmp_path)
    assert not trap.exists()


def test_code_of_a_repository_is_run_only_if_it_is_trusted(hub, tmp_path):
    folder = model_folder(tmp_path)
    for path in folder.iterdir():
        hub.files["someone/brain", path.name] = path.read_bytes()
    with pytest.raises(PermissionError, match="hyperparams.yaml is code: .* trust_hparams=True"):
        CLSP.from_pretrained("someone/brain")
    assert hub.downloads() == ["config.json"]
    trusted = CLSP.from_pretrained("someone/brain", revision=COMMIT, trust_hparams=True)
    local = CLSP.from_pretrained(folder)
    assert torch.equal(trusted.encode_text(["slowly"]), local.encode_text(["slowly"]))


def test_nothing_of_a_published_model_stays_on_the_meta_device(published):
    clsp = CLSP.from_pretrained(published)
    tensors = [*clsp.mods.parameters(), *clsp.mods.buffers()]
    assert not any(tensor.is_meta for tensor in tensors)


def test_a_published_model_is_copied_and_pickled(published):
    clsp = CLSP.from_pretrained(published)
    expected = clsp.encode_text(["slowly"])
    for other in (copy.deepcopy(clsp), pickle.loads(pickle.dumps(clsp))):
        # Products of matrices are rounded differently where weights lie elsewhere in memory.
        torch.testing.assert_close(other.encode_text(["slowly"]), expected, atol=1e-5, rtol=0)


def test_a_savedir_of_one_repository_is_not_another_ones(hub, tmp_path, monkeypatch):
    """If this fails, the second of two repositories with one savedir is the first."""
    folder = model_folder(tmp_path)
    expected = {}
    for number, repository in enumerate(("someone/one", "someone/two")):
        weights = load_file(folder / "model.safetensors")
        weights["text_tower.embedding.weight"] *= number + 1
        save_file(weights, folder / "model.safetensors")
        expected[repository] = CLSP.from_pretrained(folder).encode_text(["slowly"])
        for path in folder.iterdir():
            hub.files[repository, path.name] = path.read_bytes()
    for repository in [*expected, *expected]:
        clsp = CLSP.from_hparams(repository, savedir=tmp_path / "linked")
        torch.testing.assert_close(clsp.encode_text(["slowly"]), expected[repository])
    copied = {"savedir": tmp_path / "copied", "local_strategy": LocalStrategy.COPY}
    CLSP.from_hparams("someone/one", **copied)
    CLSP.from_hparams("someone/one", **copied)
    find_file("someone/two", "model.safetensors")
    with pytest.raises(FileExistsError, match="copied/model.safetensors differs .*someone/two"):
        CLSP.from_hparams("someone/two", **copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("logit_scale"), "missing logit_scale.logit_scale"),
        (lambda w: w["text_projection.0.bias"].fill_(torch.nan), "text_tower.head.*NaN or infin"),
    ],
)
def test_a_tensor_that_is_missing_or_damaged_is_named(tmp_path, change, message):
    weights = official_weights()
    change(weights)
    write_official(tmp_path)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"{tmp_path}/model.safetensors .*{message}"):
        CLSP.from_pretrained(tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "module.model.", "model.module.", "_orig_mod."])
def test_prefixes_of_wrappers_are_dropped(published, tmp_path, prefix):
    clsp = CLSP.from_pretrained(write_official(tmp_path, prefix))
    wavs = torch.randn(1, 8000)
    expected = CLSP.from_pretrained(published).encode_batch(wavs)
    torch.testing.assert_close(clsp.encode_batch(wavs), expected, atol=1e-5, rtol=0)
