"""Guards: words of all scripts, and recognizers of all kinds."""

import math

import numpy
import pytest
import torch

from speechbrain_clsp.inference.guards import (
    LengthGuard,
    LevelGuard,
    WordErrorGuard,
    word_error_rate,
)

WAVS, LENS = torch.zeros(2, 1600), torch.ones(2)
SAID = ["come in", "go home"]


@pytest.mark.parametrize(
    ("transcript", "text", "rate"),
    [
        ("don't stop", "Don\u2019t stop!", 0.0),
        ("caf\u00e9", "cafe\u0301", 0.0),
        ("\uff2f\uff2b", "ok", 0.0),
        ("cat", "hat", 1.0),
        ("\u0915\u093f", "\u0915\u0940", 1.0),  # Devanagari ki, kii: the vowel sign differs
        ("\u0915\u093f \u0915\u0940", "\u0915\u093f, \u0915\u0940.", 0.0),
        ("\u6162\u6162\u8bf4\u8bdd", "\u6162\u6162\u5730\u8bf4\u8bdd\u3002", 0.2),  # one of five
        ("", "", 0.0),
        ("noise", "...", 1.0),
    ],
)
def test_words_are_compared_in_one_form(transcript, text, rate):
    """If this fails, right words in another spelling get the veto, or wrong ones pass."""
    assert word_error_rate(transcript, text) == pytest.approx(rate)


class Recognizer:
    """Gives transcripts and tokens, as SpeechBrain's recognizers."""

    def transcribe_batch(self, wavs, wav_lens):
        return SAID, [[1], [2]]


@pytest.mark.parametrize(
    "recognizer",
    [
        Recognizer(),
        Recognizer().transcribe_batch,
        lambda wavs, lens: SAID,
        lambda wavs, lens: tuple(SAID),
        lambda wavs, lens: numpy.array(SAID),
        lambda wavs, lens: ([text.split() for text in SAID], None),
    ],
)
def test_transcripts_are_taken_in_every_usual_form(recognizer):
    passes = WordErrorGuard(recognizer)(WAVS, LENS, [], ["Come in.", "Go away."])
    assert passes.tolist() == [True, False]


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (["come in"], ValueError, "1 transcripts for 2 clips"),
        ("ab", TypeError, "must be a list of transcripts, not a str"),
        (["come in", None], TypeError, "transcript 1 is None"),
        (None, TypeError, "must be a list of transcripts"),
    ],
)
def test_an_answer_for_another_number_of_clips_is_told(answer, error, message):
    """If this fails, one transcript passes for all clips."""
    with pytest.raises(error, match=message):
        WordErrorGuard(lambda wavs, lens: answer)(WAVS, LENS, [], ["Come in.", "Go home."])


@pytest.mark.parametrize(
    ("guard", "limits"),
    [
        (LengthGuard, {"shortest": 5, "longest": 1}),
        (LengthGuard, {"shortest": math.nan}),
        (LevelGuard, {"quietest": -3, "loudest": -60}),
        (LevelGuard, {"most_silence": -0.1}),
        (LevelGuard, {"highest_peak": math.nan}),
    ],
)
def test_limits_that_no_clip_could_keep_are_refused(guard, limits):
    with pytest.raises(ValueError, match=f"{next(iter(limits))}.*no clip"):
        guard(**limits)
