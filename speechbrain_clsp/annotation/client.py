"""Requests to language models behind the chat-completions protocol, repeated until they succeed.

One client asks a local vLLM server, several of them in turn, or a hosted interface.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from speechbrain_clsp.annotation.answers import (
    answer_text,
    check_answer,
    excerpt,
    read_object,
)
from speechbrain_clsp.annotation.faults import (
    check_address,
    check_variable,
    explain_connection,
    explain_status,
    proxy_of,
    read_key,
)
from speechbrain_clsp.annotation.retries import (
    FATAL,
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

LONG_WAIT = 10.0  # seconds for which a server asks; users are told of longer ones


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
    longest_wait : float
        Seconds for which a server may ask to wait; if it asks for more, and there is no other, the
        run stops.

    Raises
    ------
    ValueError
        If one of them cannot be.

    Example
    -------
    >>> ServerSettings(["http://a:8000/v1", "http://b:8000/v1"], "Qwen3-32B").urls
    ['http://a:8000/v1', 'http://b:8000/v1']
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
    longest_wait: float = 600.0

    def __post_init__(self) -> None:
        if not self.urls:
            raise ValueError("base_url is empty: name a server, such as http://localhost:8000/v1")
        for url in self.urls:
            check_address(url)
        check_variable(self.api_key_variable)
        self.check_least(attempts=1, concurrency=1, failure_limit=0)
        for name in ("timeout", "pause", "longest_wait"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be more than 0 seconds")

    def check_least(self, **least: int) -> None:
        """Raise ValueError if a setting is less than what is given by its name."""
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least {value}")

    @property
    def urls(self) -> list[str]:
        """The addresses of all servers."""
        return [self.base_url] if isinstance(self.base_url, str) else list(self.base_url)


@dataclass
class Usage:
    """What was sent to servers that answered, repeated requests included.

    ``retries`` are by kind; ``short_answers`` counts those with fewer candidates than were asked
    for, as servers give that ignore ``n``: the others are asked for again.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    short_answers: int = 0
    retries: dict[str, int] = field(default_factory=dict)


