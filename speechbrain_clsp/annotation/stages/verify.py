"""The second stage: a text LLM checks every caption against rules, with tools to look things up.

It does not get the audio. For each caption it may call tools (suspicious words, the transcript,
people's labels of the clip), then gives a verdict per rule; a caption that breaks any is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from speechbrain_clsp.annotation.answers import answer_text, excerpt
from speechbrain_clsp.annotation.client import ChatClient, ServerSettings
from speechbrain_clsp.annotation.prompts import fill, label_lines, template_text
from speechbrain_clsp.annotation.records import record_key, row_of
from speechbrain_clsp.annotation.run import Job, gather_or_cancel
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

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_least(rounds=0, verdicts=1)


def verify_rules() -> dict[str, str]:
    """Return the verifier's rules, by name.

    Example
    -------
    >>> list(verify_rules())
    ['surroundings', 'absence', 'content', 'single_speaker', 'labels']
    """
    return json.loads(template_text("verify_rules.json"))


def verify_jobs(
    records: Iterable[Mapping[str, Any]],
    manifest: Manifest,
    settings: VerifySettings,
    transcripts: Mapping[str, str],
) -> Iterator[Job]:
    """Return a job per record of the captions' stage; transcripts are by id of the clip.

    Returns
    -------
    iterator of Job
        Records have ``captions``, ``dropped`` and ``verdicts``: for each caption, rule to reason of
        those that it breaks.
    """
    for record in records:
        facts = ClipFacts(row_of(record, manifest), transcripts.get(record["id"]))
        yield _job(record, facts, settings)


class ClipFacts:
    """What is known about a clip, its row and transcript, as tools that a model can call.

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
        functions = [
            {"name": name, "description": about, "parameters": nothing}
            for name, about in self.ABOUT.items()
        ]
        return [{"type": "function", "function": function} for function in functions]

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


async def verify_caption(
    client: ChatClient, caption: str, facts: ClipFacts, settings: VerifySettings
) -> dict[str, str]:
    """Let the model use its tools on a caption, then ask for its verdict.

    Returns the reasons by broken rule, none if the caption passed; raises RequestRejectedError if
    no verdict is well-formed.
    """
    rules = verify_rules()
    listed = "\n".join(f"- {rule}: {text}" for rule, text in rules.items())
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": fill(settings.template, rules=listed)},
        {"role": "user", "content": f"The description:\n{caption}"},
    ]
    for _ in range(settings.rounds):
        choices = await client.complete(messages, settings.sampling, tools=facts.tools())
        message = choices[0].message
        calls = message.tool_calls or []
        # What the model thought is not sent back.
        said = message.model_dump(include={"tool_calls"}, exclude_none=True)
        text = answer_text(choices[0]) or None
        messages.append({"role": "assistant", "content": text, **said})
        for call in calls:
            content = facts.call(call.function.name, caption)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
        if not calls:
            break
    messages.append({"role": "user", "content": template_text("verify_verdict.txt")})
    schema = dict.fromkeys(rules, VERDICT)
    return await client.complete_object(
        messages, settings.sampling, "verdict", schema, broken_rules, settings.verdicts
    )


def broken_rules(verdict: Mapping[str, Any]) -> dict[str, str]:
    """Return the reasons by rule that a verdict says is broken.

    Raises KeyError if it lacks a rule, ValueError if it says neither true nor false of one.

    Example
    -------
    >>> broken = {rule: rule == "absence" for rule in verify_rules()}
    >>> verdict = {rule: {"reason": "says no", "broken": broken[rule]} for rule in broken}
    >>> broken_rules(verdict)
    {'absence': 'says no'}
    """
    broken = {}
    for rule in verify_rules():
        found = verdict[rule]
        if not isinstance(found, dict):
            raise ValueError(f"{rule} is {excerpt(found)}, no object with broken and reason")
        flag = {"true": True, "false": False}.get(str(found["broken"]).strip().lower())
        if flag is None:
            raise ValueError(f"broken of {rule} is {excerpt(found['broken'])}, not true or false")
        if flag:
            broken[rule] = str(found["reason"])
    return broken


def _job(record: Mapping[str, Any], facts: ClipFacts, settings: VerifySettings) -> Job:
    name, captions = record["id"], record["captions"]
    asked = (captions, facts.label_lines, facts.transcript, settings.model, dict(settings.sampling))
    key = record_key(name, *asked, fill(settings.template, rules=json.dumps(verify_rules())))

    if not captions:
        nothing = {"row": record["row"], "captions": [], "dropped": [], "verdicts": []}
        return Job(name, key, lambda: (key, nothing))

    async def ask(client: ChatClient) -> dict[str, Any]:
        checks = [verify_caption(client, caption, facts, settings) for caption in captions]
        verdicts = await gather_or_cancel(checks)
        kept, dropped = [], []
        for caption, broken in zip(captions, verdicts):
            if broken:
                rule, reason = next(iter(broken.items()))
                dropped.append({"caption": caption, "rule": rule, "reason": reason})
            else:
                kept.append(caption)
        return {"row": record["row"], "captions": kept, "dropped": dropped, "verdicts": verdicts}

    return Job(name, key, lambda: (key, ask))
