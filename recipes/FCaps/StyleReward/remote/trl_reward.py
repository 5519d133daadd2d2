"""A style reward for TRL, such as for ``GRPOTrainer(reward_funcs=make_reward(to_wav), ...)``.

TRL's models generate text or tokens of a codec, so a trainer of speech says how these are made
waveforms. The address of the service is in ``CLSP_URL``, its token, if it asks for one, in
``CLSP_TOKEN``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from speechbrain_clsp.serve import RewardClient

ToWav = Callable[[Any, Sequence[int]], tuple[np.ndarray, int]]


@lru_cache(maxsize=1)
def client() -> RewardClient:
    """Return the client that all calls share."""
    return RewardClient(os.environ.get("CLSP_URL", "http://127.0.0.1:8000"))


def make_reward(to_wav: ToWav) -> Callable[..., list[float]]:
    """Return a reward function, which TRL's logs call ``style_reward``.

    Arguments
    ---------
    to_wav : callable
        Gets a completion, as TRL has it (text, or a list of messages), and its token ids; returns
        a waveform [T] in [-1, 1] and its rate in Hz. A codec's decoder, most often.
    """

    def style_reward(
        prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float]:
        """Return a reward for each completion.

        Arguments
        ---------
        prompts, completions : sequence
            B of each.
        **columns : dict
            Of the data set, a value per completion: ``caption``, the wanted style; where it applies
            ``text``, what should be said. Of TRL: ``completion_ids``. Others are ignored.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"{len(completions)} completions for {len(prompts)} prompts")
        ids = columns.get("completion_ids") or [[]] * len(completions)
        wavs, rates = zip(*(to_wav(*each) for each in zip(completions, ids)))
        found = client()(wavs, columns["caption"], list(rates), texts=columns.get("text"))
        return found.values.tolist()

    return style_reward
