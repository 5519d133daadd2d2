"""The results as Markdown."""

from __future__ import annotations

from typing import Any


def markdown(data: dict[str, Any]) -> str:
    """Return a page: what it was measured on, and one table per kind of row of each part."""
    facts = dict(data["environment"])
    packages = facts.pop("packages")
    facts |= {name: version for name, version in packages.items() if version}
    lines = ["# On a GPU" if facts["device type"] == "cuda" else "# On a CPU", ""]
    lines += _table([{"what": name, "value": value} for name, value in facts.items()])
    for part, found in data["parts"].items():
        lines += ["", f"## {part}", f"{found.get('seconds', '?')} s of {found['limit_seconds']} s."]
        for rows in _alike(found["rows"]):
            lines += ["", *_table(rows)]
    return "\n".join(lines) + "\n"


def _alike(rows: list[dict]) -> list[list[dict]]:
    """Group successive rows that have the same columns."""
    groups: list[list[dict]] = []
    for row in rows:
        if groups and list(groups[-1][0]) == list(row):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _table(rows: list[dict]) -> list[str]:
    columns = list(rows[0])
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return lines + [f"| {' | '.join(cell(row[c]) for c in columns)} |" for row in rows]


def cell(value: Any) -> str:
    r"""Return a value as the content of a cell.

    Example
    -------
    >>> cell(0.123456), cell(True), cell(None)
    ('0.1235', 'yes', '-')
    >>> print(cell("a|b"))
    a\|b
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
