"""Which captions of a clip are taken."""

import random
from collections import Counter

import pytest

from speechbrain_clsp.captions.perturbation import AttributeSwap, between_values
from speechbrain_clsp.captions.policies import (
    FewDraws,
    OneFineCaption,
    Texts,
    TwoCaptions,
    WithHardNegatives,
    evaluation_captions,
)
from tests.utils.small import ROW

SWAP = AttributeSwap(
    between_values(
        {"rate": [["slowly"], ["at a fast pace"]], "accent": [["American"], ["Scottish"]]}
    )
)


def test_two_captions_follow_their_probability():
    """If this fails, the mix of global and fine texts is not the one asked for."""
    generator = random.Random(0)
    drawn = [TwoCaptions(0.3)(ROW, generator).positives for _ in range(4000)]
    share = sum(first.startswith("G") for first, _ in drawn) / len(drawn)
    assert abs(share - 0.3) < 0.03
    assert all(second.startswith("F") and first != second for first, second in drawn)
    assert len(Counter(map(tuple, drawn))) == 2 * 3 + 3 * 2


def test_the_mix_of_captions_follows_its_schedule():
    """If this fails, stage 2 does not go from global to fine captions as published."""
    policy = TwoCaptions((0.95, 0.5, 10000))
    published = [max(0.5, 0.95 - 0.45 * step / 10000) for step in (0, 1000, 9999, 10000, 50000)]
    assert [policy.probability(s) for s in (0, 1000, 9999, 10000, 50000)] == pytest.approx(
        published
    )
    drawn = [policy(ROW, random.Random(seed), step=4000).positives[0] for seed in range(4000)]
    assert abs(sum(text.startswith("G") for text in drawn) / 4000 - 0.77) < 0.03
    drawn = [OneFineCaption()(ROW, random.Random(seed)) for seed in range(50)]
    assert {tuple(texts.positives) for texts in drawn} == {("F1",), ("F2",), ("F3",)}


def test_clips_with_few_captions_are_served_or_refused():
    """If this fails, a clip with a single caption stops an epoch, or a clip without any trains."""
    policy, generator = TwoCaptions(1.0), random.Random(0)
    for globals_, fines in ((["G"], []), ([], ["G"])):
        row = {**ROW, "global_captions": globals_, "fine_captions": fines}
        assert policy(row, generator) == Texts(["G", "G"])
    for broken in ({**ROW, "global_captions": [], "fine_captions": []},):
        with pytest.raises(ValueError, match="'a'"):
            policy(broken, generator)
        with pytest.raises(ValueError, match="'a'"):
            evaluation_captions(broken)


def test_hard_negatives_follow_the_true_texts():
    """If this fails, false captions are trained on as true ones."""
    policy = WithHardNegatives(TwoCaptions(), SWAP, n_negatives=2)
    row = {**ROW, "global_captions": ["He talks slowly."], "fine_captions": ["A.", "B."]}
    texts = [policy(row, random.Random(seed)) for seed in range(20)]
    assert all(len(set(each.positives)) == len(each.negatives) == 2 for each in texts)
    for each in texts:
        wrong = ["He talks at a fast pace." if "slowly" in x else x for x in each.positives]
        assert each.negatives == wrong


def test_few_draws_of_a_clip_repeat_and_differ_from_those_of_others():
    """If there are more, a frozen encoder encodes captions anew in every epoch."""
    policy = FewDraws(WithHardNegatives(TwoCaptions(), SWAP), number=3)
    row = {**ROW, "global_captions": ["He talks slowly."], "fine_captions": list("ABCDEFGHIJKLM")}
    drawn = [{str(policy({**row, "id": i}, random.Random(n))) for n in range(99)} for i in "ab"]
    assert [len(each) for each in drawn] == [3, 3] and len(drawn[0] | drawn[1]) > 3
    with pytest.raises(ValueError, match="at least 1, not 0"):
        FewDraws(TwoCaptions(), number=0)
