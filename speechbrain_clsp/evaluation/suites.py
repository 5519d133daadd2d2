"""The suites behind ``clsp evaluate``: several models on the same data, side by side."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import speechbrain
import torch
import transformers
from torch import Tensor

import speechbrain_clsp
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.evaluation.clips import CAPTION_PLACES, captions_of, whole_files
from speechbrain_clsp.evaluation.compare import paired_comparison
from speechbrain_clsp.evaluation.leaks import find_leaks, leak_warnings, suspicion
from speechbrain_clsp.evaluation.models.adapters import Model, open_model
from speechbrain_clsp.evaluation.models.cache import CachedModel
from speechbrain_clsp.evaluation.retrieval.hubness import corrected_rankings
from speechbrain_clsp.evaluation.retrieval.pairing import (
    MEDIAN,
    caption_pairs,
    figures_of,
    query_values,
    rank_both_ways,
)
from speechbrain_clsp.evaluation.similarity import describe, similarity_figures
from speechbrain_clsp.evaluation.suite import Evaluation, zero_shot_figures
from speechbrain_clsp.evaluation.tables import markdown_tables, write_results
from speechbrain_clsp.evaluation.zero_shot import read_tasks
from speechbrain_clsp.ratings.table import read_ratings
from speechbrain_clsp.utils.files import sha256_of_file

BANK_CLIPS = 1000  # training queries for querybank normalization
SUITES = ("mini", "fcaps", "zero-shot", "similarity")


def fill_tables(
    suite: str,
    specs: Mapping[str, str],
    data: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    cache: str | os.PathLike | None = None,
    device: str = "cpu",
    **settings: Any,
) -> str:
    """Open models, evaluate them and write all results.

    Arguments
    ---------
    suite : str
        See :func:`run_suite`.
    specs : dict
        For each name in the tables, a model's specification, as
        :func:`~speechbrain_clsp.evaluation.models.adapters.open_model` takes it.
    data : list of path
        Manifests, or the ratings.
    output : path
        Folder that gets ``metrics.json``, ``tables.md``, ``tables.tex`` and ``report.html``.
    cache : path, optional
        SQLite file of embeddings. Default: ``embeddings.sqlite`` in ``output``.
    device : str
        Where models run.
    **settings
        Further arguments of :func:`run_suite`.

    Returns
    -------
    str
        The tables in Markdown.

    Raises
    ------
    OSError, ValueError
        If a model or data cannot be had, or do not fit the suite.
    """
    cache = cache or Path(output) / "embeddings.sqlite"
    models = {name: CachedModel(open_model(spec, device), cache) for name, spec in specs.items()}
    result = run_suite(suite, models, data, **settings)
    write_results(result, output)
    return markdown_tables(result)


def run_suite(
    suite: str,
    models: Mapping[str, Model],
    data: Sequence[str | os.PathLike],
    prompts: str | None = None,
    ensemble: bool = False,
    train: str | os.PathLike | None = None,
    audio_root: str | os.PathLike | None = None,
    beyond: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate models.

    Arguments
    ---------
    suite : str
        ``mini``: retrieval and zero-shot classes of one manifest; ``fcaps``: retrieval of one;
        ``zero-shot``: classes of one or more; ``similarity``: one CSV file of ratings.
    models : dict
        By the name that tables give them; see :mod:`~speechbrain_clsp.evaluation.models.adapters`.
    data : list of path
        Manifests, or the ratings.
    prompts : str, optional
        Prompt file or set. Default: ``mini``, or that of each manifest's ``source``.
    ensemble : bool
        Whether to use the prompt file's further wordings.
    train : path, optional
        Manifest of the training data, to look for leaks.
    audio_root : path, optional
        Where the ratings' clips start from. Default: the ratings' folder.
    beyond : bool
        Whether to add tables with corrections that the paper does not use; see
        :mod:`~speechbrain_clsp.evaluation.retrieval.hubness`. ``train`` gives the bank of queries.
    seed : int
        Seed of all resampling.

    Returns
    -------
    dict
        Contents of ``metrics.json``: ``tables[table][model][figure]`` with ``value``, ``low``,
        ``high`` and possibly ``chance``; ``comparisons`` of models in pairs; ``warnings``; and
        where all of it comes from.

    Raises
    ------
    ValueError
        If the suite is not known, or data do not fit it.
    """
    if suite not in SUITES:
        raise ValueError(f"There is no suite {suite!r}; there are {list(SUITES)}")
    if not models or not data or (suite != "zero-shot" and len(data) != 1):
        raise ValueError(f"The suite {suite} needs a model and one data file, zero-shot at least 1")
    result: dict[str, Any] = {
        "suite": suite,
        "seed": seed,
        "versions": _versions(),
        "data": [{"name": Path(path).name, "sha256": sha256_of_file(path)} for path in data],
        "models": {n: {"model": m.model, "revision": m.revision} for n, m in models.items()},
        "tables": {},
        "comparisons": [],
        "warnings": [],
    }
    if suite == "similarity":
        _similarity(result, models, data[0], audio_root, seed)
        return result
    for path in data:
        manifest = Manifest(path)
        if train is not None:
            leaks = find_leaks(manifest, Manifest(train))
            result["warnings"] += leak_warnings(leaks)
            result.setdefault("leaks", {})[Path(path).name] = {k: len(v) for k, v in leaks.items()}
        with whole_files(manifest) as rows:
            speech = {
                name: model.encode_files([row["audio"] for row in rows])
                for name, model in models.items()
            }
        if suite != "zero-shot":
            _retrieval(result, models, rows, speech, seed)
            if beyond:
                _corrections(result, models, rows, speech, train)
        if suite != "fcaps":
            source = prompts or ("mini" if suite == "mini" else _source_of(rows, path))
            _zero_shot(result, models, rows, speech, read_tasks(source, ensemble), seed)
    return result


