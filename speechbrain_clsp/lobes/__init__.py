"""The two towers and their building blocks, each usable as a plain ``nn.Module``.

Waveforms to unit vectors (features, Zipformer2, head) and caption tokens to unit vectors.
"""

from speechbrain_clsp.lobes.adapters import AdaptedTower
from speechbrain_clsp.lobes.attribute_heads import AttributeHeads
from speechbrain_clsp.lobes.features import KaldiFbank
from speechbrain_clsp.lobes.head import ProjectionHead
from speechbrain_clsp.lobes.pretrained_speech import PretrainedSpeechTower
from speechbrain_clsp.lobes.pretrained_text import PretrainedTextTower
from speechbrain_clsp.lobes.prompt_bank import PromptBank
from speechbrain_clsp.lobes.speech_tower import SpeechTower
from speechbrain_clsp.lobes.text_tower import RobertaTextTower, TransformerTextTower
from speechbrain_clsp.lobes.zipformer import Balancer, Whiten, Zipformer2

__all__ = [
    "AdaptedTower",
    "AttributeHeads",
    "Balancer",
    "KaldiFbank",
    "PretrainedSpeechTower",
    "PretrainedTextTower",
    "ProjectionHead",
    "PromptBank",
    "RobertaTextTower",
    "SpeechTower",
    "TransformerTextTower",
    "Whiten",
    "Zipformer2",
]
