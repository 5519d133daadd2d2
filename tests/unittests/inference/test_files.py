"""Many files, long files and strange files: a right answer, or an error that names the file."""

import io
import logging
import os
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechbrain_clsp import CLSP, StyleReward
from speechbrain_clsp.dataio.audio import AudioError, read_audio, read_windows
from speechbrain_clsp.inference.files import read_batches
from tests.utils.small import model_folder, tone, write

FORMATS = {"wav": "WAV", "flac": "FLAC", "mp3": "MP3", "ogg": "OGG"}


@pytest.fixture(scope="module")
def clsp(tmp_path_factory):
    """Return a small model."""
    return CLSP.from_hparams(model_folder(tmp_path_factory.mktemp("m")), run_opts={"device": "cpu"})


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Return paths of twelve clips of different lengths, in no order."""
    folder = tmp_path_factory.mktemp("clips")
    lengths = [0.9, 0.3, 2.1, 0.5, 1.4, 0.2, 3.0, 0.7, 0.4, 1.1, 2.5, 0.6]
    return [
        write(folder / f"{i}.wav", tone(s, frequency=90 + 9 * i)) for i, s in enumerate(lengths)
    ]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("seconds", [0.5, 5.0, 500.0])
def test_any_batching_gives_the_same_embeddings_in_the_same_order(clsp, clips, workers, seconds):
    """If this fails, an embedding depends on what else was embedded, or belongs to another file."""
    alone = torch.stack([clsp.encode_file(path) for path in clips])
    found = clsp.encode_files(clips, seconds, num_workers=workers, progress=False)
    assert (found - alone).abs().max() < 1e-4
    assert (1 - (found * alone).sum(dim=1)).max() < 1e-6
    order = [7, 0, 11, 3]
    some = clsp.encode_files([clips[i] for i in order], seconds, progress=False)
    assert (some - alone[order]).abs().max() < 1e-4


def test_a_thousand_calls_are_bit_equal(clsp):
    """If this fails, an embedding is random."""
    wav = torch.from_numpy(tone(0.3))
    first = clsp.encode_batch(wav)
    with torch.inference_mode():
        assert torch.equal(clsp.encode_batch(wav), first)
    assert not first.requires_grad
    assert all(torch.equal(clsp.encode_batch(wav), first) for _ in range(1000))


def test_bad_files_are_skipped_by_name_or_stop_everything(clsp, clips, tmp_path, caplog):
    """If this fails, one bad file of a million ends a night's work, or goes unnoticed."""
    (tmp_path / "text.wav").write_text("not audio")
    paths = [clips[0], tmp_path / "text.wav", clips[1], tmp_path / "gone.wav"]
    with pytest.raises(AudioError, match="2 bad files: .*text.wav.*gone.wav"):
        clsp.encode_files(paths, progress=False)
    logging.getLogger("speechbrain_clsp").propagate = True
    with caplog.at_level(logging.WARNING):
        found = clsp.encode_files(paths, on_error="skip", progress=False)
    assert found.isnan().all(dim=1).tolist() == [False, True, False, True]
    assert "2 of 4 files skipped" in caplog.text and "gone.wav: no such file" in caplog.text
    torch.testing.assert_close(found[2], clsp.encode_file(clips[1]), atol=1e-4, rtol=0)
    with pytest.raises(AudioError, match="2 bad files"):  # nothing is left to return
        clsp.encode_files([paths[1], paths[3]], on_error="skip", progress=False)
    with pytest.raises(ValueError, match="'raise' or 'skip'"):
        clsp.encode_files(paths, on_error="ignore")