def _versions() -> dict[str, str]:
    return {
        "speechbrain-clsp": speechbrain_clsp.__version__,
        "speechbrain": speechbrain.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _source_of(rows: list[dict[str, Any]], path: str | os.PathLike) -> str:
    sources = {row["source"] for row in rows}
    if len(sources) != 1 or None in sources:
        raise ValueError(f"{path} has the sources {sources}: name the prompts with --prompts")
    return sources.pop()


def _retrieval(result: dict, models: Mapping[str, Model], rows: list, speech: dict, seed: int):
    """Fill the tables of both kinds of captions, with equal captions apart and merged."""
    for kind, captions in captions_of(rows).items():
        for merge in (False, True):
            texts, pairs = caption_pairs([[caption] for caption in captions], merge)
            if merge and len(texts) == len(captions):
                continue  # no caption occurs twice: it would be the same table
            table = f"{kind}, equal captions merged" if merge else kind
            values = {}
            for name, model in models.items():
                rankings = rank_both_ways(speech[name], model.encode_text(texts), pairs)
                sizes = {"speech_to_text": len(texts), "text_to_speech": len(rows)}
                figures = figures_of(rankings, sizes, seed)
                result["tables"].setdefault(table, {})[name] = figures
                if getattr(model, "is_bound", False):
                    continue  # at chance, or perfect, as it should be: no news to test or warn of
                result["warnings"] += suspicion(figures, f"{name}, {table}")
                values[name] = {
                    f"{way}_{figure}": each
                    for way, ranking in rankings.items()
                    for figure, each in query_values(ranking).items()
                    if figure != MEDIAN
                }
            _compare(result, table, values, seed)


def _corrections(result: dict, models: Mapping[str, Model], rows: list, speech: dict, train):
    """Fill the tables with corrections for hubs."""
    found_captions = captions_of(rows)
    banks = {} if train is None else _banks(models, Manifest(train), found_captions)
    for kind, captions in found_captions.items():
        texts, pairs = caption_pairs([[caption] for caption in captions])
        for name, model in models.items():
            sizes = {"speech_to_text": len(texts), "text_to_speech": len(rows)}
            bank = banks.get((kind, name))
            found = corrected_rankings(speech[name], model.encode_text(texts), pairs, bank)
            for correction, rankings in found.items():
                figures = figures_of(rankings, sizes, result["seed"])
                result["tables"].setdefault(f"{kind}, {correction}", {})[name] = figures


def _banks(
    models: Mapping[str, Model], train: Manifest, captions: Mapping[str, list[str]]
) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """Embed training clips, and their captions that are not among those of the test set."""
    step = max(1, len(train) // BANK_CLIPS)
    with whole_files(train[i] for i in range(0, len(train), step)[:BANK_CLIPS]) as rows:
        paths = [row["audio"] for row in rows]
        speech = {name: model.encode_files(paths) for name, model in models.items()}
    banks = {}
    for kind in captions:
        lists = [row[f"{kind}_captions"] for row in rows]
        texts = {own[CAPTION_PLACES[kind]] for own in lists if own} - set(captions[kind])
        if not texts:
            raise ValueError(f"{train.path} has no {kind} captions for querybank normalization")
        for name, model in models.items():
            banks[kind, name] = (speech[name], model.encode_text(sorted(texts)))
    return banks


def _compare(result: dict, table: str, values: Mapping[str, dict], seed: int) -> None:
    """Compare models in pairs, query by query."""
    for first, second in combinations(values, 2):
        for figure in values[first]:
            found = paired_comparison(values[first][figure], values[second][figure], seed)
            names = {"table": table, "figure": figure, "first": first, "second": second}
            result["comparisons"].append({**names, **found})


def _zero_shot(result: dict, models: Mapping[str, Model], rows, speech: dict, tasks, seed: int):
    """Fill a table per task, with confusion matrices."""
    corpus = "" if result["suite"] == "mini" else f"{rows[0]['source']} "
    for task in tasks:
        table, hits = f"{corpus}{task.name}", {}
        for name, model in models.items():
            evaluation = Evaluation(rows, {}, speech[name], {})
            figures = zero_shot_figures(model, task, evaluation, seed)
            if figures["n"] == 0:
                break
            entry = result["tables"].setdefault(table, {})
            correct = figures.pop("hits")
            entry[name] = {key: figures.pop(key) for key in ("WA", "UAR")}
            if not getattr(model, "is_bound", False):
                hits[name] = {"WA": correct}
                result["warnings"] += suspicion(entry[name], f"{name}, {table}")
            result.setdefault("confusions", {}).setdefault(table, {})[name] = figures
        _compare(result, table, hits, seed)


def _similarity(result: dict, models: Mapping[str, Model], path, audio_root, seed: int) -> None:
    """Fill a table per category of ratings."""
    ratings = read_ratings(path)
    result["ratings"] = describe(ratings)
    root = Path(audio_root) if audio_root is not None else Path(path).parent
    clips, captions = zip(*ratings.items)
    for name, model in models.items():
        speech = model.encode_files([str(root / clip) for clip in clips])
        scores = (speech * model.encode_text(list(captions))).sum(dim=1).numpy()
        for category, figures in similarity_figures(ratings, scores, seed).items():
            correlations = {k: v for k, v in figures.items() if isinstance(v, dict)}
            spread = correlations.pop("raters", None)
            result["tables"].setdefault(category, {})[name] = correlations
            agreement = {"items": figures["items"], "alpha": figures.get("alpha")}
            entry = result.setdefault("agreement", {}).setdefault(category, agreement)
            entry[name] = spread
            if "spearman" in correlations and not correlations["spearman"]["low"] > 0:
                result["warnings"].append(
                    f"{name}, {category}: no correlation with people is shown: do scores belong to"
                    " their pairs?"
                )
