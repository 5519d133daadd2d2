"""The verifier's conversation, against a real server that answers from a script."""

import asyncio
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from speechbrain_clsp.annotation.client import ChatClient, ServerSettings
from speechbrain_clsp.annotation.retries import RequestRejectedError
from speechbrain_clsp.annotation.stages.verify import (
    ClipFacts,
    VerifySettings,
    verify_caption,
    verify_rules,
)

CAPTION = "A man speaks slowly and says come to the open window, without haste."


@contextmanager
def scripted(messages: list[dict]):
    """Serve messages one after the other, the last for ever; yields address and requests."""
    requests: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            """Stay silent."""

        def do_POST(self):
            requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            message = messages[min(len(requests), len(messages)) - 1]
            choice = {"index": 0, "finish_reason": "stop"}
            choice["message"] = {"role": "assistant", **message}
            answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
            body = json.dumps({**answer, "choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", requests
    finally:
        server.shutdown()
        server.server_close()


def call(name: str) -> dict:
    function = {"name": name, "arguments": "{}"}
    calls = [{"id": f"call {name}", "type": "function", "function": function}]
    return {"content": None, "reasoning_content": "private", "tool_calls": calls}


def verdict(**broken: str) -> dict:
    judged = {
        rule: {"reason": broken.get(rule, ""), "broken": rule in broken} for rule in verify_rules()
    }
    return {"content": f"```json\n{json.dumps(judged)}\n```"}


def verify(url: str, **settings) -> dict[str, str]:
    facts = ClipFacts({"speaking_rate": "fast speed"}, "Please come to the open window now.")

    async def go():
        client = ChatClient(ServerSettings(url, "m", pause=0.01))
        try:
            return await verify_caption(client, CAPTION, facts, VerifySettings(**settings))
        finally:
            await client.close()

    return asyncio.run(go())


def test_tools_are_answered_and_the_verdict_is_read():
    script = [
        call("transcript_overlap"),
        call("labels"),
        call("suspicious_words"),
        call("nonsense"),
    ]
    with scripted([*script, verdict(content="quotes", labels="not slow")]) as (url, requests):
        assert verify(url) == {"content": "quotes", "labels": "not slow"}
    last = requests[-1]
    results = {m["tool_call_id"]: m["content"] for m in last["messages"] if m["role"] == "tool"}
    assert "'come to the open window'" in results["call transcript_overlap"]
    assert results["call labels"] == "- speaking rate: fast speed"
    assert "absence: without" in results["call suspicious_words"]
    assert "no tool 'nonsense'" in results["call nonsense"]
    assert "tools" in requests[0] and "tools" not in last
    schema = last["response_format"]["json_schema"]["schema"]
    assert set(schema["required"]) == set(verify_rules())
    assert "private" not in json.dumps(last)  # what a model thought is not sent back to it


def test_rounds_of_tools_are_bounded():
    with scripted([call("labels")] * 3 + [verdict()]) as (url, requests):
        assert verify(url, rounds=3) == {}
    assert len(requests) == 4


def test_malformed_verdicts_are_asked_again_then_put_aside():
    nonsense = [{"content": text} for text in ("fine", '{"absence": true}', "{}")]
    half = {
        "content": json.dumps({rule: {"broken": "no", "reason": ""} for rule in verify_rules()})
    }
    with scripted([nonsense[0], *nonsense[:2], verdict()]) as (url, requests):
        assert verify(url) == {} and len(requests) == 4
    with scripted([nonsense[0], *nonsense[1:], half]) as (url, requests):
        with pytest.raises(RequestRejectedError, match="3 verdicts were malformed"):
            verify(url)
    assert len(requests) == 4
