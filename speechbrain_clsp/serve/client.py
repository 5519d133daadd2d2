"""A client for trainers on other machines: rewards of waveforms, with NumPy and nothing else."""

from __future__ import annotations

import http.client
import io
import json
import os
import secrets
import time
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

RETRIED = (429, 502, 503, 504)
LONGEST_WAIT = 30.0  # seconds between two tries


class ServiceError(RuntimeError):
    """An answer of a service that is no result, with its HTTP ``status``."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{reason} (HTTP {status})")
        self.status = status

    def __reduce__(self) -> tuple:
        return ServiceError, (self.status, str(self.args[0]).removesuffix(f" (HTTP {self.status})"))


@dataclass(frozen=True)
class Rewards:
    """Rewards of B clips, in their order.

    Arguments
    ---------
    values : numpy.ndarray
        [B] float32.
    parts : dict of numpy.ndarray
        [B] float32 each, such as ``cosine``; NaN for a clip that could not be embedded.
    passed : dict of numpy.ndarray
        [B] bool for each guard.
    reasons : list of str
        B, why a clip got the veto; "" if it did not.
    provenance : dict
        Model, revision and versions that made them.

    Example
    -------
    >>> ones = np.ones(2, np.float32)
    >>> rewards = Rewards(ones, {"cosine": ones}, {"speech": ones > 0}, ["", ""])
    >>> rewards.values.mean(), rewards.passed["speech"].all()
    (np.float32(1.0), np.True_)
    """

    values: np.ndarray
    parts: dict[str, np.ndarray]
    passed: dict[str, np.ndarray]
    reasons: list[str]
    provenance: dict[str, Any] = field(default_factory=dict)


class RewardClient:
    """Asks a service of ``clsp serve`` for rewards.

    A request that the service is too busy for, or that breaks off, is sent again, after a pause
    that doubles. One client may be used by many threads, and sent to other processes.

    Arguments
    ---------
    url : str
        Such as ``http://127.0.0.1:8000``.
    token : str, optional
        If the service asks for one; default: ``$CLSP_TOKEN``.
    timeout : float
        Seconds without an answer after which a request counts as broken off.
    retries : int
        How many times it is sent again.
    batch_clips : int
        Clips in a request; more are sent one request after the other, groups undivided.

    Example
    -------
    >>> rewards = RewardClient("http://127.0.0.1:8000")
    >>> wavs = [np.zeros(16000, np.float32)] * 4
    >>> rewards(wavs, ["A man whispers."] * 4, 16000).values  # doctest: +SKIP
    array([-1., -1., -1., -1.], dtype=float32)
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout: float = 120.0,
        retries: int = 5,
        batch_clips: int = 64,
    ) -> None:
        place = urlsplit(url)
        if place.scheme not in ("http", "https") or not place.hostname:
            raise ValueError(f"url must be such as http://127.0.0.1:8000, not {url!r}")
        if batch_clips < 1 or retries < 0:
            raise ValueError("batch_clips must be at least 1, and retries at least 0")
        self.url, self.timeout, self.retries = url.rstrip("/"), timeout, retries
        self.token = (os.environ.get("CLSP_TOKEN", "") if token is None else token).strip()
        if not self.token.isascii() or any(character.isspace() for character in self.token):
            raise ValueError("The token must be one word of ASCII characters")
        self.batch_clips = batch_clips

    def __call__(
        self,
        wavs: Sequence[np.ndarray],
        captions: Sequence[str],
        sample_rate: int | Sequence[int],
        texts: Sequence[str] | None = None,
        groups: Sequence | None = None,
        **options: Any,
    ) -> Rewards:
        """Return the rewards of clips.

        Arguments
        ---------
        wavs : sequence of array
            B waveforms [T] in [-1, 1], of any lengths.
        captions : sequence of str
            B descriptions of the wanted style.
        sample_rate : int or sequence of int
            Hz, of all or of each.
        texts : sequence of str, optional
            What the clips should say, for the guard ``words``.
        groups : sequence, optional
            B labels for the scaling ``group``; default: clips with the same caption.
        **options : dict
            ``scaling``, ``baseline``, ``guards``, ``require``; see
            :class:`~speechbrain_clsp.inference.reward.StyleReward`.

        Raises
        ------
        ValueError
            If numbers of clips, captions, rates, texts or groups differ, or one of them is not of
            the right kind.
        ServiceError
            If the service refuses the request, or still does after all retries.
        ConnectionError
            If it cannot be reached.
        """
        for name, given in (("captions", captions), ("texts", texts)):
            if isinstance(given, str):
                raise ValueError(f"{name} must be a list of str, one per clip, not {given[:40]!r}")
        n_clips = len(wavs)
        rates = [sample_rate] * n_clips if np.ndim(sample_rate) == 0 else list(sample_rate)  # type: ignore[arg-type]  # the number of dimensions tells which one it is
        per_clip: dict[str, list] = {"captions": list(captions), "sample_rate": rates}
        if texts is not None:
            per_clip["texts"] = list(texts)
        if options.get("scaling") == "group" or groups is not None:
            per_clip["groups"] = list(captions if groups is None else groups)
        if options.get("baseline") is not None:
            per_clip["baseline"] = [float(value) for value in options.pop("baseline")]
        for name, values in per_clip.items():
            if len(values) != n_clips:
                raise ValueError(f"{len(values)} {name} for {n_clips} clips")
        contents = [_as_file(wav, n) for n, wav in enumerate(wavs)]
        answers: list[tuple[list[int], dict[str, Any]]] = []
        for rows in _batches(per_clip.get("groups", range(n_clips)), self.batch_clips):
            fields = {name: [values[n] for n in rows] for name, values in per_clip.items()}
            files = [contents[n] for n in rows]
            answers.append((rows, self.ask("/v1/reward", {**fields, **options}, files)))
        return _joined(answers, n_clips)

    def ask(
        self, path: str, fields: Mapping[str, Any], files: Sequence[bytes] = ()
    ) -> dict[str, Any]:
        """Send a request, again if need be, and return its answer.

        Arguments
        ---------
        path : str
            Such as ``/v1/score``.
        fields : dict
            As the service's page ``/docs`` lists them, without ``audio``.
        files : sequence of bytes
            Audio files, or ``.npy`` files with ``sample_rate`` among the fields.
        """
        body, content_type = _form(json.dumps(fields, default=_plain), files)
        pause, reason = 0.25, ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_WAIT)
            try:
                status, headers, content = self._send(path, body, content_type)
            except (OSError, http.client.HTTPException) as error:
                status, reason = 0, f"{type(error).__name__}: {error}"
                continue
            if status == 200:
                return self._result_of(content)
            reason = _reason(content)
            if status not in RETRIED:
                break
            asked = headers.get("Retry-After", "")
            pause = max(pause, float(asked) if asked.isdigit() else 0.0)
        if status:
            raise ServiceError(status, reason)
        raise ConnectionError(f"{self.url} gave no answer in {self.retries + 1} tries: {reason}")

    def _result_of(self, content: bytes) -> dict[str, Any]:
        with suppress(ValueError):
            found = json.loads(content)
            if isinstance(found, dict) and "model" in found:
                return found
        raise ServiceError(200, f"{self.url} is not clsp serve, it answers {content[:80]!r}")

    def _send(self, path: str, body: bytes, content_type: str) -> tuple[int, Any, bytes]:
        place = urlsplit(self.url)
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        connection = kinds[place.scheme](place.hostname or "", place.port, timeout=self.timeout)
        headers = {"Content-Type": content_type}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            try:
                connection.request("POST", place.path + path, body, headers)
            except (BrokenPipeError, ConnectionResetError):
                pass  # a refusal may have come before all was sent
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()


