"""The resampler: values against scipy's, gradients, and memory for odd rates."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio.audio import read_audio
from speechbrain_clsp.dataio.resample import resample, resample_blocks
from speechbrain_clsp.evaluation.models.base import read_at
from speechbrain_clsp.inference.reward import StyleReward
from tests.utils.small import CAPTIONS, model_folder, tone, write

RATES = [1000, 7350, 8000, 11025, 22050, 22254, 24000, 32000, 44099, 44100, 48000, 192000, 399999]


@pytest.mark.parametrize("to_rate", [16000, 48000])
@pytest.mark.parametrize("from_rate", RATES)
def test_values_are_those_of_scipy(from_rate, to_rate):
    n_samples = min(2 * from_rate, 100000) + 17
    wav = np.random.default_rng(from_rate).standard_normal(n_samples)
    divisor = math.gcd(from_rate, to_rate)
    expected = resample_poly(wav, to_rate // divisor, from_rate // divisor)
    for dtype in (torch.float32, torch.float64):
        found = resample(torch.from_numpy(wav).to(dtype), from_rate, to_rate)
        assert found.dtype == dtype and found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-6 if to_rate == 16000 else 2e-6)


@pytest.mark.parametrize("rate", [8000, 22050, 44099])
def test_rows_are_resampled_one_by_one(rate):
    wavs = torch.randn(2, 3, 5001, generator=torch.Generator().manual_seed(0))
    found = resample(wavs, rate, 16000)
    assert found.shape[:2] == (2, 3)
    torch.testing.assert_close(found[1, 2], resample(wavs[1, 2], rate, 16000))


@pytest.mark.parametrize("rate", [7350, 8000, 22050, 44099, 44100, 48000])
@pytest.mark.parametrize("size", [1, 500, 12345])
def test_blocks_join_to_the_whole(rate, size):
    wav = torch.randn(min(size * 300, 3 * rate + 7), generator=torch.Generator().manual_seed(0))
    joined = torch.cat(list(resample_blocks(wav.split(size), rate, 16000)))
    torch.testing.assert_close(joined, resample(wav, rate, 16000), atol=1e-6, rtol=0)


@pytest.mark.parametrize("rate", [8000, 22050, 48000, 44099])
def test_gradients_equal_finite_differences(rate):
    wavs = torch.randn(2, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: resample(x, rate, 16000), wavs.requires_grad_())


@pytest.mark.parametrize("rates", [(0, 16000), (16000, -1), (22050.5, 16000)])
def test_rates_are_positive_integers(rates):
    with pytest.raises(ValueError, match="positive integers"):
        resample(torch.zeros(9), *rates)


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_a_file_and_its_samples_get_the_same_score(tmp_path, rate):
    clsp = CLSP.from_hparams(model_folder(tmp_path))
    samples = tone(1.0, rate)
    samples += 0.05 * np.random.default_rng(0).standard_normal(rate).astype(np.float32)
    path = write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    reward = StyleReward(clsp, sample_rate=rate)
    found = reward(torch.from_numpy(samples)[None].repeat(3, 1), CAPTIONS)
    torch.testing.assert_close(found, clsp.score_file(path, CAPTIONS), atol=1e-5, rtol=0)
    np.testing.assert_array_equal(read_at(path, 16000), read_audio(path))


PEAK = """
import resource
import torch
from speechbrain_clsp.dataio.resample import resample

torch.set_num_threads(1)
resample(torch.zeros(4, 48000, requires_grad=True), 48000, 16000).sum().backward()
wavs = torch.zeros(4, 44099 * 10, requires_grad=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resample(wavs, 44099, 16000).sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count in other units")
def test_a_rate_with_thousands_of_phases_takes_little_memory():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300e3  # kilobytes; one filter per phase would take 3 GB


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 100)])
def test_nothing_is_resampled_to_nothing(shape):
    found = resample(torch.zeros(shape), 22050, 16000)
    assert found.shape == (*shape[:-1], -(-shape[-1] * 16000 // 22050))
