"""Tables of a suite's results: Markdown, LaTeX, CSV, and the files of an evaluation.

Measured metrics come from the evaluation, published ones from ``published/metrics.json``.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from speechbrain_clsp.captions.policies import EVALUATED
from speechbrain_clsp.evaluation.probes.pairs import pick_evenly
from speechbrain_clsp.evaluation.result import Evaluation
from speechbrain_clsp.evaluation.retrieval.metrics import MEDIAN
from speechbrain_clsp.evaluation.similarity import CORRELATIONS
from speechbrain_clsp.evaluation.statistics import Estimate
from speechbrain_clsp.prepare.assembly import report_path
from speechbrain_clsp.utils.files import sha256_of_file
from speechbrain_clsp.utils.reading import read_json

PUBLISHED = Path(__file__).parent / "published" / "metrics.json"
TEST_SETS = Path(__file__).parent / "published" / "test_sets.json"
CHANCE = "chance"
MADE = "Pairs made from captions"
EXAMPLES = 30  # of these pairs
PAIRS = "Models in pairs"
AGREEMENT = "Raters and models, each against the mean of the other raters"


def _published_entries(suite: str) -> list[dict[str, Any]]:
    """Return what papers state of a suite, if anything."""
    if suite in ("mini", "probes", "speech-similarity"):
        return []
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))


def published_tables(suite: str) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Return what papers state for a suite's data, by table, model and metric.

    Example
    -------
    >>> published_tables("fcaps")["fine"]["CLSP (published)"]["speech_to_text_R@1"].value
    0.681
    """
    tables: dict[str, dict[str, dict[str, Estimate]]] = {}
    for entry in _published_entries(suite):
        value, half = entry["value"], entry["half_width"]
        estimate = Estimate(value) if half is None else Estimate(value, value - half, value + half)
        models = tables.setdefault(entry["table"], {})
        models.setdefault(entry["model"], {})[entry["metric"]] = estimate
    return tables


def is_published_test(table: str, path: str | os.PathLike, clips: int) -> bool:
    """Return whether data is the test set that published metrics of a table are of.

    Such sets are recognized by the hash of the file, by the report that FCaps' prepare script left
    beside its manifest, or by the number of labelled clips of a corpus. Fewer clips are another
    test set.

    Arguments
    ---------
    table : str
        Name of the table, such as ``fine`` or ``ravdess gender``.
    path : str or path
        The manifest, or the ratings.
    clips : int
        How many clips the table's metrics are of.

    Example
    -------
    >>> is_published_test("ravdess gender", "test.arrow", 1440)
    True
    >>> is_published_test("ravdess gender", "test.arrow", 60)
    False
    """
    for test in read_json(TEST_SETS):
        if table in test["tables"]:
            by_hash = test.get("sha256", ())
            if by_hash and sha256_of_file(path) in by_hash:
                return True
            if clips in test.get("clips", ()):
                return "file" not in test or _source_file(Path(path)) == test["file"]
    return False


def _source_file(manifest: Path) -> str | None:
    """Return the published file that a manifest was prepared from, if it says so."""
    path = report_path(manifest)
    report = read_json(path) if path.is_file() else {}
    return report.get("settings", {}).get("file")


def format_metric(name: str, estimate: Estimate | float | None) -> str:
    """Return a metric as text: fractions in %, others as they are.

    Arguments
    ---------
    name : str
        Of the metric.
    estimate : Estimate, float or None
        Its value; without one, or if it is NaN, a hyphen is returned.

    Example
    -------
    >>> format_metric("WA", Estimate(0.572, 0.55, 0.6)), format_metric("pearson", 0.893)
    ('57.2 (55.0-60.0)', '0.893')
    """
    if not isinstance(estimate, Estimate):
        estimate = Estimate(math.nan if estimate is None else estimate)
    if name.endswith("margin"):
        return estimate.format(digits=3)
    if estimate.low is not None and math.isnan(estimate.low):
        estimate = Estimate(estimate.value)
    if name in CORRELATIONS:
        return estimate.format(digits=3)
    return estimate.format(percent=not name.endswith(MEDIAN), digits=1)


def _metric_tables(evaluation: Evaluation) -> dict[str, list[list[str]]]:
    """Return each table's rows: metric, N, models, published, chance; the first is a header."""
    published = published_tables(evaluation.suite)
    tables = {}
    for name, models in evaluation.tables.items():
        measured = max(models.values(), key=len)  # a bound may lack some
        columns = models | (published.get(name, {}) if name in evaluation.recognized else {})
        counts = evaluation.counts.get(name)
        has_chance = any(estimate.chance is not None for estimate in measured.values())
        rows = [["", *(["N"] if counts else []), *columns, *([CHANCE] if has_chance else [])]]
        for metric, estimate in measured.items():
            cells = [str(counts.get(metric, ""))] if counts else []
            cells += [format_metric(metric, metrics.get(metric)) for metrics in columns.values()]
            cells += [format_metric(metric, estimate.chance)] if has_chance else []
            rows.append([_words(metric.removesuffix(" margin")), *cells])
        tables[name] = rows
    return tables


def heading(table: str) -> str:
    """Return a table's name as readers see it: ``fine captions`` for ``fine``."""
    kind, comma, rest = table.partition(",")
    return f"{kind} captions{comma}{rest}" if kind in EVALUATED else table


def all_tables(evaluation: Evaluation) -> dict[str, list[list[str]]]:
    """Return all tables by title: metrics, comparisons of models, agreement of raters.

    A table is a list of rows of cells, of which the first is its header.
    """
    tables = _metric_tables(evaluation)
    if evaluation.made_pairs:
        tables[MADE] = _made_pairs_rows(evaluation)
    if evaluation.comparisons:
        tables[PAIRS] = _comparison_rows(evaluation)
    if evaluation.agreement:
        tables[AGREEMENT] = _agreement_rows(evaluation)
    return tables


