"""Reading audio: every format, rate and channel count gives the same sound; bad files are named."""

import io
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from speechbrain_clsp.dataio.audio import (
    AudioError,
    check_audio,
    read_audio,
    read_header,
    read_windows,
)
from tests.utils.bad_audio import FOREIGN, bad_files
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


@pytest.mark.parametrize("suffix", ["wav", "mp3", "au", "vox", "raw", "m4a"])
def test_foreign_files_are_named_as_what_they_are(tmp_path, suffix):
    """If this fails, a pointer is decoded as noise, or nobody learns why a file is refused."""
    for content, pattern in FOREIGN.items():
        path = tmp_path / f"clip.{suffix}"
        path.write_bytes(content)
        for read in (read_audio, read_header, check_audio):
            for source in (path, content):
                with pytest.raises(AudioError, match=f"clip.*cannot be read as audio.*{pattern}"):
                    read(source, name="clip")


def test_files_that_cannot_be_opened_are_named(tmp_path, monkeypatch):
    (tmp_path / "link.wav").symlink_to("../.git/annex/objects/x.wav")
    for source, error, pattern in (
        (tmp_path / "absent.wav", FileNotFoundError, "absent.wav: no such file"),
        (tmp_path / "link.wav", FileNotFoundError, "link.wav: no such file: .*annex/.* not there"),
        ("a\0b.wav", FileNotFoundError, "no such file"),
        ("a\ud800b.wav", FileNotFoundError, "no such file"),
        ("a" * 5000 + ".wav", OSError, "aaa.wav: .*too long"),
        ("https://example.com/a.wav", FileNotFoundError, "a URL, not a file: download it"),
        (Path("s3://bucket/a.wav"), FileNotFoundError, "a URL, not a file: download it"),
        ("hf://datasets/a/b.wav", FileNotFoundError, "a URL, not a file: download it"),
        (torch.zeros(16000), TypeError, "not a Tensor; waveforms go to"),
        (np.zeros(16000), TypeError, "not a ndarray; waveforms go to"),
        (None, TypeError, "not a NoneType"),
        ("a\nb.wav", FileNotFoundError, r"a\\nb.wav: no such file"),
    ):
        for read in (read_audio, check_audio, lambda source: list(read_windows(source, 1.0))):
            with pytest.raises(error, match=pattern) as caught:
                read(source)
            assert "\n" not in str(caught.value)
            str(caught.value).encode()  # can be printed

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied", "secret.wav")

    monkeypatch.setattr("builtins.open", refuse)
    path = tmp_path / "secret.wav"
    path.touch()
    with pytest.raises(PermissionError, match="secret.wav: permission denied: make it readable"):
        read_audio(path)


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.wav", tone())
    assert torch.equal(read_audio("~/a.wav"), read_audio(tmp_path / "a.wav"))


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")
def test_names_that_are_not_utf8_are_read_and_shown(tmp_path):
    """If this fails, one file from an old archive stops everything, unnamed."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    content = write(tmp_path / "a.wav", tone()).read_bytes()
    path.write_bytes(content)
    assert torch.equal(read_audio(path), read_audio(content))
    assert torch.equal(read_audio(str(path)), read_audio(content))
    path.write_bytes(b"")
    with pytest.raises(AudioError, match=r"caf\\xe9.wav: the file is empty") as caught:
        read_audio(path)
    str(caught.value).encode()


def test_open_files_are_read_from_their_start_wherever_they_are(tmp_path):
    """If this fails, a file that was just written, or read, counts as empty."""
    path = write(tmp_path / "a.flac", tone())
    expected = read_audio(path)
    memory = io.BytesIO()
    memory.write(path.read_bytes())  # stands at its end
    assert torch.equal(read_audio(memory), expected)
    assert torch.equal(read_audio(memory), expected) and memory.tell() == path.stat().st_size
    with open(path, "rb") as file:
        file.read(7)
        assert torch.equal(read_audio(file), expected) and file.tell() == 7
    with pytest.raises(AudioError, match=r"a.flac: cannot be read from its start"):
        read_audio(file)  # closed
    with open(path, encoding="latin-1") as file, pytest.raises(AudioError, match="open as text"):
        read_audio(file)
    for content in (bytearray(path.read_bytes()), memoryview(path.read_bytes())):
        assert torch.equal(read_audio(content), expected)


def test_audio_of_datasets_is_read(tmp_path):
    """If this fails, a row of a dataset means something else than its file."""
    path = write(tmp_path / "a.wav", tone(), subtype="FLOAT")
    expected, samples = read_audio(path), tone()
    whole = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
    for audio in (
        {"bytes": path.read_bytes(), "path": "a.wav"},
        {"bytes": None, "path": str(path)},
        {"array": samples, "sampling_rate": 16000, "path": None},
        {"array": samples.tolist(), "sampling_rate": 16000},
        {"array": samples.astype(np.float64), "sampling_rate": np.int64(16000)},
        {"array": torch.from_numpy(samples), "sampling_rate": 16000},
        {"array": np.stack([samples, samples]), "sampling_rate": 16000},
    ):
        assert torch.equal(read_audio(audio), expected)
    for scale in (1, 0.002):  # quiet 16-bit values are 16-bit values, too
        array = (whole * scale).astype(np.int16)
        found = read_audio({"array": array, "sampling_rate": 16000})
        assert torch.equal(found, torch.from_numpy(array / 32768).float())
    at_44 = {"array": tone(rate=44100), "sampling_rate": 44100}
    assert correlation(read_audio(at_44), expected) > 0.999


@pytest.mark.parametrize(
    ("audio", "pattern"),
    [
        ({}, r"clip: a dict must have .*this one has \[\]"),
        ({"array": np.zeros(9600)}, r"must have 'array' and 'sampling_rate'.*\['array'\]"),
        ({"bytes": None, "path": None}, "must have"),
        ({"array": np.zeros(9600, complex), "sampling_rate": 16000}, "real samples.*complex128"),
        ({"array": np.zeros(9600, bool), "sampling_rate": 16000}, "real samples.*bool"),
        ({"array": np.zeros((2, 2, 9600)), "sampling_rate": 16000}, r"\[channels, T\]"),
        ({"array": np.zeros((9600, 2)), "sampling_rate": 16000}, r"must be \[channels, T\], not"),
        ({"array": np.zeros(9600), "sampling_rate": "fast"}, "sampling rate: .*fast"),
        ({"array": np.zeros(9600), "sampling_rate": np.inf}, "sampling rate: .*infinity"),
        ({"array": np.arange(9600), "sampling_rate": 16000}, "int16 or int32.*not int64"),
        (
            {"array": np.arange(9600, dtype=np.int32), "sampling_rate": 16000},
            "up to 9599 only.*16-",
        ),
        ({"array": np.zeros(9600), "sampling_rate": 16}, "states a sample rate of 16 Hz"),
        ({"array": np.zeros(0), "sampling_rate": 16000}, "holds no samples"),
        ({"array": [[0.0], [0.0, 1.0]], "sampling_rate": 16000}, "holds no samples and samp"),
        ({"array": np.full(9600, np.nan), "sampling_rate": 16000}, "NaN"),
        ({"array": np.full(9600, 1e300), "sampling_rate": 16000}, "NaN, infinite or far"),
        ({"array": np.full(9600, 9.0), "sampling_rate": 16000}, "whole numbers up to 9, 16-bit"),
    ],
)
def test_other_dicts_are_refused_in_one_sentence(audio, pattern):
    with pytest.raises(AudioError, match=pattern):
        read_audio(audio, name="clip")


def test_whole_numbers_in_float_files_are_refused(tmp_path):
    """If this fails, 16-bit values that were not divided count as the amplitudes they seem."""
    for peak in (3, 90):
        samples = np.round(tone() * peak / tone().max())
        path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
        for read in (read_audio, check_audio):
            with pytest.raises(AudioError, match=f"whole numbers up to {peak}, 16-bit values"):
                read(path)
    square = np.sign(tone())
    assert read_audio(write(tmp_path / "b.wav", square, subtype="FLOAT")).abs().max() == 1


def test_a_clip_is_checked_to_its_end(tmp_path, monkeypatch):
    """If this fails, what no model can use is prepared, and a night's training ends on it."""
    monkeypatch.setattr("speechbrain_clsp.dataio.audio.SECONDS_AT_ONCE", 0.7)
    good = np.stack([tone(3.0, 24000), np.zeros(72000, np.float32)], axis=1)
    path = write(tmp_path / "good.wav", good, 24000, subtype="FLOAT")
    assert check_audio(path) == read_header(path) == (3.0, 24000, 2)
    assert check_audio(path, start=1.0, duration=0.5).seconds == 0.5
    assert check_audio(path, channel=0).seconds == 3.0
    for options, pattern in (
        ({"channel": 1}, "is silent"),
        ({"channel": 2}, "has 2 channels, not number 2"),
        ({"channel": -1}, "has 2 channels, not number -1"),
        ({"start": 4.0}, "is not there|are there"),
        ({"start": 2.5, "duration": 1.0}, "should last 1.00 s, and 0.50 s are there"),
        ({"start": 1.0, "duration": 0.01}, "at least 0.1 s"),
        ({"start": -1.0}, "must begin at 0 s or later"),
        ({"start": np.nan}, "must begin at 0 s or later"),
        ({"start": np.inf}, "must begin at 0 s or later"),
        ({"duration": 0.0}, "last for some time"),
        ({"start": 1.0, "duration": np.nan}, "last for some time"),
    ):
        with pytest.raises(AudioError, match=f"good.wav: .*{pattern}"):
            check_audio(path, **options)
        if pattern != "is silent" and "should last" not in pattern:
            with pytest.raises(AudioError, match="good.wav"):
                read_audio(path, **options)
    bad = good.copy()
    bad[60000, 1] = np.nan
    write(path, bad, 24000, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN"):
        check_audio(path)
    dither = np.random.default_rng(0).integers(-1, 2, 16000) / 32768
    for samples in (np.zeros(16000), np.full(16000, 0.25), dither):
        with pytest.raises(AudioError, match="a.wav: is silent"):
            check_audio(write(tmp_path / "a.wav", samples))
    assert check_audio(write(tmp_path / "a.wav", 0.001 * tone())).seconds == 1.0
    write(tmp_path / "a.wav", np.stack([tone(), -tone()], axis=1))
    with pytest.raises(AudioError, match="a.wav: its channels cancel each other: choose one"):
        check_audio(tmp_path / "a.wav")
    assert check_audio(tmp_path / "a.wav", channel=1).n_channels == 2
    for name, (path, pattern) in bad_files(tmp_path).items():
        with pytest.raises(AudioError, match=pattern) as caught:
            check_audio(path)
        assert name in str(caught.value)


@pytest.mark.parametrize("suffix", ["mp3", "flac", "wav", "aiff", "au"])
def test_a_file_whose_download_broke_off_is_refused(tmp_path, suffix):
    """If this fails, a manifest has the header's duration, and captions of what is not there."""
    whole = write(tmp_path / f"a.{suffix}", tone(20.0)).read_bytes()
    assert abs(check_audio(whole).seconds - 20.0) < 0.1
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: len(whole) // 4])
    with pytest.raises(AudioError, match=f"cut.{suffix}: ") as caught:
        check_audio(path)
    if suffix != "flac":  # whose decoder raises
        assert re.search(r"should last 20.\d\d s, and [45].\d\d s are there", str(caught.value))
    assert suffix == "flac" or check_audio(path, duration=3.0).seconds == 3.0


def test_a_wav_file_of_a_pipe_does_not_know_its_size(tmp_path):
    """If this fails, what ffmpeg writes to a pipe counts as cut off."""
    content = bytearray(write(tmp_path / "a.wav", tone()).read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    assert check_audio(bytes(content)).seconds == 1.0


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_files_that_are_cut_off_are_no_training_data(tmp_path, subtype):
    """If this fails, a download that broke off is a shorter clip with the caption of the whole."""
    path = tmp_path / "a.ogg"
    write(path, tone(4.0), format="OGG", subtype=subtype)
    assert check_audio(path).seconds == pytest.approx(4.0, abs=0.1)
    content = path.read_bytes()
    assert check_audio(content).seconds == pytest.approx(4.0, abs=0.1)
    for part in (content[: len(content) * 2 // 3], content[:-1]):
        path.write_bytes(part)
        for source in (path, part):
            with pytest.raises(AudioError, match="it is cut off, get it again"):
                check_audio(source)


@pytest.mark.parametrize(
    "part",
    [{"channel": "0"}, {"channel": 0.0}, {"channel": True}, {"start": "1"}, {"duration": "1"}],
)
def test_parts_are_given_by_numbers(tmp_path, part):
    with pytest.raises(TypeError, match=f"a.wav: {next(iter(part))} must be"):
        read_audio(write(tmp_path / "a.wav", tone()), **part)
