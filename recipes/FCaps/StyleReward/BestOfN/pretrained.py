"""Candidates of SpeechBrain's pretrained FastSpeech2 and HiFi-GAN, with random prosody."""

from __future__ import annotations

import random

from speechbrain.inference.TTS import FastSpeech2
from speechbrain.inference.vocoders import HIFIGAN
from torch import Tensor

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.dataio.resample import resample

SCALES = {"pace": (0.7, 1.5), "pitch_rate": (0.75, 1.3), "energy_rate": (0.5, 1.5)}


class PretrainedCandidates:
    """A synthesizer for best_of_n.py; sources are Hub repositories or folders."""

    def __init__(
        self,
        tts_source: str = "speechbrain/tts-fastspeech2-ljspeech",
        vocoder_source: str = "speechbrain/tts-hifigan-ljspeech",
        gender: str = "female",
        sample_rate: int = 22050,
    ) -> None:
        self.tts = FastSpeech2.from_hparams(tts_source, run_opts={"device": "cpu"})
        self.vocoder = HIFIGAN.from_hparams(vocoder_source, run_opts={"device": "cpu"})
        self.gender = gender
        self.sample_rate = sample_rate

    def __call__(
        self, text: str, caption: str, count: int, generator: random.Random
    ) -> list[tuple[Tensor, str]]:
        """Speak a text ``count`` times: waveforms [T] at 16 kHz, and the voice's gender."""
        clips = []
        for _ in range(count):
            scales = {name: generator.uniform(*ends) for name, ends in SCALES.items()}
            mels, *_ = self.tts.encode_text([text], **scales)
            wav = self.vocoder.decode_batch(mels)[0, 0]
            clips.append((resample(wav, self.sample_rate, SAMPLE_RATE), self.gender))
        return clips
