"""Tables of several models side by side: Markdown, LaTeX and a page.

Measured figures come from ``metrics.json``, published ones from ``published/figures.json``; none is
typed into a table.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from speechbrain_clsp.evaluation.report import write_page
from speechbrain_clsp.evaluation.retrieval.pairing import MEDIAN
from speechbrain_clsp.evaluation.similarity import CORRELATIONS
from speechbrain_clsp.utils.html import confusion_matrix, table

PUBLISHED = Path(__file__).parent / "published" / "figures.json"
EMPTY = "-"
CHANCE = "chance"
AGREEMENT = "Raters and models, each against the mean of the other raters"
LATEX_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def published_figures(suite: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what papers state for a suite's data, by table and figure.

    Arguments
    ---------
    suite : str
        Nobody published figures of ``mini``.

    Returns
    -------
    dict
        Entries have ``model``, ``source``, ``value``, ``low`` and ``high`` (None if not stated).

    Example
    -------
    >>> published_figures("fcaps")["fine", "speech_to_text_R@1"]["value"]
    0.681
    """
    if suite == "mini":
        return {}
    found = {}
    for entry in json.loads(PUBLISHED.read_text(encoding="utf-8")):
        half = entry.pop("half_width")
        ends = (None, None) if half is None else (entry["value"] - half, entry["value"] + half)
        found[entry["table"], entry["figure"]] = {**entry, "low": ends[0], "high": ends[1]}
    return found


def format_figure(name: str, figure: Mapping[str, Any] | None, dash: str = "-") -> str:
    """Return a figure with its interval: shares in %, correlations and ranks as they are.

    Example
    -------
    >>> format_figure("WA", {"value": 0.572, "low": 0.55, "high": 0.6})
    '57.2 (55.0 - 60.0)'
    >>> format_figure("pearson", {"value": 0.893, "low": None, "high": None})
    '0.893'
    """
    if figure is None or not _known(figure.get("value")):
        return EMPTY
    text = _number(name, figure["value"])
    if _known(figure.get("low")) and _known(figure.get("high")):
        ends = (_number(name, figure[end]) for end in ("low", "high"))
        text += f" ({f' {dash} '.join(ends)})"
    return text


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _number(name: str, value: float) -> str:
    if name in CORRELATIONS:
        return f"{value:.3f}"
    return f"{value:.1f}" if name.endswith(MEDIAN) else f"{100 * value:.1f}"


def cells_of(result: Mapping[str, Any], dash: str = "-") -> dict[str, list[list[str]]]:
    """Lay every table out as rows of cells, the first of which is the header.

    Arguments
    ---------
    result : dict
        As :func:`~speechbrain_clsp.evaluation.suites.run_suite` returns it.
    dash : str
        What stands in an interval.

    Returns
    -------
    dict
        For each table, rows: figure, models, published models, chance.
    """
    published = published_figures(result["suite"])
    tables = {}
    for name, models in result["tables"].items():
        figures = list(next(iter(models.values())))
        stated = sorted({e["model"] for (where, _), e in published.items() if where == name})
        chances = any("chance" in figure for each in models.values() for figure in each.values())
        rows = [["", *models, *stated, *([CHANCE] if chances else [])]]
        for figure in figures:
            row = [figure.replace("_", " ")]
            row += [format_figure(figure, each.get(figure), dash) for each in models.values()]
            entry = published.get((name, figure))
            row += [
                format_figure(figure, entry if entry and entry["model"] == model else None, dash)
                for model in stated
            ]
            if chances:
                value = next(iter(models.values()))[figure].get("chance")
                row.append(format_figure(figure, {"value": value}))
            rows.append(row)
        tables[name] = rows
    return tables


def markdown_tables(result: Mapping[str, Any]) -> str:
    """Return all tables, comparisons and warnings as Markdown."""
    parts = [f"# {result['suite']}\n"]
    parts += [f"**{warning}**\n" for warning in result["warnings"]]
    for name, rows in cells_of(result).items():
        parts.append(f"## {name}\n\n{pipes(rows)}")
    if result["comparisons"]:
        parts.append(f"## Models in pairs\n\n{pipes(comparison_rows(result))}")
    if "agreement" in result:
        parts.append(f"## {AGREEMENT}\n\n{pipes(agreement_rows(result))}")
    parts.append(_provenance(result))
    return "\n".join(parts)


