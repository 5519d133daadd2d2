"""CLSP ready for use: embeddings, scores and zero-shot classes of speech style.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import soundfile
import torch
from speechbrain.inference.interfaces import Pretrained
from torch import Tensor
from tqdm import tqdm

from speechbrain_clsp.dataio.audio import read_audio
from speechbrain_clsp.hub import HYPERPARAMS

Prompts = Sequence[str] | Mapping[str, str | Sequence[str]]


class CLSP(Pretrained):
    """A pretrained contrastive language-speech model.

    Arguments are those of SpeechBrain's ``Pretrained``; use :meth:`from_hparams` to load a folder.
    Weights are frozen. Gradients are computed only with respect to a waveform that asks for them.
    Returned tensors lie on ``self.device``.

    Example
    -------
    >>> clsp = CLSP.from_hparams("results/mini/model")  # doctest: +SKIP
    >>> clsp.score_file("a.wav", ["A man whispers.", "A woman speaks loudly."])  # doctest: +SKIP
    tensor([0.1312, 0.7208])
    """

    MODULES_NEEDED = ["speech_tower", "text_tower", "temperature"]
    HPARAMS_NEEDED = ["tokenizer"]

    def __init__(self, modules=None, hparams=None, run_opts=None, freeze_params=True) -> None:
        absent = [name for name in self.MODULES_NEEDED if name not in (modules or {})]
        if absent:
            raise ValueError(
                f"A CLSP needs the modules {self.MODULES_NEEDED}; {absent} are missing"
            )
        super().__init__(modules, hparams, run_opts, freeze_params)
        self.train(not freeze_params)

    @classmethod
    def from_hparams(cls, source: str | os.PathLike, hparams_file: str = HYPERPARAMS, **kwargs):
        """Load a model folder, or a Hub repository of the form ``user/name``.

        The folder's ``hyperparams.yaml`` can run code: load only what you trust.

        Arguments
        ---------
        source : str or path
            Folder or repository.
        hparams_file : str
            Name of the definition.
        **kwargs : dict
            As for SpeechBrain's ``Pretrained.from_hparams``: ``savedir``, ``run_opts``, ...

        Returns
        -------
        CLSP
            The model, in eval mode.

        Raises
        ------
        FileNotFoundError
            If the folder, or a file in it, does not exist.
        ValueError
            If its weights do not fit its definition.
        """
        folder = Path(source)
        if folder.is_dir():
            if not (folder / hparams_file).is_file():
                raise FileNotFoundError(f"{folder} is no model folder: it has no {hparams_file}")
        elif folder.is_absolute() or len(folder.parts) != 2 or str(source).startswith("."):
            raise FileNotFoundError(
                f"No model folder {source}: train one with `make demo`, or name a folder or a"
                " Hub repository (user/name)"
            )
        return super().from_hparams(str(source), hparams_file, **kwargs)

    def encode_batch(self, wavs: Tensor, wav_lens: Tensor | None = None) -> Tensor:
        """Embed waveforms.

        Arguments
        ---------
        wavs : Tensor
            [B, T] or [T] float, 16 kHz mono, in [-1, 1], zero padded.
        wav_lens : Tensor, optional
            [B] relative to T; default: no padding.

        Returns
        -------
        Tensor
            [B, D] float32 of unit norm. It carries gradients only if ``wavs`` requires them.

        Raises
        ------
        ValueError
            If the shape is wrong, a sample is not finite, or a clip is shorter than 0.1 s.
        """
        wavs = wavs.unsqueeze(0) if wavs.dim() == 1 else wavs
        if wavs.dim() != 2:
            raise ValueError(f"wavs must be [B, T] or [T], not {list(wavs.shape)}")
        bad = (~wavs.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise ValueError(f"Rows {bad} of wavs hold NaN or infinite samples")
        wavs = wavs.to(self.device).float()
        wav_lens = None if wav_lens is None else wav_lens.to(self.device)
        wanted = torch.is_grad_enabled() and wavs.requires_grad
        with torch.set_grad_enabled(wanted), self.inference_ctx:
            return self.mods.speech_tower(wavs, wav_lens)

    def encode_file(self, path: str | os.PathLike) -> Tensor:
        """Embed an audio file of any format, rate and number of channels; returns [D]."""
        return self.encode_batch(read_audio(path))[0]

    def encode_files(
        self,
        paths: Sequence[str | os.PathLike],
        max_batch_seconds: float = 60.0,
        progress: bool = True,
    ) -> Tensor:
        """Embed many files, in batches of similar length.

        Arguments
        ---------
        paths : list of str or path
            N audio files.
        max_batch_seconds : float
            Upper bound on a batch's padded duration; a longer clip makes a batch of its own.
        progress : bool
            Whether to show a progress bar.

        Returns
        -------
        Tensor
            [N, D] float32 on the CPU, in the order of ``paths``.

        Raises
        ------
        FileNotFoundError, AudioError
            As :func:`~speechbrain_clsp.dataio.audio.read_audio`, for the first bad file.
        """
        if isinstance(paths, str | os.PathLike):
            raise TypeError("encode_files takes a list of paths; for one path use encode_file")
        embeddings: dict[int, Tensor] = {}
        with tqdm(total=len(paths), unit="file", disable=not progress) as bar:
            for batch in _batches(paths, max_batch_seconds):
                wavs = [read_audio(paths[index]) for index in batch]
                padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
                lengths = torch.tensor([len(wav) / padded.shape[1] for wav in wavs])
                embeddings.update(zip(batch, self.encode_batch(padded, lengths).cpu()))
                bar.update(len(batch))
        return torch.stack([embeddings[index] for index in range(len(paths))])

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed captions.

        Arguments
        ---------
        texts : list of str
            N captions.

        Returns
        -------
        Tensor
            [N, D] float32 of unit norm.

        Raises
        ------
        TypeError
            If ``texts`` is one str, or holds something else than str.
        ValueError
            If there is no caption, or an empty one.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts must be a list of captions, not a str: use [{texts!r}]")
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("texts must be a list of str")
        if not texts:
            raise ValueError("texts is empty: give at least one caption")
        if not all(text.strip() for text in texts):
            raise ValueError(f"Caption {[bool(t.strip()) for t in texts].index(False)} is empty")
        tokens, mask = self.hparams.tokenizer(list(texts))
        with self.inference_ctx:
            return self.mods.text_tower(tokens.to(self.device), mask.to(self.device))

    def score_batch(
        self, wavs: Tensor, texts: Sequence[str], wav_lens: Tensor | None = None
    ) -> Tensor:
        """Return the cosine of every clip with every caption, [B, N] in [-1, 1]."""
        return self.encode_batch(wavs, wav_lens) @ self.encode_text(texts).T

    def score_file(self, path: str | os.PathLike, texts: Sequence[str]) -> Tensor:
        """Return the cosine of an audio file with every caption, [N] in [-1, 1]."""
        return self.encode_file(path) @ self.encode_text(texts).T

    def classify_batch(
        self, wavs: Tensor, wav_lens: Tensor | None = None, prompts: Prompts | None = None
    ) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """Tell which prompt describes each clip best.

        Arguments
        ---------
        wavs : Tensor
            [B, T] or [T].
        wav_lens : Tensor, optional
            [B] relative to T.
        prompts : list of str, or dict
            The classes: N prompts, or for each label one or several prompts, whose embeddings
            are averaged. Default: ``prompts`` of the model's folder, if it has them.

        Returns
        -------
        out_prob : Tensor
            [B, N] log posteriors.
        score : Tensor
            [B], the best of them.
        index : Tensor
            [B] int64, its class.
        text_lab : list of str
            B labels.

        Raises
        ------
        ValueError
            If there are no prompts.
        """
        return self._classify(self.encode_batch(wavs, wav_lens), prompts)

    def classify_file(
        self, path: str | os.PathLike, prompts: Prompts | None = None
    ) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """Classify an audio file; see :meth:`classify_batch`, with B = 1."""
        return self._classify(self.encode_file(path)[None], prompts)

    def forward(self, wavs: Tensor, wav_lens: Tensor | None = None, prompts: Prompts | None = None):
        """Classify; the same as :meth:`classify_batch`."""
        return self.classify_batch(wavs, wav_lens, prompts)

    def _classify(self, speech: Tensor, prompts: Prompts | None) -> tuple[Any, ...]:
        prompts = prompts if prompts is not None else getattr(self.hparams, "prompts", None)
        if prompts is None:
            raise ValueError("This model comes without prompts: give the classes as prompts=[...]")
        if isinstance(prompts, Mapping):
            labels = list(prompts)
            groups = [[p] if isinstance(p, str) else list(p) for p in prompts.values()]
            text = torch.stack([self.encode_text(group).mean(dim=0) for group in groups])
            text = torch.nn.functional.normalize(text, dim=-1)
        else:
            text = self.encode_text(prompts)
            labels = list(prompts)
        out_prob = (self.mods.temperature() * speech @ text.T).log_softmax(dim=-1)
        score, index = out_prob.max(dim=-1)
        return out_prob, score, index, [labels[i] for i in index.tolist()]


def _batches(paths: Sequence[str | os.PathLike], max_seconds: float) -> list[list[int]]:
    """Group the indices of files by length, so that little is padding."""
    seconds = []
    for path in paths:
        try:
            seconds.append(soundfile.info(path).duration)
        except (soundfile.LibsndfileError, TypeError):
            seconds.append(0.0)  # reading it will say what is wrong
    batches: list[list[int]] = []
    for index in sorted(range(len(paths)), key=seconds.__getitem__):
        # The newest clip is the longest, so it alone decides the padded size.
        if not batches or (len(batches[-1]) + 1) * seconds[index] > max_seconds:
            batches.append([])
        batches[-1].append(index)
    return batches
