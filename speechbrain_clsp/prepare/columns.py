"""The names of the columns that tables of recordings have, and those that are known here."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

AUDIO_COLUMNS = ("wav", "audio", "path", "file_name")  # alternative names of one column
CAPTION_COLUMNS = ("caption", "global_caption", "fine_caption", "global_captions", "fine_captions")
NUMBER_COLUMNS = ("start", "duration", "channel")
TEXT_COLUMNS = ("id", "speaker", "gender", "accent", "pitch", "speaking_rate", "split", "source")
TAG_COLUMNS = ("intrinsic_tags", "situational_tags")
_GROUPS = (AUDIO_COLUMNS, CAPTION_COLUMNS, NUMBER_COLUMNS, TEXT_COLUMNS, TAG_COLUMNS)
KNOWN_COLUMNS = tuple(name for group in _GROUPS for name in group)
# What others call a column, in lower case. A guess is shown.
ALIASES = {
    "wav": (
        *("audio_filepath", "filepath", "file_path", "filename", "file", "audio_path"),
        *("audio_file", "wav_path", "wav_file", "wav_filepath", "sound", "speech", "fname"),
    ),
    "caption": (
        *("text_description", "description", "style_prompt", "style_caption", "prompt"),
        *("captions", "style_description", "style", "natural_language_prompt", "instruction"),
    ),
    "id": ("utt_id", "utt", "utterance_id", "clip_id", "segment_id", "key"),
    "speaker": ("speaker_id", "spk_id", "spk", "spkid", "client_id"),
    "gender": ("sex",),
    "accent": ("accents",),
    "split": ("subset", "partition"),
    "start": ("start_time", "begin", "offset"),
    "duration": ("dur", "length"),
}
_WITH_HEADER = (".csv", ".tsv", ".gz")  # tables whose names of columns may be missing
_LABEL = re.compile(r"labels\.\s*\S")
TRANSCRIPTS = ("text", "transcript", "transcription", "sentence", "wrd", "words", "normalized_text")


@dataclass
class Columns:
    """How the columns of a source are called.

    Arguments
    ---------
    given : dict of str to str
        Names in the source by the names that are known here, such as
        ``{"caption": "text_description"}``.
    ignored : collection of str
        Columns to leave out.
    tell : callable
        Gets a line for each guess.

    Raises
    ------
    ValueError
        If a name in ``given`` is not known here.

    Example
    -------
    >>> columns = Columns(tell=print)
    >>> columns.rename("a.csv", ["audio_filepath", "description"])
    a.csv: took column 'audio_filepath' for wav, 'description' for caption; --columns sets others
    {'audio_filepath': 'wav', 'description': 'caption'}
    """

    given: Mapping[str, str] = field(default_factory=dict)
    ignored: Collection[str] = ()
    tell: Callable[[str], object] = lambda line: None

    def __post_init__(self) -> None:
        self.ignored = {column_name(name) for name in self.ignored}
        unknown = [n for n in self.given if n not in KNOWN_COLUMNS and not _LABEL.match(n)]
        if unknown:
            raise ValueError(
                f"--columns: {unknown} are not known columns: {', '.join(KNOWN_COLUMNS)}, labels.*"
            )
        self._found: dict[tuple, dict[str, str]] = {}
        self._refused: dict[tuple, str | Path] = {}
        self._told: set[str] = set()
        self._seen: set[str] = set()

    def rename(
        self,
        where: str | Path,
        names: Sequence[str],
        needed: Collection[str] = ("wav", "caption"),
        audio: Sequence[str] = (),
    ) -> dict[str, str]:
        """Return the known names of the columns to take, by their names in the source.

        Arguments
        ---------
        where : str or path
            What messages name; a path stands for a whole table, a str for one row.
        names : sequence of str
            The columns in the source.
        needed : collection of str
            Of ``wav`` and ``caption``, which must be there.
        audio : sequence of str
            Columns that hold audio by their type, whatever they are called.

        Raises
        ------
        ValueError
            If columns are missing, unknown, repeated, or may be one of several.
        """
        key = (isinstance(where, Path), *needed, *audio, None, *names)
        if key in self._refused:
            first = self._refused[key]
            raise ValueError(f"{where}: has the columns of {first}, which cannot be used")
        if key not in self._found:
            try:
                self._found[key] = self._rename(where, list(names), needed, audio)
            except ValueError:
                self._refused[key] = where
                raise
        return self._found[key]

    def check_used(self, source: str | Path) -> None:
        """Raise ValueError if names are set that no table and no row of a source had."""
        names = dict.fromkeys(map(column_name, (*self.given.values(), *self.ignored)))
        if absent := [name for name in names if name not in self._seen]:
            raise ValueError(
                f"{source}: has no columns {absent}, which --columns or --ignore-columns names"
            )

    def _rename(
        self, where: str | Path, names: list[str], needed: Collection[str], audio: Sequence[str]
    ) -> dict[str, str]:
        if isinstance(where, Path):
            self._check_present(where, list(map(column_name, names)))
        self._seen.update(map(column_name, names))
        own = {column_name(theirs): ours for ours, theirs in self.given.items()}
        names = [name for name in names if column_name(name) not in self.ignored]
        counts = Counter(own.get(column_name(name), column_name(name)) for name in names)
        if repeated := [name for name, count in counts.items() if count > 1]:
            hint = ": leave one out by --ignore-columns" if set(repeated) & set(self.given) else ""
            raise ValueError(f"{where}: has the columns {repeated} more than once{hint}")
        taken = dict(zip(names, counts))
        guesses = self._guess(where, list(taken.values()), needed, audio)
        taken = {name: guesses.get(ours, ours) for name, ours in taken.items()}
        _check_known(where, list(taken.values()), needed)
        self._show(where, guesses)
        return taken

    def _check_present(self, where: Path, names: list[str]) -> None:
        if absent := [name for name in self.ignored if name not in names]:
            raise ValueError(f"{where}: has no columns {absent} to leave out; it has {names}")
        for ours, theirs in self.given.items():
            if column_name(theirs) not in names:
                raise ValueError(
                    f"{where}: has no column {theirs!r}, which --columns names for {ours}; it has"
                    f" {names}"
                )

    def _guess(
        self, where: str | Path, names: list[str], needed: Collection[str], audio: Sequence[str]
    ) -> dict[str, str]:
        """Return known columns by the names that seem to stand for them."""
        guesses: dict[str, str] = {}
        for ours, aliases in ALIASES.items():
            if set(_same_as(ours)) & set(names) or (ours == "wav" and ours not in needed):
                continue
            found = [name for name in names if name.lower() in aliases]
            if ours == "wav" and len(found) != 1 and audio:
                found = [name for name in names if name in audio]
            if len(found) > 1:
                raise ValueError(
                    f"{where}: has no column {ours!r}, but {found}, each of which may be it: choose"
                    f" one by --columns {ours}={shlex.quote(found[0])}, and leave others out by"
                    " --ignore-columns"
                )
            guesses |= dict.fromkeys(found, ours)
        return guesses

    def _show(self, where: str | Path, guesses: Mapping[str, str]) -> None:
        found = ", ".join(f"{theirs!r} for {ours}" for theirs, ours in guesses.items())
        if found and found not in self._told:
            self._told.add(found)
            self.tell(f"{where}: took column {found}; --columns sets others")


def column_name(name: str) -> str:
    """Return a column's name as it is known, without capitals; others as they are.

    Example
    -------
    >>> column_name("Caption"), column_name("Labels.Mood")
    ('caption', 'Labels.Mood')
    """
    return name.lower() if name.lower() in KNOWN_COLUMNS else name


def _same_as(name: str) -> tuple[str, ...]:
    """Return all known names that serve for a column."""
    return {"wav": AUDIO_COLUMNS, "caption": CAPTION_COLUMNS}.get(name, (name,))


def _check_known(where: str | Path, names: list[str], needed: Collection[str]) -> None:
    """Raise if columns are missing or unknown."""
    missing = [name for name in needed if not set(_same_as(name)) & set(names)]
    texts = [name for name in names if name.lower() in TRANSCRIPTS]
    if missing == ["caption"] and texts:
        raise ValueError(
            f"{where}: has no column 'caption'; it has {names}, where {texts[0]!r} is usually what"
            " is said, not how: if it describes the voice, say so by"
            f" --columns caption={shlex.quote(texts[0])}"
        )
    unknown = [n for n in names if n not in KNOWN_COLUMNS and not _LABEL.match(n)]
    if unknown and len(missing) < max(1, len(needed)):
        known = ", ".join(KNOWN_COLUMNS)
        raise ValueError(
            f"{where}: unknown columns {unknown}; known: {known}, labels.*. Call columns to keep"
            f" labels.<name>, also by --columns, and leave others out by --ignore-columns"
            f" {shlex.join(unknown)}"
        )
    for name in missing:
        of_table = isinstance(where, Path) and where.suffix in _WITH_HEADER and name == "wav"
        hint = ": the first line must name the columns" if of_table else ""
        raise ValueError(
            f"{where}: has no column {name!r}; it has {names}{hint} (--columns {name}=NAME tells"
            " which one it is)"
        )
