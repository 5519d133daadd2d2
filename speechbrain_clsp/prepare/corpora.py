"""Audio of the corpora behind FCaps and ParaSpeechCaps: folder layouts and look-up of clips."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from speechbrain_clsp.dataio.audio import TOLERANCE_SECONDS, AudioError, read_header
from speechbrain_clsp.dataio.shards import ClipReader
from speechbrain_clsp.prepare.audio_index import AudioIndex, Place, build_index
from speechbrain_clsp.prepare.clip import ClipRecord, UnusableClipError


class Corpus(NamedTuple):
    """Layout of a corpus."""

    folder: str  # below the root of all audio
    depth: int  # parts of a path that identify a clip: 00001.wav alone names thousands


CORPORA = {
    "emilia": Corpus("Emilia/EN", 1),  # EN-B000000.tar: EN_B00000_S00000_W000000.mp3
    "ears": Corpus("ears", 2),  # p001/emo_adoration_freeform.wav
    "expresso": Corpus("expresso", 1),  # audio_48khz/read/ex01/happy/base/ex01_happy_00001.wav
    "voxceleb1": Corpus("voxceleb1", 3),  # dev/wav/id10001/1zcIwhmdeo4/00001.wav
    "voxceleb2": Corpus("voxceleb2", 3),  # dev/aac/id00012/21Uxsk56VDQ/00001.wav
}
TEMPLATE_FIELDS = ("id", "recording", "corpus", "stem", "path", "speaker")
VARIANT = "_voicefixer"  # a denoised copy beside the original
_NAMED = re.compile(r"(?:^|[-_/.])(emilia|ears|expresso|voxceleb[12]?)(?=[-_/.]|$)", re.I)
# Expresso's conversations are cut by voice activity; the cuts are named after the recording.
_SEGMENT = re.compile(r"(.+)_channel([12])_segment_([\d.]+)_([\d.]+)")


def corpora_of(names: Iterable[str]) -> list[str]:
    """Return the corpora that paths or ids mention; "voxceleb" alone means both.

    Example
    -------
    >>> corpora_of(["train_base-voxceleb-id1"]), corpora_of(["download/ears/p001/a.wav"])
    (['voxceleb1', 'voxceleb2'], ['ears'])
    """
    found = [match.lower() for name in names for match in _NAMED.findall(name)]
    exact = [name for name in found if name != "voxceleb"]
    both = ["voxceleb1", "voxceleb2"] if not exact and found else []
    return list(dict.fromkeys([*exact, *both]))


def candidate_names(name: str) -> list[str]:
    """Return the names that a clip's file may have, given a path or id of it.

    Example
    -------
    >>> candidate_names("train_base-expresso-ex03_laughing_00051")
    ['train_base-expresso-ex03_laughing_00051', 'ex03_laughing_00051']
    """
    names = [name]
    match = None if "/" in name else _NAMED.search(name)
    if match and match.end() + 1 < len(name):
        names.append(name[match.end() + 1 :])
    return names + [n.replace(VARIANT, "") for n in names if VARIANT in n]


class AudioFinder:
    """Locates the audio of records and completes their manifest rows.

    Arguments
    ---------
    root : str or path
        Folder with the corpora, laid out as in ``CORPORA``.
    folders : dict of str, optional
        Other folders of single corpora, absolute or below ``root``.
    template : str, optional
        Path of every clip's file below ``root``, instead of a look-up. Fields: ``{id}``,
        ``{recording}``, ``{corpus}``, ``{stem}``, ``{path}`` (as the record gives it) and
        ``{speaker}``.
    corpora : sequence of str
        Corpora to search; a record whose names mention one of them is searched for only there.
    check_length : bool
        Open every file, and leave out clips that end after their file.

    Example
    -------
    >>> import soundfile, numpy
    >>> root = getfixture("tmp_path")
    >>> soundfile.write(root / "a.wav", numpy.zeros(16000), 16000)
    >>> finder = AudioFinder(root, template="{stem}.wav", check_length=True)
    >>> row = {"id": "a", "audio": "x/a.flac", "duration": 1.0, "start": None}
    >>> finder(ClipRecord(row, ["x/a.flac", "a"]))["audio"] == str(root / "a.wav")
    True
    """

    def __init__(
        self,
        root: str | os.PathLike,
        folders: Mapping[str, str] | None = None,
        template: str | None = None,
        corpora: Iterable[str] = tuple(CORPORA),
        check_length: bool = False,
    ) -> None:
        unknown = set(folders or {}) - set(CORPORA)
        if unknown:
            raise ValueError(f"folders: unknown corpora {sorted(unknown)}; known: {list(CORPORA)}")
        self.root = Path(root).absolute()
        self.folders = {n: self.root / (folders or {}).get(n, c.folder) for n, c in CORPORA.items()}
        if template is not None:
            try:
                template.format(**dict.fromkeys(TEMPLATE_FIELDS, ""))
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(
                    f"template {template!r}: {error} is not one of the fields {TEMPLATE_FIELDS}"
                ) from error
        self.template = template
        self.corpora = list(corpora)
        self.check_length = check_length
        self.indexes: dict[str, AudioIndex] = {}

    def index(self, folder: Path, n_jobs: int = 1) -> None:
        """Index the folders of all corpora; with a template, do nothing.

        Raises
        ------
        FileNotFoundError
            If none of the corpora has a folder.
        """
        if self.template is not None:
            return
        existing = [name for name in self.corpora if self.folders[name].is_dir()]
        if not existing:
            looked = ", ".join(str(self.folders[name]) for name in self.corpora)
            raise FileNotFoundError(
                f"No audio: none of the folders {looked} exists. Give the folder that holds the"
                " corpora, the folder of each corpus, or a path template"
            )
        for name in existing:
            depth = CORPORA[name].depth
            self.indexes[name] = build_index(self.folders[name], depth, folder / name, n_jobs)

    @property
    def settings(self) -> dict[str, Any]:
        """What a manifest's report states."""
        return {
            "root": str(self.root),
            "template": self.template,
            "folders": {name: str(path) for name, path in self.folders.items()},
            "check_length": self.check_length,
        }

    @property
    def fingerprint(self) -> str:
        """All that a row depends on besides its record."""
        found = [f"{name}:{index.fingerprint}" for name, index in self.indexes.items()]
        return f"{self.root} {self.template} {self.check_length} {self.corpora} {found}"

    def __call__(self, clip: ClipRecord) -> dict[str, Any]:
        """Return the record's manifest row.

        Raises
        ------
        UnusableClipError
            If its audio does not exist, exists twice, or ends before the clip.
        """
        corpora = corpora_of(clip.names) or self.corpora
        if self.template is not None:
            corpus = corpora[0]
            found = self._from_template(self.template, clip, corpus)._asdict()
        else:
            corpus, found = self._look_up(clip, corpora)
        row = {**clip.row, **found}
        row["source"] = row.get("source") or corpus
        if self.check_length or row["duration"] is None:
            row["duration"] = _checked_length(row)
        return row

    def _from_template(self, template: str, clip: ClipRecord, corpus: str) -> Place:
        row = clip.row
        path = str(row.get("audio") or row["id"])
        fields = {"id": row["id"], "path": path, "corpus": corpus, "speaker": row.get("speaker")}
        fields["stem"] = os.path.splitext(os.path.basename(path))[0]
        fields["recording"] = clip.names[-2] if len(clip.names) > 1 else row["id"]
        audio = self.root / template.format(**fields)
        if not audio.is_file():
            raise UnusableClipError("no audio", f"no file {audio}", row["id"])
        return Place(str(audio))

    def _look_up(self, clip: ClipRecord, corpora: list[str]) -> tuple[str, dict[str, Any]]:
        """Return the corpus that has a clip, and the columns that locate it there."""
        name_of_clip = clip.row["id"]
        searched = [name for name in corpora if name in self.indexes]
        if not searched:
            folders = " and ".join(str(self.folders[name]) for name in corpora)
            raise UnusableClipError(f"no folder of {'/'.join(corpora)}", folders, name_of_clip)
        candidates = list(dict.fromkeys(r for name in clip.names for r in candidate_names(name)))
        for corpus in searched:
            index = self.indexes[corpus]
            try:
                for name in candidates:
                    if (place := index.find(name)) is not None:
                        return corpus, place._asdict()
                for name in candidates:
                    if part := _part_of_recording(name, index, clip.row):
                        return corpus, part
            except LookupError as error:
                raise UnusableClipError("audio in two places", str(error), name_of_clip) from error
        m4a = sum(self.indexes[name].unreadable for name in searched)
        hint = f" ({m4a} files there are m4a or the like: convert them to wav)" if m4a else ""
        reason = f"no audio in {'/'.join(searched)}"
        raise UnusableClipError(reason, f"looked for {', '.join(candidates)}{hint}", name_of_clip)


def _part_of_recording(name: str, index: AudioIndex, row: dict) -> dict[str, Any] | None:
    """Return the columns that locate a segment in its recording, if that is indexed."""
    match = _SEGMENT.fullmatch(name.rpartition("/")[2].removesuffix(".wav"))
    place = index.find(match[1]) if match else None
    if match is None or place is None:
        return None
    start = float(match[3]) + (row["start"] or 0.0)
    return {**place._asdict(), "start": start, "channel": int(match[2]) - 1}


def _checked_length(row: Mapping[str, Any]) -> float:
    """Return a clip's duration [s]; raise if its file cannot be read or ends before the clip."""
    try:
        length = read_header(ClipReader(1).source_of(row), row["audio"]).seconds
    except (OSError, AudioError) as error:
        raise UnusableClipError("unreadable audio", str(error), row["id"]) from error
    start = row.get("start") or 0.0
    duration = length - start if row["duration"] is None else row["duration"]
    if start + duration > length + TOLERANCE_SECONDS or duration <= 0:
        detail = f"ends at {start + duration:.2f} s, {row['audio']} at {length:.2f} s"
        raise UnusableClipError("longer than its file", detail, row["id"])
    return duration
