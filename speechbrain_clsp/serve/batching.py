"""A model in a thread of its own, which joins what several requests ask for at the same time."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import torch
from torch import Tensor

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.inference.cache import EmbeddingCache
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.inference.files import plan_batches


class _Waiting(NamedTuple):
    wav: Tensor
    answer: Future


class BatchedModel:
    """A CLSP that many threads may use at the same time.

    Waveforms wait until the model is free; then those of a similar length are embedded together, up
    to a padded duration. No request waits for others to come. Embeddings do not depend on what they
    are computed with, to 1e-5. They are kept by the content of the waveform, those of captions by
    the caption.

    Arguments
    ---------
    clsp : CLSP
        The model.
    batch_seconds : float
        Padded duration that is embedded at once; a longer waveform makes a batch of its own.
    cached : int
        Embeddings of waveforms that are kept.
    on_batch : callable, optional
        Called with the number of waveforms and the padded seconds of each batch.

    Example
    -------
    >>> model = BatchedModel(CLSP.from_pretrained("results/mini/model"))  # doctest: +SKIP
    >>> model.embed_wavs([torch.rand(16000), torch.rand(32000)])[1].shape  # doctest: +SKIP
    torch.Size([512])
    """

    def __init__(
        self,
        clsp: CLSP,
        batch_seconds: float = 60.0,
        cached: int = 20_000,
        on_batch: Callable[[int, float], object] = lambda clips, seconds: None,
    ) -> None:
        self.clsp, self.batch_seconds, self.on_batch = clsp, batch_seconds, on_batch
        self.audio_cache = EmbeddingCache(cached)
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()
        self._text_lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="clsp", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Return how many waveforms wait."""
        return len(self._waiting)

    def embed_wavs(self, wavs: Sequence[Tensor]) -> list[Tensor | str]:
        """Embed waveforms [T].

        Returns
        -------
        list of Tensor or str
            For each its embedding [D] on the CPU, or why it has none.
        """
        keys = [hashlib.sha256(wav.contiguous().numpy().data).digest() for wav in wavs]
        found: dict[bytes, Tensor | str] = {**self.audio_cache.find(keys)}
        absent = {key: wav for key, wav in zip(keys, wavs) if key not in found}
        waiting = {key: _Waiting(wav, Future()) for key, wav in absent.items()}
        with self._changed:
            if self._is_closed:
                raise RuntimeError("The service is stopping")
            self._waiting += waiting.values()
            self._changed.notify()
        found |= {key: each.answer.result() for key, each in waiting.items()}
        made = {key: found[key] for key in absent}
        self.audio_cache.add({key: one for key, one in made.items() if isinstance(one, Tensor)})
        return [found[key] for key in keys]

    def embed(self, wavs: Tensor, wav_lens: Tensor) -> Tensor:
        """Embed waveforms [B, T] as :meth:`CLSP.embed` does; rows are NaN where it fails."""
        sizes = (wav_lens * wavs.shape[1] + 0.5).long().clamp(1, wavs.shape[1]).tolist()
        found = self.embed_wavs([wav[:size] for wav, size in zip(wavs.cpu(), sizes)])
        like = next((one for one in found if isinstance(one, Tensor)), torch.empty(1))
        nothing = torch.full_like(like, torch.nan)
        return torch.stack([nothing if isinstance(one, str) else one for one in found])

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed captions [N, D] on the CPU, as :meth:`CLSP.encode_text` does."""
        with self._text_lock:  # whoever asks for the same captions finds them in the cache
            return self.clsp.encode_text(texts).cpu()

    def close(self) -> None:
        """End the thread after all that waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            for each, one in zip(batch, self._embed([each.wav for each in batch])):
                each.answer.set_result(one)

    def _embed(self, wavs: list[Tensor]) -> list[Tensor | str]:
        try:
            return self.clsp.try_embed(wavs)
        except Exception as error:  # too little memory, perhaps: one by one they may fit
            if len(wavs) == 1:
                return [f"could not be embedded: {error}"]
            return [self._embed([wav])[0] for wav in wavs]

    def _next_batch(self) -> list[_Waiting]:
        """Return what is embedded next: the oldest, and others of its length; [] at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if not self._waiting:
                return []
            seconds = [len(each.wav) / SAMPLE_RATE for each in self._waiting]
            batches = plan_batches(seconds, self.batch_seconds)
            numbers = set(next(batch for batch in batches if 0 in batch))
            batch = [each for n, each in enumerate(self._waiting) if n in numbers]
            self._waiting = [each for n, each in enumerate(self._waiting) if n not in numbers]
        self.on_batch(len(batch), len(batch) * max(seconds[n] for n in numbers))
        return batch
