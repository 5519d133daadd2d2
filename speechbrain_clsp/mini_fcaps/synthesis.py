"""Speech synthesis by libespeak-ng, which the espeakng-loader wheel contains.

The library keeps phases and noise from one utterance to the next in variables that no call resets,
and seeds its noise from the clock. Therefore it is loaded anew for every clip, which takes 8 ms,
and seeded: a clip has the same bytes in any process and order.
"""

from __future__ import annotations

import _ctypes
import ctypes
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.signal import resample_poly

from speechbrain_clsp.dataio.audio import SAMPLE_RATE

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS
_UTF8 = 1  # espeakCHARS_UTF8
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER
_PHONEMES_IPA = 2
_PHONEME_EVENTS_IPA = 1 | 2  # espeakINITIALIZE_PHONEME_EVENTS and _IPA
_LAST_EVENT, _PHONEME_EVENT = 0, 7  # espeakEVENT_LIST_TERMINATED, espeakEVENT_PHONEME
_NOISE_SEED = 1
_MAX_DENOMINATOR = 500  # of the ratio of sample rates; a playback rate is kept to 0.1 %
_SILENCE = 2e-3  # amplitudes below this are trimmed from both ends


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h; the last field is a union there."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("string", ctypes.c_char * 8),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Synthesizer:
    """A freshly loaded libespeak-ng, for use in a ``with`` block; one at a time per process.

    Raises
    ------
    ImportError
        If the extra ``mini`` is not installed.

    Example
    -------
    >>> with Synthesizer() as synthesizer:
    ...     wav = synthesizer.speak("Good morning.", voice="en-us+m3")
    >>> wav.dtype, 0.3 < len(wav) / SAMPLE_RATE < 1.5
    (dtype('float32'), True)
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise ImportError(
                "MiniFCaps needs libespeak-ng: pip install 'speechbrain-clsp[mini]'"
            ) from error
        self._library = ctypes.cdll.LoadLibrary(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS_IPA)
        if self.rate <= 0:
            raise RuntimeError("libespeak-ng did not start: its voice data was not found")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(_NOISE_SEED))
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._samples: list[np.ndarray] = []
        self._phones: list[tuple[str, int]] = []
        self._callback = _CALLBACK(self._collect)  # kept: the library holds only its address
        self._library.espeak_SetSynthCallback(self._callback)

    def __enter__(self) -> Synthesizer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._library.espeak_Terminate()
        _ctypes.dlclose(self._library._handle)

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        for event in iter(events or ()):
            if event.type == _LAST_EVENT:
                break
            if event.type == _PHONEME_EVENT:
                self._phones.append((event.string.decode(errors="ignore"), event.sample))
        return 0

    def speak(
        self,
        text: str,
        voice: str,
        rate: int = 170,
        pitch: int = 50,
        pitch_range: int = 50,
        formants: float = 1.0,
    ) -> np.ndarray:
        """Synthesize, [T] float32 at 16 kHz, silence trimmed from both ends.

        Arguments
        ---------
        text : str
            What to say.
        voice : str
            espeak voice and variant, as ``en-us+f2``.
        rate : int
            Words per minute, 80 to 450.
        pitch, pitch_range : int
            0 to 99; a range of 0 is a monotone.
        formants : float
            Factor of the formant frequencies, and so of the pitch: slower speech is played back
            faster by it. The rate is kept; the settings of pitch are those before the playback.

        Raises
        ------
        ValueError
            If there is no such voice, or the speech is silent.
        """
        return self.speak_phones(text, voice, rate, pitch, pitch_range, formants)[0]

    def speak_phones(
        self,
        text: str,
        voice: str,
        rate: int = 170,
        pitch: int = 50,
        pitch_range: int = 50,
        formants: float = 1.0,
    ) -> tuple[np.ndarray, list[tuple[str, float]]]:
        """Synthesize as :meth:`speak`; return the waveform and its phonemes.

        These are pairs of a phoneme in IPA, with its stress and length marks, and its start in
        seconds; "" is a pause, never two in a row.

        Example
        -------
        >>> with Synthesizer() as synthesizer:
        ...     wav, phones = synthesizer.speak_phones("a cat", "en-us+f4")
        >>> [symbol for symbol, start in phones]
        ['ɐ', 'k', 'ˈæ', 't', '']
        """
        self._select(voice)
        ratio = Fraction(SAMPLE_RATE / (self.rate * formants)).limit_denominator(_MAX_DENOMINATOR)
        rate = round(rate / formants)
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, int(value), 0)
        self._samples, self._phones = [], []
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        wav = np.concatenate([np.zeros(0, np.int16), *self._samples]).astype(np.float32) / 32768
        loud = np.flatnonzero(np.abs(wav) > _SILENCE)
        if len(loud) == 0:
            raise ValueError(f"The speech for {text!r} is silent")
        wav = wav[loud[0] : loud[-1] + 1]
        phones: list[tuple[str, float]] = []
        for symbol, sample in self._phones:
            start = max(sample - int(loud[0]), 0)
            repeated = not symbol and phones and not phones[-1][0]
            if start < len(wav) and not repeated:
                phones.append((symbol, start / (self.rate * formants)))
        return resample_poly(wav, *ratio.as_integer_ratio()).astype(np.float32), phones

    def phonemes(self, text: str, voice: str) -> str:
        """Return the phonemes of a text in IPA, words separated by spaces."""
        self._select(voice)
        pointer = ctypes.c_char_p(text.encode())
        parts = []
        while pointer.value:
            part = self._library.espeak_TextToPhonemes(ctypes.byref(pointer), _UTF8, _PHONEMES_IPA)
            parts.append(part.decode())
        return " ".join(parts)

    def _select(self, voice: str) -> None:
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"libespeak-ng has no voice {voice!r}")
