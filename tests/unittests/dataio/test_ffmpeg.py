"""Sound of m4a, aac and videos, against the samples that were encoded."""

import sys

import numpy as np
import pytest
import soundfile

from speechbrain_clsp.dataio.audio import (
    AudioError,
    check_audio,
    read_audio,
    read_blocks,
    read_header,
    read_samples,
    read_windows,
)
from tests.utils.videos import write_ffmpeg

RATE = 48000
SECONDS = 3.7
FILES = {
    "a.m4a": ("aac", None),
    "a.mp4": ("aac", "mpeg4"),
    "a.mov": ("aac", "mpeg4"),
    "a.webm": ("libopus", "libvpx"),
    "a.mkv": ("libopus", None),
    "a.mka": ("flac", None),
    "a.aac": ("aac", None),
}
DELAY = {"a.aac": 1024}  # a bare stream does not state its encoder's delay


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same sound of two channels in all containers, and in a wav file."""
    folder = tmp_path_factory.mktemp("videos")
    time = np.arange(round(SECONDS * RATE)) / RATE  # a chirp, which is like itself at no other time
    samples = 0.3 * np.sin(2 * np.pi * (200 + 100 * time) * time) * np.array([[1.0], [0.5]])
    for name, (codec, video) in FILES.items():
        write_ffmpeg(folder / name, samples, RATE, codec, video)
    soundfile.write(folder / "a.wav", samples.T, RATE, subtype="FLOAT")
    return folder


def error_in_db(found, expected) -> float:
    """Return by how much the difference is below the sound, in dB."""
    return 10 * np.log10(np.mean((found - expected) ** 2) / np.mean(expected**2))


@pytest.mark.parametrize("name", FILES)
def test_length_and_samples_are_those_of_the_sound_in_wav(files, name):
    header = read_header(files / name)
    assert header[1:] == (RATE, 2)
    assert header.seconds == pytest.approx(SECONDS, abs=0.05 if name in DELAY else 1e-6)
    found, rate = read_samples(files / name, name)
    expected, _ = soundfile.read(files / "a.wav", dtype="float32")
    delay = DELAY.get(name, 0)
    assert rate == RATE and abs(len(found) - len(expected)) <= 2 * delay
    middle = slice(8000, -8000)  # AAC's encoder begins softly
    errors = {
        shift: error_in_db(np.roll(found, -shift, 0)[: len(expected)][middle], expected[middle])
        for shift in range(delay - 30, delay + 31)
    }
    assert min(errors, key=errors.get) == delay and errors[delay] < -20
    assert check_audio(files / name).seconds == pytest.approx(header.seconds, abs=1e-3)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("start", [0.0, 0.3, 1.234567, 2.9])
def test_a_part_is_that_part_of_all_samples(files, name, start):
    everything, _ = read_samples(files / name, name)
    part, _ = read_samples(files / name, name, start, 0.75, channel=0)
    first = round(start * RATE)
    assert part.shape == (36000, 1)
    # AAC's decoder makes the noise of a band up, by what came before.
    assert np.allclose(part, everything[first : first + 36000, :1], atol=1e-3)
    by_content, _ = read_samples((files / name).read_bytes(), name, start, 0.75, channel=0)
    assert np.array_equal(part, by_content)


@pytest.mark.parametrize("name", ["a.m4a", "a.webm"])
def test_blocks_and_windows_join_to_the_clip(files, name):
    whole = read_audio(files / name)
    assert len(whole) == round(SECONDS * 16000)
    blocks = np.concatenate(list(read_blocks(files / name, 0.5)))
    assert np.allclose(blocks, whole, atol=1e-5)
    windows = list(read_windows(files / name, 1.0))
    assert len(windows) == 4 and sum(map(len, windows)) == pytest.approx(len(whole), abs=4)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_is_found(files, tmp_path, name):
    data = (files / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match=rf"{name}: .*(cut off|cannot be read as audio)"):
        check_audio(tmp_path / name)


def test_a_video_without_sound_and_bytes_that_are_none_are_told(tmp_path):
    import av

    with av.open(tmp_path / "mute.mp4", "w") as container:
        images = container.add_stream("mpeg4", rate=10)
        images.width = images.height = 32
        images.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux([*images.encode(frame), *images.encode()])
    with pytest.raises(AudioError, match=r"mute.mp4: .*it has no track of sound"):
        read_audio(tmp_path / "mute.mp4")
    (tmp_path / "a.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A " + bytes(100))
    with pytest.raises(AudioError, match=r"a.m4a: cannot be read as audio.* it is MPEG-4"):
        read_audio(tmp_path / "a.m4a")


def test_without_pyav_both_ways_out_are_named(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match=r"ffmpeg -i FILE.*install 'speechbrain-clsp\[video\]'"):
        read_audio(files / "a.m4a")
    assert len(read_audio(files / "a.wav"))


def test_nothing_is_printed_by_ffmpeg(files, tmp_path, capfd):
    data = (files / "a.webm").read_bytes()
    (tmp_path / "a.webm").write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError):
        check_audio(tmp_path / "a.webm")
    assert capfd.readouterr() == ("", "")
