"""A user's table as data to train on: manifests by split, attributes, their prompts and tasks.

The recipe ``speechbrain_clsp/hparams/own_data.yaml`` is built from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from speechbrain.utils.distributed import run_on_main

from speechbrain_clsp.dataio.checks import check_clips
from speechbrain_clsp.dataio.labels import AttributeLabels, AttributePrompts, value_of
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.evaluation.zero_shot import Task, read_tasks
from speechbrain_clsp.prepare.attributes import clear_missing, find_attributes, make_prompts
from speechbrain_clsp.prepare.entry import ReadOptions
from speechbrain_clsp.prepare.leakage import SAME_CLIP, check_leakage
from speechbrain_clsp.prepare.own_data import prepare_own
from speechbrain_clsp.prepare.splitting import SPLITS, split_clips
from speechbrain_clsp.utils.checks import join_some
from speechbrain_clsp.utils.distributed import rank_and_world_size
from speechbrain_clsp.utils.files import atomic_write, sha256_of_file
from speechbrain_clsp.utils.reading import read_json

STATE = "own_data.json"  # in the output folder: what was trained on
PROMPTS = "prompts.json"
LEFT_OUT = "left_out.txt"
MADE = "made_prompts"  # in STATE, the hash of the prompt file as it was made
SPEED_CHANGE = 0.15  # of clips in training; with captions or labels of pitch or speed, a semitone:
SMALL_SPEED_CHANGE = 0.06
_ABOUT_SPEED = re.compile(
    r"\b(pitch\w*|slow\w*|fast\w*|quick\w*|rapid\w*|tempo|rate|speed\w*)\b", re.I
)
_FEW = 0.05  # fraction of the clips
PLACES = ("audio", "offset", "nbytes")  # in rows of a manifest
KINDS = ("global_captions", "fine_captions")
_NOTE = (
    "Prompts for each class of each attribute, to train with and to evaluate on. Edit them, and"
    " start the training anew in another folder with --prompts THIS_FILE; 'values' says which class"
    " a value of the column means."
)


@dataclass(frozen=True)
class OwnData:
    """A user's data, ready to train on.

    Arguments
    ---------
    manifests : dict of path
        By split: train, valid and test.
    n_train : int
        Number of training clips.
    tasks : list of Task
        Classification tasks, one for each attribute.
    prompts_file : path
        Where they were read from.
    speed_change : float
        By which fraction training may change the speed of clips, and with it their pitch.

    Example
    -------
    >>> gender = Task("gender", "gender", {"f": ["A woman."], "m": ["A man."]})
    >>> data = OwnData({"train": Path("train.arrow")}, 300, [gender], Path("prompts.json"))
    >>> data.attribute_values, data.batch_size(most=64), data.passes(1000)
    ({'gender': ['f', 'm']}, 64, 3)
    """

    manifests: dict[str, Path]
    n_train: int
    tasks: list[Task]
    prompts_file: Path
    speed_change: float = SPEED_CHANGE

    @property
    def labels(self) -> AttributeLabels:
        """The attributes that heads classify."""
        return AttributeLabels(
            {
                task.column: task.values or {name: name for name in task.prompts}
                for task in self.tasks
                if task.below is None
            }
        )

    @property
    def attribute_values(self) -> dict[str, list[str]]:
        """The classes of each attribute."""
        return self.labels.values

    @property
    def prompts(self) -> AttributePrompts | None:
        """What training draws prompts from; None if there is no attribute."""
        labels = self.labels
        by_column = {
            task.column: {"templates": task.templates, "words": task.prompts}
            for task in self.tasks
            if task.below is None
        }
        return AttributePrompts(labels, by_column) if by_column else None

    def batch_size(self, most: int) -> int:
        """Return how many clips a batch of a process has: ``most``, or all if they are fewer."""
        if most < 2:
            raise ValueError(f"most_clips must be at least 2, which are told apart, not {most}")
        return max(1, min(most, self.n_train // rank_and_world_size()[1]))

    def passes(self, clips: int) -> int:
        """Return how often an epoch of about so many clips takes each."""
        return max(1, round(clips / self.n_train))


def prepare_own_data(
    source: str | os.PathLike,
    output_folder: str | os.PathLike,
    prompts: str | os.PathLike | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    reading: ReadOptions | None = None,
    shortest: float = 0.2,
    longest: float = 30.0,
) -> OwnData:
    r"""Make manifests, attributes, prompts and tasks from a user's table, and print what was made.

    The main process writes ``data/{train,valid,test}.arrow``, ``prompts.json`` (unless it is there
    or ``prompts`` is given), ``own_data.json`` and, if clips were left out, ``left_out.txt``.

    Arguments
    ---------
    source : path
        Whatever :func:`~speechbrain_clsp.prepare.own_data.prepare_own` takes, or a manifest.
    output_folder : path
        New, empty, or that of an earlier call.
    prompts : path, optional
        Prompt file, see :func:`~speechbrain_clsp.evaluation.zero_shot.read_tasks`.
    seed : int
        Of the split.
    skip_bad : bool
        Leave bad rows out instead of raising.
    reading : ReadOptions, optional
        What is set for reading a source that is no manifest, such as names of columns.
    shortest, longest : float
        Seconds; other clips are not trained on.

    Returns
    -------
    OwnData
        What training is built from.

    Raises
    ------
    FileExistsError
        If the folder holds something else.
    ValueError
        If rows are bad, clips too few or all alike, or a training in the folder was on other data.

    Example
    -------
    >>> import numpy, soundfile
    >>> folder = getfixture("tmp_path")
    >>> lines = ["wav,caption,gender"]
    >>> for i in range(12):
    ...     tone = numpy.sin(numpy.arange(8000) * (i + 1) / 99)
    ...     soundfile.write(folder / f"{i}.wav", tone, 16000)
    ...     lines.append(f"{i}.wav,{'He' if i % 2 else 'She'} speaks.,{'fm'[i % 2]}")
    >>> _ = (folder / "clips.csv").write_text("\n".join(lines))
    >>> data = prepare_own_data(folder / "clips.csv", folder / "model")  # doctest: +ELLIPSIS
    12 clips, ...
    >>> data.n_train, data.attribute_values
    (8, {'gender': ['f', 'm']})
    """
    folder = Path(output_folder)
    run_on_main(
        _prepare,
        kwargs={
            "source": Path(source),
            "folder": folder,
            "prompts": prompts,
            "seed": seed,
            "skip_bad": skip_bad,
            "reading": reading,
            "shortest": shortest,
            "longest": longest,
        },
    )
    manifests = {split: _manifest_path(folder, split) for split in SPLITS}
    prompts_file = Path(prompts) if prompts is not None else folder / PROMPTS
    train, tasks = Manifest(manifests["train"]), read_tasks(prompts_file)
    return OwnData(manifests, len(train), tasks, prompts_file, _speed_change(train, tasks))


def _speed_change(train: Iterable[Mapping[str, Any]], tasks: Sequence[Task]) -> float:
    """Return by how much the speed of clips may change that captions and labels stay true."""
    if any(_ABOUT_SPEED.search(task.column.replace("_", " ")) for task in tasks):
        return SMALL_SPEED_CHANGE
    texts = [" ".join((*row[KINDS[0]], *row[KINDS[1]])) for row in train]
    n_about = sum(_ABOUT_SPEED.search(text) is not None for text in texts)
    return SMALL_SPEED_CHANGE if n_about > _FEW * len(texts) else SPEED_CHANGE


def _manifest_path(folder: Path, split: str) -> Path:
    return folder / "data" / f"{split}.arrow"


@dataclass
class _Findings:
    """What is told the user."""

    lines: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def _prepare(
    source: Path,
    folder: Path,
    prompts: str | os.PathLike | None,
    seed: int,
    skip_bad: bool,
    reading: ReadOptions | None,
    shortest: float,
    longest: float,
) -> None:
    check_output_folder(folder)
    findings = _Findings()
    rows = _read_rows(source, folder, skip_bad, reading, findings)
    candidates = find_attributes(rows)
    parts = split_clips(rows, list(candidates.classes), seed)
    parts.rows["train"] = _of_length(parts.rows["train"], shortest, longest, findings)
    findings.lines += [_describe_parts(parts.rows), *parts.notes]
    tasks = _make_tasks(parts.rows, folder, prompts, findings)
    _check_differences(parts.rows["train"], tasks)
    _check_state(folder, parts.rows, tasks)
    _check_classes(parts.rows["train"], tasks, folder / PROMPTS if prompts is None else prompts)
    for split in SPLITS:
        write_manifest(
            _manifest_path(folder, split), map(partial(_placed, folder), parts.rows[split])
        )
    findings.lines += describe_leaks(
        Manifest(_manifest_path(folder, "train")),
        {split: Manifest(_manifest_path(folder, split)) for split in ("valid", "test")},
        "training",
    )
    (folder / LEFT_OUT).unlink(missing_ok=True)  # of an earlier call
    if findings.left_out:
        atomic_write(folder / LEFT_OUT, "\n".join([*findings.left_out, ""]))
        findings.lines.append(
            f"Left out: {join_some(findings.left_out)}. All of them are in {folder / LEFT_OUT}"
        )
    print("\n".join(findings.lines))


def _placed(folder: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row that names audio below the manifests by its relative path: folders move."""
    data = os.path.join(os.path.abspath(folder / "data"), "")
    return {**row, "audio": row["audio"].removeprefix(data)}


