"""The second stage: a text LLM checks every caption against rules, with tools to look things up.

It does not get the audio. For each caption it may call tools (suspicious words, the transcript,
people's labels of the clip), then gives a verdict per rule; a caption that breaks any is dropped.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from speechbrain_clsp.annotation.client import ChatClient, Completion, ServerSettings
from speechbrain_clsp.annotation.prompts import fill, label_lines, template_text, verify_rules
from speechbrain_clsp.annotation.records import record_key, row_of
from speechbrain_clsp.annotation.run import Job, Request
from speechbrain_clsp.annotation.stages.filter import (
    SEVERAL,
    FilterSettings,
    caption_faults,
    found_phrases,
    longest_quotation,
)
from speechbrain_clsp.dataio.manifest import Manifest

SAMPLING = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 4096}
VERDICT = {  # the JSON schema of what is said of one rule
    "type": "object",
    "properties": {"reason": {"type": "string"}, "broken": {"type": "boolean"}},
    "required": ["reason", "broken"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class VerifySettings(ServerSettings):
    """How captions are checked, beside which servers check them.

    Arguments
    ---------
    sampling : dict
        See :meth:`~speechbrain_clsp.annotation.client.ChatClient.complete`.
    template : str
        Template with ``${rules}``.
    rounds : int
        Most rounds of tool calls per caption.
    verdicts : int
        How often a verdict is asked for until it is well-formed.
    """

    sampling: Mapping[str, Any] = field(default_factory=lambda: dict(SAMPLING))
    template: str = "verify.txt"
    rounds: int = 4
    verdicts: int = 3


def verify_jobs(
    records: Iterable[Mapping[str, Any]],
    manifest: Manifest,
    settings: VerifySettings,
    transcripts: Mapping[str, str] | None = None,
) -> Iterator[Job]:
    """Return a job per record of the captions' stage.

    Arguments
    ---------
    records : iterable of dict
        With ``id``, ``row`` and ``captions``.
    manifest : Manifest
        The clips.
    settings : VerifySettings
        What is asked.
    transcripts : mapping, optional
        What is said, by id of the clip.

    Returns
    -------
    iterator of Job
        Records have ``captions``, ``dropped`` and ``verdicts``: for each caption, rule to reason of
        those that it breaks.
    """
    for record in records:
        row = row_of(record, manifest)
        yield _job(record, ClipFacts(row, (transcripts or {}).get(record["id"])), settings)


class ClipFacts:
    """What is known about a clip, as tools that a model can call.

    Arguments
    ---------
    row : mapping
        Its row of the manifest.
    transcript : str, optional
        What is said.

    Example
    -------
    >>> facts = ClipFacts({"accent": "Scottish"}, "Come in, please.")
    >>> facts.call("labels", "A man."), facts.call("transcript_overlap", "He says come in gently")
    ('- accent: Scottish', "shared with the transcript: 'come in'")
    """

    ABOUT: ClassVar[dict[str, str]] = {
        "suspicious_words": "Lists words of the description that often break a rule.",
        "transcript_overlap": "Tells the longest run of words shared with what is said.",
        "labels": "Tells the labels that people who listened gave to the recording.",
        "several_speakers": "Lists phrases of the description that speak of several people.",
    }

    def __init__(self, row: Mapping[str, Any], transcript: str | None = None) -> None:
        self.label_lines = label_lines(row)
        self.transcript = transcript

    def tools(self) -> list[dict[str, Any]]:
        """Return the tools as the protocol describes them; none takes arguments."""
        nothing = {"type": "object", "properties": {}}
        return [
            {
                "type": "function",
                "function": {"name": name, "description": about, "parameters": nothing},
            }
            for name, about in self.ABOUT.items()
        ]

    def call(self, name: str, caption: str) -> str:
        """Answer a call about a caption; for a name that is not a tool, list the tools."""
        match name:
            case "suspicious_words":
                faults = caption_faults(caption, FilterSettings(several=()))
                return "; ".join(f"{rule}: {reason}" for rule, reason in faults) or "nothing"
            case "transcript_overlap":
                if not self.transcript:
                    return "there is no transcript"
                shared = longest_quotation(caption, self.transcript)
                return f"shared with the transcript: {shared!r}" if shared else "no word is shared"
            case "labels":
                return "\n".join(self.label_lines) or "people gave no labels"
            case "several_speakers":
                return ", ".join(found_phrases(caption, SEVERAL)) or "nothing"
        return f"There is no tool {name!r}, only {', '.join(self.ABOUT)}"


def broken_rules(verdict: Mapping[str, Any], rules: Iterable[str]) -> dict[str, str]:
    """Return the rules that a verdict says are broken, with the reasons.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is not a verdict on all rules.

    Example
    -------
    >>> broken_rules({"absence": {"reason": "says no", "broken": True}}, ["absence"])
    {'absence': 'says no'}
    """
    broken = {rule: (verdict[rule]["broken"], str(verdict[rule]["reason"])) for rule in rules}
    if not all(isinstance(flag, bool) for flag, _ in broken.values()):
        raise ValueError("broken must be true or false")
    return {rule: reason for rule, (flag, reason) in broken.items() if flag}


async def verify_caption(
    client: ChatClient, caption: str, facts: ClipFacts, settings: VerifySettings
) -> dict[str, str]:
    """Let the model use its tools, then ask for its verdict.

    Arguments
    ---------
    client : ChatClient
        The client.
    caption : str
        What is checked.
    facts : ClipFacts
        What is known about the clip.
    settings : VerifySettings
        The settings.

    Returns
    -------
    dict
        Reason by broken rule; empty if the caption passed.

    Raises
    ------
    RequestRejectedError
        If no verdict is well-formed.
    """
    rules = verify_rules()
    listed = "\n".join(f"- {rule}: {text}" for rule, text in rules.items())
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": fill(settings.template, rules=listed)},
        {"role": "user", "content": f"The description:\n{caption}"},
    ]
    for _ in range(settings.rounds):
        answer = await client.complete(messages, settings.sampling, tools=facts.tools())
        calls = answer.message.get("tool_calls") or []
        messages += [_said(answer), *(_result(call, facts, caption) for call in calls)]
        if not calls:
            break
    messages.append({"role": "user", "content": template_text("verify_verdict.txt")})
    return await client.complete_object(
        messages,
        settings.sampling,
        "verdict",
        dict.fromkeys(rules, VERDICT),
        lambda verdict: broken_rules(verdict, rules),
        settings.verdicts,
    )


def _said(answer: Completion) -> dict[str, Any]:
    """Return the model's message as history: what it thought is not sent back."""
    kept = ("content", "tool_calls")
    said = {name: answer.message[name] for name in kept if name in answer.message}
    return {"role": "assistant", "content": None, **said}


def _result(call: Mapping[str, Any], facts: ClipFacts, caption: str) -> dict[str, Any]:
    content = facts.call(call["function"]["name"], caption)
    return {"role": "tool", "tool_call_id": call["id"], "content": content}


def _job(record: Mapping[str, Any], facts: ClipFacts, settings: VerifySettings) -> Job:
    name, captions = record["id"], record["captions"]
    asked = (captions, facts.label_lines, facts.transcript, settings.model, dict(settings.sampling))
    key = record_key(name, *asked, fill(settings.template, rules=json.dumps(verify_rules())))

    async def ask(client: ChatClient) -> dict[str, Any]:
        checks = [verify_caption(client, caption, facts, settings) for caption in captions]
        verdicts = await asyncio.gather(*checks)
        dropped = [
            {"caption": caption, "rule": rule, "reason": reason}
            for caption, broken in zip(captions, verdicts)
            for rule, reason in list(broken.items())[:1]
        ]
        kept = [caption for caption, broken in zip(captions, verdicts) if not broken]
        found = {"captions": kept, "dropped": dropped, "verdicts": list(verdicts)}
        return {"row": record["row"], **found}

    return Job(name, key, lambda: Request(key, ask))
