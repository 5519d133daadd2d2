"""Acoustic measurement of style: level, pitch, speaking rate, spectral tilt.

Only the audio is used, neither the text nor the settings of the synthesis, so that tests and
experiments can check labels and captions against it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, find_peaks, sosfiltfilt, welch

from speechbrain_clsp.dataio.audio import SAMPLE_RATE

FRAME, HOP, SPECTRUM = 1024, 160, 4096  # samples
LOWEST_PITCH, HIGHEST_PITCH = 55, 450  # Hz
# Boundaries between MiniFCaps' levels: dB, syllable nuclei per second, and Hz for each gender.
LOUDNESS_BOUNDS = (-32.5, -23.5)
RATE_BOUNDS = (6.3, 8.6)
PITCH_BOUNDS = {"male": (97.0, 130.0), "female": (173.0, 232.0)}
TILT_BANDS = ((50, 1000), (1000, 5000))  # Hz
SILENCE = 1e-4  # amplitude
MAX_VOICED_IN_WHISPER = 0.15  # fraction of frames with a pitch

WORDS = {  # wordings of each level in captions, low to high
    "rate": (
        r"slow\w*|unhurried\w*|leisurely",
        r"measured|medium speed|middling tempo|moderate (?:pace|speed)",
        r"quick\w*|fast|rapid\w*|brisk\w*",
    ),
    "loudness": (
        r"quiet\w*|low volume|soft\w*|faint\w*",
        r"(?:moderate|medium|middling) volume|normal loudness",
        r"loud|loudly|high volume|powerful volume|forceful\w*",
    ),
    "pitch": (
        r"low-(?:pitched|register)|deep|low(?! volume)",
        r"medium-pitched|mid-(?:range|register)",
        r"high-(?:pitched|register)|treble|high(?! volume)",
    ),
}
GENDERS = {"male": r"\b(?:man|male)\b", "female": r"\b(?:woman|female)\b"}


@dataclass(frozen=True)
class AcousticMeasurement:
    """Level, pitch and rate of a clip.

    Arguments
    ---------
    decibels : float
        Root mean square of the samples that are not silent, re full scale.
    hertz : float
        Median F0; NaN in a whisper.
    nuclei_per_second : float
        Syllable nuclei.

    Example
    -------
    >>> AcousticMeasurement(decibels=-19.0, hertz=110.0, nuclei_per_second=5.0).level("loudness")
    2
    """

    decibels: float
    hertz: float
    nuclei_per_second: float

    def level(self, attribute: str, gender: str | None = None) -> int | None:
        """Return 0, 1 or 2 for a low, medium or high ``loudness``, ``rate`` or ``pitch``.

        The boundaries of pitch are those of the gender, ``male`` or ``female``. The level is None
        if gender or pitch are unknown.

        Example
        -------
        >>> measured = AcousticMeasurement(-19.0, 110.0, 5.0)
        >>> [measured.level(a, "male") for a in ("loudness", "rate", "pitch")]
        [2, 0, 1]
        """
        if attribute == "pitch":
            if gender is None or np.isnan(self.hertz):
                return None
            return int(np.searchsorted(PITCH_BOUNDS[gender], self.hertz))
        value = self.decibels if attribute == "loudness" else self.nuclei_per_second
        bounds = LOUDNESS_BOUNDS if attribute == "loudness" else RATE_BOUNDS
        return int(np.searchsorted(bounds, value))


def measure_acoustics(wav: np.ndarray) -> AcousticMeasurement:
    """Measure level, pitch and rate of a clip.

    Arguments
    ---------
    wav : numpy.ndarray
        [T] float, 16 kHz, mono.

    Returns
    -------
    AcousticMeasurement
        Silence has minus infinity dB, no pitch and a rate of 0.

    Example
    -------
    >>> time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    >>> round(measure_acoustics(0.1 * np.sign(np.sin(2 * np.pi * 150 * time))).hertz)
    150
    """
    if not (np.abs(wav) > SILENCE).any():
        return AcousticMeasurement(-np.inf, np.nan, 0.0)
    return AcousticMeasurement(decibels(wav), median_pitch(wav), nuclei_rate(wav))


def decibels(wav: np.ndarray) -> float:
    """Return the root mean square of the samples that are not silent, in dB re full scale."""
    return float(10 * np.log10(np.mean(wav[np.abs(wav) > SILENCE] ** 2)))


def median_pitch(wav: np.ndarray) -> float:
    """Return the median F0 in Hz; NaN if at most 15 % of the frames have one, as in a whisper."""
    pitches = fundamental(wav)
    voiced = len(pitches) > MAX_VOICED_IN_WHISPER * len(wav) / HOP
    return float(np.median(pitches)) if voiced else np.nan


def pitch_spread(wav: np.ndarray) -> float:
    """Return the semitones between the 10th and 90th percentile of F0; NaN without a pitch."""
    pitches = fundamental(wav)
    if len(pitches) == 0:
        return np.nan
    return float(np.subtract(*np.percentile(12 * np.log2(pitches), [90, 10])))


def spectral_tilt(wav: np.ndarray) -> float:
    """Return the alpha ratio: the power of 1 to 5 kHz over that of 50 Hz to 1 kHz, in dB.

    It is about -9 to -2 for the modal voices of MiniFCaps and above 8 for its whispers.

    Example
    -------
    >>> noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE)
    >>> round(spectral_tilt(noise))  # ten times log10(4000 Hz / 950 Hz)
    6
    """
    hertz, power = welch(wav, SAMPLE_RATE, nperseg=512)
    low, high = (power[(hertz > a) & (hertz <= b)].sum() for a, b in TILT_BANDS)
    return float(10 * np.log10(high / low))


def fundamental(wav: np.ndarray) -> np.ndarray:
    """Return F0 of every voiced frame, [V] in Hz, by :func:`pitch_track`."""
    track = pitch_track(wav)
    return track[~np.isnan(track)]


def pitch_track(wav: np.ndarray, hop: int = HOP) -> np.ndarray:
    """Estimate F0 frame by frame by autocorrelation (Boersma, 1993).

    The autocorrelation of a windowed frame is divided by that of the window, so that the height of
    its peaks does not decrease with the lag.

    ``wav`` is [T] float, 16 kHz; frames have 1,024 samples, start every ``hop`` samples and lie
    within the clip. Returns [F] Hz, NaN where there is no pitch.
    """
    window = np.hanning(FRAME)
    own = np.fft.irfft(np.abs(np.fft.rfft(window, SPECTRUM)) ** 2)
    shortest, longest = SAMPLE_RATE // HIGHEST_PITCH, SAMPLE_RATE // LOWEST_PITCH
    level = np.sqrt(np.mean(wav**2))
    starts = range(0, len(wav) - FRAME, hop)
    track = np.full(len(starts), np.nan)
    for n, start in enumerate(starts):
        frame = wav[start : start + FRAME] * window
        if np.sqrt(np.mean(frame**2)) < 0.3 * level:
            continue
        lags = np.fft.irfft(np.abs(np.fft.rfft(frame, SPECTRUM)) ** 2)[:longest]
        lags = lags / lags[0] * own[0] / own[:longest]
        peaks, _ = find_peaks(lags[shortest:], height=0.55)
        if len(peaks):
            heights = lags[shortest:][peaks]
            # The first of the equally high peaks: the others are multiples of the period.
            peak = shortest + peaks[np.argmax(heights > 0.88 * heights.max())]
            track[n] = SAMPLE_RATE / (peak + _vertex(*lags[peak - 1 : peak + 2]))
    return track


def _vertex(before: float, top: float, after: float) -> float:
    """Return the offset of the vertex of the parabola through three samples from the middle one."""
    return 0.5 * (before - after) / (before - 2 * top + after)


def nuclei_rate(wav: np.ndarray) -> float:
    """Return the syllable nuclei per second that is not silent.

    Nuclei are peaks of the envelope between 250 and 3500 Hz, similar to de Jong and Wempe (2009).
    """
    band = butter(4, [250, 3500], "bandpass", fs=SAMPLE_RATE, output="sos")
    smooth = butter(2, 14, fs=SAMPLE_RATE, output="sos")
    envelope = sosfiltfilt(smooth, np.abs(sosfiltfilt(band, wav)))[:: HOP // 2]
    decibels = 20 * np.log10(np.maximum(envelope, 1e-7))
    decibels -= decibels.max()
    peaks, _ = find_peaks(decibels, prominence=2.0, height=-30)
    seconds = (decibels > -30).sum() * (HOP // 2) / SAMPLE_RATE
    return len(peaks) / seconds


def claims(caption: str) -> dict[str, int]:
    """Return the levels that a caption states, by attribute, except those that it says change.

    Example
    -------
    >>> claims("A man speaks quickly in a deep tone, at a low volume.")
    {'rate': 2, 'loudness': 0, 'pitch': 0}
    """
    found = {}
    for attribute, wordings in WORDS.items():
        levels = [
            level
            for level, wording in enumerate(wordings)
            if re.search(rf"\b(?:{wording})\b", caption.lower())
        ]
        if len(levels) == 1:
            found[attribute] = levels[0]
    return found


def claimed_gender(caption: str) -> str | None:
    """Return the gender that a caption states, ``male`` or ``female``, if any.

    Example
    -------
    >>> claimed_gender("A woman whispers."), claimed_gender("Somebody whispers.")
    ('female', None)
    """
    for gender, wording in GENDERS.items():
        if re.search(wording, caption.lower()):
            return gender
    return None
