"""What a release of captions holds and what was dropped on the way, as a sheet for its readers.

The questions follow "Datasheets for Datasets" (Gebru et al., 2021) as far as records can answer
them; purpose, license and consent are for whoever publishes to add.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechbrain_clsp.annotation.records import read_records
from speechbrain_clsp.evaluation.tables import pipes
from speechbrain_clsp.utils.files import atomic_write
from speechbrain_clsp.utils.html import bar_chart, table, write_page
from speechbrain_clsp.utils.words import words_of

CHARACTERS_PER_BIN, SECONDS_PER_BIN, WORDS_SHOWN = 32, 2, 30
LABELS = ("gender", "accent", "pitch", "speaking_rate")


class Datasheet:
    """Counts that need no more memory than the vocabulary.

    Example
    -------
    >>> sheet = Datasheet()
    >>> sheet.add({"duration": 3600.0, "fine_captions": ["A man.", "A calm man."]})
    >>> [sheet.statistics()[name] for name in ("captions", "hours", "vocabulary")]
    [2, 1.0, 3]
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.words: Counter[str] = Counter()
        self.openings: Counter[str] = Counter()
        self.characters: Counter[int] = Counter()  # these three by bin
        self.durations: Counter[int] = Counter()
        self.per_clip: Counter[int] = Counter()
        self.labels: dict[str, Counter[str]] = {label: Counter() for label in LABELS}
        self.stages: dict[str, dict[str, Any]] = {}
        self.models: set[str] = set()

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a released row of the manifest."""
        captions = row["fine_captions"]
        self.seconds += row["duration"]
        self.durations[int(row["duration"] // SECONDS_PER_BIN)] += 1
        self.per_clip[len(captions)] += 1
        for label, counts in self.labels.items():
            if row.get(label):
                counts[row[label]] += 1
        for caption in captions:
            words = words_of(caption)
            self.words.update(words)
            self.openings[" ".join(words[:2])] += 1
            self.characters[len(caption) // CHARACTERS_PER_BIN] += 1

    def add_records(self, stage: str, path: str | os.PathLike) -> None:
        """Count what a stage kept and dropped."""
        counts = self.stages.setdefault(stage, {"clips": 0, "kept": 0, "dropped": Counter()})
        for record in read_records(path):
            counts["clips"] += 1
            counts["kept"] += len(record["captions"])
            counts["dropped"].update(drop["rule"] for drop in record["dropped"])
            self.models.update([record["model"]] if "model" in record else [])

    def statistics(self) -> dict[str, Any]:
        """Return all counts, as JSON can hold them."""
        words, captions = self.words.total(), self.characters.total()
        return {
            "clips": self.per_clip.total(),
            "captions": captions,
            "hours": self.seconds / 3600,
            "captions_per_clip": dict(sorted(self.per_clip.items())),
            "words": words,
            "words_per_caption": words / max(1, captions),
            "vocabulary": len(self.words),
            "words_used_once": sum(count == 1 for count in self.words.values()),
            "commonest_openings": dict(self.openings.most_common(10)),
            "commonest_words": dict(self.words.most_common(WORDS_SHOWN)),
            "labels": {name: dict(counts.most_common()) for name, counts in self.labels.items()},
            "captioners": sorted(self.models),
            "stages": {
                stage: {**counts, "dropped": dict(counts["dropped"].most_common())}
                for stage, counts in self.stages.items()
            },
        }

    def write(self, folder: Path) -> dict[str, Any]:
        """Write ``datasheet.json``, ``.md`` and ``.html``; returns the statistics."""
        statistics = self.statistics()
        text = json.dumps(statistics, indent=1, ensure_ascii=False)
        atomic_write(folder / "datasheet.json", text + "\n")
        tables = _tables(statistics)
        parts = [f"## {title}\n\n{pipes(rows)}" for title, rows in tables.items()]
        atomic_write(folder / "datasheet.md", "\n".join(["# Datasheet\n", *parts]))
        charts = (
            _histogram("Captions by characters", self.characters, CHARACTERS_PER_BIN)
            + _histogram("Clips by seconds", self.durations, SECONDS_PER_BIN)
            + _histogram("Clips by captions", self.per_clip, 1)
        )
        head = ["<h1>Datasheet</h1>", f'<div class="charts">{charts}</div>']
        sections = [f"<h2>{title}</h2>{table(rows[0], rows[1:])}" for title, rows in tables.items()]
        write_page(folder / "datasheet.html", "Datasheet", [*head, *sections])
        return statistics


def _tables(statistics: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """Return tables, each with its header first."""
    names = ("clips", "captions", "words", "vocabulary", "words_used_once")
    counts = [[name.replace("_", " "), f"{statistics[name]:,}"] for name in names]
    counts.append(["hours", f"{statistics['hours']:.2f}"])
    counts.append(["words per caption", f"{statistics['words_per_caption']:.1f}"])
    counts.append(["captioners", ", ".join(statistics["captioners"]) or "-"])
    stages = [
        [stage, str(found["clips"]), str(found["kept"]), _counted(found["dropped"])]
        for stage, found in statistics["stages"].items()
    ]
    labels = [[name.replace("_", " "), _counted(c)] for name, c in statistics["labels"].items()]
    words = [[word, str(count)] for word, count in statistics["commonest_words"].items()]
    return {
        "Counts": [["", "value"], *counts],
        "Stages": [["stage", "clips", "captions kept", "dropped, by rule"], *stages],
        "Labels": [["label", "values"], *labels],
        "Commonest words": [["word", "times"], *words],
    }


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "-"


def _histogram(title: str, counts: Mapping[int, int], width: int) -> str:
    """Draw counts per bin; a bar stands over where its bin begins."""
    bins = range(min(counts), max(counts) + 1)
    return bar_chart(title, {str(n * width): float(counts.get(n, 0)) for n in bins})
