"""Frequency response, room and noise of recordings, measured in noise and impulses."""

import random

import numpy as np
import pytest
from scipy.signal import welch

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.mini_fcaps.recording import (
    OCTAVES,
    TELEPHONE_BAND,
    Recording,
    draw_recording,
)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).normal(0, 0.05, 20 * SAMPLE_RATE).astype(np.float32)


def response(recording: Recording, noise: np.ndarray, hertz: np.ndarray) -> np.ndarray:
    """Return the response at frequencies, in dB."""
    frequencies, before = welch(noise, SAMPLE_RATE, nperseg=4096)
    after = welch(recording.respond(noise), SAMPLE_RATE, nperseg=4096)[1]
    return np.interp(hertz, frequencies, 10 * np.log10(after / before))


def level(wav: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(wav**2)))


def test_an_equalizer_has_its_gains(noise):
    gains = tuple(random.Random(1).uniform(-10, 10) for _ in OCTAVES)
    assert np.abs(response(Recording(gains=gains), noise, OCTAVES) - gains).max() < 0.7


def test_a_band_passes_its_middle_and_cuts_what_is_outside(noise):
    found = response(Recording(band=TELEPHONE_BAND), noise, np.array([100.0, 1000.0, 6000.0]))
    assert abs(found[1]) < 0.2 and found[0] < -20 and found[2] < -20


def test_a_room_decays_as_it_should():
    impulse = np.zeros(SAMPLE_RATE // 2, np.float32)
    impulse[0] = 1.0
    echoes = Recording(reverberation=0.3, direct=3.0, seed=1).respond(impulse)
    assert len(echoes) == len(impulse) + round(0.3 * SAMPLE_RATE)
    energy = 10 * np.log10(np.cumsum(echoes[1:][::-1] ** 2)[::-1][: SAMPLE_RATE // 5])
    slope = np.polyfit(np.arange(len(energy)) / SAMPLE_RATE, energy, 1)[0]
    assert slope == pytest.approx(-60 / 0.3, rel=0.1)
    assert 10 * np.log10(echoes[0] ** 2 / np.sum(echoes[1:] ** 2)) == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize("band", [None, TELEPHONE_BAND])
@pytest.mark.parametrize("color", [0.0, 1.5])
def test_noise_has_its_level_and_color(noise, band, color):
    recording = Recording(band=band, snr=20.0, color=color)
    found = recording.add_noise(np.zeros_like(noise), -30.0)
    assert level(found) == pytest.approx(-50.0, abs=0.01)
    frequencies, power = welch(found, SAMPLE_RATE, nperseg=4096)
    inside = (frequencies > 500) & (frequencies < 2500)
    slope = np.polyfit(np.log(frequencies[inside]), np.log(power[inside]), 1)[0]
    assert slope == pytest.approx(-color, abs=0.15)


def test_mu_law_errs_little_and_in_proportion(noise):
    for loudness in (1.0, 0.05):
        error = Recording(mu_law=True).add_noise(loudness * noise, 0.0) - loudness * noise
        assert -40 < level(error) - level(loudness * noise) < -25


def test_whispers_are_not_darkened_nor_sent_over_the_telephone():
    drawn = [draw_recording(random.Random(seed), whispered=True) for seed in range(200)]
    tilts = [np.polyfit(range(len(OCTAVES)), recording.gains, 1)[0] for recording in drawn]
    assert np.mean(tilts) > -1.0
    assert not any(recording.mu_law for recording in drawn)
