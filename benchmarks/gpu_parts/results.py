"""The results file, which is complete at any moment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Results:
    """Rows of all parts in one JSON file that is replaced atomically.

    One process writes at a time: the parent between parts, a part's process during it.

    Arguments
    ---------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """Return ``environment`` and ``parts``."""
        return json.loads(self.path.read_text(encoding="utf-8"))

    def _write(self, data: dict[str, Any]) -> None:
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self.path)

    def begin(self, facts: dict[str, Any]) -> None:
        """Write the file anew."""
        self._write({"environment": facts, "parts": {}})

    def start(self, part: str, seconds: float) -> None:
        """Note that a part runs."""
        data = self.read()
        data["parts"][part] = {"limit_seconds": round(seconds, 1), "current": None, "rows": []}
        self._write(data)
        print(f"\n== {part} (at most {seconds:.0f} s)", flush=True)

    def current(self, part: str, row: str | None) -> None:
        """Note which row is being measured, so that a crash can be told."""
        data = self.read()
        data["parts"][part]["current"] = row
        self._write(data)

    def add(self, part: str, row: dict[str, Any]) -> None:
        """Print a row and write it."""
        data = self.read()
        data["parts"][part]["rows"].append(row)
        data["parts"][part]["current"] = None
        self._write(data)
        print(json.dumps(row), flush=True)

    def end(self, part: str, seconds: float, problem: str | None) -> None:
        """Note how long a part took, and a row for what it was at when it broke off."""
        data = self.read()
        found = data["parts"][part]
        found["seconds"] = round(seconds, 1)
        if problem:
            row = {"row": found["current"] or "(start)", "error": problem}
            found["rows"].append(row)
            print(json.dumps(row), flush=True)
        found["current"] = None
        self._write(data)

    def passed(self) -> bool:
        """Return whether no row failed: neither an error nor a check that did not hold."""
        rows = [row for part in self.read()["parts"].values() for row in part["rows"]]
        return bool(rows) and not any("error" in row or row.get("passed") is False for row in rows)
