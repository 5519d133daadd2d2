"""The models that are measured, with random weights, and noise to feed them."""

from __future__ import annotations

import copy
from functools import cache

import torch
from encode import XLARGE
from torch import Tensor, nn

from gpu_parts.setting import Setting
from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.lobes.speech_tower import SpeechTower
from speechbrain_clsp.lobes.text_tower import RobertaTextTower
from speechbrain_clsp.lobes.zipformer.encoder import Zipformer2
from speechbrain_clsp.lobes.zipformer.regularization import Regularization
from speechbrain_clsp.nnet.logit_scale import LogitScale

SMALL = {
    "downsampling": [1, 2],
    "n_layers": [1, 1],
    "dims": [32, 48],
    "feedforward": [48, 64],
    "heads": [2, 2],
    "kernels": [7, 7],
}
SMALL_ROBERTA = {"vocab_size": 1000, "dim": 48, "n_layers": 1, "heads": 4, "feedforward": 96}


@cache
def _prototype(setting: Setting) -> SpeechTower:
    torch.manual_seed(0)
    encoder = Zipformer2(**setting.pick(XLARGE, SMALL), regularization=Regularization())
    channels = setting.pick((8, 32, 128), (2, 4, 8))
    return SpeechTower(encoder, frontend_channels=channels).eval()


def speech_tower(setting: Setting) -> SpeechTower:
    """Return CLSP's speech tower (XLarge, or a small one) on the device, in eval mode.

    It is regularized, which shows in training mode only.
    """
    # Initial weights take seconds to draw; on the CPU they are in no measurement's way.
    return copy.deepcopy(_prototype(setting)).to(setting.device)


def text_tower(setting: Setting) -> RobertaTextTower:
    """Return CLSP's text tower (RoBERTa-base, or a small one) on the device, in eval mode."""
    torch.manual_seed(1)
    return RobertaTextTower(**setting.pick({}, SMALL_ROBERTA)).to(setting.device).eval()


def clsp(setting: Setting, tokenizer) -> CLSP:
    """Return the whole model."""
    modules = {
        "speech_tower": speech_tower(setting),
        "text_tower": text_tower(setting),
        "logit_scale": LogitScale(),
    }
    return CLSP(modules, {"tokenizer": tokenizer}, run_opts={"device": str(setting.device)})


def lively_tower(setting: Setting) -> SpeechTower:
    """Return the speech tower with weights of the reference values' kind.

    Embeddings of a tower with initial weights hardly depend on the clip: they would agree in any
    precision.
    """
    tower = speech_tower(setting)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            draw = torch.randn_like(parameter)
            if name.endswith("bypass_scale"):
                parameter.copy_(0.2 + 0.7 * draw.sigmoid())
            elif name.endswith("log_scale"):
                parameter.copy_(0.3 * draw.tanh())
            elif parameter.dim() >= 2:
                parameter.copy_(draw / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.1 * draw)
    return tower


def noise(setting: Setting, clips: int, seconds: float, seed: int = 0) -> Tensor:
    """Return clips [B, T] of buzzes in noise, of different pitch and rhythm, on the device."""
    draw = torch.Generator().manual_seed(seed)
    size = int(seconds * SAMPLE_RATE)
    time = torch.arange(size) / SAMPLE_RATE
    wavs = 0.01 * torch.randn(clips, size, generator=draw)
    for wav, (pitch, tilt, rate) in zip(wavs, torch.rand(clips, 3, generator=draw).tolist()):
        phase = 2 * torch.pi * 80 * 5**pitch * time
        buzz = sum((k * phase).sin() / k ** (0.5 + tilt) for k in range(1, 8))
        wav += 0.1 * buzz * (0.5 + 0.5 * (2 * torch.pi * (1 + 5 * rate) * time).cos())
    return wavs.to(setting.device)


def n_parameters(module: nn.Module) -> int:
    """Return how many weights a module has."""
    return sum(p.numel() for p in module.parameters())
