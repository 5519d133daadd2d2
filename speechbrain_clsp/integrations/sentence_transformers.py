"""A module of sentence-transformers, so that a model folder is a ``SentenceTransformer``.

A model folder names it in ``modules.json``, which the library reads:

>>> from sentence_transformers import SentenceTransformer
>>> model = SentenceTransformer("results/mini/model", trust_remote_code=True) # doctest: +SKIP
>>> model.encode(["A man whispers."]).shape, model.encode(["a.wav"]).shape # doctest: +SKIP
((1, 512), (1, 512))

It asks for ``trust_remote_code`` for every class of another package, and the folder's
``hyperparams.yaml`` is code, too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.modality import infer_batch_modality
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from speechbrain_clsp.dataio.audio import SAMPLE_RATE, Source, name_of, read_windows
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.inference.files import pad
from speechbrain_clsp.pretrained.folder import ADAPTERS, check_model_folder, find_source


class CLSPModule(InputModule):
    """Embeds texts, or audio, as a CLSP does; for inference, since its weights are frozen.

    A text that is the name of an audio file is that file: sentence-transformers decides so. A list
    holds texts or audio, not both.

    Arguments
    ---------
    clsp : CLSP
        The model.
    source : str or path, optional
        The folder that it is from; only such a one can be saved.

    Example
    -------
    >>> from sentence_transformers import SentenceTransformer
    >>> clsp = CLSP.from_pretrained("yfyeung/CLSP")  # doctest: +SKIP
    >>> model = SentenceTransformer(modules=[CLSPModule(clsp)])  # doctest: +SKIP
    """

    def __init__(self, clsp: CLSP, source: str | os.PathLike | None = None) -> None:
        super().__init__()
        self.clsp, self.source = clsp, source

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        revision: str | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> CLSPModule:
        """Open a model as sentence-transformers asks for it; see ``CLSP.from_pretrained``."""
        source = find_source(model_name_or_path)
        return cls(CLSP.from_pretrained(source, revision, trust_hparams=trust_remote_code), source)

    @property
    def modalities(self) -> list[str]:
        """What it takes."""
        return ["text", "audio"]

    @property
    def max_seq_length(self) -> int:
        """The longest caption in tokens; longer ones raise ValueError."""
        return int(self.clsp.mods.text_tower.max_tokens)

    def get_embedding_dimension(self) -> int:
        """Return the number of an embedding's dimensions."""
        return self.clsp.encode_text(["A speaker."]).shape[1]

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Decode audio; leave texts for :meth:`forward`.

        Arguments
        ---------
        inputs : sequence
            Texts; or audio: names of files, ``{"array": ..., "sampling_rate": ...}``, and samples
            [T] or [channels, T] at 16 kHz.
        prompt : str, optional
            Goes before each text.
        **options
            Further ones of sentence-transformers; they change nothing.

        Returns
        -------
        dict
            ``texts``; or ``wavs`` [W, T], ``wav_lens`` [W] and ``clips`` [W], the number of the
            clip that a window is from. A clip of more than ``CLSP.WINDOW_SECONDS`` has several.
        """
        if infer_batch_modality(inputs, supported_modalities=self.modalities) == "text":
            return {"texts": [prompt + text if prompt else text for text in inputs]}
        sources = [_source_of(each) for each in inputs]
        windows = [
            (number, window)
            for number, source in enumerate(sources)
            for window in read_windows(
                source, CLSP.WINDOW_SECONDS, name_of(source, f"inputs[{number}]")
            )
        ]
        clips, wavs = zip(*windows)
        padded, wav_lens = pad(wavs)
        return {"wavs": padded, "wav_lens": wav_lens, "clips": torch.tensor(clips)}

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Add ``sentence_embedding``, [B, D] of unit norm, to what :meth:`preprocess` returns."""
        if "texts" in features:
            embeddings = self.clsp.encode_text(features["texts"])
        else:
            embeddings = self.clsp.encode_batch(features["wavs"], features["wav_lens"])
            embeddings = _join_windows(embeddings, features["clips"])
        return {**features, "sentence_embedding": embeddings}

    def save(self, output_path: str, *arguments: Any, **options: Any) -> None:
        """Copy the model's folder; of a fine-tuned model adapters, which refer to their base.

        Raises
        ------
        ValueError
            If the model is not from a folder.
        FileNotFoundError
            If the folder is not in SpeechBrain's format, nor exported.
        """
        if not isinstance(self.source, Path):
            way = "download it" if self.clsp.exported else "make one by `clsp convert`"
            raise ValueError(f"Only a model from a folder can be saved: {way}")
        if self.clsp.exported is None and not (self.source / ADAPTERS).is_file():
            check_model_folder(self.source)
        for path in self.source.iterdir():
            if path.is_file():
                shutil.copyfile(path, Path(output_path) / path.name)


def _source_of(audio: Any) -> Source:
    """Return audio as all audio is read here; samples without a rate are at 16 kHz."""
    if isinstance(audio, Mapping) and set(audio) == {"audio"}:
        audio = audio["audio"]
    if isinstance(audio, Tensor | np.ndarray):
        audio = {"array": audio, "sampling_rate": SAMPLE_RATE}
    if isinstance(audio, Mapping) and isinstance(audio.get("array"), Tensor):
        audio = {**audio, "array": audio["array"].numpy(force=True)}
    return audio


def _join_windows(embeddings: Tensor, clips: Tensor) -> Tensor:
    """Return the normalized mean of each clip's windows, [W, D] -> [B, D]."""
    sums = embeddings.new_zeros(int(clips.max()) + 1, embeddings.shape[1])
    sums.index_add_(0, clips.to(embeddings.device), embeddings)
    return torch.nn.functional.normalize(sums, dim=-1)