def check_output_folder(folder: Path) -> None:
    """Raise if a folder holds something that no training on a user's data wrote; mark a new one.

    Example
    -------
    >>> check_output_folder(getfixture("tmp_path") / "model")
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: name a folder for the model")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STATE).is_file():
        raise FileExistsError(
            f"{folder} holds something else than a training on own data: name another folder"
        )
    if not (folder / STATE).is_file():
        atomic_write(folder / STATE, "{}\n")


def _read_rows(
    source: Path,
    folder: Path,
    skip_bad: bool,
    reading: ReadOptions | None,
    findings: _Findings,
) -> list[dict[str, Any]]:
    """Return rows of a table or manifest, of which each has both kinds of captions."""
    if source.suffix == ".arrow":
        if reading and (given := reading.given()):
            raise ValueError(f"{source}: is a manifest, which {', '.join(given)} cannot change")
        manifest = Manifest(source)
        check_clips(manifest, str(source))
    else:
        path = folder / "data" / "all.arrow"
        _, errors = prepare_own(source, path, skip_bad, options=reading)
        findings.left_out += errors
        manifest = Manifest(path)
    rows = list(manifest)
    for row in rows:
        for kind, other in (KINDS, KINDS[::-1]):
            row[kind] = row[kind] or row[other]
        if reading and reading.split is not None:  # whatever it is called, it is divided anew
            row["split"] = None
    without = [row["id"] for row in rows if not row[KINDS[0]]]
    findings.left_out += [f"{name}: has no caption" for name in without]
    rows = [row for row in rows if row[KINDS[0]]]
    different = {caption for row in rows for kind in KINDS for caption in row[kind]}
    hours = sum(row["duration"] for row in rows) / 3600
    length = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
    findings.lines.append(f"{len(rows)} clips, {length}, {len(different)} different captions.")
    findings.lines += clear_missing(rows)
    return rows


def _of_length(
    rows: Sequence[Mapping], shortest: float, longest: float, findings: _Findings
) -> list:
    kept = [row for row in rows if shortest <= row["duration"] <= longest]
    if not kept:
        raise ValueError(
            f"No training clip lasts {shortest:g} to {longest:g} s: cut them, or set shortest and"
            " longest"
        )
    findings.left_out += [
        f"{row['id']}: {row['duration']:.2f} s are not {shortest:g} to {longest:g} s"
        for row in rows
        if not shortest <= row["duration"] <= longest
    ]
    return kept


def _describe_parts(rows: Mapping[str, Sequence[Mapping]]) -> str:
    """Return a line with the clips and speakers of each split."""
    parts = []
    for split in SPLITS:
        speakers = {row["speaker"] for row in rows[split]} - {None}
        of = f" of {len(speakers)} speakers" if speakers else ""
        parts.append(f"{split} {len(rows[split])} clips{of}")
    return "; ".join(parts)[0].upper() + "; ".join(parts)[1:] + "."


def _make_tasks(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    folder: Path,
    prompts: str | os.PathLike | None,
    findings: _Findings,
) -> list[Task]:
    """Read the tasks from the prompt file, which is written if there is none of the user's yet."""
    attributes = find_attributes(rows["train"])
    path = Path(prompts) if prompts is not None else folder / PROMPTS
    if prompts is None and not _is_kept(folder):
        content = {"_note": _NOTE, **make_prompts(attributes.classes)}
        atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        state = read_json(folder / STATE) | {MADE: sha256_of_file(path)}
        atomic_write(folder / STATE, json.dumps(state, indent=1, ensure_ascii=False) + "\n")
    tasks = read_tasks(path)
    for task in tasks:
        counts = {split: _count(task, rows[split]) for split in SPLITS}
        listed = ", ".join(f"{name} ({counts['train'][name]})" for name in task.prompts)
        findings.lines.append(f"Attribute {task.name}: {listed}.")
        unseen = {
            value_of(row, task.column)
            for row in (*rows["valid"], *rows["test"])
            if task.label_of(row) < 0
        } - {None, *attributes.rare.get(task.column, ())}
        if unseen:
            listed = join_some(sorted(unseen), ", ")
            findings.lines.append(f"  Not learned, since no training clip has them: {listed}.")
        if rare := attributes.rare.get(task.column):
            findings.lines.append(
                f"  Not learned, since one training clip has them: {join_some(rare, ', ')}."
            )
        untested = [name for name in task.prompts if not counts["test"][name]]
        if untested:
            findings.lines.append(f"  Not tested: {join_some(untested, ', ')}.")
    columns = {task.column for task in tasks}
    for column, reason in attributes.left_out.items():
        if column not in columns:
            findings.lines.append(f"No attribute: {column}, which {reason}.")
    if not tasks:
        findings.lines.append("No attributes: the model learns from captions alone.")
    else:
        findings.lines.append(f"Their prompts are in {path}.")
    return tasks


