"""What documents and YAML files promise is there."""

import ast
import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.utils.command_line import command_parsers

ROOT = Path(__file__).parents[2]
RECIPES = list(csv.DictReader((ROOT / "tests/recipes/recipes.csv").open(encoding="utf-8")))
SOURCES = sorted((ROOT / "speechbrain_clsp").rglob("*.py")) + sorted(
    (ROOT / "recipes").rglob("*.py")
)
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / "recipes").rglob("README.md"),
]


def test_every_recipe_is_tested():
    """If this fails, a recipe can break without anyone noticing."""
    listed = {recipe["Hparam_file"] for recipe in RECIPES}
    there = {str(p.relative_to(ROOT)) for p in (ROOT / "recipes").rglob("hparams/*.yaml")}
    assert listed == there
    for recipe in RECIPES:
        for column in ("Script_file", "Hparam_file", "Data_prep_file", "Readme_file"):
            assert (ROOT / recipe[column]).is_file(), recipe[column]


@pytest.mark.parametrize("recipe", RECIPES, ids=[r["Hparam_file"] for r in RECIPES])
def test_every_yaml_key_is_used(recipe):
    """If this fails, users change a setting that nothing reads."""
    yaml = (ROOT / recipe["Hparam_file"]).read_text(encoding="utf-8")
    script = ROOT / recipe["Script_file"]
    code = script.read_text(encoding="utf-8")
    for name in re.findall(r"^from (\w+) import", code, flags=re.M):
        if (beside := script.with_name(f"{name}.py")).is_file():
            code += beside.read_text(encoding="utf-8")
    code += (ROOT / "speechbrain_clsp/training/brain.py").read_text(encoding="utf-8")
    # Read by SpeechBrain itself, from hparams, if they are there.
    known = {"__set_seed", "max_grad_norm", "precision"}
    for key in re.findall(r"^([A-Za-z_]\w*):", yaml, flags=re.M):
        used = re.search(
            rf"""hparams\.{key}\b|["']{key}["']|hparams\[f"{{split}}_manifest"\]""", code
        )
        referred = f"<{key}>" in yaml or f"<{key}[" in yaml
        assert used or referred or key in known, key


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_everything_public_is_documented_and_short(path):
    """If this fails, a reader meets a name without an explanation, or a file too long to read."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "module"
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    nested = {
        f for g in functions for f in ast.walk(g) if isinstance(f, ast.FunctionDef) and f is not g
    }
    for node in set(ast.walk(tree)) - nested:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            body_lines = node.end_lineno - node.body[0].end_lineno
            if isinstance(node, ast.FunctionDef):
                assert body_lines <= 45, f"{node.name} has {body_lines} lines"
            if not node.name.startswith("_"):
                assert ast.get_docstring(node) or is_method_of_protocol(node), node.name
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def is_method_of_protocol(node: ast.AST) -> bool:
    """Tell autograd's forward and backward, which the class's docstring describes."""
    return getattr(node, "name", "") in ("forward", "backward") and any(
        isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_pages_name_what_exists(page):
    """If this fails, a page tells users to open, run or import something that is not there."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), target
    for target in re.findall(r"\bmake (\w+)", text):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M), target
    for command in re.findall(r"^\s*clsp ([\w-]+)", text, flags=re.M):
        assert command in command_parsers(), command
    for script, folder in re.findall(r"python (\S+\.py)|cd (\S+)", text):
        name = script or folder
        assert list(ROOT.rglob(Path(name).name)), name
    for module, names in re.findall(r"^from (speechbrain_clsp\S*) import (.+)$", text, flags=re.M):
        code = f"from {module} import {names}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
