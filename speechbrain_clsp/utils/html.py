"""Pieces of a report as HTML and SVG that need nothing from outside the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import soundfile

COLORS = ("#2563eb", "#d9480f", "#2b8a3e", "#862e9c", "#5c5f66")
WIDTH, HEIGHT, MARGIN = 460, 240, 44


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are text, the first column is left-aligned.

    Example
    -------
    >>> table(["a"], [["<b>"]])
    '<div class="scroll"><table><tr><th>a</th></tr><tr><td>&lt;b&gt;</td></tr></table></div>'
    """
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def shaded(value: float, low: float, high: float) -> str:
    """Return a cell's style: from white to blue, with a text color that stays readable."""
    share = min(max((value - low) / (high - low or 1.0), 0.0), 1.0)
    red, green, blue = (round(255 + share * (end - 255)) for end in (29, 78, 216))
    return f"background:rgb({red},{green},{blue});color:{'#fff' if share > 0.55 else '#111'}"


def confusion_matrix(name: str, classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Return a confusion matrix, shaded by the share of the true class."""
    head = "".join(f"<th>{escape(label)}</th>" for label in classes)
    rows = []
    for label, row in zip(classes, counts):
        total = sum(row) or 1
        cells = "".join(f'<td style="{shaded(n / total, 0, 1)}">{n}</td>' for n in row)
        rows.append(f"<tr><th>{escape(label)}</th>{cells}</tr>")
    return (
        f"<figure><figcaption>{escape(name)}: true class by row, answer by column</figcaption>"
        f'<table class="matrix"><tr><th></th>{head}</tr>{"".join(rows)}</table></figure>'
    )


def heat_map(captions: Sequence[str], names: Sequence[str], scores: np.ndarray) -> str:
    """Return similarities of captions (rows, readable) with clips (columns).

    Arguments
    ---------
    captions : list of str
        M captions.
    names : list of str
        N clips.
    scores : numpy.ndarray
        [M, N].

    Returns
    -------
    str
        A table; where row and column belong together the cell has a frame.
    """
    low, high = float(scores.min()), float(scores.max())
    head = "".join(f'<th title="{escape(name)}">{i + 1}</th>' for i, name in enumerate(names))
    rows = []
    for i, (caption, row) in enumerate(zip(captions, scores)):
        cells = "".join(
            f'<td class="{"own" if i == j else ""}" style="{shaded(score, low, high)}">'
            f"{100 * score:.0f}</td>"
            for j, score in enumerate(row)
        )
        rows.append(f'<tr><td class="caption">{i + 1}. {escape(caption)}</td>{cells}</tr>')
    return (
        f'<div class="scroll"><table class="matrix heat"><tr><th>caption</th>{head}</tr>'
        f"{''.join(rows)}</table></div>"
    )


def line_chart(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return curves over epochs as SVG.

    Arguments
    ---------
    title : str
        What is drawn.
    series : dict
        For each curve, its points (x, y).

    Returns
    -------
    str
        The figure.
    """
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    lowest, highest = min([*ys, 0.0]), max([*ys, 0.0])
    step = _step(highest - lowest)
    bottom = math.floor(lowest / step) * step
    top = max(math.ceil(highest / step) * step, bottom + step)
    left, right = min(xs), max(max(xs), min(xs) + 1)

    def at(x: float, y: float) -> tuple[float, float]:
        across = MARGIN + (x - left) / (right - left) * (WIDTH - MARGIN - 12)
        return across, HEIGHT - 28 - (y - bottom) / (top - bottom) * (HEIGHT - 44)

    parts = []
    for k in range(round((top - bottom) / step) + 1):
        _, y = at(left, bottom + k * step)
        parts.append(f'<line x1="{MARGIN}" x2="{WIDTH - 12}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" class="y">{bottom + k * step:g}</text>'
        )
    for x in sorted(set(xs))[:: max(1, len(set(xs)) // 8)]:
        parts.append(f'<text x="{at(x, bottom)[0]:.1f}" y="{HEIGHT - 10}" class="x">{x:.4g}</text>')
    for color, points in zip(COLORS, series.values()):
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (at(*point) for point in points))
        parts.append(f'<polyline points="{path}" stroke="{color}"/>')
    legend = " ".join(
        f'<span style="color:{color}">&#9632; {escape(name)}</span>'
        for color, name in zip(COLORS, series)
    )
    return (
        f"<figure><figcaption>{escape(title)} {legend}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg></figure>'
    )


def bar_chart(title: str, bars: Mapping[str, float]) -> str:
    """Return bars, each over its name, as SVG.

    Arguments
    ---------
    title : str
        What is drawn.
    bars : dict
        Heights, not negative; names are left out where there are too many to read.

    Returns
    -------
    str
        The figure.
    """
    step = _step(max(bars.values()))
    top = math.ceil(max(bars.values()) / step) * step
    width, height = (WIDTH - MARGIN - 12) / len(bars), HEIGHT - 44
    parts = []
    for k in range(round(top / step) + 1):
        y = HEIGHT - 28 - k * step / top * height
        parts.append(f'<line x1="{MARGIN}" x2="{WIDTH - 12}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" class="y">{k * step:g}</text>')
    for n, (name, value) in enumerate(bars.items()):
        x, tall = MARGIN + n * width, value / top * height
        box = f'x="{x + 0.1 * width:.1f}" y="{HEIGHT - 28 - tall:.1f}" width="{0.8 * width:.1f}"'
        told = f"<title>{escape(name)}: {value:g}</title>"
        parts.append(f'<rect {box} height="{tall:.1f}" fill="{COLORS[0]}">{told}</rect>')
        if n % (len(bars) // 8 + 1) == 0:
            middle = x + width / 2
            parts.append(
                f'<text x="{middle:.1f}" y="{HEIGHT - 10}" class="x">{escape(name)}</text>'
            )
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg></figure>'
    )


def _step(span: float) -> float:
    """Return a round distance that gives about five grid lines."""
    raw = max(span, 1e-9) / 5
    power = 10 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)


def audio_player(path: str) -> str:
    """Return a player that holds the clip itself, as mp3."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.mean(axis=1), rate, format="MP3")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/mpeg;base64,{data}"></audio>'
