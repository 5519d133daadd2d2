"""What pages, docstrings and comments tell users to run, import or open is there."""

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from speechbrain.core import RunOptions

from speechbrain_clsp.cli.main import parser
from speechbrain_clsp.prepare import prepare_own
from tests.utils.command_line import command_parsers
from tests.utils.pages import ROOT, blocks_of
from tests.utils.small import model_folder, tone, write

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "recipes/**/*.md", "tests/**/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
)
SHOWN = [
    path
    for pattern in ("recipes/**/*.py", "recipes/**/*.yaml", "benchmarks/*.py")
    for path in sorted(ROOT.glob(pattern))
    if not path.is_symlink() and blocks_of(path)
]
PARSERS = command_parsers()
RECIPE_OPTIONS = {field.name for field in fields(RunOptions)}
PLACES = "recipes|docs|tests|speechbrain_clsp|benchmarks"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_paths_of_pages_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http", "mailto:")):
            linked = (page.parent / target).resolve()
            assert linked.exists() and linked.is_relative_to(ROOT.resolve()), target
    for path in re.findall(rf"`((?:{PLACES})/[\w./-]+)`", text):
        assert (ROOT / path).exists() or (page.parent / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_blocks_compile_and_their_imports_resolve(page):
    for block in blocks_of(page):
        if block.language == "python":
            tree = compile(block.text, f"{page}:{block.line}", "exec", ast.PyCF_ONLY_AST)
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom):
                    check_import(node.module, [alias.name for alias in node.names])


def check_import(module: str, names: list[str]) -> None:
    """Check an import from the package, or from a script of a recipe by its name."""
    if module.split(".")[0] == "speechbrain_clsp":
        for name in names:
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
    for script in list((ROOT / "recipes").rglob(f"{module}.py"))[:1]:
        nodes = ast.parse(script.read_text(encoding="utf-8")).body
        assert set(names) <= {getattr(node, "name", None) for node in nodes}, module


@pytest.mark.parametrize("page", PAGES + SHOWN, ids=name_of)
def test_commands_and_their_options_exist(page):
    folders = {page.parent, page.parent.parent, ROOT}  # a YAML file's script is one folder up
    for block in blocks_of(page):
        for words in block.commands():
            where = f"{name_of(page)}:{block.line}: {shlex.join(words)}"
            name = Path(words[0]).name
            if name == "cd":
                inner = {folder / words[1] for folder in folders | {ROOT}}
                folders |= {folder for folder in inner if folder.is_dir()}
                assert any(folder.is_dir() for folder in inner), where
            elif name == "clsp":
                check_clsp(words[1:], where)
            elif name == "make":
                check_make(words[1:], where)
            elif name.startswith(("python", "torchrun")):
                check_script(words[1:], folders, where)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_sentences_exist(page):
    text = page.read_text(encoding="utf-8")
    for line in re.findall(r"`clsp ([^`]+)`", text):
        words = line.split()
        name = " ".join(words[:2]) if " ".join(words[:2]) in PARSERS else words[0]
        known = {**PARSERS, words[0]: parser()} if words[0].startswith("-") else PARSERS
        assert name in known, line
        options = {word for word in words if word.startswith("--")}
        assert options <= set(known[name]._option_string_actions), line
    for target in re.findall(r"`make ([\w-]+)`", text):
        check_make([target], target)


def check_clsp(words: list[str], where: str) -> None:
    """Parse a command line of ``clsp`` as the command itself does, without running it."""
    try:
        parser().parse_args(words)
    except SystemExit as error:
        assert error.code == 0, where


