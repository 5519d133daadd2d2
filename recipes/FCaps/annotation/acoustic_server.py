#!/usr/bin/env python3
"""A captioner, a verifier and a judge without a language model, as a chat-completions server.

Level, pitch and rate of the audio are measured, and sentences are made of them, so that annotation
can be tried, and tested, on a laptop. It makes mistakes at the rates that it is given.

> python acoustic_server.py --port 8000 --mistakes absence=0.05 content=0.05
> clsp annotate mini.yaml --manifest data/mini_fcaps/train.arrow --output annotated
"""

import argparse
import base64
import hashlib
import io
import json
import random
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import soundfile

from speechbrain_clsp.mini_fcaps.acoustics import (
    AcousticMeasurement,
    claimed_gender,
    claims,
    measure_acoustics,
)
from speechbrain_clsp.utils.files import parse_key_values

CAPTIONER, VERIFIER, JUDGE = "acoustic-captioner", "acoustic-verifier", "acoustic-judge"
MISTAKES = {  # what each adds to a caption; those that are empty change it otherwise
    "absence": " The tone is not harsh.",
    "surroundings": " The microphone picks up a faint hum of the room.",
    "content": " The words come to the open window stand out.",
    "several": " The second speaker answers in the same manner.",
    "newline": "\nThe tone keeps its color.",
    "short": "",
    "wrong_rate": "",
}
RATES = ("slowly", "at a measured pace", "quickly")
VOLUMES = ("quietly", "at a moderate volume", "loudly")
RATE_LABELS = ("slow speed", "measured speed", "fast speed")
OPENINGS = ("The speaker talks", "This voice speaks", "The delivery comes", "The words are said")
ENDINGS = (
    "Phrases follow each other evenly, and the manner of the first word is there in the last.",
    "The tone keeps its color from the first phrase to the last, with short breaths in between.",
    "Syllables are shaped with care, and each phrase falls gently before the next one begins.",
)


def draw_mistake(rates: dict[str, float], draw: random.Random) -> str:
    """Return the mistake that a caption gets, if any; at most one."""
    number = draw.random()
    for name, rate in rates.items():
        if number < rate:
            return name
        number -= rate
    return ""


def describe(
    measured: AcousticMeasurement, label: str | None, draw: random.Random, mistake: str
) -> str:
    """Write a caption of what was measured; a label of the rate takes precedence."""
    rate = RATE_LABELS.index(label) if label in RATE_LABELS else measured.level("rate")
    if mistake == "wrong_rate":
        rate = 2 - rate if rate != 1 else 2
    pitch = f", around {measured.hertz:.0f} hertz" if measured.hertz == measured.hertz else ""
    volume = VOLUMES[measured.level("loudness")]
    first = f"{draw.choice(OPENINGS)} {RATES[rate]} and {volume}{pitch}."
    if mistake == "short":
        return first
    return f"{first} {draw.choice(ENDINGS)}{MISTAKES.get(mistake, '')}"


def check(caption: str, found: str, rules: list[str]) -> dict[str, dict[str, Any]]:
    """Return a verdict per rule from the caption and from what the tools found."""
    shared = re.search(r"shared with the transcript: '([^']*)'", found)
    label = re.search(r"speaking rate: (\w+ speed)", found)
    rate = claims(caption).get("rate")
    contradicts = label and rate is not None and RATE_LABELS.index(label[1]) != rate
    broken = {
        "surroundings": bool(re.search(r"microphone|noise|recording|background", caption)),
        "absence": "absence:" in found,
        "content": bool(shared and len(shared[1].split()) >= 4) or '"' in caption,
        "single_speaker": "second speaker" in found,
        "labels": bool(contradicts),
    }
    return {rule: {"reason": f"{rule} by rule", "broken": broken[rule]} for rule in rules}


def score(caption: str, measured: AcousticMeasurement) -> dict[str, int]:
    """Score a caption: what it claims, how much, and whether it is made of sentences."""
    gender, said = claimed_gender(caption), claims(caption)
    levels = {attribute: measured.level(attribute, gender) for attribute in said}
    known = {attribute: level for attribute, level in levels.items() if level is not None}
    right = sum(said[attribute] == level for attribute, level in known.items())
    sentences = re.fullmatch(r"([A-Z][^.]*\w\.\s*)+", caption) is not None
    return {
        "correctness": round(1 + 4 * right / len(known)) if known else 3,
        "coverage": 1 + min(4, len(known) + (gender is not None)),
        "naturalness": 5 if sentences else 2,
    }


