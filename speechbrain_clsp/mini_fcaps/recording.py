"""Recordings of MiniFCaps' speech: what a microphone, a room and a line add to it, and no style.

Speech of a synthesizer is cleaner and more alike than any recording of people. A model that is to
hear people must not rely on that, so most training clips are recorded as people are: with another
frequency response, in a room, with noise, or over a telephone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, fftconvolve, sosfilt

from speechbrain_clsp.dataio.audio import SAMPLE_RATE

OCTAVES = 125.0 * 2.0 ** np.arange(7)  # Hz; where the equalizer's gains lie
TELEPHONE_BAND = (300.0, 3400.0)  # Hz
_MU = 255  # of the mu-law


@dataclass(frozen=True)
class Recording:
    """How a clip is recorded; the defaults change nothing.

    Arguments
    ---------
    gains : tuple of float
        In dB at ``OCTAVES``; constant beyond them, none if empty.
    reverberation : float
        Seconds in which an echo falls by 60 dB; 0 is no room.
    direct : float
        Power of the direct sound over that of the room, in dB.
    band : tuple of float, optional
        In Hz; what lies outside is cut.
    mu_law : bool
        Whether samples are coded by 8 bits.
    snr : float, optional
        Of the quietest part over the noise, in dB. Default: no noise.
    color : float
        The noise's power falls with this power of frequency.
    seed : int
        Of the noise and the room.

    Example
    -------
    >>> wav = np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    >>> len(Recording(reverberation=0.2).respond(wav)) / SAMPLE_RATE
    1.2
    """

    gains: tuple[float, ...] = ()
    reverberation: float = 0.0
    direct: float = 0.0
    band: tuple[float, float] | None = None
    mu_law: bool = False
    snr: float | None = None
    color: float = 0.0
    seed: int = 0

    def respond(self, wav: np.ndarray) -> np.ndarray:
        """Return the response of room and line to a sound, with its echoes.

        ``wav`` is [T] float32, 16 kHz; the result is longer by ``reverberation``.
        """
        n_echoes = round(self.reverberation * SAMPLE_RATE)
        if n_echoes:
            generator = np.random.default_rng(self.seed)
            echoes = generator.standard_normal(n_echoes)
            echoes *= 10 ** (-3 * np.arange(n_echoes) / n_echoes)
            echoes *= np.sqrt(10 ** (-self.direct / 10) / np.sum(echoes**2))
            wav = fftconvolve(wav, np.concatenate([[1.0], echoes]))
        return self._filter(wav)

    def _filter(self, wav: np.ndarray) -> np.ndarray:
        if self.gains:
            spectrum = np.fft.rfft(wav, 2 * len(wav))
            hertz = np.fft.rfftfreq(2 * len(wav), 1 / SAMPLE_RATE)
            decibels = np.interp(np.log(hertz + 1.0), np.log(OCTAVES), self.gains)
            wav = np.fft.irfft(spectrum * 10 ** (decibels / 20))[: len(wav)]
        if self.band:
            wav = sosfilt(butter(4, self.band, "bandpass", fs=SAMPLE_RATE, output="sos"), wav)
        return wav.astype(np.float32)

    def add_noise(self, wav: np.ndarray, level: float) -> np.ndarray:
        """Add noise that is ``snr`` below a level [dB re full scale], then code by mu-law.

        ``wav`` is [T] float32, 16 kHz; so is the result.
        """
        if self.snr is not None:
            generator = np.random.default_rng(self.seed + 1)
            spectrum = np.fft.rfft(generator.standard_normal(len(wav)))
            hertz = np.fft.rfftfreq(len(wav), 1 / SAMPLE_RATE)
            noise = np.fft.irfft(spectrum * np.maximum(hertz, 50.0) ** (-self.color / 2), len(wav))
            noise = self._filter(noise)
            noise *= 10 ** ((level - self.snr) / 20) / np.sqrt(np.mean(noise**2))
            wav = (wav + noise).astype(np.float32)
        if self.mu_law:
            code = np.round(np.log1p(_MU * np.abs(wav)) / np.log1p(_MU) * 127) / 127
            wav = (np.sign(wav) * np.expm1(code * np.log1p(_MU)) / _MU).astype(np.float32)
        return wav


NO_RECORDING = Recording()


def draw_recording(generator: random.Random, whispered: bool = False) -> Recording:
    """Draw a recording.

    Arguments
    ---------
    generator : random.Random
        Draws it.
    whispered : bool
        Whether to keep the high frequencies that whispers have.

    Returns
    -------
    Recording
        With or without room, line and noise.

    Example
    -------
    >>> draw_recording(random.Random(0)) == draw_recording(random.Random(0))
    True
    """
    uniform = generator.uniform
    # Recordings of people fall by up to 4 dB more or less per octave than the synthesizer.
    tilt = uniform(-1.5, 1.0) if whispered else uniform(-4.5, 4.0)
    gains = tuple(tilt * index + generator.gauss(0.0, 3.0) for index in range(len(OCTAVES)))
    band, mu_law = None, False
    line = generator.random()
    if line < 0.15 and not whispered:
        band, mu_law = TELEPHONE_BAND, True
    elif line < 0.5:
        band = (uniform(30.0, 150.0), uniform(3500.0, 7500.0))
    return Recording(
        gains=gains,
        reverberation=uniform(0.1, 0.4) if generator.random() < 0.5 else 0.0,
        direct=uniform(0.0, 12.0),
        band=band,
        mu_law=mu_law,
        snr=uniform(15.0, 40.0) if generator.random() < 0.8 else None,
        color=uniform(0.0, 1.5),
        seed=generator.randrange(2**32),
    )
