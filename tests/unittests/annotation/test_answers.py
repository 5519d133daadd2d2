"""Answers as models and servers give them: with reasoning, refusals, errors, in other shapes."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from speechbrain_clsp.annotation.answers import (
    answer_text,
    check_answer,
    found_markup,
    read_object,
    why_empty,
    without_reasoning,
)
from speechbrain_clsp.annotation.judge import read_answer
from speechbrain_clsp.annotation.retries import ErrorAnswerError, RequestRejectedError
from speechbrain_clsp.annotation.stages.filter import FilterSettings, filter_captions
from speechbrain_clsp.annotation.stages.verify import broken_rules, verify_rules

SCORES = {"correctness": 4, "coverage": 5, "naturalness": 3}
NAMES = st.sampled_from([*SCORES, *verify_rules(), "reason", "broken", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "text",
    [
        "<think>A man? {no}</think>A man speaks.",
        "<think>\nlong\n</think>\n\nA man speaks.",
        "it began before</think> A man speaks.",
        "<THINK>a</THINK><think>b</think>A man speaks.",
        "[THINK]a[/THINK]A man speaks.",
        "<thinking>a</thinking> A man speaks.",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>"
        "A man speaks.",
    ],
)
def test_reasoning_is_no_part_of_an_answer(text):
    assert without_reasoning(text) == "A man speaks."


def test_reasoning_that_does_not_end_leaves_no_answer():
    assert without_reasoning("<think>A man speaks, or does he") == ""
    assert without_reasoning("A man < 40 years speaks > 3 words.").startswith("A man < 40")


def test_a_caption_with_markup_is_never_kept():
    captions = [
        "A man <think>no</think> speaks.",
        "A man speaks.</answer>",
        "A man speaks.<|im_end|>",
        "A man speaks.",
    ]
    kept, dropped = filter_captions(captions, FilterSettings(shortest=5))
    assert kept == ["A man speaks."] and {drop["rule"] for drop in dropped} == {"markup"}
    assert found_markup(captions[1]) == ["</answer>"]


@pytest.mark.parametrize(
    ("value", "score"),
    [("4", 4), (" 4 ", 4), (4.0, 4), (4.5, 4.5), ("4.5", 4.5), (1, 1), (5, 5)],
)
def test_scores_may_be_text_or_between_whole_numbers(value, score):
    assert read_answer("score", SCORES | {"coverage": value})["coverage"] == score


@pytest.mark.parametrize("value", [0, 6, "6", True, None, "good", "4/5", [4], float("nan"), 1e400])
def test_a_score_that_is_none_is_named(value):
    with pytest.raises(ValueError, match="coverage is .* not a number from 1 to 5"):
        read_answer("score", SCORES | {"coverage": value})


def test_choices_are_read_in_capitals_and_others_named():
    pair = dict.fromkeys(SCORES, "First ")
    assert read_answer("pair", pair) == dict.fromkeys(SCORES, "first")
    with pytest.raises(ValueError, match="correctness is 'both', none of first, second, tie"):
        read_answer("pair", pair | {"correctness": "both"})


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(SCORES),
        f'<think>{{"correctness": 1}} or {json.dumps(SCORES | {"coverage": 1})}?</think>'
        + json.dumps(SCORES),
        f"```json\n{json.dumps(SCORES)}\n```",
        f"Scores {{of this clip}}: {json.dumps(SCORES)}. See {{}}.",
    ],
)
def test_objects_are_found_among_words_and_after_reasoning(text):
    assert read_object(text, lambda found: read_answer("score", found)) == SCORES


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A 4, I think.", "it holds no JSON object"),
        ('{"correctness": 4}', "it lacks 'coverage'"),
        ("[4, 5, 3]", "it holds no JSON object"),
        (json.dumps(SCORES | {"coverage": 9}), "coverage is 9 is not a number from 1 to 5"),
    ],
)
def test_what_is_wrong_with_an_object_is_said(text, reason):
    with pytest.raises(ValueError) as caught:
        read_object(text, lambda found: read_answer("score", found))
    assert str(caught.value) == reason


def completion(*messages: dict, **answer) -> ChatCompletion:
    """Make an answer as the client library makes it, without a check."""
    choices = [{"index": 0, "finish_reason": "stop", "message": m} for m in messages]
    return ChatCompletion.construct(**({"choices": choices} if choices else {}), **answer)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (completion({"content": None, "reasoning_content": "Hm"}), ValueError, "only reasoning"),
        (completion({"content": "", "reasoning": "Hm, so"}), ValueError, "Hm, so"),
        (completion({"content": "<think>Hm, so"}), ValueError, "raise max_tokens"),
        (completion({"content": None, "refusal": "I cannot."}), RequestRejectedError, "I cannot."),
        (completion({"content": " "}), ValueError, "neither text nor tool calls"),
        (completion({"content": 5}), ValueError, "a content that is no text: '5'"),
        (completion({"text": "A man."}), ValueError, "neither|without"),
        (completion({"content": "", "tool_calls": [{}]}), ValueError, "a tool call without name"),
        (completion(error={"message": "no memory", "code": 500}), ErrorAnswerError, "no memory"),
        (completion(error="no such model"), ErrorAnswerError, "no such model"),
        (completion(object="error", message="too long", code=400), ErrorAnswerError, "too long"),
        (completion(detail="Not found"), ErrorAnswerError, "Not found"),
        (completion(), ValueError, "no choices"),
        ("<html>Welcome</html>", ValueError, "no answer of the chat-completions protocol, but"),
        (None, ValueError, "no answer of the chat-completions protocol"),
    ],
)
def test_what_is_no_answer_is_said_in_its_own_words(answer, kind, said):
    with pytest.raises(kind, match=said):
        check_answer(answer)


def test_parts_of_a_text_are_joined():
    parts = [{"type": "text", "text": "A man"}, {"type": "text", "text": " speaks."}]
    (choice,) = check_answer(completion({"content": parts}))
    assert answer_text(choice) == "A man speaks."


@settings(max_examples=150, deadline=None)
@given(JSON)
def test_any_answer_is_read_or_refused(content):
    fields = content if isinstance(content, dict) else {"content": content}
    for answer in (
        content,
        ChatCompletion.construct(choices=content, error=content),
        completion(fields),
        ChatCompletion.construct(choices=[{"message": fields}]),
        SimpleNamespace(choices=[content]),
    ):
        try:
            for choice in check_answer(answer):
                assert isinstance(answer_text(choice) + why_empty(choice), str)
        except (ValueError, ErrorAnswerError, RequestRejectedError) as error:
            assert str(error)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=20), JSON, st.text(max_size=20))
def test_any_verdict_is_read_or_refused(before, content, after):
    text = f"{before}{json.dumps(content)}{after}"
    for read in (
        lambda found: read_answer("score", found),
        lambda found: read_answer("pair", found),
        broken_rules,
    ):
        try:
            found = read_object(text, read)
            assert isinstance(found, dict)
        except ValueError as error:
            assert str(error)
