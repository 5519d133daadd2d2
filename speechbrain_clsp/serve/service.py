"""What a service answers, without HTTP: clips and texts in, results and reasons out."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa
import soundfile
import torch
from torch import Tensor

from speechbrain_clsp.dataio.audio import (
    SAMPLE_RATE,
    AudioError,
    Source,
    read_blocks,
    read_header,
    read_windows,
)
from speechbrain_clsp.dataio.shards import ClipReader
from speechbrain_clsp.inference.checks import MINIMUM_SAMPLES, check_prompts
from speechbrain_clsp.inference.clsp import CLSP, mean_of_windows
from speechbrain_clsp.inference.files import pad
from speechbrain_clsp.inference.guards import LengthGuard, LevelGuard, WordErrorGuard, name_guards
from speechbrain_clsp.inference.reward import StyleReward
from speechbrain_clsp.inference.timeline import compare_windows, sliding_windows
from speechbrain_clsp.lobes.prompt_bank import Prompts, embed_classes, prompt_groups
from speechbrain_clsp.search.filters import Condition, parse_condition
from speechbrain_clsp.search.index import StyleIndex
from speechbrain_clsp.search.queries import Query, find
from speechbrain_clsp.search.results import to_record
from speechbrain_clsp.serve.batching import BatchedModel
from speechbrain_clsp.serve.limits import Budget, Limits, RequestRejectedError
from speechbrain_clsp.utils.checks import quote

NPY = b"\x93NUMPY"
HIDDEN = ("audio", "offset", "nbytes")  # columns: where files lie on this machine
CPU_BATCH_SECONDS, GPU_BATCH_SECONDS = 16.0, 60.0
Result = TypeVar("Result")
MAXIMUM_CHANNELS = 8  # a few bytes can stand for hundreds of silent ones


@dataclass(frozen=True)
class Clip:
    """A clip of a request.

    Arguments
    ---------
    content : bytes
        What an audio file of any format holds, or a ``.npy`` file: samples [T] or [channels, T],
        floating-point in [-1, 1] or 16-bit.
    name : str
        What reasons call it.
    sample_rate : int, optional
        Of the samples of a ``.npy`` file, Hz.
    fault : str
        Why the content could not be taken from the request.
    """

    content: bytes
    name: str
    sample_rate: int | None = None
    fault: str = ""


class ClipTooLongError(AudioError):
    """A clip that lasts longer than a service takes."""


@dataclass(eq=False)
class StyleService:
    """A model and what it answers; see :mod:`speechbrain_clsp.serve`.

    Each method returns a dict that can be written as JSON, and may be called by many threads. What
    is wrong with one clip or text is told in its place, as ``error``.

    Arguments
    ---------
    clsp : CLSP
        The model.
    limits : Limits
        What is accepted.
    recognizer : EncoderASR or callable, optional
        For the guard ``words``; see :class:`~speechbrain_clsp.inference.guards.WordErrorGuard`.
    index : StyleIndex, optional
        What :meth:`search` searches.

    Example
    -------
    >>> service = StyleService(CLSP.from_pretrained("results/mini/model"))  # doctest: +SKIP
    >>> service.score([Clip(b"...", "a.wav")], ["A man whispers."])  # doctest: +SKIP
    {'results': [{'error': 'a.wav: cannot be read as audio; it is a text file'}]}
    """

    clsp: CLSP
    limits: Limits = field(default_factory=Limits)
    recognizer: Any = None
    index: StyleIndex | None = None

    def __post_init__(self) -> None:
        is_cpu = torch.device(self.clsp.device).type == "cpu"
        seconds = self.limits.batch_seconds or (CPU_BATCH_SECONDS if is_cpu else GPU_BATCH_SECONDS)
        self.limits = replace(self.limits, batch_seconds=seconds)
        self.model = BatchedModel(self.clsp, seconds, self.limits.cached)
        self.clsp.text_cache.max_entries = self.limits.cached
        self.provenance = self.clsp.provenance()
        self.seconds = Budget(self.limits.seconds_at_once, "seconds of audio")
        self._rewards: dict[tuple, StyleReward] = {}
        self._reader = ClipReader()
        guards: list[Callable[..., Tensor]] = [LengthGuard(), LevelGuard()]
        if self.recognizer is not None:
            guards.append(WordErrorGuard(self.recognizer))
        self.guards = name_guards(guards)

    def close(self) -> None:
        """Stop the thread of the model after all that waits."""
        self.model.close()

    def describe(self) -> dict[str, Any]:
        """Return what the model is, and what the service takes."""
        prompts = getattr(self.clsp.hparams, "prompts", None)
        return {
            "dimension": self.clsp.encode_text(["speech"]).shape[1],
            "normalized": True,
            "prompts": prompts,
            "guards": list(self.guards),
            "columns": None if self.index is None else self._columns(self.index),
            "calibrated": self.clsp.background is not None,
            "limits": vars(self.limits),
        }

    def _columns(self, index: StyleIndex) -> list[str]:
        names = [name for name in index.schema.names if name not in {*HIDDEN, "vector", "labels"}]
        return [*names, *(f"labels.{key}" for key in index.info.labels)]

    def embed_audio(self, clips: Sequence[Clip]) -> dict[str, Any]:
        """Embed clips: ``embedding`` of each."""
        found = self._embed(clips)
        return self._answer(
            [
                _error(one) if isinstance(one, Exception) else {"embedding": _short(one)}
                for one in found
            ],
            found,
        )

    def embed_text(self, texts: Sequence[str]) -> dict[str, Any]:
        """Embed captions: ``embedding`` of each."""
        vectors, faults = self._embed_texts(texts, "texts")
        return {
            "results": [
                {"error": fault} if fault else {"embedding": _short(vector)}
                for vector, fault in zip(vectors, faults)
            ]
        }

    def contrasts(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return captions that differ from each in one attribute: ``contrasts`` of each."""
        self.limits.check_number(len(texts), "texts", self.limits.texts)
        reward = self._reward("margin", (), None)
        results: list[dict[str, Any]] = []
        for number, text in enumerate(texts):
            if len(text) > self.limits.text_characters:
                results.append({"error": self._too_long(text, f"texts[{number}]")})
                continue
            try:
                results.append({"contrasts": reward.contrasts(text)})
            except ValueError as error:
                results.append({"error": str(error)})
        return {"results": results}

    def score(
        self, clips: Sequence[Clip], captions: Sequence[str], percentiles: bool = False
    ) -> dict[str, Any]:
        """Compare clips with captions: ``scores`` of each clip, null for a bad caption."""
        text, faults = self._embed_texts(captions, "captions")
        found = self._embed(clips)
        results = []
        for one in found:
            if isinstance(one, Exception):
                results.append(_error(one))
                continue
            scores = text @ one
            entry = {"scores": _numbers(scores)}
            if percentiles and self.clsp.background is not None:
                entry["percentiles"] = _numbers(self.clsp.percentile_of(scores, text))
            results.append(entry)
        errors = {"caption_errors": faults} if any(faults) else {}
        return self._answer(results, found, **errors)

    def classify(self, clips: Sequence[Clip], prompts: Prompts | None) -> dict[str, Any]:
        """Classify clips by prompts: ``label`` and ``probabilities`` of each."""
        prompts = prompts if prompts is not None else getattr(self.clsp.hparams, "prompts", None)
        if prompts is None:
            raise ValueError("prompts are missing, and the model comes without: give the classes")
        prompts = check_prompts(prompts)
        groups = prompt_groups(prompts).values() if isinstance(prompts, Mapping) else [prompts]
        self._check_texts([text for group in groups for text in group], "prompts")
        text, labels = embed_classes(self.model.encode_text, prompts), list(prompts)
        scale = self.clsp.mods.logit_scale().detach().cpu()
        found, results = self._embed(clips), []
        for one in found:
            if isinstance(one, Exception):
                results.append(_error(one))
                continue
            posteriors = (scale * text @ one).softmax(dim=-1)
            label = labels[int(posteriors.argmax())]
            results.append(
                {"label": label, "probabilities": dict(zip(labels, posteriors.tolist()))}
            )
        return self._answer(results, found)

    def timeline(
        self, clip: Clip, captions: Sequence[str], window: float = 2.0, hop: float = 0.5
    ) -> dict[str, Any]:
        """Compare captions with each moment of a clip: ``times``, and ``scores`` at each."""
        longest = self.clsp.WINDOW_SECONDS
        if not (0.1 <= window <= longest and 0.05 <= hop <= self.limits.clip_seconds):
            raise ValueError(
                f"window must be 0.1 to {longest:g} s and hop 0.05 to {self.limits.clip_seconds:g}"
                f" s, not {window} and {hop}"
            )
        self._check_texts(captions, "captions")
        text = self.model.encode_text(captions)
        source, seconds = self._open(clip)
        asked = seconds / hop * window
        if asked > self.limits.seconds_at_once:
            raise RequestRejectedError(
                413,
                f"{clip.name}: its windows last {asked:.0f} s in all, at most"
                f" {self.limits.seconds_at_once:g} s are taken: choose a longer hop",
            )
        per_batch = max(1, int(2 * longest / window))

        def embed(wavs: Tensor) -> Tensor:
            return self.model.embed(wavs, torch.ones(len(wavs)))

        with self.seconds.taken(2 * longest):
            windows = sliding_windows(read_blocks(source, longest), window, hop)
            curve = compare_windows(windows, embed, text, captions, per_batch)
        scores = [_numbers(row) for row in curve.scores]
        return {"times": curve.times.tolist(), "scores": scores, "seconds": seconds}

    def search(
        self,
        clips: Sequence[Clip],
        text: str | None = None,
        like: str | None = None,
        where: str | None = None,
        k: int = 10,
    ) -> dict[str, Any]:
        """Find the clips of the index that fit a caption, a clip of the request, or one of its own.

        Several of them count alike. Returns ``results``, the best first, with the columns of the
        manifest.
        """
        index = self._index()
        recordings = [self._open(clip)[0] for clip in clips]
        if like is not None:
            wav = self._read_row(like, self._reader)
            recordings.append({"array": wav.numpy(), "sampling_rate": SAMPLE_RATE})
        texts = [text] if text else []
        self._check_texts(texts, "text")
        if where:  # where files lie on this machine is not to be found out
            self._check_texts([where], "where")
            parse_condition(where, pa.schema([f for f in index.schema if f.name not in HIDDEN]))
        hits = find(index, self.clsp, Query(texts, recordings, where=where or "", k=k))
        records = [to_record(hit) for hit in hits]
        return {"results": [{k: v for k, v in one.items() if k not in HIDDEN} for one in records]}

    def audio_of(self, name: str) -> bytes:
        """Return a clip of the index, by its id, as a wav file."""
        samples, rate = self._read_row(name, self._reader.read_samples)
        file = io.BytesIO()
        soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
        return file.getvalue()

    def _index(self) -> StyleIndex:
        if self.index is None:
            raise RequestRejectedError(404, "there is no index: start clsp serve with --index")
        return self.index

    def _row(self, name: str) -> dict[str, Any]:
        """Return a row of the index by its id."""
        index = self._index()
        anywhere = np.zeros(index.info.dim, np.float32)
        rows = index.search(anywhere, 1, Condition("=", "id", name)).to_pylist()
        if not rows:
            raise RequestRejectedError(404, f"the index has no clip {quote(name)}")
        return rows[0]

    def _read_row(self, name: str, read: Callable[[dict[str, Any]], Result]) -> Result:
        """Read a clip of the index; RequestRejectedError (404), with its id for its path."""
        row = self._row(name)
        try:
            return read(row)
        except (OSError, AudioError) as error:
            reason = str(error).replace(row["audio"], f"the index's clip {quote(name)}")
            raise RequestRejectedError(404, reason) from error

    def reward(
        self,
        clips: Sequence[Clip],
        captions: Sequence[str],
        texts: Sequence[str] | None = None,
        groups: Sequence | None = None,
        baseline: Sequence[float] | None = None,
        scaling: str = "cosine",
        guards: Sequence[str] | None = None,
        require: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Reward clips as :meth:`StyleReward.explain` does; never fails for a clip or a caption."""
        if not len(clips) == len(captions):
            raise ValueError(f"{len(captions)} captions for {len(clips)} clips: give one per clip")
        self._check_texts(texts or (), "texts")
        reward = self._reward(scaling, guards, require)
        long = {
            number: self._too_long(text, f"captions[{number}]")
            for number, text in enumerate(captions)
            if isinstance(text, str) and len(text) > self.limits.text_characters
        }
        captions = ["" if number in long else text for number, text in enumerate(captions)]
        with self._read(clips) as read:
            wavs = [_whole(one, self.clsp.WINDOW_SECONDS) for one in read]
            faults = [
                str(one) if isinstance(one, Exception) else long.get(number, "")
                for number, one in enumerate(wavs)
            ]
            nothing = torch.full((MINIMUM_SAMPLES,), torch.nan)
            padded, wav_lens = pad([one if isinstance(one, Tensor) else nothing for one in wavs])
            found = reward.explain(
                padded,
                captions,
                wav_lens,
                texts=texts,
                groups=groups,
                baseline=None if baseline is None else torch.tensor(baseline),
            )
        reasons = [fault or reason for fault, reason in zip(faults, found.reasons)]
        return {
            "values": _numbers(found.total),
            "parts": {name: _numbers(part) for name, part in found.parts.items()},
            "passed": {name: passed.tolist() for name, passed in found.passed.items()},
            "reasons": reasons,
        }

    def _reward(
        self, scaling: str, guards: Sequence[str] | None, require: Mapping[str, str] | None
    ) -> StyleReward:
        names = tuple(self.guards) if guards is None else tuple(dict.fromkeys(guards))
        if unknown := [name for name in names if name not in self.guards]:
            raise ValueError(f"guards must be of {list(self.guards)}, not {unknown}")
        key = (scaling, names, tuple(sorted((require or {}).items())))
        if key not in self._rewards:
            if len(self._rewards) >= 100:
                self._rewards.clear()
            chosen = [self.guards[name] for name in names]
            self._rewards[key] = StyleReward(
                cast(CLSP, self.model),  # it embeds waveforms and captions as a CLSP does
                scaling,
                chosen,
                require=require,
                on_caption="veto",
            )
        return self._rewards[key]

    def _answer(
        self, results: list[dict[str, Any]], found: Sequence[Any], **more: Any
    ) -> dict[str, Any]:
        """Return results; RequestRejectedError if no clip of the request could be used."""
        errors = [one for one in found if isinstance(one, Exception)]
        if errors and len(errors) == len(found):
            status = 413 if isinstance(errors[0], ClipTooLongError) else 422
            rest = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            raise RequestRejectedError(status, f"{errors[0]}{rest}")
        return {"results": results, **more}

    def _embed(self, clips: Sequence[Clip]) -> list[Tensor | Exception]:
        """Return embeddings [D] of clips, or what is wrong with them."""
        with self._read(clips) as read:
            windows = [wav for one in read if isinstance(one, list) for wav in one]
            found = iter(self.model.embed_wavs(windows))
            results: list[Tensor | Exception] = []
            for clip, one in zip(clips, read):
                if isinstance(one, Exception):
                    results.append(one)
                    continue
                parts = [next(found) for _ in one]
                faults = [part for part in parts if isinstance(part, str)]
                if faults:
                    results.append(AudioError(f"{clip.name}: {faults[0]}"))
                else:
                    results.append(mean_of_windows([p for p in parts if isinstance(p, Tensor)]))
        return results

    @contextmanager
    def _read(self, clips: Sequence[Clip]) -> Iterator[list[list[Tensor] | Exception]]:
        """Decode clips into windows, within what the service holds at the same time."""
        self.limits.check_number(len(clips), "audio", self.limits.clips)
        opened: list[tuple[Source, float] | Exception] = []
        total = 0.0
        for clip in clips:
            try:
                source, seconds = self._open(clip)
                opened.append((source, seconds))
                total += seconds
            except (AudioError, TypeError) as error:
                opened.append(error)
            if total > self.limits.request_seconds:
                raise RequestRejectedError(
                    413,
                    f"{clip.name} is too much: the clips up to it last {total:.0f} s, at most"
                    f" {self.limits.request_seconds:g} s are taken in a request",
                )
        with self.seconds.taken(total):
            read: list[list[Tensor] | Exception] = []
            for clip, one in zip(clips, opened):
                try:
                    if isinstance(one, Exception):
                        raise one
                    read.append(list(read_windows(one[0], self.clsp.WINDOW_SECONDS, clip.name)))
                except (AudioError, TypeError) as error:
                    read.append(error)
            yield read

    def _open(self, clip: Clip) -> tuple[Source, float]:
        """Return what a clip is read from, and its seconds; decodes nothing of known formats."""
        if clip.fault:
            raise AudioError(f"{clip.name}: {clip.fault}")
        source: Source = clip.content
        if clip.content.startswith(NPY):
            source = _array(clip)
            seconds = source["array"].shape[-1] / source["sampling_rate"]
        else:
            header = read_header(clip.content, clip.name)
            seconds = header.seconds
            if header.n_channels > MAXIMUM_CHANNELS:
                raise AudioError(
                    f"{clip.name}: has {header.n_channels} channels, at most {MAXIMUM_CHANNELS} are"
                    " taken"
                )
        if seconds > self.limits.clip_seconds:
            raise ClipTooLongError(
                f"{clip.name}: lasts {seconds:.0f} s, at most {self.limits.clip_seconds:g} s are"
                " taken"
            )
        return source, seconds

    def _check_texts(self, texts: Sequence[str], name: str) -> None:
        """Raise RequestRejectedError or ValueError if there are too many, or one is too long."""
        self.limits.check_number(len(texts), name, self.limits.texts)
        for number, text in enumerate(texts):
            if len(text) > self.limits.text_characters:
                raise ValueError(self._too_long(text, f"{name}[{number}]"))

    def _too_long(self, text: str, name: str) -> str:
        most = self.limits.text_characters
        return f"{name} has {len(text)} characters, at most {most} are taken"

    def _embed_texts(self, texts: Sequence[str], name: str) -> tuple[Tensor, list[str]]:
        """Return embeddings [N, D], NaN for those with a fault, and the faults."""
        self.limits.check_number(len(texts), name, self.limits.texts)
        faults = [
            self._too_long(text, f"{name}[{number}]")
            if len(text) > self.limits.text_characters
            else ""
            for number, text in enumerate(texts)
        ]
        short = [text for text, fault in zip(texts, faults) if not fault]
        try:
            vectors = iter(self.model.encode_text(short).unbind() if short else [])
            found = [None if fault else next(vectors) for fault in faults]
        except ValueError:  # of one of them
            found = []
            for number, text in enumerate(texts):
                one = None
                if not faults[number]:
                    try:
                        (one,) = self.model.encode_text([text])
                    except ValueError as error:
                        reason = str(error).replace("texts[0]", f"{name}[{number}]")
                        faults[number] = reason.replace("Caption 0", f"Caption {number}")
                found.append(one)
        if all(faults):
            raise RequestRejectedError(422, faults[0])
        size = next(one for one in found if one is not None)
        nothing = torch.full_like(size, torch.nan)
        return torch.stack([nothing if one is None else one for one in found]), faults


def _array(clip: Clip) -> dict[str, Any]:
    """Return samples of a ``.npy`` file as the library datasets gives them, without a copy."""
    if clip.sample_rate is None:
        raise AudioError(f"{clip.name}: is an array: give its sample_rate")
    if clip.sample_rate < 1:
        raise AudioError(f"{clip.name}: its sample_rate is {clip.sample_rate} Hz")
    file = io.BytesIO(clip.content)
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
        if dtype.hasobject or len(shape) not in (1, 2):
            raise ValueError(f"it holds {dtype} of shape {list(shape)}, not samples")
        samples = np.frombuffer(clip.content, dtype, math.prod(shape), file.tell())
    except (ValueError, TypeError, SyntaxError, MemoryError, OverflowError) as error:
        raise AudioError(f"{clip.name}: is no .npy file that can be used: {error}") from error
    return {"array": samples.reshape(shape), "sampling_rate": clip.sample_rate}


def _whole(read: list[Tensor] | Exception, longest: float) -> Tensor | Exception:
    """Return a clip of one window, or what is wrong with it."""
    if isinstance(read, list) and len(read) > 1:
        return AudioError(f"lasts more than {longest:g} s: rewards take no longer clips")
    return read[0] if isinstance(read, list) else read


def _error(error: Exception) -> dict[str, Any]:
    return {"error": str(error)}


def _short(vector: Tensor) -> list[float]:
    """Return a vector of unit norm with the digits that float32 has, which take half the time."""
    return vector.double().numpy().round(8).tolist()


def _numbers(values: Tensor) -> list[float | None]:
    """Return numbers for JSON, which has no NaN."""
    return [value if math.isfinite(value) else None for value in values.tolist()]
