"""The loss of large batches, in tiles and plain, and ranks of many pairs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from retrieval import by_matrix, by_tiles, embeddings

from gpu_parts.setting import RowFunction, Setting, float32_products
from speechbrain_clsp.nnet.losses import contrastive_loss

TEXTS, SIZE = 2, 512
PLAIN_MATRICES = 5  # of the size [N, 2 N] that plain autograd holds at its peak


def rows(setting: Setting) -> Iterator[tuple[str, RowFunction]]:
    """Yield each batch size in tiles and plain, in both kinds of float32 products, then ranks."""
    for clips in setting.pick((8192, 32768, 65536), (64, 128)):
        for tile in setting.pick((1024, 4096), (32,)):
            yield f"{clips} clips, tiles of {tile}", lambda n=clips, t=tile: loss(setting, n, t)
        yield f"{clips} clips, plain", lambda n=clips: loss(setting, n, None)
    tile = setting.pick(4096, 32)
    clips = setting.pick(32768, 64)
    yield f"{clips} clips, TF32", lambda: loss(setting, clips, tile, tf32=True)
    pairs = setting.pick(100_000, 300)
    yield f"ranks of {pairs} pairs, both directions", lambda: ranks(setting, pairs)
    pairs = setting.pick(20_000, 300)
    yield f"ranks of {pairs} pairs beside the whole matrix", lambda: matrix(setting, pairs)


def loss(setting: Setting, clips: int, tile: int | None, tf32: bool = False) -> dict:
    """Measure forward and backward; the plain loss only where it fits."""
    needed = PLAIN_MATRICES * 4 * TEXTS * clips**2 / 2**30
    row = {"matrix GiB": 4 * TEXTS * clips**2 / 2**30}
    if tile is None and setting.on_gpu and needed > torch.cuda.mem_get_info()[0] / 2**30:
        sizes = f"{PLAIN_MATRICES} x {clips} x {TEXTS * clips} x 4 B = {needed:.0f} GiB"
        return {**row, "not run": f"would need {sizes}"}
    torch.manual_seed(0)
    unit = torch.nn.functional.normalize
    speech = unit(torch.randn(clips, SIZE, device=setting.device), dim=-1).requires_grad_()
    text = unit(torch.randn(TEXTS, clips, SIZE, device=setting.device), dim=-1).requires_grad_()
    scale = torch.tensor([14.3], device=setting.device, requires_grad=True)

    def work() -> torch.Tensor:
        speech.grad = text.grad = scale.grad = None
        value = contrastive_loss(speech, text, scale, tile)
        value.backward()
        return value

    with float32_products(tf32):
        timing = setting.measure(work, repeats=3, warm_up=1)
        value = work().item()
    # Both directions: scores, and the two products of their gradients.
    n_operations = 2 * 3 * 2 * TEXTS * clips**2 * SIZE
    return row | {
        "ms": 1e3 * timing.seconds,
        "spread": timing.spread,
        "peak GiB": timing.peak_gib,
        "TFLOP/s": n_operations / timing.seconds / 1e12,
        "loss": value,
        "passed": value == value,
    }


def ranks(setting: Setting, pairs: int) -> dict:
    """Rank on the device; the first queries must stand where the CPU ranks them."""
    speech, text = embeddings(pairs, half=False)
    there = speech.to(setting.device), text.to(setting.device)
    timing = setting.measure(lambda: by_tiles(*there), repeats=1, warm_up=1)
    found = by_tiles(*there)[0].cpu()
    some = setting.pick(256, 100)
    expected = by_tiles(speech[:some], text)[0]
    differing = int((found[:some] != expected).sum())
    return {
        "s": timing.seconds,
        "peak GiB": timing.peak_gib,
        "R@1": float((found == 1).double().mean()),
        f"of {some}, differ from the CPU's": differing,
        "passed": differing == 0,
    }


def matrix(setting: Setting, pairs: int) -> dict:
    """Compare with a full sort of the whole matrix, as evaluation scripts usually do it."""
    speech, text = (x.to(setting.device) for x in embeddings(pairs, half=False))
    ours = setting.measure(lambda: by_tiles(speech, text), repeats=2, warm_up=1)
    theirs = setting.measure(lambda: by_matrix(speech, text), repeats=2, warm_up=1)
    return {
        "tiles s": ours.seconds,
        "matrix s": theirs.seconds,
        "tiles peak GiB": ours.peak_gib,
        "matrix peak GiB": theirs.peak_gib,
    }
