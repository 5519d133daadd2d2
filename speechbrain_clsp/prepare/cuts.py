"""Conversion between lhotse cuts (JSON lines) and manifest rows.

FCaps is published as cuts. lhotse itself is not needed.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from speechbrain_clsp.dataio.audio import SAMPLE_RATE, Header, read_header
from speechbrain_clsp.dataio.shards import ClipReader
from speechbrain_clsp.prepare.clip import (
    MALFORMED,
    ClipRecord,
    UnusableClipError,
    parse_line,
    read_lines,
)
from speechbrain_clsp.utils.files import atomic_path, check_replaceable

WHOLE_SECONDS = 0.01  # a cut whose duration differs by less from its recording's is all of it
HARMLESS = {"Resample"}  # transforms without effect on style; clips are resampled on reading
LABELS = ("accent", "pitch", "speaking_rate")
TAGS = ("intrinsic_tags", "situational_tags")
_COMMAND = re.compile(r"tail -c \+(\d+) (.+) \| head -c (\d+)")  # a member of a shard


def clip_from_cut(cut: Mapping[str, Any], text_is_caption: bool = False) -> ClipRecord:
    """Convert a cut to a record of the manifest.

    Captions are taken from the ``custom`` fields ``short_captions`` (global) and ``long_captions``
    (fine) of the supervisions; with ``text_is_caption``, where there are none, from their ``text``.
    All fields may be absent.

    Arguments
    ---------
    cut : dict
        A lhotse ``MonoCut``.
    text_is_caption : bool
        Whether the text of a supervision without captions describes the speech.

    Returns
    -------
    ClipRecord
        ``row["start"]`` is None if the cut is the whole of its recording.

    Raises
    ------
    UnusableClipError
        If the cut is not a MonoCut, has no id, duration or caption, or has a transform that
        changes its audio.

    Example
    -------
    >>> custom = {"long_captions": ["A calm voice."], "accent": "scottish"}
    >>> cut = {"id": "a", "start": 2, "duration": 1.5, "supervisions": [{"custom": custom}]}
    >>> cut["recording"] = {"id": "r", "sources": [{"type": "file", "source": "r.flac"}]}
    >>> clip = clip_from_cut(cut)
    >>> clip.row["audio"], clip.row["start"], clip.row["fine_captions"], clip.names
    ('r.flac', 2.0, ['A calm voice.'], ['r.flac', 'r', 'a'])
    """
    name = cut.get("id")
    if not isinstance(name, str) or not name:
        raise UnusableClipError(MALFORMED, "the cut has no id")
    try:
        return _clip(name, cut, text_is_caption)
    except UnusableClipError as error:
        raise UnusableClipError(error.reason, error.detail, name) from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UnusableClipError(MALFORMED, f"{type(error).__name__}: {error}", name) from error


def _clip(name: str, cut: Mapping[str, Any], text_is_caption: bool) -> ClipRecord:
    if cut.get("type", "MonoCut") != "MonoCut":
        way = "save its audio, and make cuts of the files"
        if cut["type"] == "PaddingCut":
            way = "it is silence between other cuts, leave it out"
        raise UnusableClipError("not a MonoCut", f"is a {cut['type']}: {way}")
    recording = cut.get("recording") or {}
    _refuse_changed_audio(cut, recording)
    supervisions = cut.get("supervisions") or [{}]
    first, custom = supervisions[0], {**(cut.get("custom") or {})}
    for supervision in reversed(supervisions):
        custom.update(supervision.get("custom") or {})
    fine = _texts(custom.get("long_captions"))
    short = _texts(custom.get("short_captions"))
    if not fine and not short and text_is_caption:
        fine = _texts(first.get("text"))
    if not fine and not short:
        raise UnusableClipError("no caption")
    row = {"id": name, **_audio(cut, recording), "global_captions": short, "fine_captions": fine}
    row |= {key: _text(first.get(key)) for key in ("speaker", "gender")}
    row |= {key: _text(custom.get(key)) for key in LABELS}
    row |= {key: _texts(custom.get(key)) for key in TAGS}
    row["labels"] = {str(k): str(v) for k, v in (custom.get("labels") or {}).items()} or None
    names = [row["audio"], recording.get("id"), name]
    return ClipRecord(row, list(dict.fromkeys(n for n in names if isinstance(n, str) and n)))


def _refuse_changed_audio(cut: Mapping[str, Any], recording: Mapping[str, Any]) -> None:
    for transform in [*(recording.get("transforms") or []), *(cut.get("transforms") or [])]:
        kind = transform.get("name") if isinstance(transform, Mapping) else transform
        if kind not in HARMLESS:
            raise UnusableClipError(
                "audio changed", f"by the transform {kind}, which is not applied here"
            )


def _audio(cut: Mapping[str, Any], recording: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that locate a cut's audio and its part of it."""
    start, duration = float(cut.get("start") or 0.0), float(cut["duration"])
    if not (0 < duration < math.inf and 0 <= start < math.inf):
        raise UnusableClipError(MALFORMED, f"from {start} s, {duration} s long")
    total, channels = recording.get("duration"), recording.get("channel_ids") or [0]
    known = total is not None and abs(float(total) - duration) < WHOLE_SECONDS
    is_whole = start == 0 and (known or total is None)
    source = (recording.get("sources") or [{}])[0]
    audio = {"audio": source.get("source"), "start": None if is_whole else start}
    shard = _COMMAND.fullmatch(str(source.get("source")))
    if source.get("type") == "command" and shard:
        first, path, size = shard.groups()
        audio["audio"], *_ = shlex.split(path)
        audio["offset"] = _whole_number(first, "offset", 1, 2**63 - 1) - 1
        audio["nbytes"] = _whole_number(size, "size", 0, 2**63 - 1)
    channel = cut.get("channel") if len(channels) > 1 else None
    if isinstance(channel, list):
        channel = channel[0] if len(channel) == 1 else None
    rate = recording.get("sampling_rate")
    return audio | {
        "duration": duration,
        "channel": None if channel is None else _whole_number(channel, "channel", 0, 2**16),
        "sample_rate": None if rate is None else _whole_number(rate, "rate", 1, 2**31 - 1),
    }


