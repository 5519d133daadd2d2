"""An audio LLM judges captions of several sources: scores, and which of two is better.

Prompts do not name sources, the order of a pair is drawn anew for each clip and round, and every
question is asked in several rounds, so that agreement and position bias can be measured.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Any

from speechbrain_clsp.annotation.answers import excerpt
from speechbrain_clsp.annotation.client import ChatClient, ServerSettings
from speechbrain_clsp.annotation.clips import WavReader, clip_job
from speechbrain_clsp.annotation.prompts import fill
from speechbrain_clsp.annotation.run import Job
from speechbrain_clsp.ratings import SCORES, Scale, dimensions

# What an answer may say of a dimension.
ALLOWED: dict[str, tuple] = {"score": SCORES.values, "pair": ("first", "second", "tie")}
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

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_least(rounds=1, answers=1)


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
    captions : dict of dict of str
        For each source the caption by id of the clip; all sources have all clips.
    settings : JudgeSettings
        Who judges, and how often.
    kinds : sequence of str
        ``score``, ``pair`` or both.

    Returns
    -------
    iterator of Job
        Records have ``kind``, ``judge``, ``round``; scores ``source`` and a number per dimension;
        pairs ``sources`` (names in the order shown) and a choice per dimension.

    Example
    -------
    >>> captions = {"ours": {"a": "A man."}, "theirs": {"a": "A calm man."}}
    >>> jobs = list(judge_jobs([{"id": "a", "audio": "a.wav"}], captions, JudgeSettings(rounds=2)))
    >>> len(jobs)  # two rounds of two scores and a pair
    6
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
    read = WavReader()
    for kind, number, row, sources in asked:
        prompt = _prompt(kind, [captions[source][row["id"]] for source in sources], settings)
        yield _job(kind, number, row, sources, prompt, settings, read)


def _prompt(kind: str, texts: Sequence[str], settings: JudgeSettings) -> str:
    listed = "\n".join(f"- {name}: {question}" for name, question in dimensions().items())
    if kind == "score":
        return fill(settings.score_template, dimensions=listed, caption=texts[0])
    return fill(settings.pair_template, dimensions=listed, first=texts[0], second=texts[1])


def read_answer(kind: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value per dimension of an answer.

    Scores may be any number of the scale, also as text; choices may be in capitals.

    Raises
    ------
    KeyError
        If a dimension is missing.
    ValueError
        If a value is something else.

    Example
    -------
    >>> read_answer("score", {"correctness": "5", "coverage": 1, "naturalness": 4.5, "reason": ""})
    {'correctness': 5, 'coverage': 1, 'naturalness': 4.5}
    """
    read = _read_score if kind == "score" else _read_choice
    return {name: read(name, answer[name]) for name in dimensions()}


def _read_score(name: str, value: Any) -> float:
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            pass  # the scale refuses it
    try:
        score = Scale(SCORES.low, SCORES.high).check(number)
    except ValueError as error:
        raise ValueError(f"{name} is {error}") from error
    return int(score) if score.is_integer() else score


def _read_choice(name: str, value: Any) -> str:
    choice = value.strip().lower() if isinstance(value, str) else value
    if choice not in ALLOWED["pair"]:
        raise ValueError(f"{name} is {excerpt(value)}, none of {', '.join(ALLOWED['pair'])}")
    return choice


def _job(
    kind: str,
    number: int,
    row: Mapping[str, Any],
    sources: tuple[str, ...],
    prompt: str,
    settings: JudgeSettings,
    read: WavReader,
) -> Job:
    sampling = {**settings.sampling, "seed": settings.seed + number}
    head: dict[str, Any] = {"kind": kind, "judge": settings.model, "round": number}
    head |= {"source": sources[0]} if kind == "score" else {"sources": list(sources)}
    value = {"type": "integer" if kind == "score" else "string", "enum": list(ALLOWED[kind])}
    schema = {"reason": {"type": "string"}, **dict.fromkeys(dimensions(), value)}

    async def ask(client: ChatClient, messages: list[dict[str, Any]]) -> dict[str, Any]:
        read = partial(read_answer, kind)
        answer = client.complete_object(messages, sampling, kind, schema, read, settings.answers)
        return {**head, **await answer}

    return clip_job(row, read, prompt, (settings.model, sampling, list(sources), number), ask)
