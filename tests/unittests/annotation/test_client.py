"""The client against a real server that refuses, stalls, breaks off and talks nonsense."""

import asyncio
import random
import time

import pytest

from speechbrain_clsp.annotation.client import ChatClient, ServerSettings
from speechbrain_clsp.annotation.retries import (
    RequestRejectedError,
    ServerUnavailableError,
    UnansweredError,
)
from speechbrain_clsp.annotation.stages.verify import ClipFacts, VerifySettings, verify_caption
from tests.utils.chat_server import MODEL, answering, chat_server, completion

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


def ask_scripted(reply, sampling=None, **options):
    """Ask a server that answers by a function; returns choices, or the error, and the client."""

    async def go(url):
        client = ChatClient(ServerSettings(f"{url}/v1", MODEL, pause=0.01, **options))
        try:
            return await client.complete(message("Describe."), sampling or {}), client
        except (RequestRejectedError, ServerUnavailableError) as error:
            return error, client
        finally:
            await client.close()

    with answering(reply) as url:
        return asyncio.run(go(url))


def with_message(**fields) -> dict:
    answer = completion([""])
    answer["choices"][0]["message"] |= fields
    return answer


def test_a_server_that_ignores_n_is_asked_for_the_others(capsys):
    requests = []

    def reply(request):
        requests.append(request)
        return completion([f"Candidate {len(requests)}."])

    choices, client = ask_scripted(reply, {"n": 3, "seed": 7})
    texts = [choice.message.content for choice in choices]
    assert texts == ["Candidate 1.", "Candidate 2.", "Candidate 3."]
    assert [(request["n"], request["seed"]) for request in requests] == [(3, 7), (2, 8), (1, 9)]
    assert client.usage.short_answers == 2 and client.usage.prompt_tokens == 300
    said = capsys.readouterr()
    assert (said.out + said.err).count("ignores n") == 1
    choices, _ = ask_scripted(lambda request: completion(["A.", "B.", "C."]), {"n": 2})
    assert len(choices) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (with_message(content=None, reasoning_content="A man, or"), "only reasoning"),
        (with_message(content="<think>A man, or"), "raise max_tokens of sampling"),
        (with_message(content=None, refusal="I cannot help."), "refuses: 'I cannot help.'"),
        ({"error": {"message": "the model is gone"}}, "the model is gone"),
        ({"error": "the model is gone"}, "the model is gone"),
        ({"object": "error", "message": "too many tokens", "code": 400}, "400: an error in place"),
        ({"detail": "Not Found"}, "Not Found"),
        ((200, b"<html>Welcome</html>", {"Content-Type": "text/html"}), "Welcome"),
        ([], "chat-completions"),
        (completion([]) | {"choices": None}, "no choices"),
        (with_message(tool_calls=[{"id": "x"}]), "a tool call without name"),
    ],
)
def test_answers_without_an_answer_are_told_in_their_own_words(answer, said):
    error, _ = ask_scripted(lambda request: answer, attempts=2)
    assert isinstance(error, RequestRejectedError) and said in str(error)


@pytest.mark.parametrize(
    ("code", "kind"), [(401, ServerUnavailableError), (429, ServerUnavailableError)]
)
def test_an_error_inside_an_answer_counts_by_its_code(code, kind):
    answer = {"error": {"message": "no money left", "code": code}}
    error, _ = ask_scripted(lambda request: answer, attempts=2)
    assert type(error) is kind and "no money left" in str(error)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": "many"}, [], 3])
def test_counts_of_tokens_that_are_none_are_no_fault(usage):
    choices, client = ask_scripted(lambda request: completion(["A man."]) | {"usage": usage})
    assert len(choices) == 1 and client.usage.prompt_tokens == 0


