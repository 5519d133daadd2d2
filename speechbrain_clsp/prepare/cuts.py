"""Cuts, as lhotse writes them in JSON lines, from and to manifest rows.

FCaps is published in this form. lhotse itself is not needed.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shlex
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

WHOLE_SECONDS = 0.01  # a cut that differs by less from its recording is all of it
HARMLESS = {"Resample"}  # transforms that change no style; clips are resampled when read anyway
LABELS = ("accent", "pitch", "speaking_rate")
TAGS = ("intrinsic_tags", "situational_tags")
_COMMAND = re.compile(r"tail -c \+(\d+) (.+) \| head -c (\d+)")  # a member of a shard


class Unusable(ValueError):
    """A record that gives no clip.

    Arguments
    ---------
    reason : str
        One of few, to count by.
    detail : str
        What is wrong with this one.
    name : str, optional
        Its id, if it has one.
    """

    def __init__(self, reason: str, detail: str = "", name: str | None = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.name = reason, detail, name

    def __reduce__(self) -> tuple:
        return Unusable, (self.reason, self.detail, self.name)


@dataclass
class Clip:
    """A record on its way to the manifest.

    Arguments
    ---------
    row : dict
        What is known of the manifest's row, ``audio`` as the record gives it.
    names : list of str
        By what the audio may be found, the surest first: paths and ids.
    """

    row: dict[str, Any]
    names: list[str]


def read_lines(path: str | os.PathLike) -> Iterator[tuple[int, bytes]]:
    r"""Yield (number, line) of a file of lines, gzipped or not; one line is in memory.

    Raises
    ------
    ValueError
        At the end of what can be read, if the file is cut off or damaged.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.jsonl.gz"
    >>> _ = path.write_bytes(gzip.compress(b"{}\n\n[]\n"))
    >>> list(read_lines(path))
    [(1, b'{}'), (3, b'[]')]
    """
    with open(path, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        number = 0
        try:
            for number, line in enumerate(gzip.open(raw) if zipped else raw, start=1):
                if line.strip():
                    yield number, line.strip()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{path} is cut off or damaged after line {number} ({error}): download it again;"
                " what was prepared up to there is kept"
            ) from error


def parse_line(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line, or raise :class:`Unusable`."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise Unusable("malformed line", str(error)) from error
    if not isinstance(record, dict):
        raise Unusable("malformed line", "is no JSON object")
    return record


def clip_from_cut(cut: Mapping[str, Any], text_is_caption: bool = False) -> Clip:
    """Read a cut.

    Arguments
    ---------
    cut : dict
        A ``MonoCut``. Captions are taken from its supervisions' ``custom`` fields
        ``short_captions`` (global) and ``long_captions`` (fine); all fields may be absent.
    text_is_caption : bool
        Where there are none, the supervision's ``text`` is the fine caption.

    Returns
    -------
    Clip
        ``start`` is set only if the cut is a part of its recording.

    Raises
    ------
    Unusable
        If it is no MonoCut, lacks id, length or captions, or its audio is changed by a transform.

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
        raise Unusable("malformed line", "the cut has no id")
    try:
        return _clip(name, cut, text_is_caption)
    except Unusable as error:
        raise Unusable(error.reason, error.detail, name) from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise Unusable("malformed line", f"{type(error).__name__}: {error}", name) from error


def _clip(name: str, cut: Mapping[str, Any], text_is_caption: bool) -> Clip:
    if cut.get("type", "MonoCut") != "MonoCut":
        raise Unusable("not a MonoCut", f"is a {cut['type']}")
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
        raise Unusable("no caption")
    row = {"id": name, **_audio(cut, recording), "global_captions": short, "fine_captions": fine}
    row |= {key: _text(first.get(key)) for key in ("speaker", "gender")}
    row |= {key: _text(custom.get(key)) for key in LABELS}
    row |= {key: _texts(custom.get(key)) for key in TAGS}
    row["labels"] = {str(k): str(v) for k, v in (custom.get("labels") or {}).items()} or None
    names = [row["audio"], recording.get("id"), name]
    return Clip(row, list(dict.fromkeys(n for n in names if isinstance(n, str) and n)))


def _refuse_changed_audio(cut: Mapping[str, Any], recording: Mapping[str, Any]) -> None:
    for transform in [*(recording.get("transforms") or []), *(cut.get("transforms") or [])]:
        kind = transform.get("name") if isinstance(transform, Mapping) else transform
        if kind not in HARMLESS:
            raise Unusable("audio changed", f"by the transform {kind}, which is not applied here")


