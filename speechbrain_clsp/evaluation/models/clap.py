"""A CLAP of transformers, such as LAION's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from speechbrain_clsp.evaluation.models.base import batches, read_at, state_of, unit


class ClapModel:
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

    is_bound = False

    def __init__(self, source: str, revision: str | None = None, device: str = "cpu") -> None:
        options = {} if revision is None else {"revision": revision}
        clap = transformers.ClapModel.from_pretrained(source, use_safetensors=True, **options)
        self.clap = clap.eval().to(device)
        self.extractor = transformers.ClapFeatureExtractor.from_pretrained(source, **options)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
        self.model, self.device = source, device
        self.revision = state_of(source, revision)

    @torch.no_grad()
    def encode_files(self, paths: Sequence[str]) -> Tensor:
        """Embed audio files, one at a time."""
        rate = self.extractor.sampling_rate
        longest = int(self.extractor.max_length_s * rate)
        vectors = []
        for path in paths:
            wav = read_at(path, rate)
            windows = np.array_split(wav, max(1, math.ceil(len(wav) / longest)))
            inputs = self.extractor(
                [np.ascontiguousarray(window) for window in windows],
                sampling_rate=rate,
                return_tensors="pt",
            )
            # The extractor marks a random clip as longer; none is, after the cut.
            longer = torch.zeros(len(windows), 1, dtype=torch.bool, device=self.device)
            features = inputs["input_features"].to(self.device)
            speech = self.clap.get_audio_features(input_features=features, is_longer=longer)
            vectors.append(unit(_pooled(speech)).mean(dim=0))
        return unit(torch.stack(vectors))

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed captions."""
        vectors = []
        for part in batches(texts):
            tokens = self.tokenizer(part, padding=True, truncation=True, return_tensors="pt")
            names = ("input_ids", "attention_mask")
            inputs = {name: tokens[name].to(self.device) for name in names}
            vectors.append(unit(_pooled(self.clap.get_text_features(**inputs))))
        return torch.cat(vectors)


def _pooled(output: Any) -> Tensor:
    """Return the embedding; newer transformers wrap it."""
    return getattr(output, "pooler_output", output)