def _whole_number(value: Any, name: str, low: int, high: int) -> int:
    number = int(value)
    if number != float(value) or not low <= number <= high:
        raise ValueError(f"{name} is {value!r}, not a whole number from {low} to {high}")
    return number


def _text(value: Any) -> str | None:
    return (str(value).strip() or None) if value is not None else None


def _texts(values: Any) -> list[str]:
    """Return a field as a list of texts; it may be null, one text, or contain nulls."""
    values = [values] if isinstance(values, str) else values or []
    return [str(v).strip() for v in values if v is not None and str(v).strip()]


def write_cuts(
    path: str | os.PathLike, rows: Iterable[Mapping[str, Any]], read_headers: bool = True
) -> int:
    """Write manifest rows as cuts, one JSON line each, atomically.

    Arguments
    ---------
    path : str or path
        ``.jsonl``, or ``.jsonl.gz`` to compress; equal cuts give equal bytes.
    rows : iterable of dict
        E.g. a :class:`~speechbrain_clsp.dataio.manifest.Manifest`.
    read_headers : bool
        Take duration and sample rate from the audio files: lhotse refuses audio that is longer or
        shorter than its cut says. If False, no audio is opened and the rows are trusted.

    Returns
    -------
    int
        The number of cuts.

    Raises
    ------
    ValueError
        If an audio file cannot be read, or has several channels of which the row names none.
    FileExistsError
        If ``path`` holds something else than cuts.

    Example
    -------
    >>> from speechbrain_clsp.dataio.manifest import SCHEMA
    >>> row = dict.fromkeys(SCHEMA.names) | {"id": "a", "audio": "a.wav", "duration": 1.0}
    >>> row |= {"global_captions": ["G"], "fine_captions": []}
    >>> path = getfixture("tmp_path") / "cuts.jsonl"
    >>> write_cuts(path, [row], read_headers=False)
    1
    >>> json.loads(path.read_text())["id"]
    'a'
    """
    check_replaceable(path, _holds_cuts, "a file of cuts")
    count = 0
    with atomic_path(path) as partial, open(partial, "wb") as raw:
        is_gzipped = partial.suffix == ".gz"  # without name and time, which would differ
        binary = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if is_gzipped else raw
        with io.TextIOWrapper(binary, encoding="utf-8") as file:
            for row in rows:
                count += 1
                if read_headers:
                    info = _header(row)
                    row = {**row, "sample_rate": info.sample_rate}
                    cut = cut_from_row(row, info.seconds, info.n_channels)
                else:
                    cut = cut_from_row(row)
                file.write(json.dumps(cut, ensure_ascii=False) + "\n")
    return count


