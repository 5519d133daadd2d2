import shutil
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard

from speechbrain_clsp.pretrained.card import write_card
from tests.utils.pages import blocks_of
from tests.utils.small import model_folder, tone, write


def test_the_hub_s_own_reader_finds_library_tags_and_metrics(tmp_path):
    metrics = {"fine captions, R@1": (0.84, 0.797, 0.88), "gender UAR": 0.5, "mean": (1.0, None)}
    write_card(tmp_path, metrics, origin="Of synthetic speech.", dataset="MiniFCaps, test")
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.library_name == "speechbrain" and {"CLSP", "speechbrain"} <= set(data.tags)
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found == {"fine captions, R@1": 0.84, "gender UAR": 0.5, "mean": 1.0}
    text = (tmp_path / "README.md").read_text()
    for line in (
        "| fine captions, R@1 | 0.84 | 0.797 to 0.88 |",
        "| gender UAR | 0.5 |  |",
        "Of synthetic speech.",
        "Measured on MiniFCaps, test:",
    ):
        assert line in text
    ModelCard(text)  # raises if the metadata are not valid YAML


def test_a_card_without_metrics_has_no_table(tmp_path):
    write_card(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert ModelCard(text).data.eval_results is None and "Measured" not in text


@pytest.mark.parametrize("name", ["hyperparams.yaml", "adapters.safetensors", "speech.onnx"])
def test_the_card_warns_of_code_only_where_there_is_some(tmp_path, name):
    (tmp_path / name).touch()
    write_card(tmp_path)
    is_warned = "`hyperparams.yaml` names the" in (tmp_path / "README.md").read_text()
    assert is_warned == (name != "speech.onnx")


def test_the_snippet_of_a_model_s_card_runs_as_it_is(tmp_path):
    folder = model_folder(tmp_path)
    (snippet,) = (b for b in blocks_of(folder / "README.md") if b.language == "python")
    shutil.copytree(folder, tmp_path / "path" / "to" / folder.name)
    write(tmp_path / "a.wav", tone())
    code = snippet.text.replace("clsp.score_file", "scores = clsp.score_file")
    command = [sys.executable, "-c", f"{code}\nassert scores.shape == (2,)"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["a model: v2", "#1", "yes"])
def test_names_that_mean_something_in_yaml_stay_names(tmp_path, name):
    (tmp_path / name).mkdir()
    write_card(tmp_path / name, {"R@1": 0.5})
    assert ModelCard.load(tmp_path / name / "README.md").data.model_name == name
