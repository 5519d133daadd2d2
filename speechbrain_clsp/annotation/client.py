"""Requests to language models behind the chat-completions protocol, repeated until they succeed.

One client asks a local vLLM server, several of them in turn, or a hosted interface.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from speechbrain_clsp.annotation.retries import (
    OVERLOAD,
    ConcurrencyLimit,
    RequestRejectedError,
    RetryableError,
    ServerUnavailableError,
    UnansweredError,
    classify,
    import_openai,
    retry_delay,
    status_text,
)


@dataclass(frozen=True)
class ServerSettings:
    """The servers of one model, all alike, and how they are asked.

    Arguments
    ---------
    base_url : str or list of str
        Of the protocol, such as ``http://localhost:8000/v1``.
    model : str
        Name under which they know the model.
    api_key_variable : str
        Environment variable that holds the key: keys do not belong in files.
    timeout : float
        Seconds that an answer may take.
    attempts : int
        How often a request is tried.
    pause : float
        See :func:`~speechbrain_clsp.annotation.retries.retry_delay`.
    concurrency : int
        Most requests in flight at a time.
    price : tuple of float, optional
        Of a million prompt and completion tokens.
    failure_limit : int
        Requests that may be put aside before a run stops.
    """

    base_url: str | list[str] = "http://localhost:8000/v1"
    model: str = ""
    api_key_variable: str = "OPENAI_API_KEY"
    timeout: float = 300.0
    attempts: int = 6
    pause: float = 1.0
    concurrency: int = 64
    price: tuple[float, float] | None = None
    failure_limit: int = 100


@dataclass
class Usage:
    """What was sent to servers that answered, repeated requests included; ``retries`` by kind."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: dict[str, int] = field(default_factory=dict)


