"""Files of pairs: what is written is read, and a wrong line is named."""

import json

import pytest

from speechbrain_clsp.evaluation.probes.pairs import ProbePair, pick_evenly, read_pairs, write_pairs

PAIR = {
    "kind": "order",
    "attribute": "rate",
    "side": "captions",
    "anchor": "clip1",
    "true": "Slow, then fast.",
    "false": "Fast, then slow.",
}


def test_pairs_come_back_as_they_were_written(tmp_path):
    texts = ["He says \u201cno\u201d.", "Two\u2028lines.", "\u00dcber."]
    pairs = [ProbePair(**PAIR), ProbePair("paraphrase", "order", "texts", *texts)]
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path / "pairs.jsonl", {"clip1"}) == pairs


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "rank"}, "kind must be one of attribute, order"),
        ({"side": "audio"}, "side must be one of captions, clips, texts"),
        ({"anchor": "clip9"}, "the manifest has no clip 'clip9'"),
        ({"side": "clips", "true": "clip1", "false": "clip8"}, "no clip 'clip8'"),
        ({"true": " "}, "true must be a string that is not empty"),
        ({"true": 3}, "true must be a string"),
        ({"false": "Slow, then fast."}, "true and false are the same"),
        ({"note": "x"}, "a pair is a JSON object of kind, attribute, side"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, change, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{json.dumps(PAIR)}\n\n{json.dumps(PAIR | change)}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        read_pairs(path, {"clip1"})
    assert f"{path}, line 3: " in str(error.value)


@pytest.mark.parametrize("text", ["{", "[1]", '"order"', '{"kind": "order"}'])
def test_what_is_not_a_pair_is_rejected(tmp_path, text):
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match="pairs.jsonl, line 1: "):
        read_pairs(path, {"clip1"})


def test_an_empty_file_is_rejected(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no pairs"):
        read_pairs(path, set())


def test_examples_are_of_every_group():
    pairs = [
        ProbePair("order", attribute, "texts", f"{attribute}{i}", "b", "c")
        for attribute, number in (("rate", 40), ("pitch", 2), ("loudness", 9))
        for i in range(number)
    ]
    shown = [pair.attribute for pair in pick_evenly(pairs, 30)]
    assert [shown.count(name) for name in ("rate", "pitch", "loudness")] == [19, 2, 9]
    assert pick_evenly([], 30) == []
