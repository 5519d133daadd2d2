"""SpeechBrain's rules for docstrings, in NumPy's style.

Modules, and functions and classes without an underscore in front, say what they are for. Those that
a room hands on also list their arguments and what they return, and show an example.
"""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest

import speechbrain_clsp
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


def missing_sections(thing: type | object) -> list[str]:
    """Return which sections the docstring of a function or class lacks.

    Arguments if there are any, Returns unless it is a class or returns None, and an Example.
    """
    text = inspect.getdoc(thing) or ""
    signature = inspect.signature(thing)
    wanted = ["Arguments"] if signature.parameters else []
    if not inspect.isclass(thing) and signature.return_annotation not in (None, "None"):
        wanted.append("Returns")
    wanted.append("Example")
    text = text.replace("Yields\n------", "Returns\n-------")  # of context managers
    return [section for section in wanted if f"\n{section}\n{'-' * len(section)}\n" not in text]


def handed_on() -> Iterator[tuple[str, object]]:
    """Yield what rooms hand on: functions, and classes other than exceptions."""
    rooms = [found.name for found in pkgutil.iter_modules(speechbrain_clsp.__path__) if found.ispkg]
    for room in rooms:
        module = importlib.import_module(f"speechbrain_clsp.{room}")
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            is_error = inspect.isclass(thing) and issubclass(thing, Exception)
            if (inspect.isclass(thing) or inspect.isfunction(thing)) and not is_error:
                yield f"{room}.{name}", thing


PUBLIC = dict(handed_on())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_has_a_docstring(path):
    assert without_docstring(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names_say_what_they_take_and_return_and_show_an_example(name):
    assert missing_sections(PUBLIC[name]) == []


def test_missing_docstrings_are_found():
    text = 'class A:\n    """A."""\n    def b(self):\n        def c(): pass\nclass _D:\n'
    text += "    def e(self): pass\ndef _f(): pass\n"
    assert without_docstring(text) == ["the module", "A.b", "_D.e"]


def test_missing_sections_are_found():
    def bare(a: int) -> int:
        """Return it."""

    def whole(a: int) -> None:
        """Take it.

        Arguments
        ---------
        a : int
            It.

        Example
        -------
        >>> 1
        1
        """

    assert missing_sections(bare) == ["Arguments", "Returns", "Example"]
    assert missing_sections(whole) == []
