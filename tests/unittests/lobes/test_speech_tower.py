"""The speech tower against the published implementation, and against itself in other batches."""

import pytest
import torch
from torch import nn
from torchaudio.compliance.kaldi import fbank

from speechbrain_clsp.lobes.features import KaldiFbank
from speechbrain_clsp.lobes.speech_tower import SpeechTower
from speechbrain_clsp.lobes.zipformer.encoder import Downsample
from speechbrain_clsp.lobes.zipformer.frontend import Conv2dSubsampling, ConvNeXt
from speechbrain_clsp.nnet.masking import masked_mean, padding_mask
from tests.utils.reference import stored, tiny_speech_tower

LENGTHS = [203, 150, 97, 60]


def speech(seconds: float, seed: int = 0) -> torch.Tensor:
    """Return [T] of noise whose level varies, so that frames differ."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(int(16000 * seconds), generator=generator)
    return 0.1 * noise * torch.linspace(0.1, 1.0, len(noise)).cos()


def padded(wavs: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Join waveforms into [B, T] and relative lengths."""
    batch = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    return batch, torch.tensor([len(wav) / batch.shape[1] for wav in wavs])


def stages(tower, features: torch.Tensor, n_frames: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run the tower and keep the output of every stage under the reference's names."""
    outputs = {}
    for i, stack in enumerate(tower.encoder.encoders):
        stack.register_forward_hook(lambda *call, i=i: outputs.update({f"stack_{i}": call[-1]}))
    with torch.no_grad():
        outputs["subsampled"], counts = tower.encoder_embed(features, n_frames)
        outputs["encoded"], counts = tower.encoder(outputs["subsampled"], counts)
        mask = padding_mask(counts, outputs["encoded"].shape[1])
        outputs["pooled"] = masked_mean(outputs["encoded"], mask)
        outputs["speech_embedding"] = tower.head(outputs["pooled"])
    return outputs


def assert_stages_agree(outputs: dict, expected: dict, rows: list[int]) -> None:
    """Compare every stage on valid frames."""
    counts = {"subsampled": [98, 71, 45, 26], "encoded": [49, 36, 23, 13]}
    for name, output in outputs.items():
        for row in rows:
            valid = slice(None)
            if output.dim() == 3:
                valid = slice(counts["encoded" if name == "encoded" else "subsampled"][row])
            torch.testing.assert_close(
                output[row][valid], expected[name][row][valid], atol=1e-5, rtol=0, msg=name
            )


@pytest.mark.parametrize("number", [0, 1])
def test_fbank_equals_the_published_front_end(number):
    """If this fails, a published checkpoint hears other features than it was trained on."""
    reference = stored("fbank")
    features, n_frames = KaldiFbank()(reference[f"wave_{number}"][None])
    assert n_frames.item() == len(reference[f"fbank_{number}"])
    torch.testing.assert_close(features[0], reference[f"fbank_{number}"], atol=2e-4, rtol=0)


@pytest.mark.parametrize("samples_beyond_window", [0, 1041, 15600, 15679, 15681])
@pytest.mark.parametrize("n_mels, window_seconds", [(80, 0.025), (128, 0.025), (80, 0.05)])
def test_fbank_equals_torchaudio_at_any_length(samples_beyond_window, n_mels, window_seconds):
    """If this fails, edges are not reflected as Kaldi does, or frames are miscounted."""
    wav = speech(1.1)[None, : round(16000 * window_seconds) + samples_beyond_window]
    options = {"num_mel_bins": n_mels, "frame_length": 1000 * window_seconds}
    expected = fbank(wav, dither=0, snip_edges=False, high_freq=-400, **options)
    features = KaldiFbank(n_mels, window_seconds=window_seconds)(wav)[0][0]
    torch.testing.assert_close(features, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("window_seconds", [0.025, 0.05, 0.03])
def test_power_by_a_product_is_that_of_the_fourier_transform(window_seconds):
    """If this fails, an exported model hears something else than the one that was trained."""
    features = KaldiFbank(window_seconds=window_seconds)
    wavs = torch.stack([speech(1.0), speech(1.0, seed=1)])
    expected = features._power(wavs)
    torch.testing.assert_close(
        features._power_by_product(wavs), expected, atol=1e-6 * float(expected.max()), rtol=0
    )


def test_fbank_in_a_batch_equals_fbank_alone():
    """If this fails, padding or another clip's length changes a clip's features."""
    wavs = [speech(1.0), speech(0.61, seed=1), speech(0.123, seed=2), speech(0.01, seed=3)]
    for fbank_of_batch in (KaldiFbank(), KaldiFbank(window_seconds=0.05)):
        features, n_frames = fbank_of_batch(*padded(wavs))
        for wav, batched, count in zip(wavs, features, n_frames):
            alone = fbank_of_batch(wav[None])[0][0]
            torch.testing.assert_close(batched[:count], alone, atol=1e-5, rtol=0)
            assert not batched[count:].any()


def test_every_stage_equals_the_published_model_without_padding():
    """If this fails, published weights would give other embeddings in our tower."""
    reference = stored("clsp_tiny")
    outputs = stages(tiny_speech_tower(), reference["features"], torch.tensor(LENGTHS))
    assert_stages_agree(outputs, reference, rows=[0])


def test_every_stage_equals_the_published_model_with_its_padding_leak(monkeypatch):
    """The published model lets padding into the ends of shorter clips, in two places.

    With our two masks taken away all rows agree, so that the masks are all that differs.
    """

    def ignore_lengths(module_class):
        forward = module_class.forward
        time_axis = {ConvNeXt: 2, Downsample: 1}[module_class]
        monkeypatch.setattr(
            module_class,
            "forward",
            lambda self, x, counts: forward(self, x, torch.full_like(counts, x.shape[time_axis])),
        )

    ignore_lengths(ConvNeXt)
    ignore_lengths(Downsample)
    reference = stored("clsp_tiny")
    outputs = stages(tiny_speech_tower(), reference["features"], torch.tensor(LENGTHS))
    assert_stages_agree(outputs, reference, rows=[0, 1, 2, 3])


def test_an_utterance_has_one_embedding_in_any_batch():
    """If this fails, search results and scores depend on which clips are encoded together."""
    tower = tiny_speech_tower()
    wavs = [speech(seconds, seed=i) for i, seconds in enumerate([2.0, 1.37, 0.8, 0.1])]
    with torch.no_grad():
        alone = torch.cat([tower(wav[None]) for wav in wavs])
        together = tower(*padded(wavs))
        backwards = tower(*padded(wavs[::-1])).flip(0)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(backwards, alone, atol=1e-5, rtol=0)
    assert (alone @ alone.T).fill_diagonal_(0).max() < 0.9999  # or any constant would pass


def test_padding_content_never_reaches_an_embedding():
    """If this fails, whatever lies behind a clip's end leaks into its embedding."""
    tower = tiny_speech_tower()
    wavs, lengths = padded([speech(1.0), speech(0.5, seed=1)])
    noisy = wavs.clone()
    noisy[1, len(speech(0.5)) :] = 1.0
    with torch.no_grad():
        torch.testing.assert_close(tower(noisy, lengths), tower(wavs, lengths), atol=1e-6, rtol=0)


def test_gradients_reach_the_waveform_and_every_weight():
    """If this fails, part of the tower would never learn, or could not serve as a reward."""
    tower = tiny_speech_tower().train()
    wavs = speech(0.9)[None].requires_grad_()
    tower(wavs)[0, :7].sum().backward()
    assert wavs.grad.abs().max() > 0
    dead = [name for name, p in tower.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_a_frozen_tower_is_neither_trained_nor_random():
    plain = tiny_speech_tower()
    options = {"frontend_channels": (2, 4, 8), "joint_dim": 16, "head_dropout": 0.9}
    frozen = SpeechTower(plain.encoder, frozen=True, **options)
    assert not any(p.requires_grad for p in frozen.parameters())
    wavs = speech(0.9)[None]
    frozen.eval()
    expected = frozen(wavs)
    nn.ModuleList([frozen]).train()
    torch.testing.assert_close(frozen(wavs), expected, atol=0, rtol=0)
    assert frozen.arguments() == {"frozen": False} and plain.arguments() == {}


def test_too_short_a_clip_is_refused():
    """If this fails, a clip without a single frame gives NaN instead of an error."""
    with pytest.raises(ValueError, match="at least 9"):
        tiny_speech_tower()(torch.zeros(1, 1300))


def test_the_initial_front_end_passes_speech_on_when_it_has_a_gain():
    """If this fails, a short training starts with an encoder that hears next to nothing."""
    syllables = (torch.arange(16000) % 4000 < 2000) * speech(1.0)
    features = (KaldiFbank(80)(syllables[None])[0] + 7.4) / 4.7
    counts = torch.tensor([features.shape[1]])
    shares = {}
    for gain in (None, 3.0):
        torch.manual_seed(0)
        with torch.no_grad():
            frames, _ = Conv2dSubsampling(80, 128, (4, 8, 16), gain)(features, counts)
        shares[gain] = float(frames.std(dim=1).mean() / frames.std())
    assert shares[None] < 0.05, "the default start is no longer deaf: is the gain still needed?"
    assert shares[3.0] > 0.3
