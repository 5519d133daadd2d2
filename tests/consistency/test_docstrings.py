"""SpeechBrain's rules for docstrings, in NumPy's style.

Modules, and functions and classes without an underscore in front, say what they are for.
"""

import ast
from collections.abc import Iterator

import pytest

from tests.utils.recipes import ROOT

FILES = sorted(
    path
    for folder in ("speechbrain_clsp", "recipes", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if not path.is_symlink()
)
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def without_docstring(text: str) -> list[str]:
    """Return what lacks a docstring in a source: the module, and what is defined in it by name.

    As in SpeechBrain, methods count and what is defined within functions does not; a name with an
    underscore in front is of no concern to readers.
    """
    tree = ast.parse(text)
    found = [] if ast.get_docstring(tree) else ["the module"]
    return found + [
        name for name, node in _definitions(tree, "") if not (ast.get_docstring(node) or "").strip()
    ]


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, Definition) and not inner.name.startswith("_"):
            yield f"{prefix}{inner.name}", inner
        if isinstance(inner, ast.ClassDef):
            yield from _definitions(inner, f"{prefix}{inner.name}.")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_has_a_docstring(path):
    assert without_docstring(path.read_text(encoding="utf-8")) == []


def test_missing_docstrings_are_found():
    text = 'class A:\n    """A."""\n    def b(self):\n        def c(): pass\nclass _D:\n'
    text += "    def e(self): pass\ndef _f(): pass\n"
    assert without_docstring(text) == ["the module", "A.b", "_D.e"]
