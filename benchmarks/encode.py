#!/usr/bin/env python3
"""Time to embed speech with the published architecture at full size, against a plain forward.

Plain: the same weights by the published formulas as they are written, as in ``step.py``, gradients
off, padded batches of eight clips in order of arrival. Ours: ``CLSP.encode_batch`` on length-sorted
batches, fp32 and bf16. Weights are random: the time does not depend on them.

> python benchmarks/encode.py --threads 2 --clips 24
"""

import argparse
import json
import random
import resource
import time

import torch
from step import published_formulas

from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.inference.files import pad, plan_batches
from speechbrain_clsp.lobes.speech_tower import SpeechTower
from speechbrain_clsp.lobes.text_tower import RobertaTextTower
from speechbrain_clsp.lobes.zipformer.encoder import Zipformer2
from speechbrain_clsp.nnet.logit_scale import LogitScale

XLARGE = {
    "downsampling": [1, 2, 4, 8, 4, 2, 1],
    "n_layers": [1, 2, 3, 4, 1, 1, 1],
    "dims": [1280] * 7,
    "feedforward": [3840] * 7,
    "heads": [8] * 7,
    "kernels": [31, 31, 15, 15, 15, 31, 31],
}
RATE = 16000


def make_clips(number: int) -> list[torch.Tensor]:
    """Return noise of 2 to 20 s, always the same."""
    chance, generator = random.Random(0), torch.Generator().manual_seed(0)
    lengths = [int(chance.uniform(2, 20) * RATE) for _ in range(number)]
    return [0.1 * torch.randn(length, generator=generator) for length in lengths]


def make_model() -> CLSP:
    """Return the published architecture with random weights."""
    torch.manual_seed(0)
    modules = {
        "speech_tower": SpeechTower(Zipformer2(**XLARGE)),
        "text_tower": RobertaTextTower(n_layers=1),  # not measured here
        "logit_scale": LogitScale(),
    }
    return CLSP(modules=modules, hparams={"tokenizer": None}, run_opts={"device": "cpu"})


def plainly(model: CLSP, wavs: list[torch.Tensor]) -> torch.Tensor:
    """Embed in order of arrival, by formulas as they are written."""
    with published_formulas(), torch.no_grad():
        parts = [wavs[i : i + 8] for i in range(0, len(wavs), 8)]
        return torch.cat([model.speech_tower(*pad(part)) for part in parts])


def ours(model: CLSP, wavs: list[torch.Tensor]) -> torch.Tensor:
    """Embed in batches of similar length."""
    found = {}
    with torch.inference_mode():
        for batch in plan_batches([len(wav) / RATE for wav in wavs], max_seconds=60.0):
            found.update(zip(batch, model.encode_batch(*pad([wavs[i] for i in batch]))))
    return torch.stack([found[i] for i in range(len(wavs))])


def main() -> None:
    """Measure and print one line of JSON per way."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--clips", type=int, default=24)
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    wavs, model = make_clips(options.clips), make_model()
    seconds = sum(map(len, wavs)) / RATE
    model.encode_batch(wavs[0])
    rows, reference = {}, None
    for name, encode in (("plain fp32", plainly), ("ours fp32", ours), ("ours bf16", ours)):
        if name == "ours bf16":
            model.set_precision("bf16")
            model.encode_batch(wavs[0])
        start = time.perf_counter()
        found = encode(model, wavs)
        took = time.perf_counter() - start
        reference = found if reference is None else reference
        rows[name] = took
        print(
            json.dumps(
                {
                    "way": name,
                    "seconds": round(took, 2),
                    "RTF": round(took / seconds, 4),
                    "times as fast as plain": round(rows["plain fp32"] / took, 2),
                    "largest difference": float((found - reference).abs().max()),
                    "smallest cosine": float((found * reference).sum(dim=1).min()),
                    "peak GiB": round(
                        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2
                    ),
                    "speech seconds": round(seconds),
                    "threads": options.threads,
                    "torch": torch.__version__,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
