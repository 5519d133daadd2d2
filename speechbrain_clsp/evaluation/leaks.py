"""What makes figures worth nothing: test clips seen in training, and captions of other clips."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.utils.files import sha256_of_file

SAME_CLIP = ("id", "audio")  # speakers and captions may be shared on purpose
TEXTS = ("global_captions", "fine_captions")


def find_leaks(test: Manifest, train: Manifest) -> dict[str, list[str]]:
    """Compare a test set with the data that a model was trained on.

    Arguments
    ---------
    test, train : Manifest
        Whole files, not shards, are compared by content; only those of equal size are read.

    Returns
    -------
    dict
        Test clips (ids) whose ``id``, ``audio`` (same bytes, same start), ``speaker`` or
        ``captions`` occur in training.
    """
    train_ids, train_speakers = set(train.column("id")), set(train.column("speaker")) - {None}
    train_texts = {text for name in TEXTS for texts in train.column(name) for text in texts or []}
    rows = list(test)
    same_bytes = _same_bytes(rows, train)
    return {
        "id": [row["id"] for row in rows if row["id"] in train_ids],
        "audio": [row["id"] for row in rows if row["id"] in same_bytes],
        "speaker": [row["id"] for row in rows if row["speaker"] in train_speakers],
        "captions": [
            row["id"] for row in rows if any(t in train_texts for name in TEXTS for t in row[name])
        ],
    }


def _same_bytes(rows: list[dict[str, Any]], train: Manifest) -> set[str]:
    """Return ids of rows whose file, or the part of it from the same start on, is in training."""
    plain = [row for row in rows if row["offset"] is None and Path(row["audio"]).is_file()]
    sizes = {os.path.getsize(row["audio"]) for row in plain}
    hashes = lru_cache(sha256_of_file)  # many clips may be parts of one recording
    columns = zip(*map(train.column, ("audio", "offset", "start")))
    others = [(train.absolute(audio), start) for audio, offset, start in columns if offset is None]
    known = {
        (hashes(path), start)
        for path, start in others
        if os.path.isfile(path) and os.path.getsize(path) in sizes
    }
    return {row["id"] for row in plain if known and (hashes(row["audio"]), row["start"]) in known}


def leak_warnings(leaks: Mapping[str, list[str]]) -> list[str]:
    """Put what :func:`find_leaks` found into words.

    Example
    -------
    >>> leak_warnings({"audio": ["a"], "id": []})
    ['LEAK: 1 test clips have the audio of a training clip, such as a']
    """
    return [
        f"{'LEAK' if kind in SAME_CLIP else 'SHARED, is it meant?'}: {len(ids)} test clips have the"
        f" {kind} of a training clip, such as {ids[0]}"
        for kind, ids in leaks.items()
        if ids
    ]


def suspicion(figures: Mapping[str, Mapping[str, float]], where: str) -> list[str]:
    """Tell figures that a sound evaluation hardly gives.

    Arguments
    ---------
    figures : dict
        By name, each with ``value``, ``low``, ``high`` and ``chance``.
    where : str
        Model and table, for the message.

    Returns
    -------
    list of str
        Warnings: recall no better than chance (captions or labels may belong to other clips), or
        perfect retrieval among many (the model may see the answer).

    Example
    -------
    >>> chance = {"value": 0.1, "low": 0.0, "high": 0.2, "chance": 0.1}
    >>> suspicion({"speech_to_text_R@10": chance}, "m, fine")[0][:30]
    'm, fine: speech_to_text_R@10 i'
    """
    found = []
    for name, figure in figures.items():
        if name == "UAR" and figure["low"] <= figure["chance"]:
            found.append(f"{where}: UAR is no better than chance: do labels belong to their clips?")
        if not name.endswith("R@10") or figure["chance"] >= 0.5:
            continue
        if figure["low"] <= figure["chance"]:
            found.append(
                f"{where}: {name} is no better than chance: do captions belong to their clips?"
            )
    first = [figures[name] for name in figures if name.endswith("R@1")]
    if first and all(figure["value"] == 1.0 and figure["chance"] < 0.02 for figure in first):
        found.append(f"{where}: retrieval is perfect: does the model see the answers?")
    return found
