"""An audio LLM judges captions of several sources: scores, and which of two is better.

Prompts do not name sources, the order of a pair is drawn anew for each clip and round, and every
question is asked in several rounds, so that agreement and position bias can be measured.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from speechbrain_clsp.annotation.client import ChatClient, ServerSettings, audio_part
from speechbrain_clsp.annotation.prompts import fill
from speechbrain_clsp.annotation.records import record_key
from speechbrain_clsp.annotation.run import Job, Request
from speechbrain_clsp.annotation.stages.caption import ThreadLocalReader, clip_ticket
from speechbrain_clsp.ratings import SCORES, dimensions

CHOICES = ("first", "second", "tie")
SAMPLING = {"temperature": 1.0, "max_tokens": 4096}


@dataclass(frozen=True)
class JudgeSettings(ServerSettings):
    """How captions are judged, beside which servers judge them.

    Arguments
    ---------
    rounds : int
        How often each question is asked.
    sampling : dict
        See :meth:`~speechbrain_clsp.annotation.client.ChatClient.complete`; each round has a seed
        of its own.
    seed : int
        Of orders.
    answers : int
        How often an answer is asked for until it is well-formed.
    score_template, pair_template : str
        Templates with ``${dimensions}`` and ``${caption}``, or ``${first}`` and ``${second}``.
    """

    rounds: int = 5
    sampling: Mapping[str, Any] = field(default_factory=lambda: dict(SAMPLING))
    seed: int = 0
    answers: int = 3
    score_template: str = "judge_score.txt"
    pair_template: str = "judge_pair.txt"


def judge_jobs(
    rows: Sequence[Mapping[str, Any]],
    captions: Mapping[str, Mapping[str, str]],
    settings: JudgeSettings,
    kinds: Sequence[str] = ("score", "pair"),
) -> Iterator[Job]:
    """Return a job per clip, round, and source or pair of sources, in random order.

    Arguments
    ---------
    rows : sequence of dict
        Rows of the manifest, the clips.
    captions : mapping
        For each source, caption by id of the clip; all sources have all clips.
    settings : JudgeSettings
        How.
    kinds : sequence of str
        ``score``, ``pair`` or both.

    Returns
    -------
    iterator of Job
        Records have ``kind``, ``judge``, ``round``; scores ``source`` and a number per dimension;
        pairs ``sources`` (names in the order shown) and a choice per dimension.
    """
    asked: list[tuple[str, int, Mapping, tuple[str, ...]]] = []
    for number in range(settings.rounds):
        for row in rows:
            draw = random.Random(f"{settings.seed} {row['id']} {number}")
            if "score" in kinds:
                asked += [("score", number, row, (source,)) for source in captions]
            if "pair" in kinds:
                for pair in combinations(captions, 2):
                    asked.append(("pair", number, row, tuple(draw.sample(pair, 2))))
    random.Random(settings.seed).shuffle(asked)
    read = ThreadLocalReader()
    for kind, number, row, sources in asked:
        texts = [captions[source][row["id"]] for source in sources]
        yield _job(kind, number, row, sources, texts, settings, read)


def judge_prompt(kind: str, texts: Sequence[str], settings: JudgeSettings) -> str:
    """Return a question about one caption (``score``) or two (``pair``).

    Example
    -------
    >>> "A man." in judge_prompt("score", ["A man."], JudgeSettings())
    True
    """
    listed = "\n".join(f"- {name}: {question}" for name, question in dimensions().items())
    if kind == "score":
        return fill(settings.score_template, dimensions=listed, caption=texts[0])
    return fill(settings.pair_template, dimensions=listed, first=texts[0], second=texts[1])


def allowed_values(kind: str) -> tuple[Any, ...]:
    """Return what an answer may say of a dimension."""
    return SCORES.values if kind == "score" else CHOICES


def answer_schema(kind: str) -> dict[str, Any]:
    """Return the JSON schema of each value of an answer: a reason first, then the dimensions."""
    allowed = allowed_values(kind)
    value = {"type": "integer" if kind == "score" else "string", "enum": list(allowed)}
    return {"reason": {"type": "string"}, **dict.fromkeys(dimensions(), value)}


def read_answer(kind: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value per dimension of an answer.

    Raises
    ------
    ValueError, KeyError
        If one is not allowed or missing.

    Example
    -------
    >>> read_answer("score", {"correctness": 5, "coverage": 1, "naturalness": 3, "reason": ""})
    {'correctness': 5, 'coverage': 1, 'naturalness': 3}
    """
    values = {name: answer[name] for name in dimensions()}
    for name, value in values.items():
        if isinstance(value, bool) or value not in allowed_values(kind):
            raise ValueError(f"{name} {value!r} is not one of {allowed_values(kind)}")
    return values


def _job(
    kind: str,
    number: int,
    row: Mapping[str, Any],
    sources: tuple[str, ...],
    texts: Sequence[str],
    settings: JudgeSettings,
    read: Callable[[Mapping[str, Any]], bytes],
) -> Job:
    prompt = judge_prompt(kind, texts, settings)
    sampling = {**settings.sampling, "seed": settings.seed + number}
    asked = (prompt, settings.model, sampling, list(sources), number)
    fields = {"kind": kind, "judge": settings.model, "round": number}
    fields |= {"source": sources[0]} if kind == "score" else {"sources": list(sources)}

    def prepare() -> Request:
        wav = read(row)
        content = [audio_part(wav), {"type": "text", "text": prompt}]
        messages = [{"role": "user", "content": content}]

        async def ask(client: ChatClient) -> dict[str, Any]:
            values = await client.complete_object(
                messages,
                sampling,
                kind,
                answer_schema(kind),
                lambda answer: read_answer(kind, answer),
                settings.answers,
            )
            return {**fields, **values}

        return Request(record_key(row["id"], wav, *asked), ask)

    return Job(row["id"], clip_ticket(row, *asked), prepare)
