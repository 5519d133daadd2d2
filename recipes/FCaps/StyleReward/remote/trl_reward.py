"""A style reward for TRL's trainers, such as ``GRPOTrainer(reward_funcs=style_reward, ...)``.

The address of the service is in ``CLSP_URL``, its token, if it asks for one, in ``CLSP_TOKEN``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from speechbrain_clsp.serve import RewardClient


@lru_cache(maxsize=1)
def client() -> RewardClient:
    """Return the client that all calls share."""
    return RewardClient(os.environ.get("CLSP_URL", "http://127.0.0.1:8000"))


def style_reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
    """Return a reward for each completion.

    Arguments
    ---------
    prompts : sequence
        What was generated from; only their number counts.
    completions : sequence of array, or of dict
        B waveforms [T] in [-1, 1]; or dicts with ``array`` and ``sampling_rate``.
    **columns : dict
        Of the data set, a value per completion: ``caption``, the wanted style; where it applies
        ``text``, what should be said; ``sample_rate`` in Hz, by default 24000. Others are ignored.
    """
    if len(prompts) != len(completions):
        raise ValueError(f"{len(completions)} completions for {len(prompts)} prompts")
    rates = columns.get("sample_rate") or [24000] * len(completions)
    wavs = []
    for number, completion in enumerate(completions):
        if isinstance(completion, dict):
            rates[number] = completion["sampling_rate"]
            completion = completion["array"]
        wavs.append(np.asarray(completion, np.float32))
    found = client()(wavs, columns["caption"], rates, texts=columns.get("text"))
    return found.values.tolist()
