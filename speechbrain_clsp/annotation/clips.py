"""Jobs that send a clip and a prompt to an audio LLM."""

from __future__ import annotations

import base64
import io
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import soundfile

from speechbrain_clsp.annotation.client import ChatClient
from speechbrain_clsp.annotation.records import record_key
from speechbrain_clsp.annotation.run import Ask, Job
from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.dataio.shards import ClipReader


class WavReader(threading.local):
    """Reads clips as wav files, 16 kHz, mono, 16 bits; each thread opens shards of its own."""

    def __init__(self) -> None:
        self._read = ClipReader()

    def __call__(self, row: Mapping[str, Any]) -> bytes:
        """Return a wav file's bytes; raises as :class:`~speechbrain_clsp.dataio.ClipReader`."""
        buffer = io.BytesIO()
        wav = self._read(row).numpy()
        soundfile.write(buffer, wav, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        return buffer.getvalue()


def clip_ticket(row: Mapping[str, Any], *asked: Any) -> str:
    """Return a key of what is asked about a clip, from its file's size and time, not its content.

    Example
    -------
    >>> row = {"id": "a", "audio": "gone.wav"}
    >>> clip_ticket(row, "Describe.") == clip_ticket(row, "Count.")
    False
    """
    place = [row.get(name) for name in ("id", "audio", "offset", "nbytes", "start", "duration")]
    if row.get("channel") is not None:
        place.append(row["channel"])
    try:
        status = os.stat(row["audio"])
        place += [status.st_size, status.st_mtime_ns]
    except OSError:
        pass  # reading it raises
    return record_key(place, *asked)


def clip_job(
    row: Mapping[str, Any],
    read: WavReader,
    prompt: str,
    asked: tuple[Any, ...],
    ask: Callable[[ChatClient, list[dict[str, Any]]], Awaitable[dict[str, Any]]],
) -> Job:
    """Return the job that sends a row of the manifest, as ``read`` reads it, with a prompt.

    ``asked`` is what else the answer depends on, as JSON can hold it: model, sampling, ...; ``ask``
    takes the client and the messages and returns the record's fields.
    """

    def prepare() -> tuple[str, Ask]:
        wav = read(row)
        audio = {"data": base64.b64encode(wav).decode("ascii"), "format": "wav"}
        content = [{"type": "input_audio", "input_audio": audio}, {"type": "text", "text": prompt}]
        messages = [{"role": "user", "content": content}]
        return record_key(row["id"], wav, prompt, *asked), lambda client: ask(client, messages)

    return Job(row["id"], clip_ticket(row, prompt, *asked), prepare)
