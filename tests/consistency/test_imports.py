"""Rooms import only from rooms below them, without circles, and at the top of a file."""

import pytest

from tests.utils.import_graph import circles, hidden, modules_of, read_imports, room_of, upward
from tests.utils.recipes import ROOT

PACKAGE = ROOT / "speechbrain_clsp"
ROOMS = (  # lowest first
    *("utils", "nnet", "lobes", "captions", "dataio", "prepare", "mini_fcaps", "pretrained"),
    *(
        "inference",
        "ratings",
        "evaluation",
        "search",
        "integrations",
        "training",
        "annotation",
        "serve",
        "cli",
    ),
)
INSTANT = ("cli",)  # its imports inside functions keep torch out of --help
IMPORTS = read_imports(PACKAGE)


def test_only_rooms_lie_at_the_top_of_the_package():
    top = {path.name for path in PACKAGE.glob("*.py")}
    assert top == {"__init__.py"}
    assert {room_of(name) for name in modules_of(PACKAGE)} == {"", *ROOMS}


def test_modules_have_no_circles():
    assert circles(IMPORTS) == []


def test_rooms_import_from_rooms_below_them():
    assert list(map(str, upward(IMPORTS, ROOMS))) == []


def test_imports_stand_at_the_top():
    assert list(map(str, hidden(IMPORTS, INSTANT))) == []


@pytest.fixture
def package(tmp_path):
    """Return a package of two rooms, ``low`` and ``high``, with one allowed import."""
    package = tmp_path / "house"
    for name, text in {
        "__init__": "def __getattr__(name):\n    from house.high.a import x\n    return x\n",
        "low/__init__": "",
        "low/a": "import os\nx = 1\n",
        "low/b": "",
        "high/__init__": "LAZY = {'y': '.b'}\n",
        "high/a": "from house.low.a import x\n",
        "high/b": "",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").write_text(text)
    return package


def add(path, text):
    path.write_text(path.read_text() + text)


def test_a_house_in_order_passes(package):
    imports = read_imports(package)
    assert {(each.importer, each.imported) for each in imports} == {
        ("house", "house.high.a"),
        ("house.high", "house.high.b"),
        ("house.high.a", "house.low.a"),
    }
    assert not circles(imports) + upward(imports, ["low", "high"]) + hidden(imports)


@pytest.mark.parametrize(
    "text",
    [
        "from house.high import a\n",
        "import house.high.a\n",
        "from ..high.a import x\n",
        "def f():\n    from house.high.a import x\n",
        "if TYPE_CHECKING:\n    from house.high.a import x\n",
        "class A:\n    from house.high.a import x\n",
    ],
)
def test_an_arrow_upward_and_its_circle_are_found(package, text):
    add(package / "low/a.py", text)
    imports = read_imports(package)
    assert circles(imports) == [["house.high.a", "house.low.a"]]
    (found,) = upward(imports, ["low", "high"])
    assert (found.importer, found.imported) == ("house.low.a", "house.high.a")
    assert len(hidden(imports)) == ("def f():" in text)
    assert not hidden(imports, ["low"])


def test_a_circle_of_three_and_one_through_a_lazy_package_are_found(package):
    add(package / "low/a.py", "from house.low.b import y\n")
    add(package / "low/b.py", "from house.low import c\n")
    (package / "low/c.py").write_text("import house.low.a\n")
    add(package / "high/b.py", "from house.high import y\n")
    assert circles(read_imports(package)) == [
        ["house.high", "house.high.b"],
        ["house.low.a", "house.low.b", "house.low.c"],
    ]


def test_the_package_itself_may_only_be_imported_by_the_last_room(package):
    add(package / "low/b.py", "from house import x\n")
    add(package / "high/b.py", "from house import x\n")
    (found,) = upward(read_imports(package), ["low", "high"])
    assert (found.importer, found.imported) == ("house.low.b", "house")