class ChatClient:
    """Asks a model, on one server or on several equal ones in turn.

    Arguments
    ---------
    settings : ServerSettings
        Which servers are asked, and how.
    usage : Usage, optional
        Where requests and tokens are counted.

    Raises
    ------
    ValueError
        If the ``openai`` package is missing, or key or proxy cannot be used.

    Example
    -------
    >>> client = ChatClient(ServerSettings("http://localhost:8000/v1", "Qwen3-32B"))
    >>> choices = asyncio.run(client.complete(messages, {"n": 4}))  # doctest: +SKIP
    >>> client.usage.requests
    0
    """

    def __init__(self, settings: ServerSettings, usage: Usage | None = None) -> None:
        openai = import_openai()
        self.settings = settings
        self.limit = ConcurrencyLimit(settings.concurrency)
        self.usage = Usage() if usage is None else usage
        key = read_key(settings.api_key_variable)
        options = {"api_key": key, "timeout": settings.timeout, "max_retries": 0}
        try:
            self._servers = {
                url: openai.AsyncOpenAI(base_url=url, **options) for url in settings.urls
            }
        except (ImportError, ValueError) as error:  # of the proxy
            url = settings.urls[0]
            raise ValueError(f"{url} cannot be asked: {error}{proxy_of(url)}") from error
        self._turns = itertools.cycle(self._servers)
        self._told_until = 0.0  # when the wait that users were told of last is over

    async def check(self) -> None:
        """Raise ServerUnavailableError if a server is not there or does not have the model."""
        openai = import_openai()
        wanted = self.settings.model
        for url, server in self._servers.items():
            try:
                names = [str(model.id) async for model in server.models.list()]
            except openai.NotFoundError:
                continue  # a server need not list its models
            except openai.APIStatusError as error:
                code, text = error.status_code, status_text(error)
                if code in (400, *FATAL):
                    text = explain_status(code, text, url, self.settings.api_key_variable)
                else:
                    text += proxy_of(url)
                raise ServerUnavailableError(f"{url} answers {text}") from error
            except openai.APITimeoutError as error:
                raise ServerUnavailableError(
                    f"{url} does not answer in {self.settings.timeout:g} s: is it still loading?"
                    f" Wait, or raise timeout{proxy_of(url)}"
                ) from error
            except openai.APIConnectionError as error:
                raise ServerUnavailableError(
                    f"No server answers at {url}: {explain_connection(error, url)}"
                ) from error
            except (openai.APIError, ValueError, TypeError, AttributeError):
                continue  # nor in the form of the protocol
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
        count, seed = sampling.get("n", 1), sampling.get("seed")
        choices: list[Any] = []
        while len(choices) < count:
            changes = {"n": count - len(choices)} if choices else {}
            if choices and seed is not None:  # else the same answer comes again
                changes["seed"] = seed + len(choices)
            request["extra_body"] = {**sampling, **changes}
            choices += await self._ask_patiently(request)
            if len(choices) < count:
                self._note_short_answer(len(choices), count)
        return choices[:count]

    def _note_short_answer(self, given: int, count: int) -> None:
        if not self.usage.short_answers:
            tqdm.write(
                f"{', '.join(self._servers)}: {given} of {count} candidates were given; a server"
                " that ignores n is asked again for the others",
                file=sys.stderr,
            )
        self.usage.short_answers += 1

    async def _ask_patiently(self, request: Mapping[str, Any]) -> list[Any]:
        """Ask, again where that helps; see :meth:`complete`."""
        attempts = self.settings.attempts
        for attempt in range(attempts):
            try:
                return await self._ask(request)
            except RetryableError as error:
                last = error
                self.usage.retries[error.kind] = self.usage.retries.get(error.kind, 0) + 1
                if attempt + 1 < attempts:
                    await asyncio.sleep(self._pause(attempt, error))
        if last.kind == "malformed":
            raise RequestRejectedError(f"{attempts} attempts failed, the last by {last}")
        urls = ", ".join(self._servers)
        kind = ServerUnavailableError if last.kind in map(str, OVERLOAD) else UnansweredError
        # Messages about connections have it already.
        proxy = "" if last.kind == "connection" else proxy_of(self.settings.urls[0])
        raise kind(f"{urls}: {attempts} attempts failed: {last}{proxy}")

    def _pause(self, attempt: int, error: RetryableError) -> float:
        """Return the seconds to wait before another attempt; tell users of long ones."""
        after, longest = error.after, self.settings.longest_wait
        if after > longest and len(self._servers) > 1:
            after = 0.0  # others may have time
        elif after > longest:
            raise ServerUnavailableError(
                f"{self.settings.urls[0]} asks to wait {after:.0f} s ({error}), longer than"
                f" longest_wait, {longest:g} s: run the same command again after that, raise"
                " longest_wait, or name another server. What was answered is kept"
            )
        now = time.monotonic()
        if after >= LONG_WAIT and now > self._told_until:
            self._told_until = now + after
            tqdm.write(
                f"The server asks to wait {after:.0f} s ({error}). Interrupt to stop; the same"
                " command goes on later",
                file=sys.stderr,
            )
        return retry_delay(attempt, self.settings.pause, after)

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
            text = answer_text(choices[0])
            try:
                return read_object(text, read)
            except ValueError as error:
                reason = f"{error}; the answer is {excerpt(text)}"
        raise RequestRejectedError(f"{attempts} {name}s were malformed: of the last, {reason}")

    async def close(self) -> None:
        """Close the connections."""
        for server in self._servers.values():
            await server.close()

    async def _ask(self, request: Mapping[str, Any]) -> list[Any]:
        """Ask one server, one time."""
        started = await self.limit.acquire()
        self.usage.requests += 1
        url, variable = next(self._turns), self.settings.api_key_variable
        try:
            # The library's timeout is that between two pieces of an answer, this one that of all.
            asked = self._servers[url].chat.completions.create(**request)
            answer = await asyncio.wait_for(asked, self.settings.timeout)
            choices = check_answer(answer)
        except Exception as error:
            again = classify(error, url, variable)
            if again.overload:
                self.limit.overloaded(started)
            raise again from error
        finally:
            await self.limit.release()
        self.limit.succeeded()
        self._count_tokens(answer.usage)
        return choices

    def _count_tokens(self, usage: Any) -> None:
        for name in ("prompt_tokens", "completion_tokens"):
            count = getattr(usage, name, None)
            if isinstance(count, int):
                setattr(self.usage, name, getattr(self.usage, name) + count)
