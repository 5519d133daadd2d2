"""CLSP ready for use: embeddings, scores and zero-shot classes of speech style."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from speechbrain.inference.interfaces import Pretrained
from speechbrain.utils.fetching import FetchConfig
from speechbrain.utils.logger import get_logger
from torch import Tensor
from tqdm import tqdm

from speechbrain_clsp import __version__
from speechbrain_clsp.dataio.audio import SAMPLE_RATE, AudioError, Source, name_of, read_blocks
from speechbrain_clsp.dataio.tokenizers import check_token_counts
from speechbrain_clsp.inference.attributes import (
    check_requirements,
    read_attributes,
    tell_attributes,
)
from speechbrain_clsp.inference.cache import EmbeddingCache
from speechbrain_clsp.inference.checks import (
    check_paths,
    check_positive,
    check_prompts,
    check_wav_lens,
    check_wavs,
    find_not_finite,
    find_unusable,
)
from speechbrain_clsp.inference.export import export_model
from speechbrain_clsp.inference.files import Window, pad, read_batches, report_bad_files
from speechbrain_clsp.inference.timeline import Timeline, compare_windows, sliding_windows
from speechbrain_clsp.lobes.prompt_bank import Prompts, embed_classes
from speechbrain_clsp.pretrained.adapters import find_adapters
from speechbrain_clsp.pretrained.background import find_background, read_background
from speechbrain_clsp.pretrained.exported import Export, find_export, load_export
from speechbrain_clsp.pretrained.folder import (
    HYPERPARAMS,
    PARTS,
    check_model_folder,
    find_source,
    load_folder,
    sha256_of_weights,
)
from speechbrain_clsp.pretrained.hub import PINS, has_definition, load_official
from speechbrain_clsp.utils.checks import check_texts, join_some, quote

logger = get_logger(__name__)
ROUNDING = 1e-5  # of cosines: an utterance has the same embedding in any batch to this
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class CLSP(Pretrained):
    """A pretrained contrastive language-speech model.

    Weights are frozen. Gradients are computed only with respect to a waveform that asks for them.
    Returned tensors lie on ``self.device``.

    Arguments
    ---------
    modules, hparams, run_opts, freeze_params
        Those of SpeechBrain's ``Pretrained``; :meth:`from_pretrained` opens a model.

    Example
    -------
    >>> clsp = CLSP.from_pretrained("results/mini/model")  # doctest: +SKIP
    >>> clsp.score_file("a.wav", ["A man whispers.", "A woman speaks loudly."])  # doctest: +SKIP
    tensor([0.1312, 0.7208])
    """

    MODULES_NEEDED: ClassVar[list[str]] = list(PARTS)
    HPARAMS_NEEDED: ClassVar[list[str]] = ["tokenizer"]
    WINDOW_SECONDS = 30.0  # the longest clips that published models are trained on

    def __init__(
        self,
        modules: Mapping[str, torch.nn.Module] | None = None,
        hparams: Mapping[str, Any] | None = None,
        run_opts: dict | None = None,
        freeze_params: bool = True,
    ) -> None:
        absent = [name for name in self.MODULES_NEEDED if name not in (modules or {})]
        if absent:
            raise ValueError(
                f"A CLSP needs the modules {self.MODULES_NEEDED}; {absent} are missing"
            )
        if isinstance(run_opts, dict) and run_opts.get("device") is not None:
            run_opts = run_opts | {"device": _usable_device(run_opts["device"])}
        super().__init__(modules, hparams, run_opts, freeze_params)
        self.is_frozen = freeze_params
        self.text_cache = EmbeddingCache()
        self.source = "in memory"  # where weights came from
        self.revision: str | None = None
        self.exported: Export | None = None  # if graphs compute what towers did
        self._background: Tensor | None = None
        self._background_file: Path | None = None  # of the model's folder, not read yet
        self._cached_weights = 0  # the state of the weights that the cache belongs to
        self.train(not freeze_params)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CLSP:
        """Move or convert all tensors, as ``to`` does; inputs follow them.

        An exported model stays in float32 on the CPU, with a warning, also if it is in a module
        that is moved.
        """
        if self.exported is not None:
            tried = fn(torch.empty(0))
            if (tried.device.type, tried.dtype) != ("cpu", torch.float32):
                logger.warning("%s was exported for CPUs, and stays there in float32", self.source)
                return self
        super()._apply(fn, recurse)
        self.device = str(next(self.mods.parameters()).device)
        self.text_cache.clear()
        return self

    def train(self, mode: bool = True) -> CLSP:
        """Choose training or evaluation mode; a model whose weights are frozen stays in the latter.

        So a module around it may be trained without dropout inside the model. To train the model
        itself, open it by :meth:`from_hparams` with ``freeze_params=False``.
        """
        return super().train(mode and not self.is_frozen)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike = "yfyeung/CLSP",
        revision: str | None = None,
        run_opts: dict | None = None,
        precision: str | None = None,
        trust_hparams: bool = False,
    ) -> CLSP:
        """Open a model in whichever form it is.

        Of the published form (``config.json``, ``model.safetensors``, a tokenizer) only JSON and
        safetensors are read. A model in SpeechBrain's format has a ``hyperparams.yaml``, which is
        code: it is run if you give a folder, but that of a Hub repository only if you ask for it.
        A fine-tuned model holds adapters, and names its base model, which is opened in the same
        way; the adapters are added to its weights, so that it is as fast. An exported model (see
        :meth:`export`) has graphs, which are data, too; it runs on the CPU.

        Arguments
        ---------
        source : str or path
            A folder, or a Hub repository of the form ``user/name``.
        revision : str, optional
            Commit, tag or branch of the repository. Default: ``main``, or the revision that is
            pinned here, as for ``yfyeung/CLSP``, whose files' SHA-256 are checked.
        run_opts : dict, optional
            As for SpeechBrain's ``Pretrained``: ``{"device": "cuda"}``.
        precision : str, optional
            See :meth:`set_precision`; default: ``fp32``, or what the model was exported in.
        trust_hparams : bool
            Run the ``hyperparams.yaml`` of a Hub repository.

        Returns
        -------
        CLSP
            The model, in eval mode.

        Raises
        ------
        FileNotFoundError
            If the folder, the repository or a file in it does not exist.
        PermissionError
            If the Hub asks for a token; or if a repository is in SpeechBrain's format and
            ``trust_hparams`` is False.
        ConnectionError
            If the Hub cannot be reached and the files are not in its cache.
        ValueError
            If a file is damaged or not a CLSP's, its hash is not the pinned one, or weights do not
            fit; if the base model is not the one that adapters belong to; if ``precision`` is
            unknown, or not that of an exported model; or if that is to run elsewhere than on the
            CPU, or its runtime is not installed.
        """
        place = find_source(source)
        adapters = find_adapters(place, revision)
        exported = find_export(place, revision)
        if exported is not None:
            clsp = cls._from_export(place, revision, exported, run_opts or {})
        elif adapters is not None:
            adapters.check_base()
            base = adapters.base
            clsp = cls.from_pretrained(
                base.source, base.revision, run_opts, trust_hparams=trust_hparams
            )
            adapters.apply(clsp.mods)
            clsp._background_file = find_background(place, revision)
        elif not has_definition(place, revision):
            modules, tokenizer = load_official(place, revision)
            clsp = cls(modules, {"tokenizer": tokenizer}, run_opts)
        elif isinstance(place, Path) or trust_hparams:
            fetch_config = FetchConfig(revision=revision)
            clsp = cls.from_hparams(place, run_opts=run_opts, fetch_config=fetch_config)
        else:
            raise PermissionError(
                f"{source} is in SpeechBrain's format, whose {HYPERPARAMS} is code: if you trust"
                " its authors, give trust_hparams=True; or download it, read that file, and give"
                " the folder"
            )
        pin = PINS.get(str(source))
        clsp.source, clsp.revision = str(source), revision or (pin.revision if pin else None)
        clsp.set_precision(precision or (exported.precision if exported else "fp32"))
        return clsp

    @classmethod
    def _from_export(
        cls, place: Path | str, revision: str | None, exported: Export, run_opts: dict
    ) -> CLSP:
        """Open an exported model."""
        device = str(run_opts.get("device") or "cpu")
        if device.partition(":")[0] != "cpu":
            raise ValueError(f"{place} was exported for CPUs: it does not run on {device}")
        modules, hparams = load_export(place, exported, revision)
        clsp = cls(modules, hparams, {**run_opts, "device": "cpu"})
        clsp.exported = exported
        clsp._background_file = find_background(place, revision)
        return clsp

    @classmethod
    def from_hparams(
        cls, source: str | os.PathLike, hparams_file: str = HYPERPARAMS, **kwargs: Any
    ) -> CLSP:
        """Open a model in SpeechBrain's format, by SpeechBrain's convention.

        The model's ``hyperparams.yaml`` can run code, also that of a Hub repository: open only what
        you trust.

        Arguments
        ---------
        source : str or path
            As for :meth:`from_pretrained`.
        hparams_file : str
            Name of the definition.
        **kwargs : dict
            As for SpeechBrain's ``Pretrained.from_hparams``: ``savedir``, ``run_opts``, ...

        Returns
        -------
        CLSP
            The model, in eval mode; None with ``download_only``.

        Raises
        ------
        FileNotFoundError, ValueError
            As :meth:`from_pretrained`.
        FileExistsError
            If ``savedir`` holds another model.
        """
        place = find_source(source)
        if isinstance(place, Path):
            check_model_folder(place, hparams_file)
        own = {name: kwargs.pop(name) for name in ("run_opts", "freeze_params") if name in kwargs}
        try:
            hparams = load_folder(place, hparams_file, **kwargs)
        except FileExistsError:
            raise
        except OSError as error:
            if isinstance(place, Path):
                raise
            reason = str(error).partition("\n")[0]
            raise FileNotFoundError(
                f"{source} is not a folder and could not be downloaded from the Hub: {reason}"
            ) from error
        if kwargs.get("download_only"):
            return None  # type: ignore[return-value]  # as SpeechBrain does
        try:
            clsp = cls(hparams["modules"], hparams, **own)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{source}/{hparams_file} does not define a CLSP: {type(error).__name__}: {error}"
            ) from error
        clsp.source = str(source)
        fetch_config = kwargs.get("fetch_config") or FetchConfig()
        clsp._background_file = find_background(place, fetch_config.revision)
        return clsp

    def set_precision(self, precision: str) -> None:
        """Choose the precision of the towers' weights and arithmetic; heads stay float32.

        Arguments
        ---------
        precision : str
            ``fp32``, ``bf16`` (fast on GPUs, and on CPUs with AMX or AVX512-BF16) or ``fp16``
            (GPUs). It cannot be undone without loading again. An exported model has the one that
            it was exported in.

        Raises
        ------
        ValueError
            If ``precision`` is unknown, or fp16 on a CPU; or not that of an exported model.
        """
        if self.exported is not None:
            if precision != self.exported.precision:
                raise ValueError(
                    f"{self.source} was exported in {self.exported.precision}, not in {precision}:"
                    " export it again"
                )
            return
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {list(PRECISIONS)}, not {precision!r}")
        if precision == "fp16" and torch.device(self.device).type == "cpu":
            raise ValueError("fp16 is for GPUs: on a CPU use bf16 or fp32")
        towers: tuple[Any, ...] = (self.speech_tower, self.text_tower)
        for tower in towers:
            tower.cast(PRECISIONS[precision])
        self.text_cache.clear()

    def provenance(self) -> dict[str, Any]:
        """Return what made an embedding, to be written beside it.

        Returns
        -------
        dict
            ``model`` (folder or repository, as it was named), ``revision`` (of the repository, or
            None), ``weights_sha256`` (see :meth:`weights_sha256`), ``precision``,
            ``preprocessing`` and ``package``, with its version, of an exported model also the
            runtime. All values are str or None.
        """
        package = f"speechbrain-clsp {__version__}"
        if self.exported is not None:
            precision, package = self.exported.precision, f"{package}, {self.exported.runtime}"
        else:
            kind = next(self.speech_tower.parameters()).dtype
            names = {dtype: name for name, dtype in PRECISIONS.items()}
            precision = names.get(kind, str(kind))
        return {
            "model": self.source,
            "revision": self.revision,
            "weights_sha256": self.weights_sha256(),
            "precision": precision,
            "preprocessing": f"{SAMPLE_RATE} Hz mono (mean of channels), windows of at most"
            f" {self.WINDOW_SECONDS:g} s",
            "package": package,
        }

    def weights_sha256(self) -> str:
        """Return the SHA-256 of all weights as they are in memory.

        That of an exported model is that of the model that it was made of: embeddings of one can be
        searched by the other.
        """
        if self.exported is not None:
            return self.exported.weights_sha256
        return sha256_of_weights(self.mods)

    def export(
        self,
        folder: str | os.PathLike,
        runtime: str = "onnx",
        precision: str = "fp32",
        manifest: str | os.PathLike | None = None,
    ) -> Export:
        """Write the model for another runtime, which embeds faster on CPUs; needs the extra export.

        :meth:`from_pretrained` opens the folder as it opens any other. Before it is written, its
        embeddings are compared with this model's.

        Arguments
        ---------
        folder : str or path
            Where it goes; an exported model that is there is replaced.
        runtime : str
            ``onnx`` (ONNX Runtime) or ``openvino``.
        precision : str
            ``fp32``; ``fp16``, in which weights are stored, while arithmetic stays in fp32;
            ``bf16``, in which OpenVINO computes the speech encoder; ``int8`` for products with
            weights; or ``auto``: ``fp16``, or ``bf16`` if that is faster on this machine.
        manifest : str or path, optional
            Clips with captions, at most 1,000 of which are embedded by both, too. Needed for
            ``int8``, which must not lose more than one point of R@1.

        Returns
        -------
        Export
            What was written, and ``checks``, the least cosines with this model's embeddings.

        Raises
        ------
        ValueError
            If a tower is of a kind that cannot be exported; if the model is on a GPU or not in
            fp32; if runtime or precision are unknown or do not go together; if the extra is not
            installed; or if embeddings differ, with the cosines. Nothing is written then.
        FileExistsError
            If there is something else at ``folder``.

        Example
        -------
        >>> clsp = CLSP.from_pretrained("results/mini/model")  # doctest: +SKIP
        >>> clsp.export("fast", "openvino").checks["speech"]  # doctest: +SKIP
        0.9999998
        >>> fast = CLSP.from_pretrained("fast")  # doctest: +SKIP
        """
        if self.exported is not None:
            raise ValueError(f"{self.source} is exported already: open the model it was made of")
        return export_model(self, folder, runtime, precision, manifest)

    @property
    def speech_tower(self) -> torch.nn.Module:
        """(wavs [B, T], wav_lens [B]) -> [B, D], without the checks of :meth:`encode_batch`."""
        return self.mods.speech_tower

    @property
    def text_tower(self) -> torch.nn.Module:
        """(tokens [B, L], padding_mask [B, L]) -> [B, D]."""
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
        TypeError, ValueError
            If ``wavs`` is not a tensor, a shape is wrong, a sample is NaN, infinite or far beyond
            [-1, 1], a length is not relative, or a clip is shorter than 0.1 s; or if an embedding
            is NaN. Rows are named.
        """
        wavs = check_wavs(wavs)
        wavs = wavs.unsqueeze(0) if wavs.dim() == 1 else wavs
        if wavs.dim() != 2 or not wavs.numel():
            raise ValueError(f"wavs must be [B, T] or [T] and not empty; it is {list(wavs.shape)}")
        wav_lens = check_wav_lens(wav_lens, wavs)
        faults: dict[str, list[int]] = {}
        for row, fault in enumerate(find_unusable(wavs, wav_lens)):
            if fault:
                faults.setdefault(fault, []).append(row)
        if faults:
            found = "; ".join(f"{rows} {fault}" for fault, rows in faults.items())
            raise ValueError(f"Rows of wavs that cannot be embedded: {found}")
        speech = self.embed(wavs, wav_lens)
        if rows := find_not_finite(speech):
            raise ValueError(
                f"The embeddings of rows {join_some(rows, ', ')} are NaN or infinite: with fp16 or"
                " bf16 try fp32"
            )
        return speech

    def embed(self, wavs: Tensor, wav_lens: Tensor) -> Tensor:
        """Do what :meth:`encode_batch` does, without its checks.

        Arguments
        ---------
        wavs : Tensor
            [B, T] float.
        wav_lens : Tensor
            [B] relative to T.

        Returns
        -------
        Tensor
            [B, D] float32; a row is NaN or infinite if arithmetic overflows.
        """
        own = next((p.dtype for p in self.mods.speech_tower.parameters()), torch.float32)
        wavs = wavs.to(self.device, torch.float64 if own == torch.float64 else torch.float32)
        wav_lens = wav_lens.to(self.device)
        wanted = torch.is_grad_enabled() and wavs.requires_grad
        with torch.set_grad_enabled(wanted), self.inference_ctx:
            return self.mods.speech_tower(wavs, wav_lens)

    def encode_file(self, path: Source) -> Tensor:
        """Embed an audio file of any format, rate and number of channels; returns [D].

        ``path`` may also be what a file holds, an open file, or a dict of ``datasets``, as for
        :func:`~speechbrain_clsp.dataio.audio.read_audio`.
        A file of more than ``WINDOW_SECONDS`` is cut into equal windows of at most that, which are
        read one after the other; its embedding is their normalized mean.
        """
        return self.encode_files([path], self.WINDOW_SECONDS, progress=False)[0].to(self.device)

    def encode_files(
        self,
        paths: Iterable[Source],
        max_batch_seconds: float = 60.0,
        num_workers: int = 0,
        on_error: str = "raise",
        progress: bool = True,
    ) -> Tensor:
        """Embed many files, in batches of windows of similar length; see :meth:`encode_file`.

        Arguments
        ---------
        paths : list of str, path, bytes, binary file or dict
            N audio files, as for :func:`~speechbrain_clsp.dataio.audio.read_audio`.
        max_batch_seconds : float
            Upper bound on a batch's padded duration; a longer window makes a batch of its own.
        num_workers : int
            Threads that decode ahead; 0: the one that embeds.
        on_error : str
            ``raise``: bad files stop it, after all have been looked at. ``skip``: their rows are
            NaN, and a warning names them.
        progress : bool
            Whether to show a progress bar.

        Returns
        -------
        Tensor
            [N, D] float32 on the CPU, in the order of ``paths``.

        Raises
        ------
        FileNotFoundError, PermissionError, AudioError
            As :func:`~speechbrain_clsp.dataio.audio.read_audio`, for one bad file; for several a
            :class:`~speechbrain_clsp.inference.files.BadFilesError`, whose ``errors`` lists them.
        ValueError
            If there are no paths, ``on_error`` is something else, or all files are bad.
        """
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        paths = check_paths(paths, entries=on_error == "raise")
        max_batch_seconds = check_positive(max_batch_seconds, "max_batch_seconds")
        batches = read_batches(paths, max_batch_seconds, self.WINDOW_SECONDS, num_workers)
        with tqdm(total=len(paths), unit="file", disable=not progress) as bar:
            found, errors = self.embed_windows(
                batches, lambda n: name_of(paths[n], f"paths[{n}]"), on_error == "raise", bar.update
            )
        report_bad_files(errors, len(paths), on_error)
        nothing = torch.full_like(next(iter(found.values())), torch.nan)
        return torch.stack([found.get(number, nothing) for number in range(len(paths))])

    def embed_windows(
        self,
        batches: Iterable[Sequence[Window]],
        name_of_clip: Callable[[int], str],
        stop: bool = False,
        advance: Callable[[int], object] = lambda count: None,
    ) -> tuple[dict[int, Tensor], dict[int, Exception]]:
        """Embed clips that come as batches of windows.

        Arguments
        ---------
        batches : iterable of list of Window
            As :func:`~speechbrain_clsp.inference.files.batch_windows` gives them.
        name_of_clip : callable
            Returns what messages call a clip, by its number.
        stop : bool
            Embed nothing after an error, only read on to find all bad clips.
        advance : callable
            Gets the number of clips that a batch has begun, after it.

        Returns
        -------
        embeddings : dict of Tensor
            [D] float32 on the CPU by the number of the clip: the normalized mean of its windows'.
        errors : dict of Exception
            What is wrong with the other clips, by their number.
        """
        errors: dict[int, Exception] = {}
        windows: dict[int, list[Tensor]] = {}
        for batch in batches:
            errors |= {n: found for n, _, found in batch if isinstance(found, Exception)}
            good = [(n, wav) for n, _, wav in batch if n not in errors and isinstance(wav, Tensor)]
            if good and not (errors and stop):
                numbers, wavs = zip(*good)
                for n, part in zip(numbers, self.try_embed(wavs)):
                    if isinstance(part, str):
                        errors[n] = AudioError(f"{name_of_clip(n)}: {part}")
                    else:
                        windows.setdefault(n, []).append(part)
            advance(sum(window.number == 0 for window in batch))
        return {
            n: mean_of_windows(parts) for n, parts in windows.items() if n not in errors
        }, errors

    @torch.no_grad()
    def try_embed(self, wavs: Sequence[Tensor]) -> list[Tensor | str]:
        """Embed waveforms [T] of any lengths, as one batch; never raises for what they contain.

        Returns
        -------
        list of Tensor or str
            For each its embedding [D] on the CPU, or why it has none.
        """
        padded, wav_lens = pad(wavs)
        faults = find_unusable(padded, wav_lens)
        usable = torch.tensor([not fault for fault in faults])
        if not usable.any():
            return list(faults)
        if not usable.all():  # silence as long as the batch takes their places
            padded = padded.masked_fill(~usable[:, None], 0.0)
            wav_lens = wav_lens.masked_fill(~usable, 1.0)
        speech = self.embed(padded, wav_lens).cpu()
        for row in find_not_finite(speech):
            faults[row] = faults[row] or "its embedding is NaN or infinite"
        return [fault or embedding for fault, embedding in zip(faults, speech)]

    def encode_text(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """Embed captions.

        Those that were embedded before come from a cache (``text_cache``, of 20,000), as long as
        the weights are frozen and have not changed.

        Arguments
        ---------
        texts : list of str
            N captions.
        batch_size : int
            Captions that are embedded at once.

        Returns
        -------
        Tensor
            [N, D] float32 of unit norm.

        Raises
        ------
        TypeError, ValueError
            If ``texts`` is not a list of str, or empty; if a caption is empty, or longer than the
            model takes (before anything is embedded); if an embedding is NaN. Captions are named.
        """
        texts = check_texts(texts)
        batch_size = math.ceil(min(check_positive(batch_size, "batch_size"), len(texts)))
        # Made in inference mode, they could not be part of a reward's graph later.
        with torch.inference_mode(False), torch.no_grad():
            if not self.is_frozen:
                return self._embed_texts(texts, range(len(texts)), batch_size)
            self._check_cache()
            found = self.text_cache.find(texts)
            first = {text: n for n, text in reversed(list(enumerate(texts))) if text not in found}
            if first:
                absent, places = zip(*reversed(first.items()))
                made = dict(zip(absent, self._embed_texts(absent, places, batch_size).unbind()))
                self.text_cache.add(made)
                found |= made
            return torch.stack([found[text] for text in texts])

    def _check_cache(self) -> None:
        """Drop cached embeddings if weights of the text tower were changed in place."""
        weights = sum(0 if p.is_inference() else p._version for p in self.text_tower.parameters())
        if weights != self._cached_weights:
            self.text_cache.clear()
        self._cached_weights = weights

    def _embed_texts(self, texts: Sequence[str], places: Sequence[int], batch_size: int) -> Tensor:
        """Embed captions [N, D]; ``places`` are their numbers in what the user gave."""
        self._warn_of_unknown(texts, places)
        batches = [
            self.hparams.tokenizer(texts[start : start + batch_size])
            for start in range(0, len(texts), batch_size)
        ]
        self._check_tokens(batches, texts, places)
        parts = []
        for tokens, padding_mask in batches:
            with self.inference_ctx:
                part = self.mods.text_tower(tokens.to(self.device), padding_mask.to(self.device))
            parts.append(part)
        text = torch.cat(parts)
        if rows := find_not_finite(text):
            found = join_some(f"texts[{places[row]}] ({quote(texts[row])})" for row in rows)
            raise ValueError(
                f"The embeddings of {found} are NaN or infinite: with fp16 or bf16 try fp32"
            )
        return text

    def find_unknown(self, texts: Sequence[str]) -> list[str]:
        """Return the characters of each caption that the model does not know, "" if it knows all.

        They do not count in an embedding: captions of nothing else all get the same one.
        """
        return self.hparams.tokenizer.find_unknown(check_texts(texts))

    def _warn_of_unknown(self, texts: Sequence[str], places: Sequence[int]) -> None:
        unknown = {n: each for n, each in enumerate(self.find_unknown(texts)) if each}
        if unknown:
            found = join_some(
                f"texts[{places[n]}], {quote(texts[n])}: {quote(each)}"
                for n, each in unknown.items()
            )
            logger.warning(
                "%d of %d captions have characters that the model does not know, and that do not"
                " count: %s",
                len(unknown),
                len(texts),
                found,
            )

    def _check_tokens(
        self,
        batches: Sequence[tuple[Tensor, Tensor]],
        texts: Sequence[str],
        places: Sequence[int],
    ) -> None:
        """Raise for captions that are too long, and for tokens that the tower does not have."""
        tower: Any = self.mods.text_tower
        counts = torch.cat([(~padding_mask).sum(dim=1) for _, padding_mask in batches])
        check_token_counts(counts, texts, tower.max_tokens, lambda n: f"texts[{places[n]}]")
        highest = max(int(tokens.max()) for tokens, _ in batches)
        if highest >= tower.vocab_size:
            raise ValueError(
                f"The tokenizer gives the token {highest}, and the text tower has"
                f" {tower.vocab_size}: put the model's own {self.hparams.tokenizer.FILENAME} into"
                " its folder"
            )

    def score_batch(
        self, wavs: Tensor, texts: Sequence[str], wav_lens: Tensor | None = None
    ) -> Tensor:
        """Return the cosine of every clip with every caption, [B, N] in [-1, 1]."""
        return self.encode_batch(wavs, wav_lens) @ self.encode_text(texts).T

    def score_file(self, path: Source, texts: Sequence[str]) -> Tensor:
        """Return the cosine of an audio file with every caption, [N] in [-1, 1]."""
        return self.encode_file(path) @ self.encode_text(texts).T

    @torch.no_grad()
    def timeline(
        self, path: Source, texts: Sequence[str], window: float = 2.0, hop: float = 0.5
    ) -> Timeline:
        """Compare captions with each moment of a recording, which may last for hours.

        Arguments
        ---------
        path : str, path, bytes, binary file or dict
            An audio file, as for :func:`~speechbrain_clsp.dataio.audio.read_audio`.
        texts : list of str
            N captions.
        window, hop : float
            Seconds that are embedded at once (a shorter recording is one window), and from one
            window to the next.
        """
        texts = check_texts(texts)
        text = self.encode_text(texts)
        window, hop = check_positive(window, "window"), check_positive(hop, "hop")
        windows = sliding_windows(read_blocks(path, self.WINDOW_SECONDS), window, hop)
        per_batch = max(1, int(self.WINDOW_SECONDS * 2 / window))
        return compare_windows(windows, self.encode_batch, text, texts, per_batch)

    @property
    def background(self) -> Tensor | None:
        """[M, D], the clips that :meth:`percentile` compares with, or None.

        By default those in the model's folder, ``background.safetensors``, where training puts some
        of its validation set. Raises ValueError if that file is damaged, or of other weights.
        """
        if self._background is None and self._background_file is not None:
            self.set_background(read_background(self._background_file)[0])
        return self._background

    def set_background(self, embeddings: Tensor) -> None:
        """Choose the clips that :meth:`percentile` compares with, in place of the folder's.

        Arguments
        ---------
        embeddings : Tensor
            [M, D] of this model, such as
            :func:`~speechbrain_clsp.inference.background.embed_background` returns.

        Raises
        ------
        ValueError
            If the shape is another one, or numbers are NaN or infinite.
        """
        embeddings = torch.as_tensor(embeddings, dtype=torch.float32)
        width = self.encode_text(["speech"]).shape[1]
        if embeddings.dim() != 2 or not len(embeddings) or embeddings.shape[1] != width:
            raise ValueError(
                f"background must be [M, {width}], embeddings of this model, not"
                f" {list(embeddings.shape)}"
            )
        if rows := find_not_finite(embeddings):
            raise ValueError(f"Rows {join_some(rows, ', ')} of background are NaN or infinite")
        self._background = embeddings.to(self.device)

    def percentile(self, scores: Tensor | Sequence[float], captions: Sequence[str]) -> Tensor:
        """Tell how high cosines are among those of the background's clips.

        Raw cosines say little: which one is high depends on the caption and the model.

        Arguments
        ---------
        scores : Tensor, array or list
            [..., N] cosines, as ``score_*`` returns them.
        captions : list of str
            The N captions.

        Returns
        -------
        Tensor
            [..., N] in [0, 100]: per cent of the background's clips whose cosine with the same
            caption is lower; those with an equal one count half. NaN where the score is.

        Raises
        ------
        ValueError
            If there is no background (see :attr:`background`), or numbers differ.

        Example
        -------
        >>> captions = ["A man whispers."]  # doctest: +SKIP
        >>> clsp.percentile(clsp.score_file("a.wav", captions), captions)  # doctest: +SKIP
        tensor([92.1053])
        """
        text, scores = self.encode_text(captions), torch.as_tensor(scores)
        if scores.shape[-1:] != text.shape[:1]:
            raise ValueError(f"{len(text)} captions for scores of shape {list(scores.shape)}")
        return self.percentile_of(scores, text)

    def percentile_of(self, scores: Tensor, text: Tensor) -> Tensor:
        """Do what :meth:`percentile` does, for embeddings of captions [N, D]."""
        background = self.background
        if background is None:
            raise ValueError("There is no background: give one by set_background(embeddings)")
        others = background @ text.to(background).T  # [M, N]
        scores = scores.to(others)[..., None, :]
        above = scores - others
        lower = (above > ROUNDING).double() + 0.5 * (above.abs() <= ROUNDING).double()
        percent = (100 * lower.mean(dim=-2)).float()
        return percent.masked_fill(scores.isnan().squeeze(-2), torch.nan)

    def has_attributes(self, speech: Tensor, require: Mapping[str, str]) -> Tensor:
        """Tell which clips have the values that attributes must have, by zero-shot classification.

        Rank only those: in a caption, words about pitch can outweigh the one about gender.

        Arguments
        ---------
        speech : Tensor
            [B, D], as ``encode_*`` returns them.
        require : dict
            Such as ``{"gender": "female"}``; attributes and values are those of
            :func:`~speechbrain_clsp.inference.attributes.read_attributes`.

        Returns
        -------
        Tensor
            [B] bool.

        Raises
        ------
        ValueError
            If an attribute or a value is unknown.
        """
        wanted = check_requirements(require, read_attributes())
        told = tell_attributes(speech, list(wanted), self.encode_text, read_attributes())
        passes = [
            all(told[name][row] == value for name, value in wanted.items())
            for row in range(len(speech))
        ]
        return torch.tensor(passes, dtype=torch.bool, device=speech.device)

    def classify_batch(
        self, wavs: Tensor, wav_lens: Tensor | None = None, prompts: Prompts | None = None
    ) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """Tell which prompt describes each clip best.

        Arguments
        ---------
        wavs, wav_lens : Tensor
            As for :meth:`encode_batch`.
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
        TypeError, ValueError
            If prompts are not str, there are none, or a label has none.
        """
        return self._classify(self.encode_batch(wavs, wav_lens), prompts)

    def classify_file(
        self, path: Source, prompts: Prompts | None = None
    ) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """Classify an audio file; see :meth:`classify_batch`, with B = 1."""
        return self._classify(self.encode_file(path)[None], prompts)

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None, prompts: Prompts | None = None
    ) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """Classify; the same as :meth:`classify_batch`."""
        return self.classify_batch(wavs, wav_lens, prompts)

    def _classify(
        self, speech: Tensor, prompts: Prompts | None
    ) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        prompts = prompts if prompts is not None else getattr(self.hparams, "prompts", None)
        if prompts is None:
            raise ValueError("This model comes without prompts: give the classes as prompts=[...]")
        prompts = check_prompts(prompts)
        text, labels = embed_classes(self.encode_text, prompts), list(prompts)
        out_prob = (self.mods.logit_scale() * speech @ text.T).log_softmax(dim=-1)
        score, index = out_prob.max(dim=-1)
        return out_prob, score, index, [labels[i] for i in index.tolist()]


def _usable_device(device: str | torch.device) -> str:
    """Return a device as SpeechBrain wants it; raise ValueError if there is none such."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"The device {device} cannot be used: {reason}") from error
    return str(device)


def mean_of_windows(windows: Sequence[Tensor]) -> Tensor:
    """Return a file's embedding [D], the normalized mean of its windows'."""
    if len(windows) == 1:
        return windows[0]
    return torch.nn.functional.normalize(torch.stack(list(windows)).mean(dim=0), dim=-1)