class ChatClient:
    """Asks a model, on one server or on several equal ones in turn; counts in ``usage``.

    Raises ValueError if the ``openai`` package is missing.
    """

    def __init__(self, settings: ServerSettings, usage: Usage | None = None) -> None:
        openai = import_openai()
        urls = [settings.base_url] if isinstance(settings.base_url, str) else settings.base_url
        key = os.environ.get(settings.api_key_variable) or "none"  # local servers need none
        self.settings = settings
        self.limit = ConcurrencyLimit(settings.concurrency)
        self.usage = Usage() if usage is None else usage
        options = {"api_key": key, "timeout": settings.timeout, "max_retries": 0}
        self._servers = [openai.AsyncOpenAI(base_url=url, **options) for url in urls]
        self._turns = itertools.cycle(self._servers)

    async def check(self) -> None:
        """Raise ServerUnavailableError if a server is not there or does not have the model."""
        openai = import_openai()
        wanted = self.settings.model
        for server in self._servers:
            url = server.base_url
            try:
                names = [model.id async for model in server.models.list()]
            except openai.NotFoundError:
                continue  # a server need not list its models
            except openai.APIStatusError as error:
                raise ServerUnavailableError(f"{url} answers {status_text(error)}") from error
            except (openai.APIError, ValueError) as error:
                raise ServerUnavailableError(
                    f"No server answers at {url}: start it, or correct the address: {error}"
                ) from error
            if names and wanted not in names:
                raise ServerUnavailableError(
                    f"{url} does not serve {wanted!r}, but {', '.join(names[:5])}"
                )

    async def complete(
        self,
        messages: Sequence[Mapping[str, Any]],
        sampling: Mapping[str, Any],
        **options: Any,
    ) -> list[Any]:
        """Ask, again where that helps, until there is an answer.

        Arguments
        ---------
        messages : sequence of mapping
            The conversation so far.
        sampling : mapping
            ``temperature``, ``top_p``, ``max_tokens``, ``n``, ...; sent as they are, so that vLLM
            also takes what the protocol does not know, such as ``top_k``.
        **options
            ``tools``, ``tool_choice``, ``response_format``.

        Returns
        -------
        list of openai.types.chat.chat_completion.Choice
            The answer: at least one choice, at least one of them with text or tool calls.

        Raises
        ------
        RequestRejectedError
            If this request cannot succeed.
        UnansweredError
            If it did not succeed, because of the request or of the servers.
        ServerUnavailableError
            If no request can succeed.
        """
        request = {"model": self.settings.model, "messages": list(messages), **options}
        request["extra_body"] = dict(sampling)
        attempts = self.settings.attempts
        for attempt in range(attempts):
            try:
                return await self._ask(request)
            except RetryableError as error:
                last = error
                self.usage.retries[error.kind] = self.usage.retries.get(error.kind, 0) + 1
                if attempt + 1 < attempts:
                    await asyncio.sleep(retry_delay(attempt, self.settings.pause, error.after))
        if last.kind == "malformed":
            raise RequestRejectedError(f"{attempts} attempts failed, the last by {last}")
        urls = ", ".join(str(server.base_url) for server in self._servers)
        kind = ServerUnavailableError if last.kind in map(str, OVERLOAD) else UnansweredError
        raise kind(f"{urls}: {attempts} attempts failed: {last}")

    async def complete_object(
        self,
        messages: Sequence[Mapping[str, Any]],
        sampling: Mapping[str, Any],
        name: str,
        properties: Mapping[str, Any],
        read: Callable[[dict[str, Any]], Any],
        attempts: int,
    ) -> Any:
        """Ask for a JSON object, until one is well-formed.

        Arguments
        ---------
        messages, sampling
            See :meth:`complete`.
        name, properties
            What the object is called, and the JSON schema of each of its values.
        read : callable
            The object to what is returned; raises ValueError, KeyError or TypeError if it is
            malformed.
        attempts : int
            How often it is asked for before :class:`RequestRejectedError` is raised.
        """
        schema = {
            "type": "object",
            "properties": dict(properties),
            "required": list(properties),
            "additionalProperties": False,
        }
        named = {"name": name, "strict": True, "schema": schema}
        options = {"response_format": {"type": "json_schema", "json_schema": named}}
        for _ in range(attempts):
            choices = await self.complete(messages, sampling, **options)
            text = choices[0].message.content or ""
            try:
                return read(json.loads(text[text.index("{") : text.rindex("}") + 1]))
            except (ValueError, KeyError, TypeError) as error:
                reason = f"{text[:100]!r} ({type(error).__name__}: {error})"
        raise RequestRejectedError(f"{attempts} {name}s were malformed: the last is {reason}")

    async def close(self) -> None:
        """Close the connections."""
        for server in self._servers:
            await server.close()

    async def _ask(self, request: Mapping[str, Any]) -> list[Any]:
        """Ask one server, one time."""
        started = await self.limit.acquire()
        self.usage.requests += 1
        try:
            # The library's timeout is that between two pieces of an answer, this one that of all.
            asked = next(self._turns).chat.completions.create(**request)
            answer = await asyncio.wait_for(asked, self.settings.timeout)
            _check(answer.choices)
        except Exception as error:
            again = classify(error)
            if again.overload:
                self.limit.overloaded(started)
            raise again from error
        finally:
            await self.limit.release()
        self.limit.succeeded()
        if answer.usage:
            self.usage.prompt_tokens += answer.usage.prompt_tokens
            self.usage.completion_tokens += answer.usage.completion_tokens
        return answer.choices


def _check(choices: Sequence[Any]) -> None:
    """Raise ValueError if an answer has no content."""
    if not choices:
        raise ValueError("no choices")
    if any(choice.finish_reason == "content_filter" for choice in choices):
        raise RequestRejectedError("the server's content filter")
    texts = [choice.message.content or "" for choice in choices]
    if not any(text.strip() for text in texts) and not choices[0].message.tool_calls:
        raise ValueError("neither text nor tool calls")
