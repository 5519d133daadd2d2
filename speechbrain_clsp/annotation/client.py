"""Requests to language models behind the chat-completions protocol, repeated until they succeed.

One client drives a local vLLM server, several of them in turn, or a hosted interface. What is
worth another attempt (rate limits, server errors, timeouts, broken connections, malformed answers)
gets a bounded number of them, with exponential back-off, jitter and the server's ``Retry-After``.
How many requests are in flight follows what the servers bear.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from speechbrain_clsp.annotation.limit import ConcurrencyLimit

STANDARD = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "n", "seed", "stop")
FATAL = (401, 403, 404)  # the same for every request: key, permission, address or model
HOPELESS = (400, 413, 415, 422)  # the same for every attempt at this request
LONGEST_PAUSE = 60.0  # seconds between two attempts; a server may ask for more


class Refused(Exception):
    """One request can never succeed; its text says why."""


class Unavailable(ConnectionError):
    """The servers do not answer, or refuse everybody; its text says what to look at."""


@dataclass(frozen=True)
class Completion:
    """What a model answered.

    Arguments
    ---------
    texts : tuple of str
        One per choice.
    message : dict
        The first choice's message, with ``tool_calls`` if there are any.
    finish_reasons : tuple of str
        One per choice: ``stop``, ``length`` where the text was cut off, ``tool_calls``.
    prompt_tokens, completion_tokens : int
        As the server counts them; 0 if it does not.
    """

    texts: tuple[str, ...]
    message: dict[str, Any]
    finish_reasons: tuple[str, ...]
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class Usage:
    """What a client's requests took so far."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: dict[str, int] = field(default_factory=dict)


def audio_part(wav: bytes) -> dict[str, Any]:
    """Return the part of a message that holds the bytes of a wav file.

    Example
    -------
    >>> audio_part(b"RIFF")["input_audio"]
    {'data': 'UklGRg==', 'format': 'wav'}
    """
    data = base64.b64encode(wav).decode("ascii")
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


class ChatClient:
    """Asks a model, on one server or on several equal ones in turn.

    Arguments
    ---------
    base_url : str or sequence of str
        Such as ``http://localhost:8000/v1``.
    model : str
        Name under which the servers know the model.
    api_key : str, optional
        Local servers need none.
    timeout : float
        Seconds that an answer may take.
    attempts : int
        How often a request is tried.
    concurrency : int
        Most requests in flight at a time.
    pause : float
        Seconds before the second attempt, at most; doubled with each further one.

    Raises
    ------
    ValueError
        If the ``openai`` package is missing.
    """

    def __init__(
        self,
        base_url: str | Sequence[str],
        model: str,
        api_key: str | None = None,
        timeout: float = 300.0,
        attempts: int = 6,
        concurrency: int = 64,
        pause: float = 1.0,
    ) -> None:
        openai = _openai()
        urls = [base_url] if isinstance(base_url, str) else list(base_url)
        options = {"api_key": api_key or "none", "timeout": timeout, "max_retries": 0}
        self.urls, self.model, self.attempts, self.pause = urls, model, attempts, pause
        self.timeout = timeout
        self.limit = ConcurrencyLimit(concurrency)
        self.usage = Usage()
        self._servers = [openai.AsyncOpenAI(base_url=url, **options) for url in urls]
        self._answered = 0
        self._turn = 0

    async def check(self) -> None:
        """Ask every server whether it is there and has the model.

        Raises
        ------
        Unavailable
            If not; before anything else was spent.
        """
        openai = _openai()
        for url, server in zip(self.urls, self._servers):
            try:
                names = [model.id async for model in server.models.list()]
            except openai.NotFoundError:
                continue  # a server need not list its models
            except openai.APIStatusError as error:
                raise Unavailable(f"{url} answers {_status(error)}") from error
            except (openai.APIError, ValueError) as error:
                raise Unavailable(
                    f"No server answers at {url}: start it, or correct the address: {error}"
                ) from error
            if names and self.model not in names:
                raise Unavailable(
                    f"{url} does not serve {self.model!r}, but {', '.join(names[:5])}"
                )

    async def complete(
        self,
        messages: Sequence[Mapping[str, Any]],
        sampling: Mapping[str, Any],
        **options: Any,
    ) -> Completion:
        """Ask once, as often as it takes.

        Arguments
        ---------
        messages : sequence of mapping
            The conversation so far.
        sampling : mapping
            ``temperature``, ``top_p``, ``max_tokens``, ``n``, ...; what the protocol does not know,
            such as ``top_k``, is sent as vLLM takes it.
        **options
            ``tools``, ``tool_choice``, ``response_format``.

        Returns
        -------
        Completion
            The answer.

        Raises
        ------
        Refused
            If this request cannot succeed.
        Unavailable
            If no request can.
        """
        known = {name: value for name, value in sampling.items() if name in STANDARD}
        further = {name: value for name, value in sampling.items() if name not in STANDARD}
        request = {"model": self.model, "messages": list(messages), **known, **options}
        if further:
            request["extra_body"] = further
        before, kind, reason = self._answered, "", ""
        for attempt in range(self.attempts):
            try:
                return await self._ask(request)
            except _Again as error:
                kind, reason = error.kind, error.reason
                self.usage.retries[kind] = self.usage.retries.get(kind, 0) + 1
                if attempt + 1 < self.attempts:
                    await asyncio.sleep(self._delay(attempt, error.after))
        # If others got answers meanwhile, it is this request that the servers cannot bear.
        if self._answered > before or kind == "malformed":
            raise Refused(f"{self.attempts} attempts failed, the last by {reason}")
        raise Unavailable(f"{', '.join(self.urls)}: {self.attempts} attempts failed: {reason}")

    async def close(self) -> None:
        """Close the connections."""
        for server in self._servers:
            await server.close()

    async def _ask(self, request: Mapping[str, Any]) -> Completion:
        """Ask one server, one time."""
        self._turn += 1
        server = self._servers[self._turn % len(self._servers)]
        started = await self.limit.acquire()
        self.usage.requests += 1
        try:
            # The library's timeout is that between two pieces of an answer, this one that of all.
            asked = server.chat.completions.create(**request)
            answer = _read(await asyncio.wait_for(asked, self.timeout))
        except Exception as error:
            again = _classify(error)
            if again.overload:
                self.limit.overloaded(started)
            raise again from error
        finally:
            await self.limit.release()
        self.limit.succeeded()
        self._answered += 1
        self.usage.prompt_tokens += answer.prompt_tokens
        self.usage.completion_tokens += answer.completion_tokens
        return answer

    def _delay(self, attempt: int, after: float) -> float:
        """Return seconds to wait: what the server asks for, and a draw to spread those who wait."""
        return after + random.uniform(0.1, 1.0) * min(LONGEST_PAUSE, self.pause * 2**attempt)