def _audio(cut: Mapping[str, Any], recording: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a cut's audio is and which part of it the cut is."""
    start, duration = float(cut.get("start") or 0.0), float(cut["duration"])
    if not (duration > 0 and start >= 0):
        raise Unusable("malformed line", f"from {start} s, {duration} s long")
    total, channels = recording.get("duration"), recording.get("channel_ids") or [0]
    known = total is not None and abs(float(total) - duration) < WHOLE_SECONDS
    whole = start == 0 and (known or total is None)
    source = (recording.get("sources") or [{}])[0]
    audio = {"audio": source.get("source"), "start": None if whole else start}
    shard = _COMMAND.fullmatch(str(source.get("source")))
    if source.get("type") == "command" and shard:
        first, path, size = shard.groups()
        audio["audio"], *_ = shlex.split(path)
        audio |= {"offset": int(first) - 1, "nbytes": int(size)}
    channel = cut.get("channel") if len(channels) > 1 else None
    if isinstance(channel, list):
        channel = channel[0] if len(channel) == 1 else None
    rate = recording.get("sampling_rate")
    return audio | {
        "duration": duration,
        "channel": channel,
        "sample_rate": None if rate is None else int(rate),
    }


def _text(value: Any) -> str | None:
    return (str(value).strip() or None) if value is not None else None


def _texts(values: Any) -> list[str]:
    """Return what a field holds as a list of texts: it may be null, one text, or have gaps."""
    values = [values] if isinstance(values, str) else values or []
    return [str(v).strip() for v in values if v is not None and str(v).strip()]


def write_cuts(
    path: str | os.PathLike, rows: Iterable[Mapping[str, Any]], read_headers: bool = True
) -> int:
    """Write manifest rows as cuts, one JSON line each; the file appears whole or not at all.

    Arguments
    ---------
    path : str or path
        ``.jsonl``, or ``.jsonl.gz`` to compress.
    rows : iterable of dict
        E.g. a :class:`~speechbrain_clsp.dataio.manifest.Manifest`.
    read_headers : bool
        Take every file's length and rate from the file: lhotse refuses audio that is longer or
        shorter than its cut says. Without, the rows are trusted and no audio is opened.

    Returns
    -------
    int
        Number of cuts.
    """
    partial = f"{path}.partial"
    count = 0
    with _open_to_write(path, partial) as file:
        for row in rows:
            count += 1
            file_info = {}
            if read_headers:
                rate, seconds, channels = _header(row)
                row, file_info = {**row, "sample_rate": rate}, {"seconds": seconds}
                file_info["n_channels"] = channels
            file.write(json.dumps(cut_from_row(row, **file_info), ensure_ascii=False) + "\n")
    os.replace(partial, path)
    return count


@contextmanager
def _open_to_write(path: str | os.PathLike, partial: str) -> Iterator[TextIO]:
    """Open for text, compressed if the final name says so; equal cuts give equal bytes."""
    with open(partial, "wb") as raw:
        if not str(path).endswith(".gz"):
            with io.TextIOWrapper(raw, encoding="utf-8") as file:
                yield file
            return
        with (
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
            io.TextIOWrapper(packed, encoding="utf-8") as file,
        ):
            yield file


def _header(row: Mapping[str, Any]) -> tuple[int, float, int]:
    """Return a file's rate [Hz], length [s] and number of channels."""
    import soundfile

    from speechbrain_clsp.dataio.shards import ClipReader

    inside = row["offset"] is not None
    source = io.BytesIO(ClipReader(1).read_bytes(row)) if inside else row["audio"]
    try:
        info = soundfile.info(source)
    except soundfile.SoundFileError as error:
        raise ValueError(f"{row['id']}: {row['audio']} cannot be read as audio") from error
    if info.channels > 1 and row["channel"] is None:
        raise ValueError(
            f"{row['id']}: {row['audio']} has {info.channels} channels, whose mean no MonoCut can"
            " be: give its row a channel"
        )
    return info.samplerate, info.frames / info.samplerate, info.channels


def cut_from_row(
    row: Mapping[str, Any], seconds: float | None = None, n_channels: int | None = None
) -> dict[str, Any]:
    """Return a manifest row as a cut that lhotse reads.

    Arguments
    ---------
    row : dict
        With all columns of the manifest. A member of a shard becomes a source of type ``command``
        (``tail`` and ``head``), by which lhotse reads it from where it is.
    seconds : float, optional
        How long the whole file is; default: until the clip's end.
    n_channels : int, optional
        Of the file; default: one, or more if the row names a channel.

    Returns
    -------
    dict
        A ``MonoCut``; :func:`clip_from_cut` gives the row back.

    Example
    -------
    >>> from speechbrain_clsp.dataio.manifest import SCHEMA
    >>> row = dict.fromkeys(SCHEMA.names) | {"id": "a", "audio": "a.wav", "duration": 1.0}
    >>> row |= {"global_captions": ["G"], "fine_captions": []}
    >>> cut = cut_from_row(row)
    >>> cut["recording"]["num_samples"], clip_from_cut(cut).row["global_captions"]
    (16000, ['G'])
    """
    rate, start = row["sample_rate"] or 16000, row["start"] or 0.0
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
