"""SpeechBrain's rules for recipes: each YAML is listed and tested, each key of it is used."""

import re
from contextlib import nullcontext
from pathlib import Path

import pytest

from speechbrain_clsp.training.recipe import run_recipe
from speechbrain_clsp.training.yaml_keys import unused_keys
from tests.utils.recipes import COLUMNS, ROOT, check_outputs, read_recipes

RECIPES = read_recipes()
# YAML files that are no hyperparameters of a script, as in SpeechBrain's own list of exceptions.
NO_HPARAMS = ("/models/", "/results/", "/annotation/")
# Headings that SpeechBrain's recipes have, in this order; others may stand between them.
SECTIONS = (
    *("Installing Extra Dependencies", "How to run", "Results"),
    *("PreTrained Model + Easy-Inference", "**About SpeechBrain**", "**Citing SpeechBrain**"),
)


def yaml_of(recipe: dict[str, str]) -> str:
    return Path(recipe["Hparam_file"]).stem


def test_every_yaml_file_has_a_row():
    listed = [recipe["Hparam_file"] for recipe in RECIPES]
    there = [str(path.relative_to(ROOT)) for path in (ROOT / "recipes").rglob("*.yaml")]
    wanted = [path for path in there if not any(part in path for part in NO_HPARAMS)]
    assert sorted(listed) == sorted(wanted)


@pytest.mark.parametrize("recipe", RECIPES, ids=yaml_of)
def test_a_row_is_complete(recipe):
    assert tuple(recipe) == COLUMNS
    assert recipe["Dataset"] == Path(recipe["Script_file"]).parts[1]
    for column in ("Script_file", "Hparam_file", "Data_prep_file", "Readme_file"):
        assert (ROOT / recipe[column]).is_file(), recipe[column]
    readme = (ROOT / recipe["Readme_file"]).read_text(encoding="utf-8")
    for column in ("Result_url", "HF_repo"):
        assert recipe[column] in readme
    assert recipe["test_debug_flags"] and "file_exists=[" in recipe["test_debug_checks"]


@pytest.mark.parametrize("dataset", sorted({recipe["Dataset"] for recipe in RECIPES}))
def test_a_recipe_s_readme_has_speechbrain_s_sections(dataset):
    folder = ROOT / "recipes" / dataset
    readme = (folder / "README.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", readme, flags=re.M)
    assert [heading for heading in headings if heading in SECTIONS] == list(SECTIONS)
    named = [script.name for script in folder.glob("*_prepare.py")]
    assert named and all(name in readme for name in named)
    assert (folder / "extra_requirements.txt").is_file() and "extra_requirements.txt" in readme


def test_extra_requirements_are_those_of_the_package():
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for path in (ROOT / "recipes").rglob("extra_requirements.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert f'"{line.partition("#")[0].strip()}"' in extras, f"{path}: {line}"


@pytest.mark.parametrize("recipe", RECIPES, ids=yaml_of)
def test_every_key_of_a_yaml_file_is_used(recipe):
    yaml = (ROOT / recipe["Hparam_file"]).read_text(encoding="utf-8")
    script = (ROOT / recipe["Script_file"]).read_text(encoding="utf-8")
    if "run_recipe(" in script:
        script = Path(run_recipe.__code__.co_filename).read_text(encoding="utf-8")
    assert unused_keys(yaml, script) == []


def test_an_unused_key_is_found():
    yaml = "seed: 1\nfolder: !ref out/<seed>\nlr: 2\nforgotten: 3\nprecision: fp32\n"
    assert unused_keys(yaml, 'hparams["lr"], self.hparams.folder, forgotten') == ["forgotten"]


@pytest.mark.parametrize(
    "checks, holds",
    [
        ("file_exists=[train_log.txt]", True),
        ("file_exists=[train_log.txt,model.pt]", False),
        ("performance_check=[train_log.txt, train loss, <3.5, epoch: 1]", True),
        ("performance_check=[train_log.txt, train loss, <3.4, epoch: 1]", False),
        ("file_exists=[train_log.txt] performance_check=[train_log.txt,valid R@1,>=2e-1]", False),
    ],
)
def test_what_a_row_promises_is_checked(tmp_path, checks, holds):
    lines = ["epoch: 1, lr: 1e-3 - train loss: 3.45, valid R@1: 1.0e-01", "epoch: 12 - a: 1"]
    (tmp_path / "train_log.txt").write_text("\n".join(lines[: 1 + ("epoch" in checks)]))
    with nullcontext() if holds else pytest.raises(AssertionError):
        check_outputs({"test_debug_checks": checks}, tmp_path)
