"""The suites: several models on the same data, side by side."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import speechbrain
import torch
import transformers
from torch import Tensor

from speechbrain_clsp import __version__
from speechbrain_clsp.dataio.checks import check_clips
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.evaluation import SUITES
from speechbrain_clsp.evaluation.clips import captions_by_kind, whole_files
from speechbrain_clsp.evaluation.examples import pick_examples, worst_pairs
from speechbrain_clsp.evaluation.models import CachedModel, Model
from speechbrain_clsp.evaluation.models.bounds import OracleModel
from speechbrain_clsp.evaluation.probes import (
    KINDS,
    ProbeScores,
    make_pairs,
    read_pairs,
    score_pairs,
)
from speechbrain_clsp.evaluation.probes.making import MINI_FCAPS
from speechbrain_clsp.evaluation.probes.pairs import ProbePair
from speechbrain_clsp.evaluation.result import Evaluation
from speechbrain_clsp.evaluation.retrieval.metrics import (
    caption_pairs,
    query_values,
    retrieval_estimates,
)
from speechbrain_clsp.evaluation.retrieval.ranking import rank_directions
from speechbrain_clsp.evaluation.similarity import (
    choice_accuracies,
    describe,
    similarity_metrics,
)
from speechbrain_clsp.evaluation.statistics import Estimate, bootstrap_strata, paired_comparison
from speechbrain_clsp.evaluation.tables import is_published_test
from speechbrain_clsp.evaluation.zero_shot import (
    Task,
    classify,
    classify_each,
    compare_with_labels,
    read_tasks,
)
from speechbrain_clsp.prepare.leakage import check_leakage
from speechbrain_clsp.ratings.alike import read_alike
from speechbrain_clsp.ratings.table import Ratings, read_ratings
from speechbrain_clsp.utils.checks import quote
from speechbrain_clsp.utils.files import sha256_of_file

PROBES, MARGINS = "probes", "probes: mean margins in cosine"
MERGED = "equal captions merged"  # ends the names of tables of retrieval
WORDING = "unseen wording: unweighted average recall"
ONE, ALL = "one prompt", "all prompts"  # per class, that clips are compared with at a time
SYNTHETIC = (
    "MiniFCaps is synthetic speech, of libespeak-ng: its figures hold for such voices, not for"
    " those of people"
)
UNSEEN = "mini_unseen"  # prompts in words that MiniFCaps' captions do not have


def run_suite(
    suite: str,
    models: Mapping[str, Model],
    data: Sequence[str | os.PathLike],
    prompts: str | os.PathLike | None = None,
    pairs: str | os.PathLike | None = None,
    ensemble: bool = False,
    train: str | os.PathLike | None = None,
    audio_root: str | os.PathLike | None = None,
    seed: int = 0,
) -> Evaluation:
    """Evaluate models on the same data; the same arguments give the same digits again.

    Arguments
    ---------
    suite : str
        ``mini``: retrieval and zero-shot classes of one manifest; ``fcaps``: retrieval of one;
        ``zero-shot``: classes of one or more; ``probes``: minimal pairs of one manifest, and its
        classes in unseen wording; ``similarity``: one CSV file of ratings of clips with captions;
        ``speech-similarity``: one of how alike clips sound.
    models : dict
        For each name in the tables, a :class:`~speechbrain_clsp.evaluation.models.base.Model`.
        Within the call no file or caption is embedded twice.
    data : list of path
        Manifests, or the ratings.
    prompts : str or path, optional
        Prompt file or set. Default: ``mini``, or that of each manifest's ``source``. Of ``probes``
        those in unseen wording; default: ``mini_unseen`` for MiniFCaps, otherwise none.
    pairs : path, optional
        Pairs of ``probes``, see :func:`~speechbrain_clsp.evaluation.probes.pairs.read_pairs`.
        Default: made from captions.
    ensemble : bool
        Whether to use the prompt file's further wordings.
    train : path, optional
        Manifest of the training data, to look for leaks.
    audio_root : path, optional
        Folder that the ratings' clips are relative to. Default: the ratings' folder.
    seed : int
        Seed of all resampling.

    Returns
    -------
    Evaluation
        Tables, comparisons, confusions and where they come from.

    Raises
    ------
    ValueError
        If the suite is not known, or data do not fit it: clips whose audio cannot be read and
        captions that are too long for a model are named before any is embedded.

    Example
    -------
    >>> from speechbrain_clsp.evaluation import open_model
    >>> models = {"ours": open_model("results/mini/model")}  # doctest: +SKIP
    >>> run_suite("mini", models, ["data/mini_fcaps/test.arrow"]).to_frame()  # doctest: +SKIP
    """
    if suite not in SUITES:
        raise ValueError(f"There is no suite {suite!r}; there are {list(SUITES)}")
    if not models or not data or (suite != "zero-shot" and len(data) != 1):
        raise ValueError(f"The suite {suite} needs a model and one data file, zero-shot at least 1")
    models = {
        name: model if isinstance(model, CachedModel) else CachedModel(model)
        for name, model in models.items()
    }
    evaluation = Evaluation(
        suite,
        seed,
        models={n: {"model": m.model, "revision": m.revision} for n, m in models.items()},
        versions=_versions(),
    )
    if suite in ("similarity", "speech-similarity"):
        fill = _similarity if suite == "similarity" else _speech_similarity
        fill(evaluation, models, data[0], audio_root)
        evaluation.warnings += _unknown_characters(models)
        return evaluation
    training = None if train is None else Manifest(train)
    manifests = [Manifest(path) for path in data]
    # All that can be wrong with data is found before anything is embedded, which may take hours.
    tests = [_open_test(suite, manifest, prompts, ensemble) for manifest in manifests]
    _check_corpora(tests)
    for test in tests:
        test.check(models)
    for manifest, test in zip(manifests, tests):
        _add_test(evaluation, test)
        if training is not None:
            report = check_leakage(train=training, test=manifest)
            evaluation.leaks[manifest.path.name] = dict(report.counts)
            evaluation.warnings += report.warnings()
        if suite == "probes":
            _probe(evaluation, models, test, pairs)
            continue
        speech = _embed_clips(models, test.rows)
        if suite != "zero-shot":
            _retrieval(evaluation, models, test.rows, speech)
            _recognize(evaluation, test.captions, test.path, len(test.rows))
        if suite != "fcaps":
            _zero_shot(evaluation, models, test, speech)
    evaluation.warnings += _unknown_characters(models)
    return evaluation


def _recognize(
    evaluation: Evaluation, tables: Iterable[str], path: str | os.PathLike, clips: int
) -> None:
    """Note the tables beside which published metrics may stand."""
    evaluation.recognized += [table for table in tables if is_published_test(table, path, clips)]


def _probe(
    evaluation: Evaluation,
    models: Mapping[str, Model],
    test: _Test,
    path: str | os.PathLike | None,
) -> None:
    """Fill the tables of minimal pairs, and of classes in unseen wording if there are any."""
    pairs = _pairs(evaluation, test.rows, path)
    texts = [(pair.group, text) for pair in pairs for text in pair.texts]
    _check_texts(models, texts, str(path or test.path))
    _probes(evaluation, models, test.rows, pairs)
    if test.tasks:
        _unseen_wording(evaluation, models, test.rows, test.tasks)


@dataclass
class _Test:
    """A test set: its clips, the captions that are retrieved, and the tasks of its classes."""

    path: Path
    rows: list[dict[str, Any]]
    captions: dict[str, list[str]]  # by kind, one per clip
    tasks: list[Task]

    @property
    def corpus(self) -> str:
        """What its tables of classes are called after, beside others'."""
        return self.rows[0]["source"] or self.path.stem

    def check(self, models: Mapping[str, Model]) -> None:
        """Raise ValueError that names clips, captions or prompts that cannot be used."""
        check_clips(self.rows, str(self.path))
        texts = [
            (f"clip {row['id']!r}", caption)
            for captions in self.captions.values()
            for row, caption in zip(self.rows, captions)
        ]
        texts += [(f"task {task.name!r}", text) for task in self.tasks for text in task.texts]
        _check_texts(models, texts, str(self.path))
        for task in self.tasks:
            for row in self.rows:
                task.label_of(row)


