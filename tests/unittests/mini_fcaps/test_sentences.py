"""Sentences in which accents differ."""

import difflib
import itertools

from speechbrain_clsp.mini_fcaps.style import ACCENTS
from tests.utils.mini_fcaps import phonemes_of


def test_every_sentence_tells_the_accents_apart(clips):
    for clip in clips[:40]:
        text = " ".join(part.text for part in clip.parts)
        spoken = [phonemes_of(text, voice) for voice in ACCENTS.values()]
        for one, other in itertools.combinations(spoken, 2):
            same = difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()
            assert same < 0.95, (text, one, other)
