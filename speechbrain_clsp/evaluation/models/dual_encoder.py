"""ParaSpeechCLAP and ParaCLAP: an encoder of speech, one of text, and a projection behind each.

Read in their authors' code (ajd12342/paraspeechclap, arXiv 2603.28737, and KeiKinn/ParaCLAP, arXiv
2406.07203; commits 4767eea and 2a726dd):

- the checkpoint is a state dict with the keys ``audio_branch.base.*``, ``text_branch.base.*`` (two
  models of transformers), ``{audio,text}_projection.{linear1,linear2,layer_norm}.*`` and a
  temperature, ``log_logit_scale`` or ``logit_scale``, which cosines do not need;
- projection: with a = linear1(x), layer_norm(a + linear2(gelu(a))), without biases, to 768 values;
- speech: 16 kHz mono, last hidden layer, mean over time; text: at most 512 tokens, last hidden
  layer, first token; both are brought to unit norm;
- ParaSpeechCLAP: WavLM-large and Granite Embedding 278M (an XLM-RoBERTa); clips are normalized as
  WavLM's feature extractor says; padding is masked in the encoder and in the mean;
- ParaCLAP: the wav2vec 2.0 of audEERING's MSP-Podcast model and BERT-base; samples as they are, one
  clip at a time, which is what masks give in a batch.

Assumed and not checked against the published weights: their keys, and file names in the
repositories, of which more than one is tried. Resampling is ours, not theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import AutoConfig, AutoModel, AutoTokenizer, Wav2Vec2FeatureExtractor

from speechbrain_clsp.dataio.audio import AudioError
from speechbrain_clsp.evaluation.models.base import DualEncoderBase, state_of
from speechbrain_clsp.lobes.speech_inputs import PaddedFrontEnd, count_frames
from speechbrain_clsp.pretrained.folder import WEIGHTS
from speechbrain_clsp.pretrained.hub import find_file

BATCH_CLIPS = 8
WIDTH_KEY = "audio_projection.linear1.weight"  # [joint dimension, speech dimension]
UNUSED_KEYS = {"log_logit_scale", "logit_scale", "text_branch.base.embeddings.position_ids"}


@dataclass(frozen=True)
class Published:
    """The parts of a published model.

    Arguments
    ---------
    speech, text : str
        Hub repositories of the encoders; of them settings and tokenizer are read, not weights.
    weights : tuple of str
        Names that the checkpoint may have; ``{name}`` and ``{last}`` are the repository's name and
        the part of it behind the last hyphen.
    raw_samples : bool
        Whether clips skip the normalization that the speech encoder's feature extractor states.
    """

    speech: str
    text: str
    weights: tuple[str, ...]
    raw_samples: bool = False


KNOWN = {
    "paraspeechclap": Published(
        "microsoft/wavlm-large",
        "ibm-granite/granite-embedding-278m-multilingual",
        (WEIGHTS, "{name}.pth.tar", "slap-{last}.pth.tar"),
    ),
    "paraclap": Published(
        "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim",
        "google-bert/bert-base-uncased",
        (WEIGHTS, "best.pth.tar"),
        raw_samples=True,
    ),
}


class _Projection(nn.Module):
    """From an encoder's space, [..., dim], to the joint one, [..., joint_dim]."""

    def __init__(self, dim: int, joint_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, joint_dim, bias=False)
        self.linear2 = nn.Linear(joint_dim, joint_dim, bias=False)
        self.layer_norm = nn.LayerNorm(joint_dim)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map [..., dim] to [..., joint_dim]."""
        linear = self.linear1(vectors)
        return self.layer_norm(linear + self.linear2(gelu(linear)))


class DualEncoder(nn.Module):
    """The network of two encoders by their settings, with the names of its checkpoint's keys."""

    def __init__(self, speech: Any, text: Any, joint_dim: int) -> None:
        super().__init__()
        encoder = AutoModel.from_config(speech)
        encoder.feature_extractor = PaddedFrontEnd(encoder.feature_extractor)
        self.audio_branch = nn.ModuleDict({"base": encoder})
        self.text_branch = nn.ModuleDict({"base": AutoModel.from_config(text)})
        self.audio_projection = _Projection(speech.hidden_size, joint_dim)
        self.text_projection = _Projection(text.hidden_size, joint_dim)

    def embed_speech(self, samples: Tensor, mask: Tensor) -> Tensor:
        """Embed clips [B, T], zero padded, with a mask that is 1 on samples; returns [B, D]."""
        encoder = self.audio_branch["base"]
        n_samples = mask.sum(dim=1)
        hidden = encoder((samples, n_samples), attention_mask=mask).last_hidden_state
        n_frames = count_frames(n_samples, encoder.config)[:, None]
        own = torch.arange(hidden.shape[1], device=hidden.device) < n_frames
        return self.audio_projection((hidden * own[..., None]).sum(dim=1) / n_frames)

    def embed_text(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Embed tokens [B, L] of captions, with a mask that is 1 on them; returns [B, D]."""
        hidden = self.text_branch["base"](input_ids, attention_mask=mask).last_hidden_state
        return self.text_projection(hidden[:, 0])


class DualEncoderModel(DualEncoderBase):
    """A published dual encoder as a model to evaluate.

    Arguments
    ---------
    source : str
        Hub repository, or a folder with one ``*.safetensors`` or ``*.pth.tar``. Encoders' settings
        and tokenizer come from its folders ``speech`` and ``text`` or else, without their weights,
        from the repositories that the authors name.
    revision : str or None
        Of the repository.
    published : Published
        Its parts; see :data:`KNOWN`.
    device : str
        Where it runs.

    Raises
    ------
    FileNotFoundError
        If there is no checkpoint.
    ValueError
        If the checkpoint holds anything but tensors, or they are not those of the network.
    """

    def __init__(
        self, source: str, revision: str | None, published: Published, device: str = "cpu"
    ) -> None:
        path, state_of_weights = _find_checkpoint(source, published, revision)
        speech, text = (
            str(Path(source) / part) if (Path(source) / part).is_dir() else getattr(published, part)
            for part in ("speech", "text")
        )
        configs = [AutoConfig.from_pretrained(place) for place in (speech, text)]
        self.network = _load_network(path, *configs).eval().to(device)
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(speech)
        extractor.do_normalize &= not published.raw_samples
        super().__init__(
            source,
            " ".join([state_of_weights, *map(state_of, (speech, text))]),
            extractor,
            AutoTokenizer.from_pretrained(text),
            device,
            BATCH_CLIPS,
        )

    def _embed_speech(self, wavs: list[np.ndarray]) -> Tensor:
        inputs = self.extractor(
            wavs,
            sampling_rate=self.extractor.sampling_rate,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self.device)
        return self.network.embed_speech(inputs["input_values"], inputs["attention_mask"])

    def _embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.network.embed_text(input_ids, attention_mask)

    def _read(self, path: str) -> np.ndarray:
        wav = super()._read(path)
        if count_frames(len(wav), self.network.audio_branch["base"].config) < 1:
            seconds = len(wav) / self.extractor.sampling_rate
            raise AudioError(f"{path}: lasts {seconds:.3f} s, too short for {self.model}")
        return wav


def _find_checkpoint(source: str, published: Published, revision: str | None) -> tuple[Path, str]:
    """Return the path of a model's weights, safetensors rather than a pickle, and their state."""
    folder = Path(source)
    if folder.is_dir():
        found = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.pth.tar"))
        if len(found) != 1:
            raise FileNotFoundError(
                f"{source} must hold one *.safetensors or one *.pth.tar, not {len(found)}"
            )
        return found[0], state_of(source)
    name = folder.name
    names = [each.format(name=name, last=name.rsplit("-", 1)[-1]) for each in published.weights]
    for each in names:
        try:
            return find_file(source, each, revision), state_of(source, revision, each)
        except (FileNotFoundError, ConnectionError) as error:  # offline they look the same
            reason = error
    raise FileNotFoundError(f"None of {names} could be found or downloaded: {reason}") from reason


def _load_network(path: Path, speech: Any, text: Any) -> DualEncoder:
    """Make the network from its encoders' settings, and give it a checkpoint's weights.

    Of a pickle, which must be a state dict, only tensors are read.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged or holds more than tensors: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} must hold a state dict: tensors by name and nothing else")
    if WIDTH_KEY not in state:
        raise ValueError(f"{path} lacks {WIDTH_KEY}: it is not a checkpoint of a dual encoder")
    network = DualEncoder(speech, text, len(state[WIDTH_KEY])).float()
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes
        raise ValueError(f"{path} does not fit the encoders: {error}") from error
    unexpected = sorted(set(unexpected) - UNUSED_KEYS)
    if missing or unexpected:
        raise ValueError(f"{path} lacks {missing} and has, without a place for them, {unexpected}")
    return network
