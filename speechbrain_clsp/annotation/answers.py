"""What a model answered: its text without reasoning, objects in it, and errors in its place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from speechbrain_clsp.annotation.retries import ErrorAnswerError, RequestRejectedError

QUOTED = 200  # characters of an answer that messages quote
_NAMES = "think|thinking|thought|thoughts|reasoning|reflection|analysis|seed:think"
_OPEN, _CLOSE = rf"(?:<(?:{_NAMES})>|\[THINK\])", rf"(?:</(?:{_NAMES})>|\[/THINK\])"
# All up to the last end of reasoning: templates may begin it, so that the answer has the end only.
_REASONING = re.compile(rf"^.*{_CLOSE}", re.IGNORECASE | re.DOTALL)
_UNFINISHED = re.compile(rf"{_OPEN}.*$", re.IGNORECASE | re.DOTALL)
_FINAL = re.compile(r"^.*<\|channel\|>final.*?<\|message\|>", re.DOTALL)  # of gpt-oss
_MARKUP = re.compile(r"</?[A-Za-z][\w:|-]*>|<\|[^|<>]*\|>|\[/?(?:THINK|INST)\]")


def without_reasoning(text: str) -> str:
    """Return a text without what the model thought, such as ``<think>...</think>``.

    Example
    -------
    >>> without_reasoning("<think>A man, or not?</think> A man speaks.")
    'A man speaks.'
    >>> without_reasoning("A man, or not?</think>A man speaks."), without_reasoning("<think>A man")
    ('A man speaks.', '')
    """
    text = _FINAL.sub("", text)
    return _UNFINISHED.sub("", _REASONING.sub("", text)).strip()


def found_markup(text: str) -> list[str]:
    """Return the tags in a text that should have none, such as those of a chat template.

    Example
    -------
    >>> found_markup("A man</answer> speaks.<|im_end|>"), found_markup("Pitch < 100 Hz")
    (['</answer>', '<|im_end|>'], [])
    """
    return _MARKUP.findall(text)


def answer_text(choice: Any) -> str:
    """Return the text of a choice, of one part or several, without reasoning.

    Arguments
    ---------
    choice : openai.types.chat.chat_completion.Choice
        One of an answer.

    Raises
    ------
    ValueError
        If its content is something else.
    """
    content = getattr(getattr(choice, "message", None), "content", None)
    if isinstance(content, Sequence) and not isinstance(content, str):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) < len(parts):
            raise ValueError(f"a content that is no text: {excerpt(content)}")
        content = "".join(texts)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"a content that is no text: {excerpt(content)}")
    return without_reasoning(content or "")


def refusal_of(choice: Any) -> str:
    """Return by which words a model refused to answer, "" if it did not."""
    refusal = getattr(choice.message, "refusal", None)
    if isinstance(refusal, str) and refusal.strip():
        return f"the model refuses: {excerpt(refusal)}"
    if _ended_by(choice) == "content_filter":
        return "the server's content filter"
    return ""


def is_cut_off(choice: Any) -> bool:
    """Return whether a choice ends where it does because of ``max_tokens``."""
    return _ended_by(choice) == "length"


def _ended_by(choice: Any) -> Any:
    return getattr(choice, "finish_reason", None)


def why_empty(choice: Any) -> str:
    """Return why a choice without text and tool calls has none, and what to do about it."""
    message = choice.message
    thoughts = [getattr(message, name, None) for name in ("reasoning_content", "reasoning")]
    texts = [text for text in [*thoughts, message.content] if isinstance(text, str)]
    thought = next((text for text in texts if text.strip()), "")
    if is_cut_off(choice):
        cut = "it was cut off: raise max_tokens of sampling"
        return f"only reasoning ({excerpt(thought)}), {cut}" if thought else f"no text, {cut}"
    if thought:
        return (
            f"only reasoning, no answer ({excerpt(thought)}): raise max_tokens of sampling, or"
            " start the server with the reasoning parser of this model"
        )
    return "neither text nor tool calls"


def check_answer(answer: Any) -> list[Any]:
    """Return the choices of an answer.

    Arguments
    ---------
    answer : openai.types.chat.ChatCompletion
        As the client library made it from what the server sent, of which it checks nothing.

    Raises
    ------
    ErrorAnswerError
        If it holds an error instead of choices.
    RequestRejectedError
        If the model refuses, or the server's content filter does.
    ValueError
        If it is not an answer, or an empty one.
    """
    choices = getattr(answer, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise _no_choices(answer)
    texts = [_check_choice(choice) for choice in choices]
    refusals = [refusal_of(choice) for choice in choices]
    if all(refusals):
        raise RequestRejectedError(refusals[0])
    if not any(texts) and not choices[0].message.tool_calls:
        raise ValueError(why_empty(choices[0]))
    return choices


def _check_choice(choice: Any) -> str:
    """Return a choice's text; raise ValueError if it is not of the protocol."""
    message = getattr(choice, "message", None)
    if not hasattr(message, "content"):
        raise ValueError(f"a choice without a message: {excerpt(choice)}")
    calls = getattr(message, "tool_calls", None) or []
    for call in calls if isinstance(calls, list) else [calls]:
        name = getattr(getattr(call, "function", None), "name", None)
        if not (isinstance(name, str) and isinstance(getattr(call, "id", None), str)):
            raise ValueError(f"a tool call without name and id: {excerpt(call)}")
    return answer_text(choice)


