"""Hits as text, JSON lines, a manifest, or a page with players."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape
from soundfile import LibsndfileError

from speechbrain_clsp.dataio.audio import AudioError
from speechbrain_clsp.dataio.manifest import SCHEMA, Manifest, write_manifest
from speechbrain_clsp.evaluation.report import clip_player
from speechbrain_clsp.search.queries import Hit
from speechbrain_clsp.utils.files import atomic_write, check_replaceable, expand
from speechbrain_clsp.utils.html import environment, write_page

TEMPLATES = Path(__file__).parent / "templates"
SUFFIXES = (".jsonl", ".arrow", ".html")
SHOWN = ("speaker", "gender", "accent", "duration")
MADE_BY = "clsp search"
PAGE_MARK = "<!-- hits of clsp search -->"


def to_record(hit: Hit) -> dict[str, Any]:
    """Return a hit as a dict for JSON.

    Example
    -------
    >>> to_record(Hit(1, 0.5, {"id": "a", "gender": None}))
    {'rank': 1, 'score': 0.5, 'id': 'a'}
    """
    row = {name: value for name, value in hit.row.items() if value not in (None, [], {})}
    further = {"folded": hit.folded, "phrases": hit.phrases}
    return {"rank": hit.rank, "score": hit.score, **row, **{k: v for k, v in further.items() if v}}


def to_text(hits: Sequence[Hit]) -> str:
    """Return hits as lines: rank, score, id, what is known of the clip; phrases below.

    Example
    -------
    >>> print(to_text([Hit(1, 0.5, {"id": "a", "gender": "male"}, phrases={"slowly": 0.1})]))
      1  +0.500  a  male
         +0.100  slowly
    """
    lines = []
    for hit in hits:
        facts = [_fact(hit.row.get(name)) for name in SHOWN]
        more = [f"and {len(hit.folded)} alike"] if hit.folded else []
        words = [fact for fact in (*facts, *more) if fact]
        lines.append("  ".join([f"{hit.rank:3}", f"{hit.score:+.3f}", hit.row["id"], *words]))
        lines += [f"     {value:+.3f}  {phrase}" for phrase, value in hit.phrases.items()]
    return "\n".join(lines)


def _fact(value: Any) -> str:
    return f"{value:.1f} s" if isinstance(value, float) else str(value or "")


def check_output(path: str | os.PathLike) -> None:
    """Raise if hits cannot be written to a path: by its suffix, or since something is there.

    Example
    -------
    >>> check_output("hits.txt")
    Traceback (most recent call last):
    ...
    ValueError: --output hits.txt: the name must end in .jsonl, .arrow or .html
    """
    path = expand(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--output {path}: the name must end in .jsonl, .arrow or .html")
    known = {".jsonl": _are_hits, ".arrow": _is_result, ".html": _is_page}
    check_replaceable(path, known[path.suffix], "a result of clsp search")


def _are_hits(path: Path) -> bool:
    with open(path, encoding="utf-8") as file:
        return {"rank", "score", "id"} <= set(json.loads(file.readline()))


def _is_result(path: Path) -> bool:
    return Manifest(path).made_by == MADE_BY  # else it may be a corpus


def _is_page(path: Path) -> bool:
    return PAGE_MARK in path.read_text(encoding="utf-8")


def write_hits(path: str | os.PathLike, hits: Sequence[Hit], title: str) -> None:
    """Write hits as JSON lines, as a manifest, or as a page with players, by the suffix.

    Arguments
    ---------
    path : str or path
        Ends in ``.jsonl``, ``.arrow`` or ``.html``.
    hits : list of Hit
        At least one.
    title : str
        Of the page: the question.
    """
    check_output(path)
    path = expand(path)
    if path.suffix == ".jsonl":
        lines = [json.dumps(to_record(hit), ensure_ascii=False) for hit in hits]
        atomic_write(path, "\n".join([*lines, ""]))
    elif path.suffix == ".arrow":
        rows = ({name: hit.row.get(name) for name in SCHEMA.names} for hit in hits)
        write_manifest(path, rows, made_by=MADE_BY)
    else:
        template = environment(TEMPLATES).get_template("hits.html")
        body = template.render(title=title, hits=hits, player=_player, shown=SHOWN, fact=_fact)
        write_page(path, title, [PAGE_MARK, body])


def _player(row: dict[str, Any]) -> Markup:
    try:
        return clip_player(row)
    except (OSError, AudioError, LibsndfileError) as error:
        return Markup("<p>") + escape(f"cannot be played: {error}") + Markup("</p>")
