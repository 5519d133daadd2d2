"""The tasks of MTEB, of which MAEB's are of audio, for every model that can be evaluated here.

Its audio is decoded and resampled as all audio here, not by MTEB, so that torchcodec is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from scipy.io import wavfile
from speechbrain.utils.logger import get_logger
from torch import Tensor, nn

from speechbrain_clsp.dataio.audio import MINIMUM_SECONDS, read_samples
from speechbrain_clsp.evaluation.models import ClspModel, Model
from speechbrain_clsp.evaluation.models.base import unit
from speechbrain_clsp.evaluation.result import Evaluation
from speechbrain_clsp.evaluation.statistics import Estimate
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.utils.checks import join_some

logger = get_logger(__name__)
BATCH = 64  # clips that are files at the same time
INSTALL = "pip install 'speechbrain-clsp[integrations]', which needs Python 3.11"
# Tasks of MTEB whose recordings a published model may have been trained on: PSCBase, a part of
# FCaps, is speech of VoxCeleb, EARS and Expresso.
TRAINED_ON = {
    "yfyeung/CLSP": {
        *("ExpressoConv", "ExpressoRead"),
        *("VoiceGenderClustering", "VoxCelebClustering", "VoxCelebSA"),
    }
}


@dataclass
class MtebEncoder:
    """A model as ``mteb.evaluate`` takes it.

    Texts, audio, or both are embedded; of both, the embedding is the normalized sum. Texts that are
    longer than a CLSP takes are cut at their end, which is said; clips shorter than 0.1 s are
    padded with silence.

    Arguments
    ---------
    model : Model
        See :func:`~speechbrain_clsp.evaluation.models.open_model`.
    training_datasets : set of str, optional
        Tasks of MTEB that it was trained on; MTEB marks them. Default: what is known of published
        models, otherwise None, which means unknown.

    Example
    -------
    >>> from speechbrain_clsp.evaluation import open_model
    >>> encoder = MtebEncoder(open_model("random"))
    >>> encoder.similarity(np.eye(2), np.eye(2)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    model: Model
    training_datasets: set[str] | None = None
    shortened: int = field(default=0, init=False)

    @cached_property
    def mteb_model_meta(self) -> Any:
        """What MTEB writes beside results: name, revision, sizes, tasks that it was trained on."""
        from mteb.models import ModelMeta

        inner = getattr(self.model, "inner", self.model)
        clsp = inner.clsp if isinstance(inner, ClspModel) else None
        known = TRAINED_ON.get(self.model.model)
        return ModelMeta(
            loader=None,
            name=_name_for_mteb(self.model.model),
            revision=self.model.revision.replace(":", "-").replace(" ", "-"),
            release_date=None,
            languages=["eng-Latn"],
            n_parameters=_count_parameters(clsp) if clsp else None,
            memory_usage_mb=_megabytes(clsp) if clsp else None,
            max_tokens=clsp.mods.text_tower.max_tokens if clsp else None,
            embed_dim=self.model.encode_text(["A speaker."]).shape[1],
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name="cosine",
            use_instructions=False,
            training_datasets=self.training_datasets if self.training_datasets else known,
            modalities=["audio", "text"],
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **options: Any,
    ) -> np.ndarray:
        """Embed the N rows of a data loader.

        Arguments
        ---------
        inputs : torch.utils.data.DataLoader
            Its ``dataset`` is one of the library ``datasets`` with the column ``text``, ``audio``
            or both.
        task_metadata, hf_split, hf_subset, prompt_type
            Of the task; they change nothing, since a CLSP takes no instructions.
        **options
            Further ones of MTEB, such as ``batch_size``; they change nothing either.

        Returns
        -------
        numpy.ndarray
            [N, D] float32 of unit norm.

        Raises
        ------
        ValueError
            If there is neither text nor audio.
        """
        dataset = inputs.dataset
        parts = []
        if "text" in dataset.features:
            parts.append(self.model.encode_text(self._fitting(list(dataset["text"]))))
        if "audio" in dataset.features:
            parts.append(self._encode_audio(dataset))
        if not parts:
            raise ValueError(f"A CLSP embeds text and audio, not {list(dataset.features)}")
        return unit(torch.stack(parts).sum(dim=0)).numpy()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosines of [N, D] with [M, D], [N, M]; a single vector may be [D]."""
        first, second = (unit(torch.atleast_2d(_tensor(x))) for x in (embeddings1, embeddings2))
        return first @ second.T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosines of [N, D] with [N, D] row by row, [N]."""
        first, second = (unit(torch.atleast_2d(_tensor(x))) for x in (embeddings1, embeddings2))
        return (first * second).sum(dim=1)

    def _fitting(self, texts: list[str]) -> list[str]:
        """Cut texts that are too long for the model."""
        inner = getattr(self.model, "inner", self.model)
        if not isinstance(inner, ClspModel):
            return texts
        cut = inner.cut_texts(texts)
        if n_cut := sum(old != new for old, new in zip(texts, cut)):
            self.shortened += n_cut
            logger.warning("%s: %d of %d texts are too long: cut", inner.model, n_cut, len(texts))
        return cut

    def _encode_audio(self, dataset: Any) -> Tensor:
        """Embed the column ``audio``, whose rows become files for a moment, as models take them."""
        from datasets import Audio

        if isinstance(dataset.features["audio"], Audio):
            dataset = dataset.cast_column("audio", Audio(decode=False))
        parts = []
        for start in range(0, len(dataset), BATCH):
            clips = dataset[start : start + BATCH]["audio"]
            with _files(clips, start) as paths:
                parts.append(self.model.encode_files(paths))
        return torch.cat(parts)


@contextmanager
def _files(clips: Sequence[Mapping[str, Any]], start: int) -> Iterator[list[str]]:
    """Yield the names of files with the clips of a batch, in a folder that is then removed."""
    with TemporaryDirectory(prefix="mteb") as folder:
        paths = []
        for number, clip in enumerate(clips, start):
            samples, rate = read_samples(clip, f"clip {number}")
            missing = round(MINIMUM_SECONDS * rate) + 1 - len(samples)
            samples = np.pad(samples, [(0, max(0, missing)), (0, 0)])
            paths.append(str(Path(folder) / f"{number}.wav"))
            wavfile.write(paths[-1], rate, samples)
        yield paths


def load_tasks(names: Iterable[str]) -> list[Any]:
    """Get tasks of MTEB by name, with their data, from the Hub or its cache.

    Arguments
    ---------
    names : iterable of str
        Such as ``RavdessZeroshot``, or the name of a benchmark, such as ``MAEB``, for all its
        tasks.

    Returns
    -------
    list of mteb.AbsTask
        The tasks.

    Raises
    ------
    ModuleNotFoundError
        If mteb is not installed.
    ValueError
        If there is no such task; names that are close are told.
    ConnectionError
        If the data of a task cannot be downloaded and is not in the cache.

    Example
    -------
    >>> tasks = load_tasks(["RavdessZeroshot", "IEMOCAPGender"])  # doctest: +SKIP
    """
    try:
        import mteb
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: {INSTALL}", name=error.name) from error
    tasks: list[Any] = []
    for name in names:
        try:
            tasks.append(mteb.get_task(name))
        except KeyError:
            try:
                tasks += mteb.get_benchmark(name).tasks
            except KeyError as error:
                known = [task.metadata.name for task in mteb.get_tasks()]
                near = get_close_matches(name, known)
                hint = f": did you mean {join_some(near, ', ')}?" if near else ""
                raise ValueError(f"MTEB has no task {name}{hint}") from error
    for task in tasks:
        _load_data(task)
    return tasks


def _load_data(task: Any) -> None:
    """Load a task's data; tell in one line if that fails, whichever library raises."""
    from datasets.exceptions import DatasetNotFoundError

    source = task.metadata.dataset.get("path", "")
    try:
        task.load_data()
    except DatasetNotFoundError as error:
        raise ConnectionError(
            f"{task.metadata.name}: the Hub has no data set {source} that is open to you; gated"
            f" ones need `hf auth login` ({_line(error)})"
        ) from error
    except Exception as error:  # of the HTTP library in use, or of those above it
        raise ConnectionError(
            f"{task.metadata.name}: its data, {source}, could not be loaded from the Hub or its"
            f" cache: {type(error).__name__}: {_line(error)}"
        ) from error


def evaluate_tasks(
    models: Mapping[str, Model], tasks: Sequence[Any], output: str | Path
) -> Evaluation:
    """Run MTEB on tasks, for several models.

    Arguments
    ---------
    models : dict
        For each name in the tables, a model.
    tasks : list of mteb.AbsTask
        See :func:`load_tasks`.
    output : str or path
        Folder for MTEB's own results, in the form in which they are submitted. What is there
        already is not computed again.

    Returns
    -------
    Evaluation
        A table per task, with its main score first; MTEB states no intervals.

    Raises
    ------
    ValueError
        If a task asks for something else than text and audio.

    Example
    -------
    >>> from speechbrain_clsp.evaluation import open_model
    >>> models = {"random": open_model("random")}
    >>> evaluate_tasks(models, load_tasks(["CREMA_D"]), "results/maeb")  # doctest: +SKIP
    """
    import mteb

    evaluation = Evaluation(
        "maeb",
        0,
        models={n: {"model": m.model, "revision": m.revision} for n, m in models.items()},
        versions={"mteb": version("mteb")},
    )
    cache = mteb.ResultCache(output)
    for name, model in models.items():
        encoder = MtebEncoder(model)
        found = mteb.evaluate(encoder, tasks, cache=cache, show_progress_bar=False)
        for task, result in zip(tasks, found.task_results):
            main = task.metadata.main_score
            for split, subsets in result.scores.items():
                for scores in subsets:
                    table = _table_name(result.task_name, split, scores["hf_subset"], result.scores)
                    metrics = {m: v for m, v in scores.items() if isinstance(v, float)}
                    metrics = {main: scores["main_score"], **metrics}
                    del metrics["main_score"]
                    estimates = {metric: Estimate(value) for metric, value in metrics.items()}
                    evaluation.tables.setdefault(table, {})[name] = estimates
        trained = encoder.mteb_model_meta.training_datasets or set()
        seen = sorted(trained & {task.metadata.name for task in tasks})
        if seen:
            evaluation.warnings.append(f"{name} was trained on recordings of {join_some(seen)}")
        if encoder.shortened:
            evaluation.warnings.append(f"{name}: {encoder.shortened} texts were too long, and cut")
    return evaluation


def _table_name(task: str, split: str, subset: str, scores: Mapping[str, Sequence]) -> str:
    """Return a task's name, with split and subset where it has several."""
    parts = [split] if len(scores) > 1 else []
    parts += [subset] if len(scores[split]) > 1 else []
    return f"{task} ({', '.join(parts)})" if parts else task


def _name_for_mteb(model: str) -> str:
    """Return ``owner/name``, as MTEB wants it; a folder's owner is ``local``.

    Example
    -------
    >>> _name_for_mteb("yfyeung/CLSP"), _name_for_mteb("results/mini/1986/model")
    ('yfyeung/CLSP', 'local/results-mini-1986-model')
    """
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not Path(model).exists():
        return model
    return "local/" + re.sub(r"[^\w.-]+", "-", model).strip("-")


def _count_parameters(clsp: CLSP) -> int:
    if clsp.exported is not None:  # it has graphs in place of parameters
        return clsp.exported.n_parameters
    return sum(p.numel() for p in clsp.parameters())


def _megabytes(module: nn.Module) -> float:
    return sum(p.numel() * p.element_size() for p in module.parameters()) / 2**20


def _tensor(values: Any) -> Tensor:
    return values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
