"""Results of an experiment: metrics.json, report.html, and a table on the terminal."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import pandas as pd
import soundfile
from torch import Tensor

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.evaluation.report import read_training_log
from speechbrain_clsp.evaluation.statistics import Estimate
from speechbrain_clsp.utils.files import atomic_write
from speechbrain_clsp.utils.html import audio_player, line_chart, table, write_page

Table = Mapping[str, Mapping[str, Estimate]]  # by row and column


def write_results(
    folder: str | os.PathLike,
    title: str,
    tables: Mapping[str, Table],
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    examples: Sequence[tuple[str, Mapping[str, Tensor]]],
) -> None:
    """Print the tables, and write metrics.json and report.html.

    Arguments
    ---------
    folder : str or path
        Where the files go.
    title : str
        Of the page.
    tables : dict
        Estimates by row and column, under a heading each.
    curves : dict
        For each chart its curves, as :func:`~speechbrain_clsp.utils.html.line_chart` takes them.
    examples : list of (str, dict)
        A caption, and waveforms [T] at 16 kHz by what they are.
    """
    metrics = {
        heading: {
            row: {column: estimate.to_dict() for column, estimate in cells.items()}
            for row, cells in rows.items()
        }
        for heading, rows in tables.items()
    }
    atomic_write(Path(folder) / "metrics.json", json.dumps(metrics, indent=1))
    sections = [f"<h1>{escape(title)}</h1><p class='note'>Means with 95 % intervals.</p>"]
    for heading, rows in tables.items():
        cells = {
            row: {column: estimate.format(digits=3) for column, estimate in columns.items()}
            for row, columns in rows.items()
        }
        frame = pd.DataFrame.from_dict(cells, orient="index")
        print(f"{heading}\n{frame.to_string()}\n")
        lines = [[str(row), *map(str, values)] for row, values in zip(frame.index, frame.values)]
        sections.append(f"<h2>{escape(heading)}</h2>{table(['', *frame.columns], lines)}")
    charts = "".join(line_chart(name, series) for name, series in curves.items())
    sections.append(f"<div class='row'>{charts}</div><h2>Examples</h2>")
    for caption, wavs in examples:
        players = (f"<p class='note'>{escape(k)}</p>{_player(wav)}" for k, wav in wavs.items())
        sections.append(f"<h3>{escape(caption)}</h3>{''.join(players)}")
    write_page(Path(folder) / "report.html", title, sections)
    print(f"metrics.json, and report.html with clips to listen to, are in {folder}")


def training_curves(path: str | os.PathLike) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return the curves of SpeechBrain's train_log.txt: a chart per value, with train and valid.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train_log.txt"
    >>> _ = path.write_text("epoch: 1 - train reward: 0.2 - valid reward: 0.1")
    >>> training_curves(path)
    {'reward by epoch': {'train': [(1.0, 0.2)], 'valid': [(1.0, 0.1)]}}
    """
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, points in read_training_log(path).items():
        split, _, value = name.partition(" ")  # such as "train reward"
        if value:
            charts.setdefault(f"{value} by epoch", {})[split] = points
    return charts


def _player(wav: Tensor) -> str:
    file = io.BytesIO()
    soundfile.write(file, wav.numpy(), SAMPLE_RATE, format="WAV")
    file.seek(0)
    return audio_player(file)