def test_a_long_wait_ends_the_run_with_the_way_out(capsys):
    def reply(request):
        return 429, {"error": {"message": "the quota of this hour"}}, {"Retry-After": "3600"}

    started = time.monotonic()
    error, client = ask_scripted(reply)
    assert time.monotonic() - started < 5 and client.usage.requests == 1
    assert isinstance(error, ServerUnavailableError)
    for part in ("asks to wait 3600 s", "the quota of this hour", "longest_wait", "run the same"):
        assert part in str(error)


def test_a_wait_of_some_length_is_told_once(capsys, monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr("speechbrain_clsp.annotation.client.asyncio.sleep", sleep)

    def reply(request):
        return 503, {"error": {"message": "loading"}}, {"Retry-After": "120"}

    error, _ = ask_scripted(reply, attempts=4)
    assert isinstance(error, ServerUnavailableError) and len(waits) == 3 and min(waits) > 120
    said = capsys.readouterr()
    assert (said.out + said.err).count("asks to wait 120 s (503: loading). Interrupt to stop") == 1


def test_another_server_is_asked_where_one_asks_to_wait_long(tmp_path):
    def reply(request):
        return 429, {"error": {"message": "full"}}, {"Retry-After": "3600"}

    with answering(reply) as busy, chat_server(tmp_path) as (url, _):
        answers, _ = ask([f"{busy}/v1", url], [f"clip {n}" for n in range(4)])
    assert all(len(answer) == 2 for answer in answers)


def test_a_list_of_models_in_another_form_does_no_harm():
    def reply(request):
        return completion(["A man."]) if isinstance(request, dict) else [1, "x"]

    async def go(url):
        client = ChatClient(ServerSettings(f"{url}/v1", MODEL))
        await client.check()
        await client.close()

    for listed in ([1, "x"], {"data": None}, {"data": [3]}, b"<html>", "x", None):
        with answering(lambda path, listed=listed: listed) as url:
            asyncio.run(go(url))


PARTS = [None, True, 0, -5, 1.5, "", "x", "<think>", "{}", [], {}, "length", "error", "labels"]
NAMES = [
    "choices",
    "message",
    "content",
    "tool_calls",
    "function",
    "id",
    "refusal",
    "error",
    "code",
]
NAMES += ["finish_reason", "usage", "prompt_tokens", "object", "reasoning_content", "detail"]


def changed(draw: random.Random, content, depth: int = 0):
    """Return JSON in which some parts were replaced or left out."""
    if draw.random() < 0.12 and depth:
        content = draw.choice([*PARTS, {draw.choice(NAMES): draw.choice(PARTS)}])
    if isinstance(content, dict):
        kept = {name: value for name, value in content.items() if draw.random() > 0.05}
        return {name: changed(draw, value, depth + 1) for name, value in kept.items()}
    if isinstance(content, list):
        return [changed(draw, value, depth + 1) for value in content]
    return content


@pytest.mark.filterwarnings("ignore:Pydantic")
def test_whatever_servers_send_ends_in_an_answer_or_an_error_of_ours():
    draw = random.Random(0)
    call = {"id": "a", "type": "function", "function": {"name": "labels", "arguments": "{}"}}

    def reply(request):
        whole = draw.choice([completion(["A.", "B."]), with_message(tool_calls=[call])])
        answer = changed(draw, whole)
        body = answer if draw.random() > 0.1 else draw.randbytes(20)
        status = draw.choice([200] * 9 + [201, 204, 301, 400, 418, 429, 500])
        headers = {"Retry-After": draw.choice(["1e9", "-1", "x"])} if draw.random() < 0.1 else {}
        return status, body, headers

    async def go(url) -> None:
        client = ChatClient(ServerSettings(f"{url}/v1", MODEL, attempts=2, pause=0.001))
        for _ in range(30):
            verdict = verify_caption(client, "A man.", ClipFacts({}), VerifySettings())
            for work in (client.check(), client.complete(message("Describe."), {"n": 2}), verdict):
                try:
                    await work
                except (RequestRejectedError, ServerUnavailableError) as error:
                    assert str(error)
        await client.close()

    with answering(reply) as url:
        asyncio.run(go(url))