def test_a_long_file_is_the_mean_of_its_windows(clsp, tmp_path, monkeypatch):
    """If this fails, long recordings exhaust the memory, or parts of them are not heard."""
    monkeypatch.setattr(CLSP, "WINDOW_SECONDS", 2.0)
    wav = np.concatenate([tone(1.5, frequency=f) for f in (90, 140, 220)])  # 4.5 s
    path = write(tmp_path / "long.wav", wav, subtype="FLOAT")
    parts = [clsp.encode_batch(part)[0] for part in torch.from_numpy(wav).split(24000)]
    expected = torch.nn.functional.normalize(sum(parts), dim=0)
    torch.testing.assert_close(clsp.encode_file(path), expected, atol=1e-4, rtol=0)
    short = write(tmp_path / "short.wav", tone(0.5))
    both = clsp.encode_files([path, short], progress=False)
    torch.testing.assert_close(both[0], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(both[1], clsp.encode_file(short), atol=1e-4, rtol=0)


@pytest.mark.parametrize("suffix", FORMATS)
def test_windows_hold_the_whole_file(tmp_path, suffix):
    """If this fails, samples are lost or heard twice at the windows' borders."""
    path = write(tmp_path / f"a.{suffix}", tone(3.3, rate=24000), 24000, format=FORMATS[suffix])
    whole, parts = read_audio(path), list(read_windows(path, longest=1.0))
    assert len(parts) == 4 and max(map(len, parts)) <= 16001
    joined = torch.cat(parts)
    assert abs(len(joined) - len(whole)) <= 4
    size = min(len(joined), len(whole))
    inner = (joined[:size] - whole[:size]).abs()
    assert inner.median() < 1e-3, "the windows are shifted against the file"
    assert torch.equal(next(read_windows(path, longest=4.0)), whole)


@pytest.fixture(scope="module")
def hour(tmp_path_factory):
    """Return the path of an hour."""
    path, minute = tmp_path_factory.mktemp("hour") / "hour.wav", tone(60)
    with soundfile.SoundFile(path, "w", 16000, 1) as file:
        for _ in range(60):
            file.write(minute)
    return path


def test_an_hour_is_read_in_the_memory_of_a_batch(hour):
    """If this fails, a long recording takes all memory, and the process is killed."""
    tracemalloc.start()
    batches = read_batches([hour], max_seconds=60.0, longest=30.0, num_workers=0)
    sizes = [len(window.content) for batch in batches for window in batch]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sizes == [480000] * 120
    assert peak < 20e6  # a window is 1.9 MB, the hour 230


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("seconds", [0.3, 1.0, 60.0])
def test_windows_are_batched_like_files(clsp, clips, tmp_path, monkeypatch, workers, seconds):
    monkeypatch.setattr(CLSP, "WINDOW_SECONDS", 0.5)
    paths = [*clips, write(tmp_path / "odd.wav", tone(3.3, rate=22050), 22050)]
    alone = torch.stack([clsp.encode_file(path) for path in paths])
    found = clsp.encode_files(paths, seconds, num_workers=workers, progress=False)
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)
    batches = list(read_batches(paths, seconds, 0.5, workers))
    sizes = [[len(window.content) for window in batch] for batch in batches]
    assert all(len(batch) == 1 or len(batch) * max(batch) <= 16000 * seconds for batch in sizes)
    windows = [(window.file, window.number) for batch in batches for window in batch]
    assert len(set(windows)) == len(windows) == 39


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("seconds", [0.5, 60.0])
def test_a_file_that_breaks_in_its_third_window_is_a_bad_file(
    clsp, clips, tmp_path, monkeypatch, caplog, workers, seconds
):
    monkeypatch.setattr(CLSP, "WINDOW_SECONDS", 1.0)
    samples = tone(4.0)
    samples[40000] = np.nan
    broken = write(tmp_path / "broken.wav", samples, subtype="FLOAT")
    paths = [clips[0], broken, tmp_path / "gone.wav", clips[6]]
    with pytest.raises(AudioError, match="2 bad files: .*broken.wav.*NaN.*gone.wav"):
        clsp.encode_files(paths, seconds, workers, progress=False)
    with pytest.raises(AudioError, match="broken.wav"):
        clsp.encode_file(broken)
    logging.getLogger("speechbrain_clsp").propagate = True
    with caplog.at_level(logging.WARNING):
        found = clsp.encode_files(paths, seconds, workers, on_error="skip", progress=False)
    assert found.isnan().all(dim=1).tolist() == [False, True, True, False]
    assert "2 of 4 files skipped" in caplog.text and "broken.wav" in caplog.text
    for row in (0, 3):
        torch.testing.assert_close(found[row], clsp.encode_file(paths[row]), atol=1e-5, rtol=0)


