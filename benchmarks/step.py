#!/usr/bin/env python3
"""Time of training and evaluation, against the published formulas and the limit of products.

Published: the same tower and weights, with formulas as they are written: activations, attention
weights and masks by whole tensors, convolutions in the layout in which they are defined. The loss
is the sum of half of the embeddings' values. Ways are run in turns, in processor time, since other
work may be on the machine. The limit is the time that all products of matrices, convolutions
included, would take at the speed of one large product; a backward pass counts as two forward ones.
Parts are the front end, and those of one layer at its full frame rate.

> python benchmarks/step.py --threads 1 --dim 256
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from regularizers import make_tower
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from speechbrain_clsp.lobes.speech_tower import SpeechTower
from speechbrain_clsp.lobes.zipformer import activations, attention, frontend, layer
from speechbrain_clsp.nnet.masking import padding_mask
from speechbrain_clsp.utils.memory import keep_freed_memory


def plain_swoosh(self: activations.SwooshL, x: Tensor) -> Tensor:
    """Write the formula as it is."""
    return torch.logaddexp(torch.zeros_like(x), x - self.shift) - 0.08 * x - self.offset


def plain_attention(self: attention.RelativeAttentionWeights, x, positions, mask):
    """Compute all scores, then mask them, then the weights."""
    batch, size, _ = x.shape
    query, key, position_query = (
        part.view(batch, size, self.heads, -1).transpose(1, 2)
        for part in self.in_proj(x).split(self.sizes, dim=-1)
    )
    position_key = self.linear_pos(positions).view(2 * size - 1, self.heads, -1)
    position_key = nn.functional.pad(position_key, (0, 0, 0, 0, 0, 1))
    by_offset = position_query @ position_key.permute(1, 2, 0)
    scores = query @ key.transpose(2, 3) + attention._offset_to_key(by_offset)
    weights = scores.masked_fill(mask[:, None, None], -1000.0).softmax(dim=-1)
    return weights, weights[:, 0]


def plain_feed_forward(self: layer.FeedForward, x: Tensor, mask: Tensor) -> Tensor:
    """Apply the layers in turn."""
    return self.out_proj(self.activation(self.in_proj(x)))


def plain_convolution(self: layer.ConvolutionModule, x: Tensor, mask: Tensor) -> Tensor:
    """Convolve [B, D, F]."""
    value, gate = self.in_proj(x).chunk(2, dim=-1)
    x = (value * gate.sigmoid()).transpose(1, 2).masked_fill(mask[:, None], 0.0)
    return self.out_proj(self.activation(self.depthwise_conv(x).transpose(1, 2)))


def plain_convnext(self: frontend.ConvNeXt, x: Tensor, counts: Tensor) -> Tensor:
    """Convolve [B, C, F, N]."""
    x = x.masked_fill(padding_mask(counts, x.shape[2])[:, None, :, None], 0.0)
    hidden = self.activation(self.pointwise_conv1(self.depthwise_conv(x)))
    return x + self.pointwise_conv2(hidden)


def plain_frontend(self: frontend.Conv2dSubsampling, features: Tensor, n_frames: Tensor):
    """Convolve [B, C, F, N]."""
    counts = (n_frames - 7) // 2
    x = self.convnext(self.conv(features.unsqueeze(1)), counts)
    return self.out_norm(self.out(x.transpose(1, 2).flatten(2))), counts


PLAIN = {
    activations.SwooshL: plain_swoosh,
    attention.RelativeAttentionWeights: plain_attention,
    layer.FeedForward: plain_feed_forward,
    layer.ConvolutionModule: plain_convolution,
    frontend.ConvNeXt: plain_convnext,
    frontend.Conv2dSubsampling: plain_frontend,
}


@contextmanager
def published_formulas() -> Iterator[None]:
    """Compute towers without regularization by the published formulas as they are written."""
    ours = {kind: kind.forward for kind in PLAIN}
    try:
        for kind, forward in PLAIN.items():
            kind.forward = forward
        yield
    finally:
        for kind, forward in ours.items():
            kind.forward = forward


WAYS = {"published": published_formulas, "ours": nullcontext}


def product_speed(threads: int) -> float:
    """Return the GFLOP/s of a product of matrices, the best of several."""
    a, b = torch.randn(3168, 768), torch.randn(768, 768)
    durations = []
    for _ in range(20):
        start = time.process_time()
        torch.mm(a, b)
        durations.append((time.process_time() - start) / threads)
    return 2 * 3168 * 768**2 / min(durations) / 1e9


def measure(run: Callable[[], Tensor], training: bool, rounds: int, threads: int) -> dict:
    """Return each way's median seconds, the GFLOP, and the largest difference of outputs."""

    def once() -> Tensor:
        torch.manual_seed(0)  # dropout of the head
        with torch.set_grad_enabled(training):
            output = run()
            if training:
                output.backward(torch.ones_like(output))
        return output.detach()

    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    outputs = {}
    for turn in range(rounds + 1):  # the first is to warm up
        for way, formulas in WAYS.items():
            with formulas():
                start = time.process_time()
                outputs[way] = once()
                if turn:
                    seconds[way].append((time.process_time() - start) / threads)
    with published_formulas(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    found = {way: statistics.median(values) for way, values in seconds.items()}
    found["ratio"] = statistics.median(
        a / b for a, b in zip(seconds["published"], seconds["ours"], strict=True)
    )
    found["GFLOP"] = (3 if training else 1) * counter.get_total_flops() / 1e9
    found["difference"] = float((outputs["ours"] - outputs["published"]).abs().max())
    return found


def parts_of(tower: SpeechTower, n_frames: int, clips: int) -> dict[str, Callable[[], Tensor]]:
    """Return what to run of the tower, by name."""
    features, counts = torch.randn(clips, n_frames, 128), torch.full((clips,), n_frames)
    size = (n_frames - 7) // 2
    first = tower.encoder.encoders[0].layers[0]
    x = torch.randn(clips, size, tower.encoder.dims[0], requires_grad=True)
    mask, positions = padding_mask(torch.full((clips,), size), size), torch.randn(2 * size - 1, 48)
    with torch.no_grad():
        weights, of_first_head = first.self_attn_weights(x, positions, mask)
    weights.requires_grad_()
    of_first_head = of_first_head.clone().requires_grad_()
    return {
        "front end": lambda: tower.encoder_embed(features, counts)[0],
        "attention weights": lambda: first.self_attn_weights(x, positions, mask)[0],
        "self-attention": lambda: first.self_attn1(x, weights, mask),
        "nonlinear attention": lambda: first.nonlin_attention(x, of_first_head, mask),
        "feed-forward": lambda: first.feed_forward2(x, mask),
        "convolution": lambda: first.conv_module1(x, mask),
        "layer": lambda: first(x, positions, mask),
    }


def main() -> None:
    """Print one line of JSON per kind of run."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--dim", type=int, default=256)
    options.add_argument("--clips", type=int, default=8)
    options.add_argument("--clip_seconds", type=float, default=8.0)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--parts", action="store_true", help="measure parts too")
    options.add_argument("--keep_freed_memory", action="store_true", help="as trainings do")
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    if options.keep_freed_memory:
        keep_freed_memory()
    tower = make_tower(options.dim, None)
    wavs = 0.1 * torch.randn(options.clips, int(16000 * options.clip_seconds))
    runs = {"tower": lambda: tower(wavs)[:, ::2]}
    if options.parts:
        runs |= parts_of(tower, int(100 * options.clip_seconds), options.clips)
    for training in (True, False):
        tower.train(training)
        for name, run in runs.items():
            found = measure(run, training, options.rounds, options.threads)
            tower.zero_grad(set_to_none=True)
            speed = product_speed(options.threads)
            limit = found["GFLOP"] / speed
            row = {"run": "train" if training else "eval", "of": name}
            row |= {key: float(f"{value:.3g}") for key, value in found.items()}
            row |= {"GFLOP/s": round(speed), "limit": round(limit, 4)}
            row |= {"share of products": round(limit / found["ours"], 2)}
            print(json.dumps(row | vars(options) | {"torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
