import pytest
import torch
from torchmetrics import MetricCollection
from torchmetrics.wrappers import MetricTracker

from speechbrain_clsp import CLSP
from speechbrain_clsp.integrations import CLSPScore
from tests.utils.processes import run_processes
from tests.utils.small import CAPTIONS, model_folder


@pytest.fixture(scope="module")
def clsp(tmp_path_factory):
    return CLSP.from_pretrained(model_folder(tmp_path_factory.mktemp("model")))


def clips(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 4000, generator=generator) - 0.5


def texts(count: int) -> list[str]:
    return [CAPTIONS[number % len(CAPTIONS)] for number in range(count)]


def mean_cosine(clsp, wavs, captions) -> float:
    """Return the mean in plain Python, clip by clip."""
    pairs = zip(wavs, captions)
    return sum(float(clsp.score_batch(wav[None], [text])) for wav, text in pairs) / len(captions)


def test_uneven_batches_give_the_mean_over_clips(clsp):
    metric, wavs, captions = CLSPScore(clsp), clips(7), texts(7)
    for start, end in ((0, 1), (1, 5), (5, 7)):
        metric.update(wavs[start:end], captions[start:end])
    assert float(metric.compute()) == pytest.approx(mean_cosine(clsp, wavs, captions), abs=1e-6)
    metric.reset()
    assert metric.compute().isnan()


def test_the_value_of_a_batch_and_a_single_clip(clsp):
    metric, wavs, captions = CLSPScore(clsp), clips(3), texts(3)
    assert float(metric(wavs, captions)) == pytest.approx(mean_cosine(clsp, wavs, captions), 1e-5)
    first = float(metric(wavs[0], captions[:1]))
    assert first == pytest.approx(mean_cosine(clsp, wavs[:1], captions[:1]), 1e-5)
    # Padding does not count.
    padded = torch.nn.functional.pad(wavs, (0, 4000))
    metric = CLSPScore(clsp)
    metric.update(padded, captions, torch.full((3,), 0.5))
    assert float(metric.compute()) == pytest.approx(mean_cosine(clsp, wavs, captions), abs=1e-4)


def test_forward_needs_no_full_state(clsp):
    """If this fails, ``metric(...)`` in a loop differs from ``update`` and ``compute``."""

    class FullState(CLSPScore):
        full_state_update = True

    short, full = CLSPScore(clsp), FullState(clsp)
    for size in (2, 3):
        assert short(clips(size), texts(size)) == full(clips(size), texts(size))
    assert short.compute() == full.compute() and short.count == 5


def test_it_works_in_torchmetrics_collections_and_wrappers(clsp):
    collection = MetricCollection({"score": CLSPScore(clsp)})
    other = collection.clone(prefix="test_")
    collection.update(clips(2), texts(2))
    assert collection["score"].count == 2 and other["score"].count == 0
    tracker = MetricTracker(CLSPScore(clsp))
    for seed in (0, 1):
        tracker.increment()
        tracker.update(clips(3, seed), texts(3))
    values = [mean_cosine(clsp, clips(3, seed), texts(3)) for seed in (0, 1)]
    best, step = tracker.best_metric(return_step=True)
    assert (best, step) == (pytest.approx(max(values), abs=1e-6), values.index(max(values)))


def test_captions_must_fit_the_clips(clsp):
    metric = CLSPScore(clsp)
    with pytest.raises(ValueError, match="3 clips need as many captions, not 2"):
        metric.update(clips(3), texts(2))
    with pytest.raises(ValueError, match="Caption 0 is empty"):
        metric.update(clips(1), [""])
    assert metric.count == 0


def check_two_processes(rank: int, folder: str, model: str) -> None:
    """Update with one and four clips: the mean is over all five, on both processes."""
    torch.manual_seed(rank)
    clsp = CLSP.from_pretrained(model)
    wavs, captions = clips(5), texts(5)
    own = slice(0, 1) if rank == 0 else slice(1, 5)
    metric = CLSPScore(clsp)
    metric.update(wavs[own], captions[own])
    assert float(metric.compute()) == pytest.approx(mean_cosine(clsp, wavs, captions), abs=1e-6)
    assert metric.count == (1 if rank == 0 else 4)  # its own again, after the common value


def test_two_processes_give_the_mean_over_all_clips(tmp_path):
    run_processes(check_two_processes, 2, tmp_path, str(model_folder(tmp_path)))