def test_half_precision_keeps_embeddings(clips, tmp_path):
    """If this fails, bf16 gives other scores, or text and speech in types that do not multiply."""
    folder = model_folder(tmp_path)
    exact, fast = (CLSP.from_hparams(folder, run_opts={"device": "cpu"}) for _ in range(2))
    fast.set_precision("bf16")
    paths, texts = [str(path) for path in clips], ["A male speaker.", "Slowly."]
    for wanted, found in (
        (exact.encode_files(paths, progress=False), fast.encode_files(paths, progress=False)),
        (exact.encode_text(texts), fast.encode_text(texts)),
    ):
        assert found.dtype == torch.float32
        assert (wanted * found).sum(dim=1).min() > 0.999
    assert fast.speech_tower.encoder_embed.out.weight.dtype == torch.bfloat16
    assert fast.score_file(paths[0], texts).isfinite().all()
    for precision, pattern in (("fp16", "bf16"), ("int8", "int8")):
        with pytest.raises(ValueError, match=pattern):
            exact.set_precision(precision)


def test_a_timeline_follows_the_recording(clsp, tmp_path):
    """If this fails, moments are given the similarity of other moments."""
    first, second = tone(2.0, frequency=90), 0.2 * tone(2.0, frequency=300)
    path = write(tmp_path / "a.wav", np.concatenate([first, second]), subtype="FLOAT")
    texts = ["a low voice", "a high voice"]
    line = clsp.timeline(path, texts, window=1.0, hop=0.5)
    assert line.times.tolist() == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    expected = clsp.score_batch(torch.from_numpy(np.stack([first[:16000], second[:16000]])), texts)
    torch.testing.assert_close(line.scores[[0, 4]], expected, atol=1e-3, rtol=0)
    line.plot(tmp_path / "line.html")
    page = (tmp_path / "line.html").read_text()
    assert page.count("<polyline") == 2 and "a high voice" in page
    assert clsp.timeline(path, texts, window=60.0).times.tolist() == [2.0]
    with pytest.raises(ValueError, match="must be positive"):
        clsp.timeline(path, texts, hop=0.0)
    with pytest.raises(ValueError, match="end in .html"):
        line.plot(tmp_path / "line.png")


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
@pytest.mark.parametrize("window, hop", [(1.0, 0.3), (0.4, 0.9), (3.7, 0.5), (60.0, 0.5)])
def test_a_timeline_of_blocks_is_that_of_the_whole(clsp, tmp_path, monkeypatch, rate, window, hop):
    samples = tone(3.7, rate) + 0.01 * np.random.default_rng(0).standard_normal(int(3.7 * rate))
    path, texts = write(tmp_path / "a.wav", samples, rate), ["a low voice", "a high voice"]
    whole = read_audio(path)
    size, step = min(len(whole), round(window * 16000)), round(hop * 16000)
    starts = sorted({*range(0, len(whole) - size + 1, step), len(whole) - size})
    parts = torch.stack([whole[start : start + size] for start in starts])
    monkeypatch.setattr(CLSP, "WINDOW_SECONDS", 0.7)
    line = clsp.timeline(path, texts, window, hop)
    torch.testing.assert_close(line.times, (torch.tensor(starts) + size / 2) / 16000)
    torch.testing.assert_close(line.scores, clsp.score_batch(parts, texts), atol=1e-5, rtol=0)


