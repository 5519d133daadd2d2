"""SpeechBrain's pretrained FastSpeech2 and HiFi-GAN, from the Hub or folders, for these recipes."""

from __future__ import annotations

import random
from copy import deepcopy
from functools import cached_property
from typing import Any

import torch
from speechbrain.inference.TTS import FastSpeech2
from speechbrain.inference.vocoders import HIFIGAN
from torch import Tensor, nn
from torchaudio.functional import resample
from voice import Voice

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.mini_fcaps.sentences import draw_sentence

SCALES = {  # factors that candidates are drawn from: of durations, pitch and energy
    "pace": (0.7, 1.5),
    "pitch_rate": (0.75, 1.3),
    "energy_rate": (0.5, 1.5),
}


class UnscaledVoice(Voice):
    """A FastSpeech2 whose pitch has units of its own, which its vocoder does not ask for."""

    def hertz(self, pitch: Tensor) -> Tensor:
        """Return the pitch as it is."""
        return pitch


class MelVocoder(nn.Module):
    """A HiFi-GAN generator that is given filter banks alone.

    Arguments
    ---------
    generator : HifiganGenerator
        SpeechBrain's.
    hop : int
        Samples per frame.
    """

    def __init__(self, generator: nn.Module, hop: int) -> None:
        super().__init__()
        self.generator, self.hop = generator, hop

    def forward(self, mels: Tensor, pitch: Tensor) -> Tensor:
        """Make a waveform [B, F * hop] from filter banks [B, F, n_mels]; pitch is not used."""
        return self.generator(mels.transpose(1, 2)).squeeze(1)


class PhonemeReader(FastSpeech2):
    """SpeechBrain's interface, stopped before it speaks."""

    def encode_batch(self, tokens_padded: Tensor, **options) -> Tensor:
        """Return phonemes [B, N] instead of filter banks."""
        return tokens_padded


class PretrainedVoice:
    """A pretrained voice: candidates for best_of_n.py, and a source for tune_voice.py.

    Arguments
    ---------
    tts, vocoder : str
        Hub repositories or folders that ``FastSpeech2.from_hparams`` and ``HIFIGAN.from_hparams``
        take; opened when first needed.
    gender : str
        Of the voice.
    sample_rate, hop : int
        Of the vocoder, Hz and samples per frame.
    n_sentences : int
        Sentences for tuning; a quarter of them more for validation and for the test.
    seed : int
        Of sentences.

    Example
    -------
    >>> voice = PretrainedVoice()
    >>> voice("before dark", "A woman speaks.", 4, random.Random(0))  # doctest: +SKIP
    """

    def __init__(
        self,
        tts: str = "speechbrain/tts-fastspeech2-ljspeech",
        vocoder: str = "speechbrain/tts-hifigan-ljspeech",
        gender: str = "female",
        sample_rate: int = 22050,
        hop: int = 256,
        n_sentences: int = 240,
        seed: int = 1986,
    ) -> None:
        self.tts_source, self.vocoder_source, self.gender = tts, vocoder, gender
        self.sample_rate, self.hop, self.n_sentences, self.seed = (
            sample_rate,
            hop,
            n_sentences,
            seed,
        )

    @cached_property
    def reader(self) -> PhonemeReader:
        """SpeechBrain's interface up to phonemes."""
        return PhonemeReader.from_hparams(self.tts_source, run_opts={"device": "cpu"})

    @cached_property
    def frozen(self) -> Voice:
        """The acoustic model as it was published."""
        return UnscaledVoice(self.reader.hparams.model).eval().requires_grad_(False)

    @cached_property
    def voice(self) -> Voice:
        """A copy of it, to be tuned."""
        return deepcopy(self.frozen)

    @cached_property
    def vocoder(self) -> MelVocoder:
        """The vocoder, frozen."""
        hifigan = HIFIGAN.from_hparams(self.vocoder_source, run_opts={"device": "cpu"})
        return MelVocoder(hifigan.hparams.generator, self.hop).eval().requires_grad_(False)

    @cached_property
    def sentences(self) -> dict[str, list[dict[str, Any]]]:
        """Sentences by split, as ``text``, ``tokens`` and ``frames`` (all 1) [N]."""
        draw, found = random.Random(self.seed), {}
        for split, share in (("train", 1), ("valid", 4), ("test", 4)):
            count = max(1, self.n_sentences // share)
            found[split] = [self._item(" ".join(draw_sentence(draw))) for _ in range(count)]
        return found

    def _item(self, text: str) -> dict[str, Any]:
        tokens = self.reader.encode_text([text])[0].long()
        return {"id": text, "text": text, "tokens": tokens, "frames": torch.ones_like(tokens)}

    def __call__(
        self, text: str, caption: str, count: int, generator: random.Random
    ) -> list[tuple[Tensor, str]]:
        """Speak a text with durations, pitch and energy scaled by chance, as best_of_n.py asks.

        Returns
        -------
        list of tuple
            Waveform [T] at 16 kHz and the voice's gender, ``count`` times.
        """
        tokens, found = self.reader.encode_text([text]).long(), []
        for _ in range(count):
            scales = {name: generator.uniform(*ends) for name, ends in SCALES.items()}
            with torch.no_grad():
                mels = self.frozen.fastspeech2(tokens, **scales)[1]
                wav = self.vocoder(mels, mels)[0]
            found.append((resample(wav, self.sample_rate, SAMPLE_RATE), self.gender))
        return found