def _holds_cuts(path: str | os.PathLike) -> bool:
    first = next(read_lines(path), None)
    return first is not None and is_cut(parse_line(first.line))


def is_cut(record: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is a lhotse cut.

    Example
    -------
    >>> is_cut({"id": "a", "supervisions": []}), is_cut({"wav": "a.wav", "caption": "A man."})
    (True, False)
    """
    kind = record.get("type")
    named = isinstance(kind, str) and kind.endswith("Cut")
    return named or not {"recording", "supervisions", "tracks"}.isdisjoint(record)


def _header(row: Mapping[str, Any]) -> Header:
    """Return the header of a row's file."""
    is_member = row["offset"] is not None
    source = ClipReader(1).read_bytes(row) if is_member else row["audio"]
    info = read_header(source, f"{row['id']}: {row['audio']}")
    if info.n_channels > 1 and row["channel"] is None:
        raise ValueError(
            f"{row['id']}: {row['audio']} has {info.n_channels} channels, and a MonoCut cannot be"
            " their mean: set the row's channel"
        )
    return info


def cut_from_row(
    row: Mapping[str, Any], seconds: float | None = None, n_channels: int | None = None
) -> dict[str, Any]:
    """Convert a manifest row to a ``MonoCut``, of which :func:`clip_from_cut` gives the row back.

    Arguments
    ---------
    row : dict
        With all columns of the manifest.
    seconds : float, optional
        Of the whole file; by default it ends with the clip.
    n_channels : int, optional
        Of the whole file; default: one, or more if the row names one.

    Returns
    -------
    dict
        The cut. A member of a shard becomes a source of type ``command`` (``tail`` and ``head``),
        by which lhotse reads it in place.

    Example
    -------
    >>> from speechbrain_clsp.dataio.manifest import SCHEMA
    >>> row = dict.fromkeys(SCHEMA.names) | {"id": "a", "audio": "a.wav", "duration": 1.0}
    >>> row |= {"global_captions": ["G"], "fine_captions": []}
    >>> cut = cut_from_row(row)
    >>> cut["recording"]["num_samples"], clip_from_cut(cut).row["global_captions"]
    (16000, ['G'])
    """
    rate, start = row["sample_rate"] or SAMPLE_RATE, row["start"] or 0.0
    seconds = start + row["duration"] if seconds is None else seconds
    channel = row["channel"] or 0
    source = {"type": "file", "source": row["audio"]}
    if row["offset"] is not None:
        path = shlex.quote(row["audio"])
        command = f"tail -c +{row['offset'] + 1} {path} | head -c {row['nbytes']}"
        source = {"type": "command", "source": command}
    if n_channels is None:
        n_channels = 1 if row["channel"] is None else max(channel, 1) + 1
    channels = list(range(n_channels))
    custom = {key: row[key] for key in (*LABELS, *TAGS) if row[key]}
    custom |= {"short_captions": row["global_captions"], "long_captions": row["fine_captions"]}
    if row["labels"]:
        custom["labels"] = dict(row["labels"])
    supervision = {"id": row["id"], "recording_id": row["id"], "start": 0.0}
    supervision |= {"duration": row["duration"], "channel": channel, "custom": custom}
    supervision |= {key: row[key] for key in ("speaker", "gender") if row[key]}
    return {
        "id": row["id"],
        "start": start,
        "duration": row["duration"],
        "channel": channel,
        "supervisions": [supervision],
        "recording": {
            "id": row["id"],
            "sources": [{**source, "channels": channels}],
            "sampling_rate": rate,
            "num_samples": round(seconds * rate),
            "duration": round(seconds * rate) / rate,
            "channel_ids": channels,
        },
        "type": "MonoCut",
    }