def _check_corpora(tests: Sequence[_Test]) -> None:
    """Raise ValueError if tables of two manifests would have the same names."""
    paths: dict[str, Path] = {}
    for test in tests:
        if other := paths.get(test.corpus):
            raise ValueError(
                f"{other} and {test.path} are both of {test.corpus}, so that their tables would"
                " have the same names: evaluate them one after the other"
            )
        paths[test.corpus] = test.path


def _open_test(
    suite: str, manifest: Manifest, prompts: str | os.PathLike | None, ensemble: bool
) -> _Test:
    rows = list(manifest)
    captions = captions_by_kind(rows) if suite in ("mini", "fcaps") else {}
    if suite == "probes":
        tasks = read_tasks(prompts or UNSEEN) if prompts or _is_mini(rows) else []
    elif suite == "fcaps":
        tasks = []
    else:
        source = prompts or ("mini" if suite == "mini" else _source_of(rows, manifest.path))
        tasks = read_tasks(source, ensemble)
    return _Test(manifest.path, rows, captions, tasks)


def _check_texts(models: Mapping[str, Model], texts: Sequence[tuple[str, str]], where: str) -> None:
    """Raise ValueError if a model cannot embed texts, of which each has a name."""
    for model in models.values():
        if isinstance(model, CachedModel):
            model.check_texts(texts, where)


