"""The stages of annotation in order, each from the records of the one before to its own."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from speechbrain_clsp.annotation.config import AnnotationSettings
from speechbrain_clsp.annotation.prompts import template_text
from speechbrain_clsp.annotation.records import Records, read_records, record_key, row_of
from speechbrain_clsp.annotation.run import RunReport, run_jobs
from speechbrain_clsp.annotation.stages.caption import caption_jobs, in_shard
from speechbrain_clsp.annotation.stages.filter import filter_captions
from speechbrain_clsp.annotation.stages.select import select, word_vectors
from speechbrain_clsp.annotation.stages.verify import verify_jobs
from speechbrain_clsp.dataio.manifest import Manifest

STAGES = ("caption", "verify", "filter", "select")
EMBEDDED = 64  # clips whose speech or captions a CLSP embeds at a time
# What may change between two runs that share records: it does not change answers.
INCIDENTAL = ("base_url", "api_key_variable", "timeout", "attempts", "pause", "concurrency")
INCIDENTAL += ("price", "failure_limit")


class Annotation:
    """A folder of records, of one manifest and one configuration.

    Arguments
    ---------
    folder : str or path
        Where records are: ``caption.jsonl``, ``verify.jsonl``, ...
    manifest : Manifest
        The clips.
    settings : AnnotationSettings
        Of all stages.
    shard : tuple of int
        Number, from 0, and count of shards: only their clips are worked on, and files are called
        ``caption.0-of-4.jsonl``.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        manifest: Manifest,
        settings: AnnotationSettings,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.folder, self.manifest, self.settings = Path(folder), manifest, settings
        self.shard = shard
        self.transcripts = read_transcripts(settings.transcripts) if settings.transcripts else {}

    def path(self, stage: str) -> Path:
        """Return the file of a stage's records."""
        number, count = self.shard
        part = f".{number}-of-{count}" if count > 1 else ""
        return self.folder / f"{stage}{part}.jsonl"

    def run(self, stage: str) -> dict[str, Any]:
        """Run one stage, or go on with it.

        Returns
        -------
        dict
            What was done, to be shown.

        Raises
        ------
        ValueError
            If the stage before has not run, or the folder's records were made with settings that
            give other answers.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remember(stage)
        work = {
            "caption": self._caption,
            "verify": self._verify,
            "filter": self._filter,
            "select": self._select,
        }
        return work[stage]()

    def records(self, stage: str) -> Iterator[dict[str, Any]]:
        """Yield the records of the stage before ``stage``."""
        before = STAGES[STAGES.index(stage) - 1]
        if not self.path(before).is_file():
            raise ValueError(f"{self.path(before)} is not there: run --stage {before} first")
        return read_records(self.path(before))

    def _caption(self) -> dict[str, Any]:
        jobs = caption_jobs(self.manifest, self.settings.caption, self.shard)
        mine = sum(in_shard(name, self.shard) for name in self.manifest.values("id"))
        return self._ask("caption", jobs, mine)

    def _verify(self) -> dict[str, Any]:
        records = self.records("verify")
        jobs = verify_jobs(records, self.manifest, self.settings.verify, self.transcripts)
        return self._ask("verify", jobs, sum(1 for _ in self.records("verify")))

    def _ask(self, stage: str, jobs: Iterator, total: int) -> dict[str, Any]:
        servers = getattr(self.settings, stage)
        price = tuple(servers.price) if servers.price else None
        options = {"total": total, "price": price, "failure_limit": servers.failure_limit}
        report: RunReport = run_jobs(jobs, servers.client(), self.path(stage), **options)
        return asdict(report)

    def _filter(self) -> dict[str, Any]:
        def work(batch: list[dict[str, Any]]) -> Iterator[tuple[list, list]]:
            for record in batch:
                transcript = self.transcripts.get(record["id"])
                yield filter_captions(record["captions"], self.settings.filter, transcript)

        return self._locally("filter", work)

    def _select(self) -> dict[str, Any]:
        settings = self.settings.select
        fit_of = _clsp_measure(settings.clsp, settings.gate is not None) if settings.clsp else None

        def work(batch: list[dict[str, Any]]) -> Iterator[tuple[list, list]]:
            rows = [row_of(record, self.manifest) for record in batch]
            measured = fit_of(batch, rows) if fit_of else [(word_vectors, None)] * len(batch)
            for record, (embed, fit) in zip(batch, measured):
                yield select(record["captions"], settings, embed, fit)

        return self._locally("select", work)

    def _locally(self, stage: str, work: Callable) -> dict[str, Any]:
        """Work through records without a server; what is there already is not done again."""
        kept = dropped = 0
        with Records(self.path(stage), sync_every=1000) as records:
            keyed = (
                (record_key(record["key"], self._answers(stage)), record)
                for record in tqdm(self.records(stage), desc=stage, unit="clip")
            )
            undone = ((key, record) for key, record in keyed if key not in records.keys)
            while batch := list(islice(undone, EMBEDDED)):
                outcomes = work([record for _, record in batch])
                for (key, record), (captions, drops) in zip(batch, outcomes):
                    head = {"key": key, "id": record["id"], "row": record["row"]}
                    records.append({**head, "captions": captions, "dropped": drops})
                    kept, dropped = kept + len(captions), dropped + len(drops)
            return {"clips": len(records.keys), "kept now": kept, "dropped now": dropped}

    def _answers(self, stage: str) -> dict[str, Any]:
        """Return what a stage's answers depend on."""
        settings = asdict(getattr(self.settings, stage))
        answers = {name: value for name, value in settings.items() if name not in INCIDENTAL}
        for name in ("template", "labels_template"):
            if name in answers:
                answers[name] = template_text(answers[name])
        return json.loads(json.dumps(answers))

    def _remember(self, stage: str) -> None:
        """Write down the stage's settings; refuse those that do not fit the records there are."""
        path, answers = self.path(stage).with_suffix(".settings.json"), self._answers(stage)
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = [name for name in answers if before.get(name) != answers[name]]
            if changed:
                raise ValueError(
                    f"{self.path(stage)} was made with other settings of {', '.join(changed)}: use"
                    f" another --output, or delete the files {stage}.* and those of later stages"
                )
            return
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(answers, indent=2), encoding="utf-8")
        os.replace(partial, path)