class AcousticHandler(BaseHTTPRequestHandler):
    """Answers requests; ``options`` are those of the command line."""

    protocol_version = "HTTP/1.1"
    options: argparse.Namespace

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        """List the models."""
        models = [{"id": name, "object": "model"} for name in (CAPTIONER, VERIFIER, JUDGE)]
        self._send({"object": "list", "data": models})

    def do_POST(self) -> None:
        """Answer a conversation."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = json.loads(body)
        answer = {CAPTIONER: self._caption, VERIFIER: self._verify, JUDGE: self._judge}
        messages = answer[request["model"]](request)
        choices = [
            {"index": n, "finish_reason": "stop", "message": {"role": "assistant", **message}}
            for n, message in enumerate(messages)
        ]
        tokens = {"prompt_tokens": len(body) // 4, "completion_tokens": 40 * len(choices)}
        usage = {**tokens, "total_tokens": sum(tokens.values())}
        head = {"id": "x", "object": "chat.completion", "created": 0, "model": request["model"]}
        self._send({**head, "choices": choices, "usage": usage})

    def _caption(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        audio, text = _audio_and_text(request)
        measured = _measure(audio)
        label = re.search(r"speaking rate: (\w+ speed)", text)
        captions = []
        for number in range(request.get("n", 1)):
            draw = self._draw(audio, number)
            mistake = draw_mistake(self.options.mistakes, draw)
            captions.append(describe(measured, label and label[1], draw, mistake))
        return [{"content": caption} for caption in captions]

    def _verify(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        messages = request["messages"]
        results = [message["content"] for message in messages if message["role"] == "tool"]
        if request.get("tools") and not results:
            functions = [
                {"name": tool["function"]["name"], "arguments": "{}"} for tool in request["tools"]
            ]
            calls = [{"id": f["name"], "type": "function", "function": f} for f in functions]
            return [{"content": None, "tool_calls": calls}]
        if "response_format" not in request:
            return [{"content": "I have seen enough."}]
        rules = request["response_format"]["json_schema"]["schema"]["required"]
        caption = messages[1]["content"].partition("\n")[2]
        return [{"content": json.dumps(check(caption, "\n".join(results), rules))}]

    def _judge(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        audio, text = _audio_and_text(request)
        measured = _measure(audio)
        draw = self._draw(audio + text.encode(), request.get("seed", 0))
        if request["response_format"]["json_schema"]["name"] == "score":
            values = score(text.partition("The description:\n")[2].strip(), measured)
            for name, value in values.items():
                if draw.random() < self.options.noise:
                    values[name] = min(5, max(1, value + draw.choice((-1, 1))))
            return [{"content": json.dumps({"reason": "", **values})}]
        pair = re.search(r"First description:\n(.*)\n\nSecond description:\n(.*)", text, re.S)
        first, second = (score(caption.strip(), measured) for caption in pair.groups())
        biased = draw.random() < self.options.position_bias
        chosen = {name: "first" if biased else _prefer(first[name], second[name]) for name in first}
        return [{"content": json.dumps({"reason": "", **chosen})}]

    def _draw(self, content: bytes, number: int) -> random.Random:
        """Return chance that is the same for the same question."""
        digest = hashlib.sha256(content).hexdigest()
        return random.Random(f"{self.options.seed} {number} {digest}")

    def _send(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _audio_and_text(request: dict[str, Any]) -> tuple[bytes, str]:
    """Return the audio and the text of a request."""
    parts = {part["type"]: part for part in request["messages"][0]["content"]}
    audio = base64.b64decode(parts["input_audio"]["input_audio"]["data"])
    return audio, parts["text"]["text"]


def _measure(wav: bytes) -> AcousticMeasurement:
    return measure_acoustics(soundfile.read(io.BytesIO(wav), dtype="float64")[0])


def _prefer(first: int, second: int) -> str:
    return "tie" if first == second else "first" if first > second else "second"


def read_rates(words: list[str]) -> dict[str, float]:
    """Read ``NAME=RATE`` of mistakes."""
    rates = {name: float(rate) for name, rate in parse_key_values(words, "--mistakes").items()}
    unknown = set(rates) - set(MISTAKES)
    if unknown or sum(rates.values()) > 1:
        raise SystemExit(f"--mistakes: NAME=RATE of {', '.join(MISTAKES)}, in all at most 1")
    return rates


def main() -> None:
    """Serve until interrupted; prints the address."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    parser.add_argument("--mistakes", nargs="+", default=[], metavar="NAME=RATE")
    parser.add_argument("--noise", type=float, default=0.0, help="fraction of scores off by one")
    parser.add_argument(
        "--position-bias", type=float, default=0.0, help="fraction of pairs whose first place wins"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.mistakes = read_rates(options.mistakes)
    AcousticHandler.options = options
    server = ThreadingHTTPServer(("127.0.0.1", options.port), AcousticHandler)
    print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