PEAK = """
import resource
import sys
from types import SimpleNamespace
import torch
from speechbrain_clsp import CLSP, StyleReward

fake = SimpleNamespace(
    WINDOW_SECONDS=30.0,
    encode_text=lambda texts: torch.ones(len(texts), 1),
    encode_batch=lambda wavs: wavs.mean(dim=1, keepdim=True),
)
short, long = sys.argv[1:]
CLSP.timeline(fake, short, ["a"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
line = CLSP.timeline(fake, long, ["a"])
print(len(line.times), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count in other units")
def test_a_timeline_of_an_hour_takes_no_more_memory_than_one_of_minutes(tmp_path):
    minute, paths = tone(60, rate=8000), [str(tmp_path / f"{n}.wav") for n in (2, 60)]
    for path, minutes in zip(paths, (2, 60)):
        with soundfile.SoundFile(path, "w", 8000, 1) as file:
            for _ in range(minutes):
                file.write(minute)
    # Large tensors are returned to the system at once, so that the peak is that of live ones.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    command = [sys.executable, "-c", PEAK, *paths]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    n_windows, growth = map(int, done.stdout.split())
    assert n_windows == 7197
    assert growth < 60e3  # kilobytes; the hour has 230 MB at 16 kHz


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    suffix=st.sampled_from(list(FORMATS)),
    rate=st.sampled_from([8000, 16000, 44100, 48000, 192000]),
    channels=st.sampled_from([1, 2, 6]),
    seconds=st.sampled_from([0.0, 0.01, 0.3]),
    damage=st.sampled_from(["none", "cut", "zeros", "noise", "header", "nan"]),
    named=st.sampled_from([*FORMATS, "raw", "txt"]),
    seed=st.integers(0, 99),
)
def test_any_file_gives_its_embedding_or_an_error_with_its_name(
    clsp, tmp_path_factory, suffix, rate, channels, seconds, damage, named, seed
):
    """If this fails, some file makes it crash, hang, or return an embedding of nothing."""
    generator = np.random.default_rng(seed)
    samples = np.repeat(tone(seconds, rate=rate)[:, None], channels, axis=1)
    if damage == "nan" and suffix == "wav":  # the other encoders fail, or crash, on such samples
        samples[len(samples) // 2 :] = np.nan
    path = tmp_path_factory.mktemp("fuzz") / f"clip.{named}"
    subtype = "FLOAT" if suffix == "wav" else None
    try:
        soundfile.write(path, samples, rate, format=FORMATS[suffix], subtype=subtype)
    except soundfile.LibsndfileError:
        return  # not a combination that such files can have
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: int(len(content) * generator.random())]
    elif damage == "zeros":
        content[len(content) // 3 :] = bytes(len(content) - len(content) // 3)
    elif damage in ("noise", "header"):
        stop = 64 if damage == "header" else len(content)
        for place in generator.integers(0, max(1, min(stop, len(content))), 20):
            content[place : place + 1] = generator.bytes(1)
    path.write_bytes(content)
    try:
        embedding = clsp.encode_file(path)
    except AudioError as error:
        assert "clip." in str(error) and "\n" not in str(error)
        # "raw" tells libsndfile that there is no header to read.
        assert damage != "none" or seconds < 0.1 or named == "raw", "a good file was refused"
        return
    assert embedding.isfinite().all() and abs(embedding.norm() - 1) < 1e-4


def test_one_bad_file_of_any_kind_never_takes_the_batch_along(clsp, clips, tmp_path, monkeypatch):
    """If this fails, a night's work ends on the one file that nobody thought of."""
    (tmp_path / "lfs.wav").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "._0.wav").write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere")
    loop = tmp_path / "loop.wav"
    loop.symlink_to(loop)
    latin = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    whole = write(tmp_path / "whole.wav", np.round(50 * tone()), subtype="FLOAT")
    unusual = [b"nothing", None, float("nan"), 7, ["a.wav"], {"path": None}, {"bytes": b"x"}]
    unusual += ["", "\0", "\ud800.wav", "a" * 9999, "https://example.com/a.wav", tmp_path, loop]
    unusual += [tmp_path / name for name in ("lfs.wav", "._0.wav", "gone.wav")]
    unusual += [whole, torch.zeros(16000), io.BytesIO(), open(os.devnull), latin]
    paths = [clips[0], *unusual, clips[1]]
    for workers in (0, 1):
        found = clsp.encode_files(paths, num_workers=workers, on_error="skip", progress=False)
        assert found.isnan().all(dim=1).tolist() == [False, *[True] * len(unusual), False]
        torch.testing.assert_close(found[-1], clsp.encode_file(clips[1]), atol=1e-4, rtol=0)
    with open(latin, "wb") as file:
        file.write(clips[1].read_bytes())
    torch.testing.assert_close(clsp.encode_file(latin), found[-1], atol=1e-4, rtol=0)