def _as_file(wav: Any, number: int) -> bytes:
    """Return a waveform as a ``.npy`` file."""
    samples = np.asarray(wav)
    if samples.dtype.kind not in "fi" or samples.ndim != 1:
        raise ValueError(
            f"wavs[{number}] must be samples [T], not {samples.dtype} {list(samples.shape)}"
        )
    if samples.dtype.kind == "f":
        samples = samples.astype(np.float32)
    file = io.BytesIO()
    np.save(file, samples)
    return file.getvalue()


def _form(request: str, files: Sequence[bytes]) -> tuple[bytes, str]:
    """Return a body of multipart/form-data, and its content type."""
    boundary = secrets.token_hex(16)
    start = f"--{boundary}\r\nContent-Disposition: form-data; name="
    parts = [f'{start}"request"\r\n\r\n{request}\r\n'.encode()]
    for number, content in enumerate(files):
        head = f'{start}"audio"; filename="{number}.npy"\r\n'
        parts += [
            f"{head}Content-Type: application/octet-stream\r\n\r\n".encode(),
            content,
            b"\r\n",
        ]
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def _batches(groups: Sequence, most: int) -> list[list[int]]:
    """Return the clips of each request; those of a group are in the same one."""
    by_group: dict[Any, list[int]] = {}
    for number, label in enumerate(groups):
        if not isinstance(label, Hashable):
            raise ValueError(f"groups[{number}] must be a label, such as a number, not {label!r}")
        by_group.setdefault(label, []).append(number)
    batches: list[list[int]] = []
    for rows in by_group.values():
        if not batches or len(batches[-1]) + len(rows) > most:
            batches.append([])
        batches[-1] += rows
    return batches


def _joined(answers: Sequence[tuple[list[int], dict[str, Any]]], n_clips: int) -> Rewards:
    values = np.full(n_clips, np.nan, np.float32)
    parts: dict[str, np.ndarray] = {}
    passed: dict[str, np.ndarray] = {}
    reasons = [""] * n_clips
    provenance: dict[str, Any] = {}
    for rows, answer in answers:
        values[rows] = _floats(answer.pop("values"))
        for name, part in answer.pop("parts").items():
            parts.setdefault(name, np.full(n_clips, np.nan, np.float32))[rows] = _floats(part)
        for name, flags in answer.pop("passed").items():
            passed.setdefault(name, np.zeros(n_clips, bool))[rows] = flags
        for row, reason in zip(rows, answer.pop("reasons")):
            reasons[row] = reason
        provenance = answer
    return Rewards(values, parts, passed, reasons, provenance)


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], np.float32)


def _plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} cannot be sent")


def _reason(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")
