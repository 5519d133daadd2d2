"""Self-contained HTML pages: jinja2 templates, tables, charts as SVG, audio players.

Charts are drawn here and not by matplotlib, which would add 97 MB and 0.9 s of import to what a
report needs.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import soundfile
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from speechbrain_clsp.utils.files import atomic_write

TEMPLATES = Path(__file__).parent / "templates"
COLORS = ("#2563eb", "#d9480f", "#2b8a3e", "#862e9c", "#5c5f66")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 460, 240, 44, 16, 212, 448  # of charts and their frame
LABELS = 9  # at most, along the horizontal axis


@lru_cache
def environment(folder: Path = TEMPLATES) -> Environment:
    """Return a jinja2 environment that escapes every value.

    It finds templates in ``folder`` and then those here: ``pieces.html`` has the macros ``table``
    and ``chart``.

    Example
    -------
    >>> environment().from_string("<p>{{ caption }}</p>").render(caption="<script>")
    '<p>&lt;script&gt;</p>'
    """
    return Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def write_page(path: str | os.PathLike, title: str, sections: Sequence[str]) -> None:
    """Write a self-contained page of ``sections``, HTML that is not escaped, atomically.

    Example
    -------
    >>> path = getfixture("tmp_path") / "page.html"
    >>> write_page(path, "a < b", [table(["a"], [["b"]])])
    >>> "<title>a &lt; b</title>" in path.read_text()
    True
    """
    page = environment().get_template("page.html").render(title=title, sections=sections)
    atomic_write(path, page)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Return a table; cells are text, the first column is left-aligned.

    Example
    -------
    >>> print(table(["a"], [["<b>"]]))
    <div class="scroll"><table>
    <tr><th>a</th></tr>
    <tr><td>&lt;b&gt;</td></tr>
    </table></div>
    """
    return _piece("table", header, rows)


def _piece(macro: str, *arguments: Any, **options: Any) -> Markup:
    return getattr(environment().get_template("pieces.html").module, macro)(*arguments, **options)


def line_chart(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> Markup:
    """Return curves as SVG; ``series`` holds each one's points (x, y)."""
    xs = sorted({x for points in series.values() for x, _ in points})
    ys = [y for points in series.values() for _, y in points]
    bottom, top, grid = _grid(min([*ys, 0.0]), max([*ys, 0.0]))
    left, right = xs[0], max(xs[-1], xs[0] + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - left) / (right - left), (y - bottom) / (top - bottom)
        return round(LEFT + across * (RIGHT - LEFT), 1), round(BOTTOM - up * (BOTTOM - TOP), 1)

    ticks = [(place(x, bottom)[0], f"{x:.4g}") for x in xs[:: len(xs) // LABELS + 1]]
    lines = [
        {"name": name, "color": color, "points": [place(*point) for point in points]}
        for color, (name, points) in zip(COLORS, series.items())
    ]
    return _piece("chart", title, _frame(grid, ticks), lines=lines)


def bar_chart(title: str, bars: Mapping[str, float]) -> Markup:
    """Return bars, not negative, each over its name, as SVG.

    Names are left out where there are too many to read.
    """
    _, top, grid = _grid(0.0, max(bars.values()))
    width = (RIGHT - LEFT) / len(bars)
    drawn, ticks = [], []
    for n, (name, value) in enumerate(bars.items()):
        x, height = LEFT + n * width, value / top * (BOTTOM - TOP)
        box = {"x": x + 0.1 * width, "y": BOTTOM - height, "width": 0.8 * width, "height": height}
        box = {key: round(number, 1) for key, number in box.items()}
        drawn.append({**box, "color": COLORS[0], "name": f"{name}: {value:g}"})
        ticks.append((round(x + width / 2, 1), name))
    return _piece("chart", title, _frame(grid, ticks[:: len(bars) // LABELS + 1]), bars=drawn)


def _grid(lowest: float, highest: float) -> tuple[float, float, list[tuple[float, str]]]:
    """Return the ends of a vertical axis, and about five grid lines at round values."""
    raw = max(highest - lowest, 1e-9) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first = math.floor(lowest / step)
    last = max(math.ceil(highest / step), first + 1)
    heights = ((k - first) / (last - first) * (BOTTOM - TOP) for k in range(first, last + 1))
    lines = [
        (round(BOTTOM - height, 1), f"{k * step:g}")
        for k, height in zip(range(first, last + 1), heights)
    ]
    return first * step, last * step, lines


def _frame(grid: Sequence[tuple[float, str]], ticks: Sequence[tuple[float, str]]) -> dict[str, Any]:
    size = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT}
    return {**size, "grid": grid, "ticks": ticks}


def audio_player(path: str | os.PathLike) -> Markup:
    """Return a player that holds the clip itself, as mono MP3."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.mean(axis=1), rate, format="MP3")
    data = base64.b64encode(buffer.getvalue()).decode()
    return Markup(f'<audio controls preload="none" src="data:audio/mpeg;base64,{data}"></audio>')
