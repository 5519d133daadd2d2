"""The stages of annotation in order, each from the records of the one before to its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from speechbrain_clsp.annotation.client import ServerSettings
from speechbrain_clsp.annotation.config import AnnotationSettings
from speechbrain_clsp.annotation.prompts import template_text
from speechbrain_clsp.annotation.records import Records, read_records, record_key, row_of
from speechbrain_clsp.annotation.run import run_jobs
from speechbrain_clsp.annotation.stages import STAGES
from speechbrain_clsp.annotation.stages.caption import caption_jobs, in_shard
from speechbrain_clsp.annotation.stages.filter import filter_captions
from speechbrain_clsp.annotation.stages.select import select
from speechbrain_clsp.annotation.stages.verify import verify_jobs
from speechbrain_clsp.annotation.texts import read_texts
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.dataio.shards import ClipReader
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.utils.files import atomic_write

# What may differ between runs that share records, since it does not change answers.
INCIDENTAL = {field.name for field in fields(ServerSettings)} - {"model"}


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

    Example
    -------
    >>> from speechbrain_clsp.dataio.manifest import write_manifest
    >>> folder = getfixture("tmp_path")
    >>> _ = write_manifest(folder / "m.arrow", [{"id": "a", "audio": "a.wav", "duration": 1.0}])
    >>> made = Annotation(folder / "x", Manifest(folder / "m.arrow"), AnnotationSettings(), (0, 4))
    >>> made.path("caption").name
    'caption.0-of-4.jsonl'
    >>> made.run("caption")  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        manifest: Manifest,
        settings: AnnotationSettings,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        self.folder = Path(folder)
        self.manifest = manifest
        self.settings = settings
        self.shard = shard
        said = settings.transcripts
        self.transcripts = read_texts(said, "text", allow_empty=True) if said else {}

    def path(self, stage: str) -> Path:
        """Return the file of a stage's records."""
        number, count = self.shard
        part = f".{number}-of-{count}" if count > 1 else ""
        return self.folder / f"{stage}{part}.jsonl"

    def run(self, stage: str) -> dict[str, Any]:
        """Run one stage, or go on with it; returns what was done, to be shown.

        Raises
        ------
        ValueError
            If the stage before has not run, or the folder's records were made with settings that
            give other answers.
        """
        stages: dict[str, Callable[[], dict[str, Any]]] = {
            "caption": self._caption,
            "verify": self._verify,
            "filter": self._filter,
            "select": self._select,
        }
        self._remember(stage)
        return stages[stage]()

    def _records(self, stage: str) -> Iterator[dict[str, Any]]:
        """Yield the records of the stage before ``stage``."""
        before = STAGES[STAGES.index(stage) - 1]
        if not self.path(before).is_file():
            raise ValueError(f"{self.path(before)} is not there: run --stage {before} first")
        if self._is_unworked(before):
            raise ValueError(f"{self.path(before)} is empty: run --stage {before} first")
        return read_records(self.path(before))

    def _is_unworked(self, stage: str) -> bool:
        """Return whether a stage did nothing yet, though the shard has clips."""
        path = self.path(stage)
        done = [path, path.with_suffix(".quarantine.jsonl")]
        if any(file.is_file() and file.stat().st_size for file in done):
            return False
        return any(in_shard(name, self.shard) for name in self.manifest.values("id"))

    def _caption(self) -> dict[str, Any]:
        settings = self.settings.caption
        total = sum(in_shard(name, self.shard) for name in self.manifest.values("id"))
        jobs = caption_jobs(self.manifest, settings, self.shard)
        return vars(run_jobs(jobs, settings, self.path("caption"), total))

    def _verify(self) -> dict[str, Any]:
        settings = self.settings.verify
        total = sum(1 for _ in self._records("verify"))
        jobs = verify_jobs(self._records("verify"), self.manifest, settings, self.transcripts)
        return vars(run_jobs(jobs, settings, self.path("verify"), total))

    def _filter(self) -> dict[str, Any]:
        def work(record: Mapping[str, Any]) -> tuple[list, list]:
            transcript = self.transcripts.get(record["id"])
            return filter_captions(record["captions"], self.settings.filter, transcript)

        return self._locally("filter", work)

    def _select(self) -> dict[str, Any]:
        settings = self.settings.select
        clsp, read = CLSP.from_pretrained(settings.clsp) if settings.clsp else None, ClipReader()

        def work(record: Mapping[str, Any]) -> tuple[list, list]:
            captions, vectors, fit = record["captions"], None, None
            row = row_of(record, self.manifest)
            if clsp and captions:
                embedded = clsp.encode_text(captions)
                vectors = embedded.cpu().numpy()
                if settings.gate is not None:
                    speech = clsp.encode_batch(read(row).unsqueeze(0))[0]
                    fit = (embedded @ speech).tolist()
            return select(captions, settings, vectors, fit)

        return self._locally("select", work)

    def _locally(
        self, stage: str, work: Callable[[Mapping[str, Any]], tuple[list, list]]
    ) -> dict[str, Any]:
        """Work through records without a server; what is there already is not done again."""
        kept = dropped = 0
        answers = self._answers_of(stage)
        with Records(self.path(stage), sync_every=1000) as records:
            for record in tqdm(self._records(stage), desc=stage, unit="clip"):
                key = record_key(record["key"], answers)
                if key in records.keys:
                    continue
                captions, drops = work(record)
                head = {"key": key, "id": record["id"], "row": record["row"]}
                records.append({**head, "captions": captions, "dropped": drops})
                kept, dropped = kept + len(captions), dropped + len(drops)
            return {"clips": len(records.keys), "kept now": kept, "dropped now": dropped}

    def _remember(self, stage: str) -> None:
        """Write down the stage's settings; refuse those that do not fit the records there are."""
        path, answers = self.path(stage).with_suffix(".settings.json"), self._answers_of(stage)
        if not path.is_file():
            atomic_write(path, json.dumps(answers, indent=2))
            return
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in answers if before.get(name) != answers[name]]
        if changed:
            raise ValueError(
                f"{self.path(stage)} was made with other settings of {', '.join(changed)}: use"
                f" another --output, or delete the files {stage}.* and those of later stages"
            )

    def _answers_of(self, stage: str) -> dict[str, Any]:
        """Return those settings of a stage that its answers depend on, as JSON holds them."""
        settings = asdict(getattr(self.settings, stage))
        answers = {name: value for name, value in settings.items() if name not in INCIDENTAL}
        for name in ("template", "labels_template"):
            if name in answers:
                answers[name] = template_text(answers[name])
        return json.loads(json.dumps(answers))


@dataclass(frozen=True)
class ShardTask:
    """Runs stages over one shard of a corpus, in whatever process it is called.

    Arguments
    ---------
    folder : str
        As of :class:`Annotation`.
    manifest : str
        The file of the clips.
    settings : AnnotationSettings
        Of all stages.
    count : int
        Of shards.
    stages : sequence of str
        Which, in order.
    """

    folder: str
    manifest: str
    settings: AnnotationSettings
    count: int
    stages: Sequence[str]

    def __call__(self, shard: int) -> dict[str, dict[str, Any]] | None:
        """Return what each stage did; None if another process is at the shard."""
        clips = Manifest(self.manifest)
        annotation = Annotation(self.folder, clips, self.settings, (shard, self.count))
        try:
            return {stage: annotation.run(stage) for stage in self.stages}
        except BlockingIOError:
            return None
