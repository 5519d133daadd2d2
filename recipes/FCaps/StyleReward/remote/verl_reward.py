"""A style reward for verl.

In verl's settings, ``custom_reward_function.path`` is this file. Its ``name`` is ``compute_score``
for reward managers that ask for each sample, as the default one does, and ``compute_scores`` for
``reward_manager: batch``.

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
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Return ``score`` of a sample, its cosine, and why it got the veto, if it did.

    Arguments
    ---------
    data_source, solution_str : str
        Not looked at: what is rewarded is the sound.
    ground_truth : str
        The wanted style.
    extra_info : dict
        ``audio``, a waveform [T] in [-1, 1], which a rollout or an agent loop puts there, and its
        ``sample_rate`` in Hz; perhaps ``text``, what should be said.
    **others : dict
        What else verl passes, such as ``reward_router_address``.
    """
    return compute_scores([data_source], [solution_str], [ground_truth], [extra_info])[0]


def compute_scores(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[str],
    extra_infos: Sequence[Mapping[str, Any] | None],
    **others: Any,
) -> list[dict[str, Any]]:
    """Do what :func:`compute_score` does, for a batch."""
    infos = [info or {} for info in extra_infos]
    if absent := [n for n, info in enumerate(infos) if not {"audio", "sample_rate"} <= set(info)]:
        raise ValueError(f"extra_info of samples {absent[:10]} lacks audio or sample_rate")
    wavs = [np.asarray(info["audio"], np.float32) for info in infos]
    rates = [int(info["sample_rate"]) for info in infos]
    has_texts = all("text" in info for info in infos)
    texts = [info["text"] for info in infos] if has_texts else None
    found = client()(wavs, list(ground_truths), rates, texts=texts)
    return [
        {"score": float(value), "cosine": float(cosine), "veto": reason}
        for value, cosine, reason in zip(found.values, found.parts["cosine"], found.reasons)
    ]
