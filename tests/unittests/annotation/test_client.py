"""The client against a real server that refuses, stalls, breaks off and talks nonsense."""

import asyncio
import time
from email.utils import formatdate

import pytest

from speechbrain_clsp.annotation.client import ChatClient, Refused, Unavailable, retry_after
from speechbrain_clsp.annotation.limit import ConcurrencyLimit
from tests.utils.chat_server import MODEL, chat_server

SAMPLING = {"n": 2, "top_k": 20, "temperature": 0.6}


def message(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def ask(url, texts: list[str], **options):
    """Ask all at once; returns answers or errors, and the client."""

    async def go():
        client = ChatClient(url, MODEL, **{"timeout": 1.0, "pause": 0.02, **options})
        jobs = [client.complete(message(text), SAMPLING) for text in texts]
        answers = await asyncio.gather(*jobs, return_exceptions=True)
        await client.close()
        return answers, client

    return asyncio.run(go())


def test_every_fault_is_overcome(tmp_path):
    """If this fails, one kind of failure of a server loses captions or stops a run."""
    with chat_server(tmp_path, faults=0.5, slow=1.5) as (url, _):
        answers, client = ask(url, [f"clip {n}" for n in range(60)], attempts=25)
    assert all(len(answer.texts) == 2 for answer in answers)
    assert len({answer.texts for answer in answers}) == 60  # everybody got their own
    kinds = {"429", "500", "503", "timeout", "connection", "malformed"}
    assert kinds == set(client.usage.retries)
    assert client.usage.prompt_tokens == 60 * 100


def test_an_answer_that_never_ends_is_given_up(tmp_path):
    """If this fails, a server that sends a byte now and then holds a request for ever."""
    with chat_server(tmp_path, faults=1.0, only="drip") as (url, _):
        start = time.monotonic()
        (answer,), client = ask(url, ["fine"], attempts=2)
        assert time.monotonic() - start < 10
    assert isinstance(answer, Unavailable) and client.usage.retries == {"timeout": 2}


def test_hopeless_requests_are_told_from_hopeless_servers(tmp_path):
    """If this fails, a clip that a model cannot bear stops the run, or an outage condemns clips."""
    with chat_server(tmp_path) as (url, _):
        texts = ["fine", "POISON", "CRASH", *(f"clip {n}" for n in range(20))]
        answers, client = ask(url, texts, attempts=3)
        assert isinstance(answers[1], Refused) and "cannot hear" in str(answers[1])
        assert isinstance(answers[2], Refused) and "always fails" in str(answers[2])
        assert sum(isinstance(answer, Exception) for answer in answers) == 2
        (alone,), _ = ask(url, ["CRASH"], attempts=2)
        assert isinstance(alone, Unavailable)  # nothing shows that the server is well
        (wrong,), client = ask(url, ["fine"], api_key="wrong")
        assert isinstance(wrong, Unavailable) and "wrong key" in str(wrong)
        assert client.usage.requests == 1  # a second attempt would not be better
    (gone,), _ = ask(url, ["fine"], attempts=2)
    assert isinstance(gone, Unavailable) and url in str(gone)


def test_servers_are_checked_before_work_begins(tmp_path):
    """If this fails, a wrong address or model costs attempts for every clip."""

    async def check(url: str, model: str) -> None:
        client = ChatClient(url, model)
        try:
            await client.check()
        finally:
            await client.close()

    with chat_server(tmp_path) as (url, _):
        asyncio.run(check(url, MODEL))
        with pytest.raises(Unavailable, match=f"does not serve 'other', but {MODEL}"):
            asyncio.run(check(url, "other"))
    with pytest.raises(Unavailable, match="start it, or correct the address"):
        asyncio.run(check(url, MODEL))


def test_requests_wait_as_long_as_they_are_told():
    """If this fails, a client hammers a server that asked it to wait, and gets banned."""
    date = formatdate(time.time() + 30, usegmt=True)
    assert 28 < retry_after({"retry-after": date}) <= 30
    assert retry_after({"retry-after": formatdate(0, usegmt=True)}) == 0.0
    assert retry_after({"retry-after": "soon"}) == 0.0
    client = ChatClient("http://127.0.0.1:9/v1", MODEL, pause=0.5)
    waits = [client._delay(attempt, 2.0) for attempt in range(12) for _ in range(50)]
    assert min(waits) >= 2.05 and max(waits) <= 62.0 and len(set(waits)) > 500


def test_the_limit_follows_what_servers_bear():
    """If this fails, requests in flight stay at one after a bad minute, or grow without end."""

    async def play():
        limit = ConcurrencyLimit(16)
        rounds = [await limit.acquire() for _ in range(8)]
        assert limit.size == 8
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(limit.acquire(), 0.05)
        for started in rounds:
            limit.overloaded(started)  # one burst
        assert limit.size == 4
        for _ in rounds:
            await limit.release()
        limit.overloaded(await limit.acquire())
        assert limit.size == 2
        for _ in range(300):
            limit.succeeded()
        assert limit.size == 16

    asyncio.run(play())