def read_transcripts(path: str | os.PathLike) -> dict[str, str]:
    """Read what is said in clips.

    Arguments
    ---------
    path : str or path
        ``.csv`` with the columns ``id`` and ``text``, or ``.jsonl`` with these keys.

    Raises
    ------
    ValueError
        If a line lacks them; names the line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "said.csv"
    >>> _ = path.write_text("id,text" + chr(10) + "a,Come in." + chr(10))
    >>> read_transcripts(path)
    {'a': 'Come in.'}
    """
    found = {}
    with open(path, encoding="utf-8", newline="") as file:
        lines = csv.DictReader(file) if str(path).endswith(".csv") else map(json.loads, file)
        for number, line in enumerate(lines, start=1):
            if not isinstance(line, Mapping) or not line.get("id") or line.get("text") is None:
                raise ValueError(f"{path}, entry {number}: needs id and text")
            found[line["id"]] = line["text"]
    return found


def _clsp_measure(source: str, heard: bool) -> Callable:
    """Return a function that embeds captions, and speech if it is ``heard``, of many clips."""
    from speechbrain_clsp.dataio.shards import ClipReader
    from speechbrain_clsp.evaluation.models.adapters import ClspAdapter
    from speechbrain_clsp.inference.files import pad

    clsp, read = ClspAdapter(source).clsp, ClipReader()

    def measure(batch: list[dict], rows: list[Mapping[str, Any]]) -> list[tuple]:
        texts = list(dict.fromkeys(text for record in batch for text in record["captions"]))
        vectors = dict(zip(texts, clsp.encode_text(texts).cpu().numpy())) if texts else {}
        speech = [clsp.encode_batch(*pad([read(row)]))[0].cpu().numpy() for row in rows if heard]

        def embed(captions: list[str]) -> np.ndarray:
            return np.stack([vectors[caption] for caption in captions])

        return [
            (embed, [float(vectors[text] @ wav) for text in record["captions"]] if heard else None)
            for record, wav in zip(batch, speech or [None] * len(batch))
        ]

    return measure