def _is_kept(folder: Path) -> bool:
    """Return whether there is a prompt file that the user changed, or that was trained with."""
    path = folder / PROMPTS
    if not path.is_file():
        return False
    return _is_trained(folder) or read_json(folder / STATE).get(MADE) != sha256_of_file(path)


def _is_trained(folder: Path) -> bool:
    return any(folder.glob("save/CKPT*"))


def _count(task: Task, rows: Sequence[Mapping[str, Any]]) -> Counter:
    """Count clips by class."""
    names = list(task.prompts)
    return Counter(names[label] for row in rows if (label := task.label_of(row)) >= 0)


def _check_differences(rows: Sequence[Mapping[str, Any]], tasks: Sequence[Task]) -> None:
    """Raise ValueError if training clips have neither different captions nor attributes."""
    captions = {tuple(row[kind]) for row in rows for kind in KINDS}
    if len(captions) == 1 and not tasks:
        raise ValueError(
            "All training clips have the same captions and no attribute of several values: there is"
            " nothing to tell them apart by"
        )


def _check_classes(
    rows: Sequence[Mapping[str, Any]], tasks: Sequence[Task], prompts: str | os.PathLike
) -> None:
    """Raise ValueError if clips have fewer than two classes of a task, such as of a misspelled one.

    A file of prompts that was made has no such task: only one of the user's may.
    """
    for task in tasks:
        if (n_classes := len(_count(task, rows))) < 2:
            attributes = find_attributes(rows)
            columns = join_some([*attributes.classes, *attributes.left_out], ", ") or "none"
            raise ValueError(
                f"{prompts}: training clips have {n_classes} of the classes of {task.name!r}, whose"
                f" column is {task.column!r} (columns with values: {columns}): at least 2 are"
                " needed, correct the task or take it out"
            )