class _Again(Exception):
    """An attempt failed in a way that another one may not."""

    def __init__(self, kind: str, reason: str, after: float = 0.0, overload: bool = False) -> None:
        super().__init__(reason)
        self.kind, self.reason, self.after, self.overload = kind, reason, after, overload


def _classify(error: Exception) -> _Again:
    """Say what is to be done about an error: another attempt, or raise that there is no use."""
    openai = _openai()
    if isinstance(error, openai.APITimeoutError | asyncio.TimeoutError):
        return _Again("timeout", "no answer in time", overload=True)
    if isinstance(error, openai.APIConnectionError):
        return _Again("connection", f"a broken connection ({error.__cause__ or error})")
    if isinstance(error, openai.APIStatusError):
        code, text = error.status_code, _status(error)
        if code in FATAL:
            raise Unavailable(
                f"The server answers {text}: correct key, address or model"
            ) from error
        if code in HOPELESS:
            raise Refused(text) from error
        return _Again(str(code), text, retry_after(error.response.headers), code in (429, 503))
    if isinstance(error, openai.OpenAIError | ValueError | TypeError | KeyError | AttributeError):
        return _Again("malformed", f"a malformed answer ({type(error).__name__}: {error})"[:300])
    raise error


def _read(response: Any) -> Completion:
    """Check and unpack an answer; raises ValueError if it is none."""
    choices = response.choices
    if not choices:
        raise ValueError("no choices")
    if any(choice.finish_reason == "content_filter" for choice in choices):
        raise Refused("the server's content filter")
    message = choices[0].message.model_dump(exclude_none=True)
    texts = tuple(choice.message.content or "" for choice in choices)
    if not any(text.strip() for text in texts) and not message.get("tool_calls"):
        raise ValueError("neither text nor tool calls")
    usage = response.usage
    return Completion(
        texts,
        message,
        tuple(choice.finish_reason or "" for choice in choices),
        usage.prompt_tokens if usage else 0,
        usage.completion_tokens if usage else 0,
    )


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that a server asks to wait for, 0 if it does not.

    RFC 9110 has seconds or a date; milliseconds in a header of their own are common, too.

    Example
    -------
    >>> retry_after({"retry-after": "7"}), retry_after({"retry-after-ms": "250"}), retry_after({})
    (7.0, 0.25, 0.0)
    """
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        return max(0.0, float(headers.get("retry-after", 0)))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (ValueError, TypeError, KeyError):
        return 0.0


def _status(error: Any) -> str:
    return f"{error.status_code}: {' '.join(str(error.message).split())}"[:300]


def _openai() -> Any:
    try:
        import openai
    except ImportError as error:
        raise ValueError(
            "Annotation needs the package openai: pip install 'speechbrain-clsp[annotate]'"
        ) from error
    return openai
