"""A CLAP of transformers, such as LAION's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from speechbrain_clsp.evaluation.models.base import DualEncoderBase, state_of, unit


class ClapModel(DualEncoderBase):
    """A CLAP of transformers: mono at its feature extractor's rate, 48 kHz.

    Its extractor crops longer clips *at random*; here they are cut into equal windows of at most
    its length (10 s), whose normalized mean is the embedding, so that metrics can be repeated.

    Arguments
    ---------
    source : str
        Folder or Hub repository with ``model.safetensors``; no code of it is run.
    revision : str, optional
        Of the repository.
    device : str
        Where it runs.
    """

    def __init__(self, source: str, revision: str | None = None, device: str = "cpu") -> None:
        options = {} if revision is None else {"revision": revision}
        clap = transformers.ClapModel.from_pretrained(source, use_safetensors=True, **options)
        self.clap = clap.eval().to(device)
        extractor = transformers.ClapFeatureExtractor.from_pretrained(source, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
        super().__init__(source, state_of(source, revision), extractor, tokenizer, device)

    def _embed_speech(self, wavs: list[np.ndarray]) -> Tensor:
        """Embed a single clip."""
        (wav,), rate = wavs, self.extractor.sampling_rate
        longest = int(self.extractor.max_length_s * rate)
        windows = [
            np.ascontiguousarray(window)
            for window in np.array_split(wav, max(1, math.ceil(len(wav) / longest)))
        ]
        inputs = self.extractor(windows, sampling_rate=rate, return_tensors="pt")
        # The extractor marks a random clip as longer; none is, after the cut.
        longer = torch.zeros(len(windows), 1, dtype=torch.bool, device=self.device)
        features = inputs["input_features"].to(self.device)
        speech = self.clap.get_audio_features(input_features=features, is_longer=longer)
        return unit(_pooled(speech)).mean(dim=0, keepdim=True)

    def _embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return _pooled(self.clap.get_text_features(input_ids, attention_mask=attention_mask))


def _pooled(output: Any) -> Tensor:
    """Return the embedding; newer transformers wrap it."""
    return getattr(output, "pooler_output", output)
