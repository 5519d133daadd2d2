"""Encoding speech: audio seconds per second over batch sizes and precisions, beside the limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from gpu_parts import models
from gpu_parts.limits import DTYPES, copy_rate, least_bytes, operations, product_rate
from gpu_parts.setting import RowFunction, Setting, float32_products
from speechbrain_clsp.lobes.speech_tower import SpeechTower

CLIP = 10.0  # seconds; all clips are as long, so that nothing is padding
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
NO_SDPA = (
    "scores = q.k + p.linear_pos(offset), one softmax feeds two self-attentions and one head of a"
    " nonlinear attention, and values have 12 channels per head: fused attention returns no weights"
)


def rows(setting: Setting) -> Iterator[tuple[str, RowFunction]]:
    """Yield the limits, then every batch size in every precision, then other ways to run it."""
    clip = setting.pick(CLIP, 0.5)
    yield "limits of the device", lambda: limits(setting)
    budgets = setting.pick((60, 200, 800), (1, 2))
    for precision in PRECISIONS:
        if precision == "fp16" and not setting.on_gpu:
            continue
        for seconds in budgets:
            name = f"{precision}, {seconds} s"
            yield name, lambda p=precision, s=seconds: eager(setting, p, int(s / clip), clip)
    middle = int(budgets[1] / clip)
    yield "SDPA or fused attention", lambda: {"applies": False, "why": NO_SDPA}
    yield "where the time goes, bf16", lambda: operators(setting, int(budgets[-1] / clip), clip)
    for count in (int(budgets[0] / clip), middle):
        yield f"bf16, CUDA graph, {count * clip:g} s", lambda n=count: graphed(setting, n, clip)
    yield f"bf16, torch.compile, {middle * clip:g} s", lambda: compiled(setting, middle, clip)


def limits(setting: Setting) -> dict:
    """Return the measured rates of a copy and of matrix products."""
    kinds = PRECISIONS if setting.on_gpu else PRECISIONS[:3]
    row = {"copy TB/s": copy_rate(setting) / 1e12}
    return row | {f"{kind} TFLOP/s": product_rate(setting, kind) / 1e12 for kind in kinds}


@lru_cache(maxsize=1)
def tower_in(setting: Setting, precision: str) -> SpeechTower:
    """Return a tower whose front end and encoder work in the precision."""
    tower = models.speech_tower(setting)
    tower.cast(DTYPES[precision])
    return tower


def eager(setting: Setting, precision: str, clips: int, clip: float) -> dict:
    """Measure a plain forward pass, features included."""
    tower, wavs = tower_in(setting, precision), models.noise(setting, clips, clip)
    with float32_products(tf32=precision == "tf32"), torch.no_grad():
        return figures(setting, precision, tower, lambda: tower(wavs), clips * clip)


def figures(
    setting: Setting, precision: str, tower: SpeechTower, work: Callable, seconds: float
) -> dict:
    """Time the work and put it beside its two limits."""
    timing = setting.measure(work)
    n_operations = operations(work)
    n_bytes = least_bytes(tower, work, DTYPES[precision].itemsize)
    by_operations = n_operations / product_rate(setting, precision)
    by_bytes = n_bytes / copy_rate(setting)
    return {
        "audio s/s": seconds / timing.seconds,
        "ms": 1e3 * timing.seconds,
        "spread": timing.spread,
        "TFLOP": n_operations / 1e12,
        "GB at least": n_bytes / 1e9,
        "of the product rate": by_operations / timing.seconds,
        "of the copy rate": by_bytes / timing.seconds,
        "of the nearer limit": max(by_operations, by_bytes) / timing.seconds,
        "peak GiB": timing.peak_gib,
    }


def operators(setting: Setting, clips: int, clip: float) -> dict:
    """Return the operators that take most of the device's time, in percent of it."""
    tower, wavs = tower_in(setting, "bf16"), models.noise(setting, clips, clip)
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * setting.on_gpu
    with torch.no_grad():
        setting.measure(lambda: tower(wavs), repeats=1)
        with profile(activities=kinds) as found:
            tower(wavs)
            setting.synchronize()

    def own(event) -> float:
        return event.self_device_time_total if setting.on_gpu else event.self_cpu_time_total

    events = sorted(found.key_averages(), key=own, reverse=True)
    total = sum(map(own, events)) or 1.0
    shown = [f"{event.key} {100 * own(event) / total:.0f} x{event.count}" for event in events[:10]]
    return {"% of device time, calls": ", ".join(shown), "all calls": sum(e.count for e in events)}


def parts_of(
    tower: SpeechTower, run: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> Callable[[Tensor], Tensor]:
    """Return the tower's forward pass with another way to run its encoder."""

    def forward(wavs: Tensor) -> Tensor:
        features, n_frames = tower.fbank(wavs)
        features = features.to(tower.encoder_embed.out.weight.dtype)
        encoded, _ = run(*tower.encoder_embed(features, n_frames))
        return tower.head(encoded.float().mean(dim=1))  # no padding: all frames are valid

    return forward


def graphed(setting: Setting, clips: int, clip: float) -> dict:
    """Replay the encoder, which never asks the CPU, as one CUDA graph."""
    if not setting.on_gpu:
        return {"applies": False, "why": "CUDA graphs need a GPU"}
    tower, wavs = tower_in(setting, "bf16"), models.noise(setting, clips, clip)
    with torch.no_grad():
        features, n_frames = tower.fbank(wavs)
        inputs = tower.encoder_embed(features.to(torch.bfloat16), n_frames)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                tower.encoder(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = tower.encoder(*inputs)

        def replay(x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
            inputs[0].copy_(x)
            inputs[1].copy_(counts)
            graph.replay()
            return outputs

        return beside_eager(setting, tower, replay, wavs)


def compiled(setting: Setting, clips: int, clip: float) -> dict:
    """Let torch.compile fuse the encoder; the first call's time is given apart."""
    tower, wavs = tower_in(setting, "bf16"), models.noise(setting, clips, clip)
    backend = setting.pick("inductor", "eager")  # a compiler takes minutes on a CPU
    encoder = torch.compile(tower.encoder, dynamic=False, backend=backend)
    with torch.no_grad():
        start = time.perf_counter()
        parts_of(tower, encoder)(wavs)
        setting.synchronize()
        first = time.perf_counter() - start
        return beside_eager(setting, tower, encoder, wavs) | {"first call s": first}


def beside_eager(setting: Setting, tower: SpeechTower, run: Callable, wavs: Tensor) -> dict:
    """Compare another way to run the encoder with the plain one: time and embeddings."""
    seconds, forward = wavs.numel() / 16000, parts_of(tower, run)
    plain, other = setting.measure(lambda: tower(wavs)), setting.measure(lambda: forward(wavs))
    cosine = torch.nn.functional.cosine_similarity(tower(wavs), forward(wavs)).min().item()
    return {
        "audio s/s": seconds / other.seconds,
        "times as fast as eager": plain.seconds / other.seconds,
        "spread": other.spread,
        "smallest cosine": cosine,
        "passed": cosine >= 0.999,
    }