def _no_choices(answer: Any) -> Exception:
    """Return the error that an answer without choices stands for."""
    content = answer.to_dict(warnings=False) if hasattr(answer, "to_dict") else answer
    if not isinstance(content, dict):
        return ValueError(f"no answer of the chat-completions protocol, but {excerpt(content)}")
    error = content.get("error")
    if error is None and content.get("object") == "error":
        error = content  # as older vLLM servers have it
    if error is None and "detail" in content:
        error = {"message": content["detail"]}  # FastAPI's
    if not error:
        return ValueError(f"no choices, but {excerpt(content)}")
    message = error.get("message") if isinstance(error, dict) else error
    code = error.get("code", error.get("status")) if isinstance(error, dict) else None
    code = int(code) if isinstance(code, int | str) and str(code).isdecimal() else 0
    return ErrorAnswerError(code, f"an error in place of an answer: {excerpt(message or error)}")


def read_object(text: str, read: Callable[[dict[str, Any]], Any]) -> Any:
    """Return what ``read`` makes of the last JSON object in a text that it can read.

    Arguments
    ---------
    text : str
        An answer; reasoning, and words around an object, are passed over.
    read : callable
        Raises ValueError, KeyError or TypeError for an object that it cannot read.

    Raises
    ------
    ValueError
        If there is none; with the reason for the last.

    Example
    -------
    >>> read_object('<think>{"a": 1}?</think> It is {"a": 2}. {}', lambda found: found["a"])
    2
    """
    reason = "it holds no JSON object"
    for found in reversed(list(_objects(without_reasoning(text)))):
        try:
            return read(found)
        except KeyError as error:
            reason = f"it lacks {error}"
        except (ValueError, TypeError) as error:
            reason = str(error)
    raise ValueError(reason)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in a text, from left to right, not those inside of others."""
    decoder, start = json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
            yield found
        except (ValueError, RecursionError):
            end = start + 1
        start = text.find("{", end)


def excerpt(value: Any) -> str:
    """Return the beginning of a value as messages quote it, in one line.

    Example
    -------
    >>> excerpt("one  " * 99)[-8:]
    "one '..."
    """
    line = " ".join((value if isinstance(value, str) else repr(value)).split())
    return repr(line) if len(line) <= QUOTED else f"{line[:QUOTED]!r}..."
