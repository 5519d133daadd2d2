"""A Sphinx extension: one API page for each room of the package, with the names it hands on.

Pages are written before the build reads its sources. A name is documented once, as part of its
room; references by the module where it is defined are resolved to that.
"""

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import speechbrain_clsp

PACKAGE = speechbrain_clsp.__name__
# Names in the inventories of other projects, by what docstrings or their modules call them.
ALIASES = {
    "Tensor": "torch.Tensor",
    "nn.Module": "torch.nn.Module",
    "torch.nn.modules.module.Module": "torch.nn.Module",
    "torch.optim.optimizer.Optimizer": "torch.optim.Optimizer",
    "torch.utils.data.dataset.Dataset": "torch.utils.data.Dataset",
    "torch.utils.data.sampler.Sampler": "torch.utils.data.Sampler",
}


def rooms() -> list[str]:
    """Return the rooms that hand on names."""
    found = sorted(module.name for module in pkgutil.iter_modules(speechbrain_clsp.__path__))
    modules = [importlib.import_module(f"{PACKAGE}.{name}") for name in found]
    return [module.__name__ for module in modules if getattr(module, "__all__", None)]


def directive(room: str, name: str) -> str:
    """Return the directive that documents a public name of a room."""
    value = getattr(importlib.import_module(room), name)
    if not callable(value):  # it has the docstring of its type
        return f".. py:data:: {name}\n   :type: {type(value).__name__}\n"
    kind = "function"
    if inspect.isclass(value):
        kind = "exception" if issubclass(value, BaseException) else "class"
    return f".. auto{kind}:: {room}.{name}\n"


def write_pages(app: Sphinx) -> None:
    """Write a page for each room into ``docs/api``, unless it is there with these words."""
    folder = Path(app.srcdir, "docs/api")
    folder.mkdir(exist_ok=True)
    for room in rooms():
        title = room.removeprefix(f"{PACKAGE}.")
        parts = [title, "=" * len(title), "", f".. automodule:: {room}\n   :no-members:\n"]
        parts += [directive(room, name) for name in importlib.import_module(room).__all__]
        text, path = "\n".join(parts), folder / f"{title}.rst"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def find(target: str) -> tuple[Any, list[str]]:
    """Return the object below a module that a dotted name names, and the attributes behind it.

    Raises
    ------
    LookupError
        If there is no such module, or no such object in it.
    """
    parts = target.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        if cut == len(parts):
            return module, []
        if hasattr(module, parts[cut]):
            return getattr(module, parts[cut]), parts[cut + 1 :]
        break
    raise LookupError(target)


def resolve(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """Resolve a reference to a name of this package by the room that hands it on.

    What exists and is not public gets no link; what does not exist stays an error. Aliases of names
    of other projects are replaced.
    """
    target = str(node.get("reftarget", ""))
    node["reftarget"] = ALIASES.get(target, target)  # for intersphinx, which comes next
    if node.get("refdomain") != "py" or not target.startswith(f"{PACKAGE}."):
        return None
    try:
        value, attributes = find(target)
    except LookupError:
        return None
    for room in rooms():
        module = importlib.import_module(room)
        for name in module.__all__:
            public = ".".join([room, name, *attributes])
            if getattr(module, name) is value and public != target:
                return env.domains["py"].resolve_xref(
                    env, node["refdoc"], app.builder, node["reftype"], public, node, content
                )
    return content


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("missing-reference", resolve, priority=100)
    return {"parallel_read_safe": True}
