"""Fine-tuned models in files: adapters beside a reference to their base model."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from speechbrain_clsp import CLSP
from speechbrain_clsp.cli.main import main
from speechbrain_clsp.pretrained.adapters import Base, adapt, find_adapters, save_adapters
from speechbrain_clsp.pretrained.conversion import convert_official
from speechbrain_clsp.pretrained.hub import publish
from tests.utils.official_model import write_official, write_tokenizer
from tests.utils.small import model_folder

OPTIONS = {"tune": "lora", "rank": 3, "alpha": 6, "layers": ["*"]}
WAVS, LENGTHS = 0.1 * torch.randn(2, 9000), torch.tensor([1.0, 0.7])


def fine_tune(base, folder, options=OPTIONS):
    """Save adapters with random values; returns the folder, and what the model computes."""
    clsp = CLSP.from_pretrained(base)
    parts = adapt(clsp.mods, options)
    generator = torch.Generator().manual_seed(1)
    for name in ("speech_tower", "text_tower"):
        for value in parts[name].tuned_state().values():
            value.add_(0.04 * torch.randn(value.shape, generator=generator))
    clsp.mods.logit_scale.logit_scale.data += 0.5
    save_adapters(folder, parts, Base.of(base), options, {"R@1": 0.5})
    with torch.no_grad():
        tokens = clsp.hparams.tokenizer(["a male speaker"])
        return folder, (parts["speech_tower"](WAVS, LENGTHS), parts["text_tower"](*tokens))


def embeddings(source):
    """Return what an opened model computes."""
    clsp = CLSP.from_pretrained(source)
    return clsp.encode_batch(WAVS, LENGTHS), clsp.encode_text(["a male speaker"])


@pytest.fixture(scope="module", params=["folder", "published"])
def base(request, tmp_path_factory):
    """Return a model in SpeechBrain's format, and one in the published form."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "folder":
        return model_folder(folder)
    write_tokenizer(write_official(folder / "model"))
    return folder / "model"


@pytest.mark.parametrize("options", [OPTIONS, {**OPTIONS, "tune": "heads"}], ids=["lora", "heads"])
def test_a_saved_model_is_the_trained_one_and_so_is_a_merged_one(base, options, tmp_path):
    """If this fails, users get other embeddings than those that were evaluated."""
    folder, expected = fine_tune(base, tmp_path / "tuned", options)
    found = embeddings(folder)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (found[0] - embeddings(base)[0]).abs().max() > 1e-3  # or nothing was tuned
    assert main(["convert", str(folder), str(tmp_path / "merged")]) == 0
    shutil.rmtree(folder)
    torch.testing.assert_close(embeddings(tmp_path / "merged"), found, atol=1e-6, rtol=0)
    before, after = (
        CLSP.from_pretrained(source).mods.logit_scale() for source in (base, tmp_path / "merged")
    )
    assert after > 1.5 * before


def test_adapters_are_small_and_frozen_in_use(base, tmp_path):
    """If this fails, a fine-tuned model is as large as its base, or learns in use."""
    folder, _ = fine_tune(base, tmp_path / "tuned", {**OPTIONS, "rank": 1, "layers": ["head.*"]})
    paths = folder / "adapters.safetensors", base / "model.safetensors"
    adapters, whole = (path.stat().st_size for path in paths)
    assert adapters < whole / 10
    clsp = CLSP.from_pretrained(folder)
    assert not any(p.requires_grad for p in clsp.mods.parameters()) and not clsp.mods.training
    assert "Adapters of" in (folder / "README.md").read_text(encoding="utf-8")


def test_a_fine_tuned_model_can_be_fine_tuned_again(base, tmp_path):
    """If this fails, a second fine-tuning forgets the first."""
    first, _ = fine_tune(base, tmp_path / "first")
    second, expected = fine_tune(first, tmp_path / "second")
    torch.testing.assert_close(embeddings(second), expected, atol=1e-5, rtol=0)
    assert main(["convert", str(second), str(tmp_path / "merged")]) == 0
    torch.testing.assert_close(embeddings(tmp_path / "merged"), expected, atol=1e-5, rtol=0)


