"""The first stage: an audio LLM writes candidate captions of every clip."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from speechbrain_clsp.annotation.answers import answer_text, is_cut_off, refusal_of, why_empty
from speechbrain_clsp.annotation.client import ChatClient, ServerSettings
from speechbrain_clsp.annotation.clips import WavReader, clip_job
from speechbrain_clsp.annotation.prompts import caption_prompt
from speechbrain_clsp.annotation.run import Job
from speechbrain_clsp.dataio.manifest import Manifest

# What the published pipeline samples with.
SAMPLING = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 512}


@dataclass(frozen=True)
class CaptionSettings(ServerSettings):
    """How captions are asked for, beside which servers are.

    Arguments
    ---------
    candidates : int
        Captions asked for per clip; published: 5 (Emilia) and 20 (PSCBase).
    sampling : dict
        See :meth:`~speechbrain_clsp.annotation.client.ChatClient.complete`.
    template, labels_template : str
        See :func:`~speechbrain_clsp.annotation.prompts.caption_prompt`.
    longest : float
        Seconds; clips of this length and longer get no captions.
    """

    candidates: int = 5
    sampling: Mapping[str, Any] = field(default_factory=lambda: dict(SAMPLING))
    template: str = "caption.txt"
    labels_template: str = "caption_labels.txt"
    longest: float = 30.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_least(candidates=1)


def in_shard(name: str, shard: tuple[int, int]) -> bool:
    """Return whether a clip belongs to shard ``number`` of ``count``, by its id alone.

    Example
    -------
    >>> [in_shard("clip", (number, 3)) for number in range(3)]
    [True, False, False]
    """
    number, count = shard
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % count == number


def caption_jobs(
    manifest: Manifest, settings: CaptionSettings, shard: tuple[int, int] = (0, 1)
) -> Iterator[Job]:
    """Return a job per clip of a shard, given as its number, from 0, and their count.

    Returns
    -------
    iterator of Job
        Records have ``row`` (number in the manifest), ``captions`` (list of str), ``dropped`` (list
        of dict: caption, rule, reason) and ``model``.
    """
    read = WavReader()
    for number, row in enumerate(manifest):
        if in_shard(row["id"], shard):
            yield _job(number, row, settings, read)


def _job(number: int, row: Mapping[str, Any], settings: CaptionSettings, read: WavReader) -> Job:
    prompt = caption_prompt(row, settings.template, settings.labels_template)
    sampling = {**settings.sampling, "n": settings.candidates}
    head = {"row": number, "model": settings.model}

    async def ask(client: ChatClient, messages: list[dict[str, Any]]) -> dict[str, Any]:
        return {**head, **_captions(await client.complete(messages, sampling))}

    job = clip_job(row, read, prompt, (settings.model, sampling), ask)
    if row["duration"] < settings.longest:
        return job

    reason = f"{row['duration']:.1f} s, {settings.longest:g} s or longer"
    dropped = [{"caption": "", "rule": "duration", "reason": reason}]
    nothing = {**head, "captions": [], "dropped": dropped}
    return Job(job.id, job.ticket, lambda: (job.ticket, nothing))


def _captions(choices: Sequence[Any]) -> dict[str, Any]:
    captions, dropped = [], []
    for choice in choices:
        text = answer_text(choice)
        if is_cut_off(choice):
            dropped.append({"caption": text, "rule": "cut off", "reason": "longer than max_tokens"})
        elif refusal := refusal_of(choice):
            dropped.append({"caption": text, "rule": "refused", "reason": refusal})
        elif not text:
            dropped.append({"caption": text, "rule": "empty", "reason": why_empty(choice)})
        else:
            captions.append(text)
    return {"captions": captions, "dropped": dropped}
