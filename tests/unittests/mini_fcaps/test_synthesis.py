"""Speech of libespeak-ng."""

import numpy as np
import pytest

from speechbrain_clsp.mini_fcaps.synthesis import Synthesizer


def speak(text: str = "Good morning.", voice: str = "en-us+whisper") -> np.ndarray:
    with Synthesizer() as synthesizer:
        return synthesizer.speak(text, voice)


def test_speech_does_not_depend_on_what_was_said_before():
    first = speak()
    speak("Something else.", "en-us+m3")
    assert np.array_equal(speak(), first)


def test_an_unknown_voice_and_a_silent_text_are_refused():
    with pytest.raises(ValueError, match="no voice 'xx'"):
        speak(voice="xx")
    with pytest.raises(ValueError, match="silent"):
        speak(text=" ")