def test_a_missing_or_different_base_is_named(tmp_path):
    """If this fails, adapters are added to weights that they were not trained on."""
    base = model_folder(tmp_path)
    folder, _ = fine_tune(base, tmp_path / "tuned")
    weights = load_file(base / "model.safetensors")
    weights["logit_scale.logit_scale"] += 1e-3
    save_file(weights, base / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors has SHA-256 .*were trained on"):
        CLSP.from_pretrained(folder)
    base.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"tuned holds adapters of .*missing: put it back"):
        CLSP.from_pretrained(folder)


def test_a_moved_base_is_found_where_config_json_says(tmp_path):
    """If this fails, the way out that the error names is none."""
    folder, expected = fine_tune(model_folder(tmp_path), tmp_path / "tuned")
    (tmp_path / "model").rename(tmp_path / "moved")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["base"]["source"] = str(tmp_path / "moved")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.testing.assert_close(embeddings(folder), expected, atol=1e-5, rtol=0)


def test_damaged_adapters_are_refused(tmp_path):
    """If this fails, half a file is taken for a model."""
    folder, _ = fine_tune(model_folder(tmp_path), tmp_path / "tuned")
    path = folder / "adapters.safetensors"
    state = load_file(path)
    key = next(key for key in state if key.startswith("text_tower"))
    save_file({**state, key: state[key] * torch.nan}, path)
    with pytest.raises(ValueError, match=f"{key} has values that are NaN"):
        CLSP.from_pretrained(folder)
    del state[key]
    save_file(state, path)
    with pytest.raises(ValueError, match=f"missing {key}"):
        CLSP.from_pretrained(folder)
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match="damaged"):
        CLSP.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["adapters"]["banks"] = 3
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({**state, key: torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="tuned/config.json does not say how its adapters were"):
        CLSP.from_pretrained(folder)
    (folder / "config.json").write_text('{"base": {}, "adapters": {}}', encoding="utf-8")
    with pytest.raises(ValueError, match="does not say what its adapters belong to"):
        CLSP.from_pretrained(folder)


def test_nothing_but_adapters_is_replaced(tmp_path):
    """If this fails, fine-tuning overwrites a model."""
    base = model_folder(tmp_path)
    with pytest.raises(FileExistsError, match="is not a model folder"):
        fine_tune(base, base)
    folder, _ = fine_tune(base, tmp_path / "tuned")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    _, expected = fine_tune(base, folder, {**OPTIONS, "rank": 2})
    torch.testing.assert_close(embeddings(folder), expected, atol=1e-5, rtol=0)
    assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_the_experiment_folder_leads_to_the_model(tmp_path):
    """If this fails, --model results/my_model ends in a riddle."""
    fine_tune(model_folder(tmp_path / "base"), tmp_path / "tuned" / "model")
    with pytest.raises(FileNotFoundError, match=r"tuned/model is: give that"):
        CLSP.from_pretrained(tmp_path / "tuned")


def test_merging_refills_the_classes_of_a_classifier(tmp_path):
    """If this fails, a merged classifier compares new speech with old prompts."""
    write_tokenizer(write_official(tmp_path / "published"))
    prompts = {"male": ["a male speaker", "male"], "female": "a female speaker"}
    convert_official(tmp_path / "published", tmp_path / "base", prompts=prompts)
    folder, _ = fine_tune(tmp_path / "base", tmp_path / "tuned")
    assert main(["convert", str(folder), str(tmp_path / "merged")]) == 0
    clsp = CLSP.from_pretrained(tmp_path / "merged")
    expected = clsp.classify_batch(WAVS, LENGTHS)[0]
    torch.testing.assert_close(clsp.mods.classifier(clsp.encode_batch(WAVS, LENGTHS)), expected)


def test_a_plain_model_has_no_adapters(tmp_path):
    """If this fails, no model of its own can be opened."""
    assert find_adapters(model_folder(tmp_path)) is None


def test_adapters_are_not_published_alone(tmp_path):
    """If this fails, a page on the Hub has adapters of somebody's own folder."""
    folder, _ = fine_tune(model_folder(tmp_path), tmp_path / "tuned")
    with pytest.raises(ValueError, match="merge them by `clsp convert"):
        publish(folder, "someone/tuned", dry_run=True)