def _check_state(
    folder: Path, rows: Mapping[str, Sequence[Mapping]], tasks: Sequence[Task]
) -> None:
    """Raise ValueError if a training in the folder was on other data; note what this one is on."""
    state = {
        "clips": {split: _hash_of(rows[split]) for split in SPLITS},
        "prompts": {task.name: dict(task.prompts) for task in tasks},
    }
    state = json.loads(json.dumps(state))  # as it is read
    path = folder / STATE
    before = read_json(path)
    changed = [name for name in state if name in before and before[name] != state[name]]
    if changed and _is_trained(folder):
        raise ValueError(
            f"{folder} holds a training on other {' and '.join(changed)}: name another folder, or"
            " remove it"
        )
    atomic_write(path, json.dumps(before | state, indent=1, ensure_ascii=False) + "\n")


def _hash_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Hash all that rows say, but for where audio lies, which may move."""
    digest = hashlib.sha256()
    for row in rows:
        told = {key: value for key, value in row.items() if key not in PLACES}
        digest.update(json.dumps(told, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def describe_leaks(
    train: Manifest,
    evaluated: Mapping[str, Manifest],
    what: str,
    kinds: Sequence[str] = SAME_CLIP,
) -> list[str]:
    """Return sentences on what evaluated clips share with those of a training.

    Arguments
    ---------
    train : Manifest
        What is trained on.
    evaluated : dict of Manifest
        Validation and test clips, by split.
    what : str
        Which clips are trained on, such as ``training``.
    kinds : sequence of str
        As for :func:`~speechbrain_clsp.prepare.leakage.check_leakage`.
    """
    lines = []
    for split, manifest in evaluated.items():
        report = check_leakage(manifest, train, kinds)
        for kind in kinds:
            if report.counts[kind]:
                first = report.of_kind(kind)[0]
                label = "LEAK" if kind in SAME_CLIP else "SHARED, is it intended?"
                lines.append(
                    f"{label}: {report.counts[kind]} {split} clips have the {kind} of a {what}"
                    f" clip, such as {first.test} that of {first.train}."
                )
    if lines:
        return lines
    if "audio" not in kinds:
        return [f"No valid or test clip has the {' or '.join(kinds)} of a {what} clip."]
    return [f"No valid or test clip is, or sounds like, a {what} clip."]
