"""A row of a user's data, whatever form it came in, and what is set for reading it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechbrain_clsp.dataio.shards import Place
from speechbrain_clsp.prepare.columns import AUDIO_COLUMNS, Columns
from speechbrain_clsp.utils.files import expand

# As SpeechBrain writes the folder of a corpus in its CSV and in its JSON manifests.
_PLACEHOLDER = re.compile(r"(?:\$\{?|\{)(data_root|data_folder)\}?(?=/|$)")


@dataclass
class ReadOptions:
    """What users may set for reading their data.

    Arguments
    ---------
    columns : Columns
        Names of the columns.
    data_root : str or path, optional
        What ``$data_root`` and ``{data_root}`` stand for, and where relative paths of audio start
        from; default: the folder of the table that names them.
    split : str, optional
        The only split to read; of the library ``datasets`` also a part such as ``train[:100]``.
    captions_file : str, optional
        The file in a data folder of Kaldi that holds captions; default: ``captions``.
    streaming : bool
        Whether a data set of the Hub is read without storing all of it first.
    store : callable, optional
        Takes the bytes of audio that is in no file, and a suffix; returns where it put them.

    Raises
    ------
    NotADirectoryError
        If ``data_root`` is not a folder.

    Example
    -------
    >>> options = ReadOptions(split="train")
    >>> options.split, options.folder(default=Path("tables"))
    ('train', PosixPath('tables'))
    """

    columns: Columns = field(default_factory=Columns)
    data_root: Path | None = None
    split: str | None = None
    captions_file: str | None = None
    streaming: bool = False
    store: Callable[[bytes, str], Place] | None = None

    def __post_init__(self) -> None:
        if self.data_root is not None:  # absolute, since it is put in front of a part of a path
            self.data_root = Path(os.path.abspath(expand(self.data_root)))
            if not self.data_root.is_dir():
                raise NotADirectoryError(f"--data-root {self.data_root} is not a folder")

    def given(self) -> list[str]:
        """Return the options of commands that are set.

        Example
        -------
        >>> ReadOptions(Columns(ignored=["text"]), split="train").given()
        ['--ignore-columns', '--split']
        """
        options = {
            "--columns": self.columns.given,
            "--ignore-columns": self.columns.ignored,
            "--data-root": self.data_root,
            "--split": self.split,
            "--captions": self.captions_file,
            "--streaming": self.streaming,
        }
        return [name for name, value in options.items() if value]

    def folder(self, default: Path) -> Path:
        """Return where relative paths of audio start from."""
        return default if self.data_root is None else self.data_root


@dataclass
class Entry:
    """A row of the user's data.

    Arguments
    ---------
    where : str
        File and row, for messages.
    values : dict
        By column. Missing ones, such as empty cells and NaN, are left out.
    folder : path
        That relative paths start from.
    captions : dict of list of str
        By column of the manifest.
    places : dict of str
        For each column that came from another row, which one.
    names : sequence of str
        What the id of audio is made from that is no file of its own, such as a member of a shard:
        the first that no other audio has, without its suffix.
    """

    where: str
    values: dict[str, Any]
    folder: Path
    captions: dict[str, list[str]] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.values = {name: v for name, v in self.values.items() if not _is_missing(v)}

    def invalid(self, column: str, message: str) -> ValueError:
        """Return an error that names the row and a column whose value cannot be used."""
        return ValueError(f"{self.where}, column {column!r}: {message}")

    def number(self, column: str) -> float | None:
        """Return a number of at least 0, None if there is none."""
        value = self.values.get(column)
        if value is None:
            return None
        try:
            number = -1.0 if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = -1.0
        if not 0 <= number < math.inf:
            raise self.invalid(column, f"is {value!r}, not a number of at least 0")
        return number

    def channel(self) -> int | None:
        """Return the number of a channel, None for the mean of all."""
        number = self.number("channel")
        if number is None:
            return None
        if number != int(number) or number > 2**16:
            raise self.invalid("channel", f"is {number:g}, not a whole number from 0")
        return int(number)

    def text(self, column: str) -> str | None:
        """Return a text, or a number as text; None if there is none."""
        value = self.values.get(column)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.invalid(column, f"is {value!r}, a {type(value).__name__}, not a text")
        return self._in_unicode(column, str(value).strip())

    def texts(self, column: str, separator: str | None = None) -> list[str]:
        """Return a text, or a list of texts, as a list."""
        value = self.values.get(column)
        if value is None:
            return []
        values = value
        if isinstance(value, str):
            values = value.split(separator) if separator else [value]
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise self.invalid(column, f"is {value!r}, not a text or a list of texts")
        return [self._in_unicode(column, v.strip()) for v in values if v.strip()]

    def _in_unicode(self, column: str, text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise self.invalid(column, f"{text!a} is not UTF-8: rename it") from error
        return text

    def labels(self) -> dict[str, str]:
        """Return the classes in columns ``labels.<key>``, and those of a cut."""
        names = [name for name in self.values if name.startswith("labels.")]
        found = {name.partition(".")[2]: self.text(name) for name in names}
        return {k: v for k, v in found.items() if v} | (self.values.get("labels") or {})

    def audio(self) -> str:
        """Return the path of the audio file, relative to the working directory or absolute."""
        columns = [name for name in AUDIO_COLUMNS if name in self.values]
        if not columns:
            raise self.invalid("wav", "is empty: name an audio file")
        paths = {self._path(column): column for column in columns}
        if len(paths) > 1:
            raise self.invalid(
                columns[0], f"is another file than {columns[1]!r} names: leave one of them out"
            )
        return self._in_unicode(columns[0], os.path.join(self.folder, *paths))

    def resolve(self, options: ReadOptions) -> None:
        """Put in what ``$data_root`` stands for, and store audio that is in no file."""
        for column in set(AUDIO_COLUMNS) & self.values.keys():
            value = self.values[column]
            path = value.get("path") if isinstance(value, Mapping) else value
            content = value.get("bytes") if isinstance(value, Mapping) else value
            if isinstance(path, str) and (found := _PLACEHOLDER.match(path)):
                if options.data_root is None:
                    raise self.invalid(column, f"is {path!r}: name its folder by --data-root")
                self.values[column] = str(options.data_root) + path[found.end() :]
            if isinstance(content, bytes) and options.store is not None:
                name = path if isinstance(path, str) else ""
                place = options.store(content, Path(name).suffix)
                if os.path.isabs(name):  # of where the table was made
                    self.names = [Path(name).name, "/".join(Path(name).parts[-2:]), *self.names]
                elif name:
                    self.names = [name, *self.names]
                self.values |= {column: place.audio, "offset": place.offset}
                self.values["nbytes"] = place.nbytes

    def _path(self, column: str) -> str:
        value = self.values[column]
        if isinstance(value, Mapping):  # the Audio of datasets
            if all(_is_missing(value.get(key)) for key in ("bytes", "path", "array")):
                raise self.invalid(column, "is empty: name an audio file")
            if not isinstance(value.get("path"), str) or not _is_missing(value.get("bytes")):
                raise self.invalid(
                    column,
                    f"is an Audio of datasets, {{{', '.join(map(repr, value))}}}, which holds the"
                    " sound itself: save the sounds as files, and put their paths here",
                )
            value = value["path"]
        if not isinstance(value, str | os.PathLike):
            raise self.invalid(column, f"is a {type(value).__name__}, not the path of a file")
        value = os.fspath(value)
        if "\0" in value:
            raise self.invalid(column, f"is {value!r}, which holds a zero byte")
        if value.startswith(("http://", "https://", "s3://", "gs://", "hf://")):
            raise self.invalid(column, f"is the address {value}: download it first")
        return os.path.expanduser(value)


def _is_missing(value: Any) -> bool:
    empty = isinstance(value, str) and not value.strip()
    return value is None or empty or (isinstance(value, float) and math.isnan(value))