def test_many_bad_files_are_cut_after_ten_and_all_in_the_error(clsp, clips, tmp_path, caplog):
    paths = [tmp_path / f"{n}.wav" for n in range(200)]
    with pytest.raises(AudioError, match=r"^200 bad files: .*/0.wav.*and 190 more$") as caught:
        clsp.encode_files([*paths, clips[0]], progress=False)
    assert len(str(caught.value)) < 2500
    assert list(caught.value.errors) == list(range(200))
    assert "199.wav: no such file" in str(pickle.loads(pickle.dumps(caught.value)).errors[199])
    logging.getLogger("speechbrain_clsp").propagate = True
    with caplog.at_level(logging.WARNING):
        clsp.encode_files([*paths, clips[0]], on_error="skip", progress=False)
    assert "200 of 201 files skipped" in caplog.text and "and 190 more" in caplog.text
    assert len(caplog.text) < 2500


def test_what_holds_audio_is_taken_as_files_are(clsp, clips):
    """If this fails, a row of a dataset, or an upload, has to be written to a file first."""
    samples, rate = soundfile.read(clips[0])
    content, expected = clips[0].read_bytes(), clsp.encode_file(clips[0])
    row = {"array": samples, "sampling_rate": rate, "path": None}
    sources = [content, io.BytesIO(content), row, {"bytes": content, "path": None}]
    for source in sources:
        torch.testing.assert_close(clsp.encode_file(source), expected, atol=1e-5, rtol=0)
        assert clsp.score_file(source, ["slowly"]).shape == (1,)
        assert clsp.classify_file(source, ["slowly", "quickly"])[3][0] in ("slowly", "quickly")
        assert clsp.timeline(source, ["slowly"]).scores.shape == (1, 1)
    found = clsp.encode_files([*sources, clips[0]], num_workers=1, progress=False)
    torch.testing.assert_close(found, expected.expand(5, -1), atol=1e-5, rtol=0)
    with pytest.raises(AudioError, match=r"paths\[1\]: cannot be read as audio; it is a text file"):
        clsp.encode_files([clips[0], b"RIFF of nothing"], progress=False)


def test_embeddings_that_are_nan_are_refused_by_name(clips, tmp_path):
    """If this fails, an overflow in half precision gives scores of NaN, or labels."""
    clsp = CLSP.from_hparams(model_folder(tmp_path), run_opts={"device": "cpu"})
    with torch.no_grad():
        clsp.speech_tower.head.projection[0].weight.fill_(torch.inf)
        clsp.text_tower.head.projection[0].weight.fill_(torch.inf)
    with pytest.raises(AudioError, match="0.wav: its embedding is NaN or infinite"):
        clsp.encode_file(clips[0])
    with pytest.raises(ValueError, match="rows 0, 1 are NaN or infinite: with fp16"):
        clsp.encode_batch(torch.randn(2, 16000).clamp(-1, 1))
    with pytest.raises(ValueError, match=r"texts\[0\].*slowly.*NaN or infinite"):
        clsp.encode_text(["slowly"])
    with torch.no_grad():
        clsp.text_tower.head.projection[0].weight.fill_(1.0)
    found = StyleReward(clsp).explain(torch.randn(2, 16000).clamp(-1, 1), ["slowly", "softly"])
    assert found.total.tolist() == [-1.0, -1.0]
    assert found.reasons == ("its embedding is NaN or infinite",) * 2
