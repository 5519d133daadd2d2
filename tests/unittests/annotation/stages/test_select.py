"""Which captions of a clip are kept."""

import numpy as np
import pytest

from speechbrain_clsp.annotation.stages.select import (
    SelectSettings,
    most_different,
    select,
    word_vectors,
)


def test_captions_that_differ_most_are_kept():
    kinds = np.eye(3)[[0, 0, 0, 1, 1, 2]] + 0.01 * np.random.default_rng(0).standard_normal((6, 3))
    vectors = kinds / np.linalg.norm(kinds, axis=1, keepdims=True)
    assert {0: 0, 1: 0, 2: 0, 3: 1, 4: 1, 5: 2}[most_different(vectors, 1)[0]] == 0
    chosen = most_different(vectors, 3)
    assert {min(n // 3, 1) if n < 5 else 2 for n in chosen} == {0, 1, 2}
    assert sorted(most_different(vectors, 99)) == list(range(6))
    captions = ["A man talks fast.", "A man talks very fast.", "Slow whispering, breathy."]
    kept, dropped = select(captions, SelectSettings(most=2))
    assert captions[2] in kept and len(kept) == 2 and dropped[0]["rule"] == "selection"
    assert np.allclose(np.linalg.norm(word_vectors(captions), axis=1), 1)


def test_gate_and_least_drop_with_reasons():
    captions = ["one", "two", "three"]
    settings = SelectSettings(most=3, least=2, gate=0.3)
    kept, dropped = select(captions, settings, fit=[0.9, 0.1, 0.5])
    assert sorted(kept) == ["one", "three"] and dropped[0]["rule"] == "gate"
    kept, dropped = select(captions, settings, fit=[0.9, 0.1, 0.2])
    assert not kept and [drop["rule"] for drop in dropped] == ["gate", "gate", "too few"]
    assert select([], SelectSettings()) == ([], [])
    with pytest.raises(ValueError, match="clsp"):
        select(captions, settings)
