"""Data sets of the library datasets: of the Hub, or saved to disk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow

from speechbrain_clsp.prepare.entry import Entry, ReadOptions

# Two names with a slash, and a configuration behind a colon; no suffix of a file.
_HUB_NAME = re.compile(r"(?P<name>[\w-][\w.-]*/[\w.-]+?)(?::(?P<configuration>[\w.-]+))?")
_FILE = re.compile(r"\.(csv|tsv|jsonl?|parquet|tar|gz|tgz|zip|txt|arrow|xlsx?|wav|flac|mp3|ogg)$")
_UNDECODED = ("Audio", "Image", "Video")


def is_hub_name(source: Path) -> bool:
    """Return whether a path could be the name of a data set of the Hub.

    Example
    -------
    >>> [is_hub_name(Path(name)) for name in ("org/name", "org/name:en", "org/a.csv", "/a/b")]
    [True, True, False, False]
    """
    return bool(_HUB_NAME.fullmatch(str(source))) and not _FILE.search(str(source))


def entries_of_dataset(source: Path, options: ReadOptions) -> Iterator[Entry | str]:
    """Yield the rows of a data set, whose audio is not decoded.

    Arguments
    ---------
    source : path
        A name of the Hub, ``org/name`` or ``org/name:configuration``; or a folder, written by
        ``save_to_disk`` or that ``load_dataset`` takes.
    options : ReadOptions
        ``split`` and ``streaming`` go to the library.

    Raises
    ------
    FileNotFoundError
        If there is no data set of this name, which may be meant as a path.
    ValueError
        If it cannot be read, or the library is not installed.
    """
    with _explained(source):
        parts = _load(source, options)
    for split, part in parts.items():
        yield from _entries_of_part(source, split, part, options)


@contextmanager
def _explained(source: Path) -> Iterator[None]:
    """Tell in one sentence why the library cannot read a data set."""
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"{source}: datasets cannot read it: {error}; or download its files, as by `hf download"
            " NAME --repo-type dataset --local-dir FOLDER`, and prepare that folder"
        ) from error
    except (OSError, ValueError, LookupError, RuntimeError, pyarrow.ArrowException) as error:
        reason = str(error).strip().partition("\n")[0]
        if str(source) in reason and isinstance(error, ValueError):
            raise
        if source.is_dir():
            raise ValueError(f"{source}: datasets cannot read it: {reason}") from error
        raise FileNotFoundError(
            f"No file or folder {source}; nor can datasets read it as a data set of the Hub:"
            f" {reason}"
        ) from error


def _load(source: Path, options: ReadOptions) -> dict[str | None, Any]:
    """Return the splits of a data set, or the one that is chosen."""
    try:
        import datasets
    except ImportError as error:
        what = f"{source}: to read" if source.is_dir() else f"No file or folder {source}; to read"
        raise ValueError(
            f"{what} a data set of the library datasets install it, by"
            " `pip install 'speechbrain-clsp[datasets]'`"
        ) from error
    saved = any((source / name).is_file() for name in ("state.json", "dataset_dict.json"))
    if saved:
        loaded = datasets.load_from_disk(str(source))
        if options.split is not None:
            loaded = _chosen(source, loaded, options.split)
    else:
        match = None if source.is_dir() else _HUB_NAME.fullmatch(str(source))
        name, configuration = match.groups() if match else (str(source), None)
        loaded = datasets.load_dataset(
            name, configuration, split=options.split, streaming=options.streaming
        )
    if isinstance(loaded, Mapping):
        return dict(loaded)
    split = options.split or (str(loaded.split) if loaded.split else None)
    return {split and re.split(r"[\[+]", split)[0]: loaded}


def _chosen(source: Path, loaded: Any, split: str) -> Any:
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{source}: is one data set without splits: leave --split out")
    if split not in loaded:
        raise ValueError(f"{source}: has no split {split!r}; it has {sorted(loaded)}")
    return loaded[split]


def _entries_of_part(
    source: Path, split: str | None, part: Any, options: ReadOptions
) -> Iterator[Entry | str]:
    with _explained(source):
        names = part.column_names or list(next(iter(part.take(1)), {}))  # of some streams
    features = part.features or {}
    media = [name for name, kind in features.items() if type(kind).__name__ in _UNDECODED]
    sounds = [name for name in media if type(features[name]).__name__ != "Image"]
    columns = options.columns.rename(source, names, audio=sounds)
    part = part.select_columns(list(columns))
    for name in media:
        if name in columns:
            part = part.cast_column(name, type(features[name])(decode=False))
    classes = {name: features[name] for name in columns if hasattr(features.get(name), "int2str")}
    folder = options.folder(source if source.is_dir() else Path())
    label = "" if split is None else f" {split}"
    for number, row in enumerate(_rows_of(source, part), start=1):
        for name, kind in classes.items():
            row[name] = None if row[name] is None else kind.int2str(row[name])
        values = {ours: row[theirs] for theirs, ours in columns.items()}
        if split is not None:
            values.setdefault("split", split)
        where, name = f"{source}{label} row {number}", f"{split or source.name}-{number}."
        try:
            values = {key: _fetched(value) for key, value in values.items()}
        except OSError as error:
            yield f"{where}: {error}"
            continue
        yield Entry(where, values, folder, names=[name])


def _rows_of(source: Path, part: Any) -> Iterator[dict[str, Any]]:
    rows = iter(part)
    while True:
        with _explained(source):
            row = next(rows, None)
        if row is None:
            return
        yield row


def _path_of(value: Any) -> str | None:
    return value.get("path") if isinstance(value, Mapping) else None


def _fetched(value: Any) -> Any:
    """Return a value; of audio that lies elsewhere, such as in an archive, its bytes."""
    path = _path_of(value)
    if not isinstance(path, str) or "://" not in path or value.get("bytes") is not None:
        return value
    import fsspec

    with fsspec.open(path, "rb") as file:
        return {"bytes": file.read(), "path": path.split("::")[0].rpartition("/")[2]}
