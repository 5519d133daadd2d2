"""Reading audio: every format, rate and channel count gives the same sound; bad files are named."""

import numpy as np
import pytest
import torch

from speechbrain_clsp.dataio.audio import AudioError, read_audio
from tests.utils.bad_audio import bad_files
from tests.utils.small import tone, write


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the highest normalized cross-correlation over lags: codecs shift by some samples."""
    size = 1 << (len(a) + len(b)).bit_length()
    cross = torch.fft.irfft(torch.fft.rfft(a, size) * torch.fft.rfft(b, size).conj(), size)
    return float(cross.max() / (a.norm() * b.norm()))


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_gives_the_same_sound(tmp_path, suffix, rate, channels):
    """If this fails, users' files are decoded wrongly for some format, rate or channel count."""
    samples = np.repeat(tone(1.0, rate)[:, None], channels, axis=1)
    wav = read_audio(write(tmp_path / f"a.{suffix}", samples, rate))
    assert wav.dtype == torch.float32
    assert abs(len(wav) - 16000) < 16000 * 0.12  # mp3 pads to whole frames
    assert correlation(wav, torch.from_numpy(tone(1.0))) > 0.97


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_six_channels_are_read(tmp_path, suffix):
    """If this fails, surround recordings cannot be used."""
    samples = np.repeat(tone(1.0, 48000)[:, None], 6, axis=1)
    wav = read_audio(write(tmp_path / f"a.{suffix}", samples, 48000))
    assert correlation(wav, torch.from_numpy(tone(1.0))) > 0.97


@pytest.mark.parametrize("rate", [7350, 11127, 22254, 44099, 192000])
def test_odd_rates_are_read(tmp_path, rate):
    """If this fails, a rate with no common divisor takes minutes and gigabytes, or shifts pitch."""
    wav = read_audio(write(tmp_path / "a.wav", tone(1.0, rate), rate))
    assert len(wav) == 16000
    assert correlation(wav, torch.from_numpy(tone(1.0))) > 0.999


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_resampling_keeps_what_fits_and_removes_what_does_not(tmp_path, rate):
    """If this fails, high notes of a recording fold down into the band that the model hears."""
    time = np.arange(rate) / rate
    levels = {}
    for frequency in (1000, 6500, 10000):
        sine = np.sin(2 * np.pi * frequency * time).astype(np.float32)
        wav = read_audio(write(tmp_path / "a.wav", sine, rate, subtype="FLOAT"))[2000:-2000]
        levels[frequency] = 10 * np.log10(2 * float(wav.square().mean()) + 1e-12)
    assert abs(levels[1000]) < 0.1
    assert abs(levels[6500]) < 0.3
    assert levels[10000] < -50


def test_channels_are_averaged(tmp_path):
    """If this fails, one channel of a stereo file is dropped."""
    samples = np.stack([tone(), -0.5 * tone()], axis=1)
    wav = read_audio(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    torch.testing.assert_close(wav, torch.from_numpy(0.25 * tone()), atol=1e-6, rtol=0)


def test_bytes_read_like_the_file(tmp_path):
    """If this fails, clips inside shards sound unlike the same clips on disk."""
    path = write(tmp_path / "a.flac", tone())
    assert torch.equal(read_audio(path.read_bytes()), read_audio(path))
    with pytest.raises(AudioError, match="clip7: the file is empty"):
        read_audio(b"", name="clip7")


def test_bad_files_are_refused_by_name(tmp_path):
    """If this fails, a bad file gives a silent wrong embedding or an error nobody can act on."""
    for name, (path, pattern) in bad_files(tmp_path).items():
        with pytest.raises(AudioError, match=pattern) as caught:
            read_audio(path)
        assert name in str(caught.value)
    with pytest.raises(FileNotFoundError, match="absent.wav"):
        read_audio(tmp_path / "absent.wav")


def test_a_header_that_promises_too_much_is_survived(tmp_path):
    """If this fails, one damaged flac file ends a long run by taking all memory."""
    whole = write(tmp_path / "a.flac", tone()).read_bytes()
    # The count of samples is the 36 bits that end with byte 26: here, 274 GB of them.
    damaged = whole[:21] + bytes([whole[21] | 0x0F]) + b"\xff" * 4 + whole[26:]
    try:
        wav = read_audio(damaged, name="damaged.flac")
    except AudioError as error:
        assert "damaged.flac: cannot be read as audio" in str(error)
    else:  # the system granted memory that it does not have, and the rest was as it should be
        assert torch.equal(wav, read_audio(whole))


def test_a_truncated_wav_gives_what_is_there_or_an_error(tmp_path):
    """If this fails, an interrupted download crashes the reader."""
    whole = write(tmp_path / "a.wav", tone()).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    wav = read_audio(tmp_path / "cut.wav")
    torch.testing.assert_close(wav, read_audio(tmp_path / "a.wav")[: len(wav)])
    assert 7000 < len(wav) < 9000
