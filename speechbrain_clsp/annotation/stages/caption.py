"""The first stage: an audio LLM writes candidate captions of every clip."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import soundfile

from speechbrain_clsp.annotation.client import (
    ChatClient,
    Completion,
    ServerSettings,
    audio_part,
)
from speechbrain_clsp.annotation.prompts import caption_prompt
from speechbrain_clsp.annotation.records import record_key
from speechbrain_clsp.annotation.run import Job, Request
from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.dataio.shards import ClipReader

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
    """Return a job per clip.

    Arguments
    ---------
    manifest : Manifest
        The clips.
    settings : CaptionSettings
        What is asked.
    shard : tuple of int
        Number, from 0, and count: only clips of this shard.

    Returns
    -------
    iterator of Job
        Records have ``row`` (number in the manifest), ``captions`` (list of str), ``dropped`` (list
        of dict: caption, rule, reason) and ``model``.
    """
    read = ThreadLocalReader()
    for number, row in enumerate(manifest):
        if in_shard(row["id"], shard):
            yield _job(number, row, settings, read)


def clip_ticket(row: Mapping[str, Any], *asked: Any) -> str:
    """Return a key of what is asked about a clip, from its file's size and time, not its content.

    Example
    -------
    >>> row = {"id": "a", "audio": "gone.wav"}
    >>> clip_ticket(row, "Describe.") == clip_ticket(row, "Count.")
    False
    """
    place = [row.get(name) for name in ("id", "audio", "offset", "nbytes", "start", "duration")]
    try:
        status = os.stat(row["audio"])
        place += [status.st_size, status.st_mtime_ns]
    except OSError:
        pass  # reading it raises
    return record_key(place, *asked)


class ThreadLocalReader:
    """Reads clips as wav files, 16 kHz, mono, 16 bits; each thread opens shards of its own."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __call__(self, row: Mapping[str, Any]) -> bytes:
        """Return the bytes of a wav file.

        Raises
        ------
        FileNotFoundError, AudioError
            As :class:`~speechbrain_clsp.dataio.shards.ClipReader`.
        """
        if not hasattr(self._local, "reader"):
            self._local.reader = ClipReader()
        wav = self._local.reader(row)
        buffer = io.BytesIO()
        soundfile.write(buffer, wav.numpy(), SAMPLE_RATE, format="WAV", subtype="PCM_16")
        return buffer.getvalue()


def _job(number: int, row: Mapping[str, Any], settings: CaptionSettings, read: Callable) -> Job:
    prompt = caption_prompt(row, settings.template, settings.labels_template)
    sampling = {**settings.sampling, "n": settings.candidates}
    asked = (prompt, settings.model, sampling)
    ticket = clip_ticket(row, *asked)

    def prepare() -> Request:
        if row["duration"] >= settings.longest:
            return Request(ticket, _too_long(number, row, settings))
        wav = read(row)
        content = [audio_part(wav), {"type": "text", "text": prompt}]
        messages = [{"role": "user", "content": content}]

        async def ask(client: ChatClient) -> dict[str, Any]:
            answer = await client.complete(messages, sampling)
            return {"row": number, **_captions(answer), "model": settings.model}

        return Request(record_key(row["id"], wav, *asked), ask)

    return Job(row["id"], ticket, prepare)


def _too_long(number: int, row: Mapping[str, Any], settings: CaptionSettings) -> Callable:
    reason = f"{row['duration']:.1f} s, {settings.longest:g} s or longer"

    async def answer(_: ChatClient) -> dict[str, Any]:
        dropped = [{"caption": "", "rule": "duration", "reason": reason}]
        return {"row": number, "captions": [], "dropped": dropped, "model": settings.model}

    return answer


def _captions(completion: Completion) -> dict[str, Any]:
    captions, dropped = [], []
    for text, finish in zip(completion.texts, completion.finish_reasons):
        text = text.strip()
        if finish == "length":
            dropped.append({"caption": text, "rule": "cut off", "reason": "longer than max_tokens"})
        elif not text:
            dropped.append({"caption": text, "rule": "empty", "reason": "no text"})
        else:
            captions.append(text)
    return {"captions": captions, "dropped": dropped}
