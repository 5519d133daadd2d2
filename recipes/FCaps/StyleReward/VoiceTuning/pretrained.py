"""SpeechBrain's pretrained FastSpeech2 and HiFi-GAN, from the Hub or a folder, to be tuned."""

from __future__ import annotations

import random
from collections.abc import Sequence

from speechbrain.inference.TTS import FastSpeech2
from speechbrain.inference.vocoders import HIFIGAN
from torch import Tensor, nn
from voice import TunableVoice, Voice

from speechbrain_clsp.mini_fcaps.sentences import draw_sentence


class PhonemeReader(FastSpeech2):
    """SpeechBrain's interface, stopped before it speaks: ``encode_text`` returns phonemes."""

    def encode_batch(self, tokens_padded: Tensor, **options) -> Tensor:
        """Return phonemes [B, N] instead of spectrograms."""
        return tokens_padded


class MelVocoder(nn.Module):
    """SpeechBrain's HiFi-GAN generator, which reads the log-mel spectrogram alone."""

    def __init__(self, generator: nn.Module, hop: int) -> None:
        super().__init__()
        self.generator = generator
        self.hop = hop

    def forward(self, mels: Tensor, pitch: Tensor) -> Tensor:
        """Return waveforms [B, F * hop] from [B, F, n_mels]; the pitch is not used."""
        return self.generator(mels.transpose(1, 2)).squeeze(1)


def pretrained_voice(
    tts_source: str,
    vocoder_source: str,
    trained: Sequence[str],
    sample_rate: int = 22050,
    hop: int = 256,
    n_train: int = 240,
    n_test: int = 60,
    seed: int = 1986,
) -> TunableVoice:
    """Open a pretrained voice, and draw sentences for it.

    Arguments
    ---------
    tts_source, vocoder_source : str
        Hub repositories or folders for ``FastSpeech2.from_hparams`` and ``HIFIGAN.from_hparams``.
    trained : sequence of str
        As for :class:`voice.TunableVoice`.
    sample_rate, hop : int
        Of the vocoder, Hz and samples per frame.
    n_train, n_test : int
        Sentences for tuning, and for validation and the test each; drawn from ``seed``.
    """
    run_opts = {"device": "cpu"}
    reader = PhonemeReader.from_hparams(tts_source, run_opts=run_opts)
    generator = HIFIGAN.from_hparams(vocoder_source, run_opts=run_opts).hparams.generator
    draw = random.Random(seed)
    sentences = {}
    for split, count in (("train", n_train), ("valid", n_test), ("test", n_test)):
        texts = [" ".join(draw_sentence(draw)) for _ in range(count)]
        sentences[split] = [
            {"id": text, "text": text, "tokens": reader.encode_text([text])[0].long()}
            for text in texts
        ]
    voice = Voice(reader.hparams.model)
    return TunableVoice(voice, MelVocoder(generator, hop), sample_rate, sentences, trained)