def check_make(targets: list[str], where: str) -> None:
    """Check targets of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.M), where


def check_script(words: list[str], folders: set[Path], where: str) -> None:
    """Check a script of the repository and its options: a YAML file's keys, or its own."""
    script = next((word for word in words if word.endswith(".py")), None)
    if script is None:  # python -m something
        return
    name = re.sub(r"^(?:\.\./)+", "", script)
    found = [path for folder in folders if (path := folder / script).is_file()]
    found += [path for path in (ROOT / name, *ROOT.glob(f"recipes/**/{name}")) if path.is_file()]
    assert found, where
    rest = words[words.index(script) + 1 :]
    options = {word[2:].split("=")[0] for word in rest if word.startswith("--")}
    if rest and rest[0].endswith(".yaml"):
        there = [hparams for path in found if (hparams := path.parent / rest[0]).is_file()]
        assert there, where
        hparams = there[0]
        keys = re.findall(r"^(\w+):", hparams.read_text(encoding="utf-8"), flags=re.M)
        assert options <= {*keys, *RECIPE_OPTIONS}, where
    else:
        code = found[0].read_text(encoding="utf-8")
        for module in re.findall(r"^from (speechbrain_clsp\S*) import", code, flags=re.M):
            path = ROOT / module.replace(".", "/")
            for source in (path.with_suffix(".py"), *path.glob("*.py")):
                code += source.read_text(encoding="utf-8") if source.is_file() else ""
        for option in options:
            assert f'"--{option}"' in code, f"{where}: --{option}"


CLSP = f"""#!/bin/sh
case $1 in train|finetune) set -- "$@" --epochs 1 --set epoch_clips=8 num_threads=1;; esac
exec {sys.executable} -m speechbrain_clsp.cli "$@"
"""
RUNNABLE = [
    pytest.param(block, id=f"{name_of(page)}:{block.line}")
    for page in PAGES
    for block in blocks_of(page)
    if block.runs
]


@pytest.mark.parametrize("block", RUNNABLE)
def test_blocks_marked_to_run_do_so(block, tmp_path):
    write_demo(tmp_path)
    (tmp_path / "clsp").write_text(CLSP)
    (tmp_path / "clsp").chmod(0o755)
    python = [sys.executable, "-c"] if block.language == "python" else ["bash", "-e", "-c"]
    done = subprocess.run(
        [*python, block.text],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr


def write_demo(folder: Path) -> None:
    """Write what blocks use: a model, recordings, a table of them, and a manifest as the demo's."""
    (folder / "results" / "mini").mkdir(parents=True)
    model_folder(folder / "results" / "mini")
    for name in ("a.wav", "b.mp3", "long.flac"):
        write(folder / name, tone(3.0))
    lines = ["wav,caption,speaker,gender"]
    for i in range(12):
        write(folder / f"{i}.wav", tone(2.1, 8000, 90 + 15 * i), 8000)
        who, gender = ("man", "male") if i % 2 else ("woman", "female")
        lines.append(f"{i}.wav,A {who} speaks.,s{i % 6},{gender}")
    (folder / "my_clips.csv").write_text("\n".join(lines), encoding="utf-8")
    data = folder / "data" / "mini_fcaps"
    prepare_own(folder / "my_clips.csv", data / "test.arrow", n_jobs=1)


def test_wrong_commands_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n    clsp score a.wav 'A.' \\\n        --colour red\n"
        "    make nothing && cd elsewhere\n"
        "    python recipes/FCaps/CLSP/train.py hparams/mini.yaml --colour=red\n\n"
        "```python\nfrom speechbrain_clsp import Nothing\n```\n"
    )
    fenced, indented = blocks_of(page)
    clsp, make, cd, python = indented.commands()
    assert cd == ["cd", "elsewhere"]
    for check in (
        lambda: check_clsp(clsp[1:], ""),
        lambda: check_make(make[1:], ""),
        lambda: check_script(python[1:], {ROOT}, ""),
        lambda: check_import("speechbrain_clsp", ["Nothing"]),
    ):
        with pytest.raises(AssertionError):
            check()
    assert (fenced.language, fenced.line, indented.line) == ("python", 9, 3)


def test_messages_that_the_page_of_troubles_quotes_are_the_package_s():
    """Each first cell of a table with the column ``message``; strings are joined as Python does."""
    sources = [path.read_text(encoding="utf-8") for path in ROOT.glob("speechbrain_clsp/**/*.py")]
    text = re.sub(r'"\s*\n\s*(?:f|r)?"', "", "\n".join(sources))
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    quoted, column = [], ""
    for line in page.splitlines():
        cell = line.strip("| ").split(" | ")[0]
        if not line.startswith("|"):
            column = ""
        elif not column:
            column = cell
        elif column == "message":
            quoted += re.findall("`([^`]+)`", cell)
    assert len(quoted) > 20
    for message in quoted:
        assert all(part.strip() in text for part in message.split("...")), message
