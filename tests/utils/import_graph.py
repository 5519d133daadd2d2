"""The imports between the modules of a package, read from the source without importing it."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One import of a module of the package by another.

    Arguments
    ---------
    importer, imported : str
        Modules; a name that a package's ``__init__`` hands on counts as an import of the package.
    line : int
        Where it stands.
    function : str
        The function that it stands in, and so is executed at a call only; empty at the top.
    """

    importer: str
    imported: str
    line: int
    function: str = ""

    def __str__(self) -> str:
        where = f" in {self.function}" if self.function else ""
        return f"{self.importer}:{self.line} imports {self.imported}{where}"


def modules_of(package: Path) -> dict[str, Path]:
    """Return the modules below a package's folder by name; packages by that of their __init__."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def read_imports(package: Path) -> list[Import]:
    """Return all imports between modules of a package, those inside functions included.

    ``from package import __version__`` is left out: a constant, for which nothing else is imported.
    """
    modules = modules_of(package)
    found = []
    for name, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        is_package = path.stem == "__init__"
        inside = name if is_package else name.rpartition(".")[0]
        for node, function in _walk(tree, "", is_package):
            for target in _targets(node, inside, modules):
                if target != name:
                    found.append(Import(name, target, node.lineno, function))
    return list(dict.fromkeys(found))


def _walk(node: ast.AST, function: str, is_package: bool) -> Iterator[tuple[ast.AST, str]]:
    """Yield imports, in __init__ files also texts, by which they may import lazily."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, function
        elif is_package and isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child, "__getattr__"
        name = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else ""
        yield from _walk(child, function or name, is_package)


def _targets(node: ast.AST, inside: str, modules: Mapping[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        name = inside + node.value if node.value.startswith(".") else node.value
        yield from (name,) if name in modules else ()
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
        return
    base = node.module or ""
    if node.level:
        above = inside.split(".")[: len(inside.split(".")) + 1 - node.level]
        base = ".".join([*above, base] if base else above)
    for alias in node.names:
        if alias.name == "__version__":
            continue
        if f"{base}.{alias.name}" in modules:
            yield f"{base}.{alias.name}"
        elif base in modules:
            yield base


def circles(imports: Sequence[Import]) -> list[list[str]]:
    """Return the sets of modules that import each other, directly or by way of others."""
    arrows: dict[str, set[str]] = {}
    for each in imports:
        arrows.setdefault(each.importer, set()).add(each.imported)

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = arrows.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        return seen

    reached = {name: reachable(name) for name in arrows}
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached.get(other, ())))
        for name in reached
        if name in reached[name]
    }
    return sorted(map(list, groups))


def room_of(module: str) -> str:
    """Return the part of a module's name after the package's; empty for the package itself."""
    return [*module.split("."), ""][1]


def upward(imports: Sequence[Import], rooms: Sequence[str]) -> list[Import]:
    """Return the imports of a room that comes later in the order, or is not in it.

    The package's own ``__init__`` hands on names of rooms, so that only the last room may import
    from it.
    """
    height = {room: number for number, room in enumerate(rooms)} | {"": len(rooms) - 1}
    return [
        each
        for each in imports
        if room_of(each.importer)
        and height.get(room_of(each.imported), len(rooms)) > height.get(room_of(each.importer), -1)
    ]


def hidden(imports: Sequence[Import], allowed: Sequence[str] = ()) -> list[Import]:
    """Return the imports inside functions, but for those of rooms allowed and of lazy packages."""
    return [
        each
        for each in imports
        if each.function not in ("", "__getattr__") and room_of(each.importer) not in allowed
    ]
