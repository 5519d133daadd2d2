#!/usr/bin/env python3
"""A training loop without a framework, rewarded by a service.

The policy is a pitch and a level, the synthesizer a buzz. Each step draws candidates around the
policy and moves it to the mean of the best ones (the cross-entropy method). A real trainer puts
its own synthesizer and update in their places.

> python loop.py --url http://127.0.0.1:8000 --caption "A man speaks loudly in a low voice."
"""

from __future__ import annotations

import argparse

import numpy as np

from speechbrain_clsp.serve import RewardClient

RATE = 16000


def synthesize(pitch: float, level: float, seconds: float = 1.0) -> np.ndarray:
    """Return a buzz [T] whose loudness moves as that of syllables."""
    time = np.arange(int(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12))
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * time)
    return (10 ** (level / 20) * buzz * syllables).clip(-1, 1).astype(np.float32)


def train(rewards: RewardClient, caption: str, n_steps: int, n_candidates: int) -> list[float]:
    """Return the mean reward of each step."""
    draw = np.random.default_rng(0)
    mean, spread = np.array([np.log(180.0), -20.0]), np.array([0.4, 6.0])  # log Hz, dB
    history = []
    for step in range(n_steps):
        settings = mean + spread * draw.standard_normal((n_candidates, 2))
        wavs = [synthesize(np.exp(pitch), min(level, -6.0)) for pitch, level in settings]
        found = rewards(wavs, [caption] * n_candidates, RATE)
        best = settings[found.values.argsort()[-max(1, n_candidates // 4) :]]
        mean, spread = best.mean(axis=0), 0.9 * spread
        history.append(float(found.values.mean()))
        vetoes = sum(bool(reason) for reason in found.reasons)
        print(
            f"step {step}: reward {history[-1]:+.3f}, {vetoes} vetoes, pitch"
            f" {np.exp(mean[0]):.0f} Hz, level {mean[1]:.0f} dB",
            flush=True,
        )
    return history


def main() -> None:
    """Train, and print each step."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--url", default="http://127.0.0.1:8000")
    options.add_argument("--caption", default="A man speaks loudly in a low voice.")
    options.add_argument("--steps", type=int, default=8)
    options.add_argument("--candidates", type=int, default=16)
    options = options.parse_args()
    train(RewardClient(options.url), options.caption, options.steps, options.candidates)


if __name__ == "__main__":
    main()
