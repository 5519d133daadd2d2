"""The client against a real server that refuses, stalls, breaks off and talks nonsense."""

import asyncio
import time

import pytest

from speechbrain_clsp.annotation.client import ChatClient, ServerSettings
from speechbrain_clsp.annotation.retries import (
    RequestRejectedError,
    ServerUnavailableError,
    UnansweredError,
)
from tests.utils.chat_server import MODEL, chat_server

SAMPLING = {"n": 2, "top_k": 20, "temperature": 0.6}


def message(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def ask(url, texts: list[str], **options):
    """Ask all at once; returns answers or errors, and the client."""

    async def go():
        options.setdefault("timeout", 30.0)
        client = ChatClient(ServerSettings(url, MODEL, pause=0.02, **options))
        jobs = [client.complete(message(text), SAMPLING) for text in texts]
        answers = await asyncio.gather(*jobs, return_exceptions=True)
        await client.close()
        return answers, client

    return asyncio.run(go())


def test_every_fault_is_overcome(tmp_path):
    with chat_server(tmp_path, faults=0.5, slow=1.5) as (url, _):
        answers, client = ask(url, [f"clip {n}" for n in range(60)], attempts=25, timeout=1.0)
    assert all(len(answer) == 2 for answer in answers)
    texts = {tuple(choice.message.content for choice in answer) for answer in answers}
    assert len(texts) == 60  # everybody got their own
    kinds = {"429", "500", "503", "timeout", "connection", "malformed"}
    assert kinds == set(client.usage.retries)
    assert client.usage.prompt_tokens == 60 * 100


def test_an_answer_that_never_ends_is_given_up(tmp_path):
    with chat_server(tmp_path, faults=1.0, only="drip") as (url, _):
        start = time.monotonic()
        (answer,), client = ask(url, ["fine"], attempts=2, timeout=1.0)
        assert time.monotonic() - start < 10
    assert isinstance(answer, UnansweredError) and client.usage.retries == {"timeout": 2}


def test_hopeless_requests_are_told_from_hopeless_servers(tmp_path, monkeypatch):
    with chat_server(tmp_path) as (url, _):
        texts = ["fine", "POISON", "CRASH", *(f"clip {n}" for n in range(20))]
        answers, client = ask(url, texts, attempts=3)
        assert isinstance(answers[1], RequestRejectedError) and "cannot process" in str(answers[1])
        assert isinstance(answers[2], UnansweredError) and "always fails" in str(answers[2])
        assert sum(isinstance(answer, Exception) for answer in answers) == 2
        monkeypatch.setenv("A_KEY", "wrong")
        (wrong,), client = ask(url, ["fine"], api_key_variable="A_KEY")
        assert isinstance(wrong, ServerUnavailableError) and "wrong key" in str(wrong)
        assert client.usage.requests == 1  # a second attempt would not be better
    (gone,), _ = ask(url, ["fine"], attempts=2)
    assert isinstance(gone, ServerUnavailableError) and url in str(gone)


def test_a_used_up_quota_is_no_fault_of_a_request(tmp_path):
    with chat_server(tmp_path, most=3) as (url, _):
        answers, _ = ask(url, [f"clip {n}" for n in range(9)], attempts=2)
    failed = [answer for answer in answers if isinstance(answer, Exception)]
    assert len(failed) == 6 and {type(error) for error in failed} == {ServerUnavailableError}
    assert all("the quota is used up" in str(error) for error in failed)


def test_servers_are_checked_before_work_begins(tmp_path):

    async def check(url: str, model: str) -> None:
        client = ChatClient(ServerSettings(url, model))
        try:
            await client.check()
        finally:
            await client.close()

    with chat_server(tmp_path) as (url, _):
        asyncio.run(check(url, MODEL))
        with pytest.raises(ServerUnavailableError, match=f"does not serve 'other', but {MODEL}"):
            asyncio.run(check(url, "other"))
    with pytest.raises(ServerUnavailableError, match="start it, or correct the address"):
        asyncio.run(check(url, MODEL))


def test_another_server_takes_over_from_a_dead_one(tmp_path):
    with chat_server(tmp_path) as (url, _):
        urls = [url, "http://127.0.0.1:9/v1"]
        answers, client = ask(urls, [f"clip {n}" for n in range(20)], attempts=12)
    assert all(len(answer) == 2 for answer in answers)
    assert set(client.usage.retries) == {"connection"}
