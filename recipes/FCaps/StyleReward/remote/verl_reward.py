"""A style reward for verl.

In verl's settings, ``custom_reward_function.path`` is this file, ``custom_reward_function.name`` is
``compute_score``, and ``reward_model.reward_manager`` is ``batch``.

The address of the service is in ``CLSP_URL``, its token, if it asks for one, in ``CLSP_TOKEN``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from speechbrain_clsp.serve import RewardClient


@lru_cache(maxsize=1)
def client() -> RewardClient:
    """Return the client that all calls share."""
    return RewardClient(os.environ.get("CLSP_URL", "http://127.0.0.1:8000"))


def compute_score(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[str],
    extra_infos: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return ``score`` of each sample, its cosine, and why it got the veto, if it did.

    Arguments
    ---------
    data_sources, solution_strs : sequence of str
        Not looked at: what is rewarded is the sound.
    ground_truths : sequence of str
        The wanted style of each.
    extra_infos : sequence of dict
        ``audio``, a waveform [T] in [-1, 1], and ``sample_rate`` in Hz; ``text``, what should be
        said, if all have it.
    """
    wavs = [np.asarray(info["audio"], np.float32) for info in extra_infos]
    rates = [int(info["sample_rate"]) for info in extra_infos]
    has_texts = all("text" in info for info in extra_infos)
    texts = [info["text"] for info in extra_infos] if has_texts else None
    found = client()(wavs, ground_truths, rates, texts=texts)
    return [
        {"score": float(value), "cosine": float(cosine), "veto": reason}
        for value, cosine, reason in zip(found.values, found.parts["cosine"], found.reasons)
    ]
