"""Tests lie where the name of what they test says, and nothing public is untested."""

import ast

import pytest

from tests.utils.import_graph import modules_of
from tests.utils.recipes import ROOT

PACKAGE, TESTS = ROOT / "speechbrain_clsp", ROOT / "tests"
MODULES = modules_of(PACKAGE)


def public_names(path) -> set[str]:
    """Return the functions and classes of a module without an underscore in front."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    kinds = ast.FunctionDef | ast.ClassDef
    return {n.name for n in nodes if isinstance(n, kinds) and not n.name.startswith("_")}


def names_imported_by_tests() -> set[str]:
    """Return ``module.name`` of all that tests import."""
    found = set()
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    return found


IMPORTED = names_imported_by_tests()
# Commands are not imported but run, by tests of the rooms that they use.
WITH_NAMES = [name for name in MODULES if public_names(MODULES[name]) and ".cli." not in name]


@pytest.mark.parametrize("name", WITH_NAMES)
def test_a_module_has_a_test_or_an_example(name):
    path = MODULES[name]
    below = path.relative_to(PACKAGE)
    if (TESTS / "unittests" / below.parent / f"test_{below.name}").is_file():
        return
    room = ".".join(name.split(".")[:2])
    paths = {name} | {f"{where}.{n}" for where in (name, room) for n in public_names(path)}
    tested = bool(paths & IMPORTED) or ">>> " in path.read_text(encoding="utf-8")
    assert tested, f"no test imports {name}, and it has no example"


def test_unit_tests_are_named_after_what_they_test():
    homeless = []
    for path in sorted((TESTS / "unittests").rglob("test_*.py")):
        below = path.relative_to(TESTS / "unittests")
        name = below.name.removeprefix("test_").replace("package.py", "__init__.py")
        if not (PACKAGE / below.parent / name).is_file():
            homeless.append(str(below))
    assert homeless == []
