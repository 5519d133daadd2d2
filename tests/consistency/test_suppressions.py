"""Whoever silences a checker says why."""

import re
from pathlib import Path

from tests.utils.recipes import ROOT

SILENCED = re.compile(r"# (?:noqa|type: ignore)\b(.*)")
# Which rules, then the reason: F401 - why, or F401 (why); for mypy [arg-type]  # why.
WITH_REASON = re.compile(r"(?:: [A-Z]+\d+(?:, [A-Z]+\d+)* (?:- |\()|\[[\w, -]+\]  # )\w.*")


def without_reason(text: str) -> list[str]:
    """Return the lines of a source that silence a checker without rule or reason."""
    found = [(line, SILENCED.search(line)) for line in text.splitlines()]
    return [line for line, match in found if match and not WITH_REASON.fullmatch(match[1])]


def test_suppressions_have_a_reason():
    silenced = {}
    for folder in ("speechbrain_clsp", "recipes", "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            if path != Path(__file__):
                name = str(path.relative_to(ROOT))
                silenced[name] = without_reason(path.read_text(encoding="utf-8"))
    assert {name: lines for name, lines in silenced.items() if lines} == {}


def test_suppressions_without_reason_are_found():
    good = (
        "import a  # noqa: F401 - its memory counts\nb = c  # type: ignore[misc]  # a stub lies\n"
    )
    bad = ["x  # noqa", "x  # noqa: F401", "x  # type: ignore", "x  # type: ignore[misc]"]
    assert without_reason(good + "\n".join(bad)) == bad
