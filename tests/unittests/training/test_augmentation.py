"""Changes of the sound: what they change, and what they leave."""

import math

import pytest
import torch

from speechbrain_clsp.training.augmentation import RandomEqualizer, RandomSpeed

TIME = torch.arange(16000) / 16000


def tone(hertz: float) -> torch.Tensor:
    return torch.sin(2 * math.pi * hertz * TIME)


def level(wav: torch.Tensor, hertz: float) -> float:
    """Return the amplitude of a whole number of hertz in a second, in dB."""
    return 20 * math.log10(2 * float(torch.fft.rfft(wav)[int(hertz)].abs()) / 16000)


def test_an_equalizer_gives_each_clip_gains_of_its_own_that_are_smooth_over_frequency():
    torch.manual_seed(0)
    hertz = (200, 210, 1600)
    wav = sum(tone(each) for each in hertz)
    filtered = RandomEqualizer(std=6.0)(wav.expand(500, -1))
    levels = torch.tensor([[level(one, each) for each in hertz] for one in filtered])
    near, far = levels[:, 0] - levels[:, 1], levels[:, 0] - levels[:, 2]
    assert near.abs().max() < 3.0
    # Two gains of standard deviation 6, both at points of the curve's grid or between two.
    assert 5.0 < far.std() < 6.0 * math.sqrt(2) + 1.0


def test_an_equalizer_moves_nothing_in_time_and_keeps_levels_and_silence():
    torch.manual_seed(0)
    click = torch.zeros(1, 4000)
    click[0, 2500] = 1.0
    filtered = RandomEqualizer(std=6.0)(click)
    assert int(filtered.abs().argmax()) == 2500
    assert filtered[0, :2000].abs().max() < 0.01 * filtered.abs().max()
    assert float(filtered.norm()) == pytest.approx(1.0, rel=1e-4)
    assert RandomEqualizer()(torch.zeros(2, 800)).equal(torch.zeros(2, 800))
    torch.testing.assert_close(RandomEqualizer(std=0.0)(click), click, atol=1e-6, rtol=0)


def test_a_speed_moves_pitch_and_length_of_each_clip_and_padding_stays_padding():
    torch.manual_seed(0)
    wavs = tone(400).expand(40, -1).clone()
    lengths = torch.ones(40)
    wavs[20:, 8000:], lengths[20:] = 0.0, 0.5
    speed = RandomSpeed(0.15, n_speeds=3)
    changed, new_lengths = speed(wavs, lengths)
    found = set()
    for i, (wav, length) in enumerate(zip(changed, new_lengths)):
        n_samples = round(float(length) * changed.shape[1])
        assert wav[n_samples:].abs().sum() == 0
        percent = round(100 * (16000 if i < 20 else 8000) / n_samples)
        spectrum = torch.fft.rfft(wav[:n_samples], 160000).abs()
        assert int(spectrum.argmax()) / 10 == pytest.approx(4 * percent, abs=2)
        found.add(percent)
    assert found == {85, 100, 115} == set(speed.percents)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: RandomEqualizer(-1.0), "std must not be negative"),
        (lambda: RandomSpeed(0.6), "change must be a fraction from 0 to 0.5"),
        (lambda: RandomSpeed(0.1, 4), "n_speeds must be an odd number"),
    ],
    ids=["std", "change", "speeds"],
)
def test_what_would_change_too_much_or_nothing_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