def _versions() -> dict[str, str]:
    return {
        "speechbrain-clsp": __version__,
        "speechbrain": speechbrain.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _add_data(evaluation: Evaluation, path: str | os.PathLike, rows: int) -> None:
    sha256 = sha256_of_file(path)
    evaluation.data.append({"name": Path(path).name, "sha256": sha256, "rows": rows})


def _add_test(evaluation: Evaluation, test: _Test) -> None:
    _add_data(evaluation, test.path, len(test.rows))
    if any(row["source"] == MINI_FCAPS for row in test.rows):
        evaluation.warnings.append(SYNTHETIC)


def _source_of(rows: list[dict[str, Any]], path: str | os.PathLike) -> str:
    sources = {row["source"] for row in rows}
    if len(sources) != 1 or None in sources:
        raise ValueError(f"{path} has the sources {sources}: name the prompts with --prompts")
    return sources.pop()


def _embed_clips(models: Mapping[str, Model], rows: Sequence[Mapping]) -> dict[str, Tensor]:
    """Return [N, D] for every model."""
    with whole_files(rows) as clips:
        paths = [clip["audio"] for clip in clips]
        return {name: model.encode_files(paths) for name, model in models.items()}


def _retrieval(
    evaluation: Evaluation, models: Mapping[str, Model], rows: list, speech: dict[str, Tensor]
) -> None:
    """Fill the tables of both kinds of captions, with equal captions apart and merged."""
    for kind, captions in captions_by_kind(rows).items():
        ways: dict[str, tuple[list[str], Tensor | None]] = {kind: (captions, None)}
        merged = caption_pairs(captions)
        if len(merged[0]) < len(captions):  # else it would be the same table
            ways[f"{kind}, {MERGED}"] = merged
        for table, (texts, pairs) in ways.items():
            values = {}
            for name, model in models.items():
                text = model.encode_text(texts)
                rankings = rank_directions(speech[name], text, pairs)
                metrics = retrieval_estimates(rankings, evaluation.seed)
                evaluation.tables.setdefault(table, {})[name] = metrics
                if model.is_bound:
                    continue  # at chance, or perfect, as it should be
                evaluation.warnings += _suspicions(metrics, f"{name}, {table}")
                values[name] = {
                    f"{direction}_{metric}": each
                    for direction, ranking in rankings.items()
                    for metric, each in query_values(ranking).items()
                }
                if pairs is None:  # of both kinds, the report shows the last: fine captions
                    ranks = rankings["speech_to_text"].rank
                    evaluation.examples[name] = pick_examples(
                        kind, rows, captions, speech[name], text, ranks
                    )
            _compare(evaluation, table, values)


def _zero_shot(
    evaluation: Evaluation,
    models: Mapping[str, Model],
    test: _Test,
    speech: dict[str, Tensor],
) -> None:
    """Fill a table per task that clips have classes of."""
    rows = test.rows
    corpus = "" if evaluation.suite == "mini" else f"{test.corpus} "
    for task in test.tasks:
        labels = np.array([task.label_of(row) for row in rows])
        known = labels >= 0
        if not known.any():
            continue
        table, values = f"{corpus}{task.name}", {}
        _recognize(evaluation, [table], test.path, int(known.sum()))
        for name, model in models.items():
            predicted = classify(speech[name], task.embed(model.encode_text), task.pool).numpy()
            found = compare_with_labels(
                predicted[known], labels[known], list(task.prompts), evaluation.seed
            )
            evaluation.tables.setdefault(table, {})[name] = found.metrics
            evaluation.confusions.setdefault(table, {})[name] = found
            if not model.is_bound:
                evaluation.warnings += _suspicions(found.metrics, f"{name}, {table}")
                values[name] = {"WA": found.hits}
        _compare(evaluation, table, values)


def _pairs(evaluation: Evaluation, rows: list, path: str | os.PathLike | None) -> list[ProbePair]:
    """Read pairs, or make them from captions."""
    if path is not None:
        pairs = read_pairs(path, {row["id"] for row in rows})
        _add_data(evaluation, path, len(pairs))
        return pairs
    evaluation.made_pairs = make_pairs(rows, evaluation.seed)
    if not evaluation.made_pairs:
        raise ValueError("No caption gives a pair: bring pairs of your own, see docs/probes.md")
    return evaluation.made_pairs


def _is_mini(rows: list) -> bool:
    return all(row["source"] == MINI_FCAPS for row in rows)


def _probes(
    evaluation: Evaluation, models: Mapping[str, Model], rows: list, pairs: list[ProbePair]
) -> None:
    """Fill the tables of accuracies and margins."""
    values = {}
    counts = ProbeScores(pairs, *np.zeros((2, len(pairs)))).counts()
    evaluation.counts[PROBES] = counts
    for name, model in models.items():
        scores = score_pairs(model, rows, _known_pairs(model, pairs))
        scored = scores.counts()
        whole = [metric for metric, count in counts.items() if scored.get(metric) == count]
        accuracies, margins = scores.accuracies(evaluation.seed), scores.margins_of(evaluation.seed)
        evaluation.tables.setdefault(PROBES, {})[name] = {m: accuracies[m] for m in whole}
        evaluation.tables.setdefault(MARGINS, {})[name] = {
            f"{metric} margin": margins[metric] for metric in whole
        }
        if model.is_bound:
            continue
        evaluation.probes[name] = worst_pairs(scores, rows)
        evaluation.warnings += _suspicions(accuracies, f"{name}, {PROBES}")
        values[name] = {k: scores.hits[m] for k, m in scores.groups() if k in KINDS}
    _compare(evaluation, PROBES, values)


def _known_pairs(model: Model, pairs: list[ProbePair]) -> list[ProbePair]:
    """Return the groups of pairs of which a model knows all texts."""
    unknown = {pair.group for pair in pairs if not _knows(model, pair.texts)}
    return [pair for pair in pairs if pair.group not in unknown]


def _knows(model: Model, texts: Sequence[str]) -> bool:
    """Tell whether a model can embed texts: all models can, but for the oracle."""
    inner = model.inner if isinstance(model, CachedModel) else model
    return not isinstance(inner, OracleModel) or all(text in inner.sets for text in texts)


def _unseen_wording(
    evaluation: Evaluation, models: Mapping[str, Model], rows: list, tasks: Sequence[Task]
) -> None:
    """Fill the table of recalls with prompts in wording that a model has not seen."""
    speech = _embed_clips(models, rows)
    counts = evaluation.counts.setdefault(WORDING, {})
    for name, model in models.items():
        metrics: dict[str, Estimate] = {}
        for task in tasks:
            labels = np.array([task.label_of(row) for row in rows])
            known = labels >= 0
            if not known.any() or not _knows(model, task.texts):
                continue
            prompts = task.embed(model.encode_text)
            for way, predicted in (
                (ONE, classify_each(speech[name], prompts)),
                (ALL, classify(speech[name], prompts, task.pool)[None]),
            ):
                hits = (predicted.numpy() == labels)[:, known].mean(axis=0)
                found = bootstrap_strata(hits, labels[known], evaluation.seed)
                metrics[f"{task.name}, {way}"] = Estimate(*found, 1 / len(task.prompts))
                counts[f"{task.name}, {way}"] = int(known.sum())
        for way in (ONE, ALL):
            own = [estimate for metric, estimate in metrics.items() if metric.endswith(way)]
            if own:
                chance = fmean(each.chance or 0.0 for each in own)
                metrics[f"mean, {way}"] = Estimate(fmean(e.value for e in own), chance=chance)
        evaluation.tables.setdefault(WORDING, {})[name] = metrics


def _compare(
    evaluation: Evaluation, table: str, values: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Compare models in pairs, query by query."""
    for first, second in combinations(values, 2):
        for metric in values[first]:
            evaluation.comparisons[table, metric, first, second] = paired_comparison(
                values[first][metric], values[second][metric], evaluation.seed
            )


def _similarity(
    evaluation: Evaluation,
    models: Mapping[str, Model],
    path: str | os.PathLike,
    audio_root: str | os.PathLike | None,
) -> None:
    """Fill a table per category of ratings."""
    ratings = read_ratings(path)
    _add_data(evaluation, path, len(ratings.items))
    evaluation.ratings = describe(ratings)
    clips, captions = zip(*ratings.items)
    files = _files_of(clips, path, audio_root)
    _check_texts(models, [(f"clip {clip!r}", text) for clip, text in ratings.items], str(path))
    _recognize(evaluation, dict.fromkeys(ratings.categories), path, len(ratings.items))
    for name, model in models.items():
        speech = model.encode_files([files[clip] for clip in clips])
        scores = (speech * model.encode_text(list(captions))).sum(dim=1).numpy()
        _correlate(evaluation, name, ratings, scores)


def _speech_similarity(
    evaluation: Evaluation,
    models: Mapping[str, Model],
    path: str | os.PathLike,
    audio_root: str | os.PathLike | None,
) -> None:
    """Fill a table per category of rated pairs of clips, or of choices between two clips."""
    found = read_alike(path)
    _add_data(evaluation, path, len(found.items))
    if isinstance(found, Ratings):
        evaluation.ratings = describe(found)
    files = _files_of([clip for item in found.items for clip in item], path, audio_root)
    hits: dict[str, dict[str, np.ndarray]] = {}
    for name, model in models.items():
        vectors = dict(zip(files, model.encode_files(list(files.values()))))
        first, *others = (
            torch.stack([vectors[clip] for clip in column]).double() for column in zip(*found.items)
        )
        cosines = [(first * other).sum(dim=1).numpy() for other in others]
        if isinstance(found, Ratings):
            _correlate(evaluation, name, found, cosines[0])
            continue
        accuracies = choice_accuracies(found, cosines[0], cosines[1], evaluation.seed)
        for category, (accuracy, hit) in accuracies.items():
            evaluation.tables.setdefault(category, {})[name] = {"accuracy": accuracy}
            if not model.is_bound:
                hits.setdefault(category, {})[name] = hit
    for category, by_model in hits.items():
        _compare(evaluation, category, {n: {"accuracy": hit} for n, hit in by_model.items()})


def _files_of(
    clips: Sequence[str], path: str | os.PathLike, audio_root: str | os.PathLike | None
) -> dict[str, str]:
    """Return the file of each clip that a table of ratings names, once it was checked."""
    root = Path(audio_root) if audio_root is not None else Path(path).parent
    files = {clip: str(root / clip) for clip in clips}
    check_clips([{"id": clip, "audio": file} for clip, file in files.items()], str(path))
    return files


def _correlate(evaluation: Evaluation, name: str, ratings: Ratings, scores: np.ndarray) -> None:
    """Fill a model's column in the table of each category of ratings."""
    for category, found in similarity_metrics(ratings, scores, evaluation.seed).items():
        evaluation.tables.setdefault(category, {})[name] = found.correlations
        if len(ratings.raters) > 1:
            evaluation.agreement.setdefault(category, {})[name] = found
        spearman = found.correlations.get("spearman")
        if spearman is not None and not (spearman.low or 0.0) > 0:
            evaluation.warnings.append(
                f"{name}, {category}: no correlation with people is shown: do scores belong to"
                " their pairs?"
            )


def _unknown_characters(models: Mapping[str, Model]) -> list[str]:
    """Warn of captions and prompts of which a model does not know all characters, by their number.

    Captions that a model knows nothing of all get the same embedding.
    """
    return [
        f"{name}: {len(model.unknown)} captions or prompts have characters that the model does not"
        f" know, such as {quote(unknown)} of {quote(caption)}"
        for name, model in models.items()
        if isinstance(model, CachedModel)
        for caption, unknown in list(model.unknown.items())[:1]
    ]


def _suspicions(metrics: Mapping[str, Estimate], where: str) -> list[str]:
    """Warn of metrics that a sound evaluation hardly gives: chance level, or perfect retrieval."""
    found = []
    for name, estimate in metrics.items():
        low, chance = estimate.low, estimate.chance
        if low is None or chance is None or not low <= chance:
            continue
        if name in ("UAR", "attribute") or (name.endswith("R@10") and chance < 0.5):
            what = "labels" if name == "UAR" else "captions"
            found.append(
                f"{where}: {name} is no better than chance: do {what} belong to their clips?"
            )
    first = [metrics[name] for name in metrics if name.endswith("R@1")]
    if first and all(each.value == 1.0 and (each.chance or 0.0) < 0.02 for each in first):
        found.append(f"{where}: retrieval is perfect: does the model see the answers?")
    return found