def pipes(rows: list[list[str]]) -> str:
    """Return a table in Markdown; the first row is its header, the first column its names."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def comparison_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return the comparisons of models as rows of cells, in percentage points."""
    rows = [["table", "figure", "models", "difference", "p"]]
    for found in result["comparisons"]:
        rows.append(
            [
                found["table"],
                found["figure"].replace("_", " "),
                f"{found['first']} - {found['second']}",
                format_figure(found["figure"], {**found, "value": found["difference"]}),
                f"{found['p_value']:.4f}",
            ]
        )
    return rows


def agreement_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return, by category and model, how raters agree and where the model stands among them.

    The raters' column is lowest / median / highest Spearman correlation of a rater with the mean
    of the others, the model's its own with the same means.
    """
    rows = [["category", "pairs", "alpha", "raters", "model", "", "raters below it"]]
    for category, entry in result["agreement"].items():
        for name in result["models"]:
            spread = entry.get(name) or {"count": 0}
            ends = [spread.get(key) for key in ("lowest", "median", "highest")]
            rows.append(
                [
                    category,
                    str(entry["items"]),
                    format_figure("spearman", {"value": entry["alpha"]}),
                    " / ".join(format_figure("spearman", {"value": end}) for end in ends),
                    name,
                    format_figure("spearman", {"value": spread.get("model")}),
                    format_figure("share", {"value": spread.get("below_model")}),
                ]
            )
    return rows


def _provenance(result: Mapping[str, Any]) -> str:
    models = [f"- {n}: {m['model']}, revision {m['revision']}" for n, m in result["models"].items()]
    data = [f"- {d['name']}: sha256 {d['sha256']}" for d in result["data"]]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    sources = sorted({e["source"] for e in published_figures(result["suite"]).values()})
    lines = [*models, *data, f"- seed {result['seed']}; {versions}"]
    lines += [f"- published figures: {source}" for source in sources]
    return "\n".join(["## From", "", *lines, ""])


def latex_tables(result: Mapping[str, Any]) -> str:
    """Return all tables as LaTeX (package booktabs), figures in %, 95 % intervals in brackets."""
    parts = []
    for name, rows in cells_of(result, dash="--").items():
        head, *body = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in rows]
        columns = "l" + "r" * (len(rows[0]) - 1)
        parts += [
            r"\begin{table}\centering",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{_latex(name)}}}",
            r"\end{table}",
            "",
        ]
    return "\n".join(parts)


def _latex(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)


def write_results(result: Mapping[str, Any], folder: str | os.PathLike) -> None:
    """Write metrics.json, tables.md, tables.tex and report.html, each whole or not at all.

    Arguments
    ---------
    result : dict
        As :func:`~speechbrain_clsp.evaluation.suites.run_suite` returns it.
    folder : str or path
        Where they go.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "metrics.json": json.dumps(_without_nan(result), indent=2, allow_nan=False),
        "tables.md": markdown_tables(result),
        "tables.tex": latex_tables(result),
    }
    for name, text in texts.items():
        partial = folder / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, folder / name)
    write_page(folder / "report.html", f"Evaluation: {result['suite']}", _sections(result))


def _without_nan(value: Any) -> Any:
    """Return the same with None for NaN, for which JSON has no word."""
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sections(result: Mapping[str, Any]) -> list[str]:
    sections = [f"<h1>{escape(result['suite'])}</h1>"]
    sections += [f"<p><b>{escape(warning)}</b></p>" for warning in result["warnings"]]
    for name, (head, *rows) in cells_of(result).items():
        sections.append(f"<h2>{escape(name)}</h2>{table(head, rows)}")
        matrices = [
            confusion_matrix(model, found["classes"], found["confusion"])
            for model, found in result.get("confusions", {}).get(name, {}).items()
        ]
        sections.append(f'<div class="row">{"".join(matrices)}</div>')
    if result["comparisons"]:
        head, *rows = comparison_rows(result)
        sections.append(f"<h2>Models in pairs</h2>{table(head, rows)}")
    if "agreement" in result:
        head, *rows = agreement_rows(result)
        sections.append(f"<h2>{AGREEMENT}</h2>{table(head, rows)}")
    notes = "<br>".join(escape(line) for line in _provenance(result).splitlines()[2:])
    return [*sections, f"<p class='note'>{notes}</p>"]