def _made_pairs_rows(evaluation: Evaluation) -> list[list[str]]:
    """Return how many pairs of each group captions gave, out of how many clips."""
    clips = evaluation.data[-1]["rows"]
    groups = Counter(pair.group for pair in evaluation.made_pairs)
    rows = [
        [group, str(count), format_metric("fraction", count / clips)]
        for group, count in groups.items()
    ]
    return [["", "pairs", "of clips"], *rows]


def pair_examples(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Return thirty of the pairs that were made from captions: group, true and false one."""
    return [
        (pair.group, pair.true, pair.false) for pair in pick_evenly(evaluation.made_pairs, EXAMPLES)
    ]


def _comparison_rows(evaluation: Evaluation) -> list[list[str]]:
    """Return the comparisons of models, in percentage points."""
    rows = [["table", "metric", "models", "difference", "p"]]
    for (table, metric, first, second), found in evaluation.comparisons.items():
        difference = format_metric(metric, found.difference)
        pair = f"{first} - {second}"
        rows.append([table, _words(metric), pair, difference, f"{found.p_value:.4f}"])
    return rows


def _agreement_rows(evaluation: Evaluation) -> list[list[str]]:
    """Return, by category and model, how raters agree and where the model stands among them.

    The raters' column is lowest / median / highest Spearman correlation of a rater with the mean
    of the others, the model's its own with the same means.
    """
    rows = [["category", "pairs", "alpha", "raters", "model", "", "raters below it"]]
    for category, models in evaluation.agreement.items():
        for name, found in models.items():
            spread = found.raters
            values = (found.alpha, spread.lowest, spread.median, spread.highest, spread.model)
            alpha, *raters, own = (format_metric("spearman", value) for value in values)
            below = format_metric("fraction", spread.below_model)
            rows.append([category, str(found.items), alpha, " / ".join(raters), name, own, below])
    return rows


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def provenance(evaluation: Evaluation) -> list[str]:
    """Return lines that say where the metrics come from: models, data, seed, versions, papers."""
    models = [f"{n}: {m['model']}, revision {m['revision']}" for n, m in evaluation.models.items()]
    data = [f"{d['name']}: {d['rows']} rows, sha256 {d['sha256']}" for d in evaluation.data]
    versions = ", ".join(f"{name} {version}" for name, version in evaluation.versions.items())
    lines = [*models, *data, f"seed {evaluation.seed}; {versions}"]
    return [*lines, *_sources_of_published(evaluation)]


def _sources_of_published(evaluation: Evaluation) -> list[str]:
    """Return lines that say whose published metrics are shown, and which are not, and why."""
    sources: dict[str, dict[bool, list[str]]] = {}
    for entry in _published_entries(evaluation.suite):
        if (table := entry["table"]) in evaluation.tables:
            tables = sources.setdefault(entry["source"], {}).setdefault(
                table in evaluation.recognized, []
            )
            tables += [] if table in tables else [table]
    lines = []
    for source, tables_by in sources.items():
        if True in tables_by:
            lines.append(f"published metrics: {source}")
        for test in read_json(TEST_SETS):
            tables = [table for table in tables_by.get(False, ()) if table in test["tables"]]
            if tables:
                lines.append(
                    f"published metrics of {', '.join(tables)} are not shown: those in {source}"
                    f" are of {test['name']}, which this data was not recognized as"
                )
    return lines


def markdown_tables(evaluation: Evaluation, examples: bool = True) -> str:
    """Return all tables and warnings as Markdown, aligned for a terminal.

    Arguments
    ---------
    evaluation : Evaluation
        The results.
    examples : bool
        Whether to list some of the pairs that were made from captions.
    """
    parts = [f"# {evaluation.suite}\n"]
    parts += [f"**{warning}**\n" for warning in evaluation.warnings]
    for name, rows in all_tables(evaluation).items():
        parts.append(f"## {heading(name)}\n\n{pipes(rows, align=True)}")
    if evaluation.made_pairs and examples:
        lines = [
            f"- {group}\n  - true: {true}\n  - false: {false}\n"
            for group, true, false in pair_examples(evaluation)
        ]
        parts.append(f"## {MADE}: examples\n\n{''.join(lines)}")
    parts.append("\n".join(["## From", "", *(f"- {line}" for line in provenance(evaluation)), ""]))
    return "\n".join(parts)


def pipes(rows: Sequence[Sequence[str]], align: bool = False) -> str:
    """Return a table in Markdown.

    Arguments
    ---------
    rows : list of list of str
        The first row is its header, the first column its names.
    align : bool
        Whether to pad cells, so that columns stand below each other.

    Example
    -------
    >>> print(pipes([["", "a"], ["R@1", "84.0"]], align=True), end="")
    |      |    a |
    | :--- | ---: |
    | R@1  | 84.0 |
    """
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, [":---", *["---:"] * (len(head) - 1)], *body]
    if align:
        widths = [max(map(len, column)) for column in zip(*lines)]
        lines = [
            [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines
        ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def latex_tables(evaluation: Evaluation) -> str:
    """Return all tables of metrics as LaTeX (package booktabs), fractions in %."""
    parts = []
    for name, (head, *rows) in _metric_tables(evaluation).items():
        cells = pd.DataFrame(rows, columns=head).replace(r"(?<=\d)-(?=\d)", "--", regex=True)
        parts.append(
            cells.to_latex(
                index=False,
                escape=True,
                column_format="l" + "r" * (len(head) - 1),
                caption=re.sub(r"[&%$#_{}]", r"\\\g<0>", heading(name)),
                position="htbp",
            )
        )
    return "\n".join(parts)
