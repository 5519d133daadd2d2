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
from ruamel.yaml.error import YAMLError
from speechbrain.inference.interfaces import Pretrained
from torch import Tensor
from tqdm import tqdm

from speechbrain_clsp.dataio.audio import MAXIMUM_AMPLITUDE, AudioError, read_audio
from speechbrain_clsp.folders import HYPERPARAMS

RELATIVE_SLACK = 1e-6  # float32 rounding of relative lengths
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
            If the folder or repository, or a file in it, cannot be had.
        ValueError
            If its definition is not a CLSP's, or its weights do not fit.
        """
        _check_source(source, hparams_file)
        try:
            return super().from_hparams(str(source), hparams_file, **kwargs)
        except OSError as error:
            if Path(source).is_dir():
                raise
            reason = str(error).partition("\n")[0]
            raise FileNotFoundError(
                f"{source} is no folder here, and as a Hub repository it cannot be had: {reason}"
            ) from error
        except (AttributeError, ImportError, KeyError, YAMLError) as error:
            # What HyperPyYAML and SpeechBrain stumble over in an empty, broken or foreign file.
            raise ValueError(
                f"{source}/{hparams_file} does not define a CLSP: {type(error).__name__}: {error}"
            ) from error

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike = "yfyeung/CLSP",
        revision: str | None = None,
        run_opts: dict | None = None,
    ) -> CLSP:
        """Load a CLSP in the published form, without running downloaded code.

        See :func:`speechbrain_clsp.hub.load_official`, which this is.
        """
        from speechbrain_clsp.hub import load_official

        return load_official(source, revision, run_opts)

    @property
    def speech_tower(self) -> torch.nn.Module:
        """(wavs [B, T], lengths [B]) -> [B, D], without the checks of :meth:`encode_batch`."""
        return self.mods.speech_tower

    @property
    def text_tower(self) -> torch.nn.Module:
        """(tokens [B, L], mask [B, L]) -> [B, D]."""
        return self.mods.text_tower

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
        TypeError
            If ``wavs`` is no tensor.
        ValueError
            If a shape is wrong, a sample is NaN, infinite or far beyond [-1, 1], a length is not
            relative, or a clip is shorter than 0.1 s.
        """
        if not isinstance(wavs, Tensor):
            raise TypeError("wavs must be a Tensor; for audio files use the methods ..._file")
        wavs = wavs.unsqueeze(0) if wavs.dim() == 1 else wavs
        if wav_lens is None:
            wav_lens = torch.ones(wavs.shape[:1])
        _check_batch(wavs, wav_lens)
        wavs, wav_lens = wavs.to(self.device).float(), wav_lens.to(self.device)
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
            As :func:`~speechbrain_clsp.dataio.audio.read_audio`, for one bad file; an AudioError
            that lists them for several.
        ValueError
            If there are no paths.
        """
        if isinstance(paths, str | os.PathLike):
            raise TypeError("encode_files takes a list of paths; for one path use encode_file")
        if not paths:
            raise ValueError("paths is empty: give at least one audio file")
        embeddings: dict[int, Tensor] = {}
        bad: list[Exception] = []
        with tqdm(total=len(paths), unit="file", disable=not progress) as bar:
            for batch in _batches(paths, max_batch_seconds):
                wavs = _read_all([paths[index] for index in batch], bad)
                bar.update(len(batch))
                if bad:
                    continue  # the rest is read only to name all bad files at once
                padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
                lengths = torch.tensor([len(wav) / padded.shape[1] for wav in wavs])
                embeddings.update(zip(batch, self.encode_batch(padded, lengths).cpu()))
        if bad:
            listed = "; ".join(map(str, bad))
            raise bad[0] if len(bad) == 1 else AudioError(f"{len(bad)} bad files: {listed}")
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
        texts = list(texts)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("texts must be a list of str")
        if not texts:
            raise ValueError("texts is empty: give at least one caption")
        if not all(text.strip() for text in texts):
            raise ValueError(f"Caption {[bool(t.strip()) for t in texts].index(False)} is empty")
        tokens, mask = self.hparams.tokenizer(texts)
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
            If there are no prompts, or a label has none.
        TypeError
            If prompts are not str.
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
            groups = _prompt_groups(prompts)
            text = torch.stack([self.encode_text(group).mean(dim=0) for group in groups])
            text = torch.nn.functional.normalize(text, dim=-1)
        else:
            text = self.encode_text(prompts)
        labels = list(prompts)
        out_prob = (self.mods.temperature() * speech @ text.T).log_softmax(dim=-1)
        score, index = out_prob.max(dim=-1)
        return out_prob, score, index, [labels[i] for i in index.tolist()]


def _check_source(source: str | os.PathLike, hparams_file: str) -> None:
    """Refuse what is neither a model folder nor, by its form, a Hub repository."""
    folder = Path(source)
    if folder.is_dir():
        if not (folder / hparams_file).is_file():
            raise FileNotFoundError(f"{folder} is no model folder: it has no {hparams_file}")
    elif folder.is_absolute() or len(folder.parts) != 2 or str(source).startswith("."):
        raise FileNotFoundError(
            f"No model folder {source}: train one with `make demo`, or name a folder or a"
            " Hub repository (user/name)"
        )


def _check_batch(wavs: Tensor, wav_lens: Tensor) -> None:
    if wavs.dim() != 2 or not wavs.numel():
        raise ValueError(f"wavs must be [B, T] or [T] and not empty; it is {list(wavs.shape)}")
    usable = wavs.detach().abs().amax(dim=1) <= MAXIMUM_AMPLITUDE  # NaN compares false
    if not usable.all():
        bad = (~usable).nonzero().flatten().tolist()
        raise ValueError(
            f"Rows {bad} of wavs hold samples that are NaN, infinite or far beyond [-1, 1]"
            " (16-bit values must be divided by 32768)"
        )
    if wav_lens.shape != wavs.shape[:1]:
        raise ValueError(f"wav_lens must be [{len(wavs)}], not {list(wav_lens.shape)}")
    if not ((wav_lens > 0) & (wav_lens <= 1 + RELATIVE_SLACK)).all():
        raise ValueError("wav_lens must be relative, in (0, 1]: divide lengths by wavs.shape[1]")


def _read_all(paths: Sequence[str | os.PathLike], bad: list[Exception]) -> list[Tensor]:
    """Read files; the errors of those that cannot be read are added to ``bad``."""
    wavs = []
    for path in paths:
        try:
            wavs.append(read_audio(path))
        except (FileNotFoundError, AudioError) as error:
            bad.append(error)
    return wavs


def _prompt_groups(prompts: Mapping[str, str | Sequence[str]]) -> list[list[str]]:
    """Return the prompts of each label as a list."""
    if not prompts:
        raise ValueError("prompts is empty: give at least one label with a prompt")
    for label, group in prompts.items():
        if not isinstance(group, str | list | tuple):
            raise TypeError(f"The prompts of label {label!r} must be a str or a list of str")
        if not group:
            raise ValueError(f"Label {label!r} has no prompt")
    return [[group] if isinstance(group, str) else list(group) for group in prompts.values()]


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
