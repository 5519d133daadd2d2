"""The voice that style rewards tune: alignments, its vocoder, gradients, and short runs."""

import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import load_file
from speechbrain.inference.TTS import FastSpeech2

from speechbrain_clsp.mini_fcaps.acoustics import RATE, pitch_track, spectral_tilt
from tests.utils.small import model_folder

RECIPE = Path(__file__).parents[2] / "recipes/FCaps/StyleReward"
sys.path.insert(0, str(RECIPE))
from pretrained import PretrainedVoice  # noqa: E402
from tune_voice import TuningBrain, open_all, speak, train_only  # noqa: E402
from vocoder import SourceFilterGenerator, SpectralLoss  # noqa: E402
from voice import SyntheticVoice, phoneme_encoder, voice_dataset  # noqa: E402
from voice_prepare import continuous_pitch, prepare_voice  # noqa: E402

HOP = 256


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voice")
    prepare_voice(folder, n_train=20, n_valid=2, n_test=2)
    return folder


def model() -> dict:
    return load_hyperpyyaml((RECIPE / "models/voice.yaml").read_text(encoding="utf-8"))


def test_phonemes_sound_where_they_should(data):
    """If this fails, durations do not belong to the audio, and FastSpeech2 learns a blur."""
    tilts = {"hiss": [], "vowel": []}
    for row in json.loads((data / "train.json").read_text()).values():
        wav, _ = soundfile.read(row["wav"].replace("{data_root}", str(data)))
        assert sum(row["phone_frames"]) == len(row["f0"]) == 1 + len(wav) // HOP
        end = 0
        for phone, frames in zip(row["phones"], row["phone_frames"]):
            start, end = end, end + frames * HOP
            kind = "hiss" if phone in ("s", "ʃ") else "vowel" if phone[0] in "ˈˌ" else None
            if kind and frames > 4:
                tilts[kind].append(spectral_tilt(wav[start + HOP : end - HOP]))
    assert min(len(found) for found in tilts.values()) > 10
    between = np.median(tilts["hiss"]) - np.median(tilts["vowel"])
    assert between > 10
    shares = [np.mean(np.array(tilts["hiss"]) > 0), np.mean(np.array(tilts["vowel"]) < 0)]
    assert min(shares) > 0.8


def test_pitch_is_that_of_a_tone():
    """If this fails, the vocoder's source has another pitch than the clips it learns from."""
    time = np.arange(RATE) / RATE
    for hertz in (93.7, 151.3, 262.9):
        wav = sum(np.sin(2 * np.pi * k * hertz * time) / k for k in range(1, 8))
        wav[6000:9000] = 0  # drawn through where there is none
        found = continuous_pitch(wav, HOP)
        assert len(found) == 1 + len(wav) // HOP
        assert np.allclose(found, hertz, rtol=0.003)
        assert np.isnan(pitch_track(wav)).any()
    with pytest.raises(ValueError, match="No pitch"):
        continuous_pitch(np.random.default_rng(0).standard_normal(RATE), HOP)


def test_preparing_twice_does_nothing_and_other_settings_are_told(data):
    """If this fails, a voice is mixed of two settings."""
    before = (data / "train.json").stat().st_mtime_ns
    prepare_voice(data, n_train=20, n_valid=2, n_test=2)
    assert (data / "train.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="made with .*name another folder"):
        prepare_voice(data, n_train=13)
    with pytest.raises(ValueError, match="variant must be one of"):
        prepare_voice(data / "other", variant="f9")


def test_the_source_has_the_pitch_that_is_asked_for():
    """If this fails, a tuned pitch is not heard."""
    generator = SourceFilterGenerator(8, channels=16)
    hertz = torch.linspace(120, 240, 100)[None]
    tone = generator.source(hertz)[0, 0].double().numpy()
    track = pitch_track(tone, HOP)
    wanted = np.interp(np.arange(len(track)) * HOP + 512, np.arange(100) * HOP + 128, hertz[0])
    assert np.nanmax(np.abs(track / wanted - 1)) < 0.02
    # No harmonic above half the sampling rate, where it would sound as a low one.
    high = generator.source(torch.full((1, 50), 3000.0))[0, 0]
    power = torch.fft.rfft(high).abs().square()
    bins = torch.fft.rfftfreq(len(high), 1 / 16000)
    near = sum(power[(bins - hertz).abs() < 60].sum() for hertz in (3000, 6000))
    assert near / power.sum() > 0.99


def test_gradients_through_the_vocoder_equal_finite_differences():
    """If this fails, tuning climbs in a wrong direction in pitch."""
    torch.manual_seed(0)
    generator = SourceFilterGenerator(8, channels=16).double()
    mels = torch.randn(1, 12, 8, dtype=torch.double, requires_grad=True)
    pitch = (150 + 10 * torch.rand(1, 12, dtype=torch.double)).requires_grad_()
    weights = torch.randn(12 * HOP, dtype=torch.double)
    value = lambda mels, pitch: (generator(mels, pitch) * weights).sum()  # noqa: E731
    gradients = torch.autograd.grad(value(mels, pitch), (mels, pitch))
    for n, step in ((0, 1e-6), (1, 1e-6)):
        direction = [torch.zeros_like(mels), torch.zeros_like(pitch)]
        direction[n] = step * torch.randn_like(direction[n])
        with torch.no_grad():
            ends = [value(mels + s * direction[0], pitch + s * direction[1]) for s in (1, -1)]
        slope = float((gradients[n] * direction[n]).sum())
        assert slope != 0 and float(ends[0] - ends[1]) / 2 == pytest.approx(slope, rel=1e-4)
    assert torch.equal(generator(mels, pitch), generator(mels, pitch))  # its noise is fixed


def test_spectral_loss_hears_level_and_pitch():
    """If this fails, a vocoder may be too quiet, or hum at a pitch of its own."""
    time, loss = torch.arange(16000) / 16000, SpectralLoss()
    buzz = lambda hertz: sum(torch.sin(2 * torch.pi * k * hertz * time) / k for k in range(1, 20))  # noqa: E731
    # Bands without any power would be silent however loud the rest is.
    noise = 0.01 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    wav, other = (0.1 * buzz(hertz)[None] + noise for hertz in (150, 165))
    quieter, higher = float(loss(0.5 * wav, wav)), float(loss(other, wav))
    assert quieter == pytest.approx(np.log(2), rel=0.05)  # nepers
    assert higher > 0.1
    assert float(loss(-wav, wav)) == 0  # phases are free


def test_what_tuning_changes_and_what_it_holds(data):
    """If this fails, durations change, frozen parts learn, or anchors pull from the start."""
    torch.manual_seed(0)
    source = SyntheticVoice.__new__(SyntheticVoice)
    tuned, frozen = model(), model()
    tuned["voice"].load_state_dict(frozen["voice"].state_dict())
    source.voice, source.frozen, source.vocoder = tuned["voice"], frozen["voice"], frozen["vocoder"]
    source.sample_rate = 16000
    for module in (source.voice, source.frozen, source.vocoder):
        module.eval().requires_grad_(False)
    train_only(source.voice, ["pitchPred", "energyPred"])
    encoder = phoneme_encoder(data / "phonemes.txt", data / "train.json")
    item = voice_dataset(data / "train.json", data, encoder, frozen["features"])[0]
    made = speak(source.voice, source, item["tokens"][None], item["frames"][None])
    assert torch.allclose(made.spoken.mels, made.same.mels, atol=1e-5)
    assert torch.equal(made.spoken.pitch, made.start.pitch)
    made.wavs.square().mean().backward()
    learning = {n.split(".")[1] for n, p in source.voice.named_parameters() if p.grad is not None}
    assert learning == {"pitchPred", "energyPred"}
    for part in learning:
        parameters = getattr(source.voice.fastspeech2, part).parameters()
        assert any(p.grad.abs().sum() > 0 for p in parameters), part
    with pytest.raises(ValueError, match="has no .'pitch'.; its parts are"):
        train_only(source.voice, ["pitch"])


def run(script: str, *flags: str) -> None:
    command = [sys.executable, script, *flags, "--device=cpu", "--noprogressbar"]
    done = subprocess.run(command, cwd=RECIPE, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_voice_vocoder_and_tuning_run_one_after_the_other(data, tmp_path):
    """If this fails, a user's first run fails, or does not go on after a stop."""
    folders = {name: tmp_path / name for name in ("voice", "vocoder", "tuned")}
    common = [f"--data_folder={data}", "--batch_size=6"]
    run(
        "train_fastspeech2.py",
        "hparams/fastspeech2.yaml",
        *common,
        "--skip_prep=True",
        f"--output_folder={folders['voice']}",
        "--number_of_epochs=1",
    )
    common.append(f"--voice={folders['voice']}")
    flags = ["hparams/vocoder.yaml", f"--output_folder={folders['vocoder']}"]
    run("train_vocoder.py", *flags, *common, "--number_of_epochs=1")
    clsp = model_folder(tmp_path)
    flags = ["hparams/tune.yaml", f"--clsp={clsp}", f"--judge={clsp}", "--scaling=cosine", *common]
    flags += [f"--vocoder={folders['vocoder']}", f"--output_folder={folders['tuned']}"]
    for epochs in (1, 2):
        run("tune_voice.py", *flags, "--pitch=2", f"--number_of_epochs={epochs}")
    log = (folders["tuned"] / "train_log.txt").read_text()
    assert [line.split(" ")[1] for line in log.splitlines() if line] == ["1", "2"]
    figures = json.loads((folders["tuned"] / "tuning.json").read_text())
    assert figures["change"]["rate"]["value"] == 0  # durations are the frozen voice's
    assert figures["hacking_gap"]["value"] == pytest.approx(0.0, abs=1e-4)  # the same model
    before = load_file(folders["voice"] / "voice.safetensors")
    after = load_file(folders["tuned"] / "voice.safetensors")
    changed = {key.split(".")[2] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"pitchPred", "energyPred", "decoder", "linear", "postnet"}
    assert (folders["tuned"] / "report.html").read_text().count("<audio") == 4


def test_wrong_settings_are_told(tmp_path):
    """If this fails, a user meets a random voice or a traceback from deep inside."""
    with pytest.raises(ValueError, match="Say what to tune to: --pitch or --loudness"):
        open_all({"pitch": None, "loudness": None})
    with pytest.raises(ValueError, match="Say where the voice is: --data_folder"):
        SyntheticVoice(None, None, tmp_path, model(), model())
    with pytest.raises(FileNotFoundError, match="No weights at .*voice.safetensors"):
        SyntheticVoice(tmp_path, tmp_path, tmp_path, model(), model())


def test_only_what_is_asked_for_is_pulled():
    """If this fails, a voice that shall be louder becomes higher as well."""
    brain = TuningBrain.__new__(TuningBrain)
    weights = {"asked_weight": 0.5, "kept_weight": 3.0, "mel_weight": 0.0}
    brain.hparams, brain.device = SimpleNamespace(asked=["energy"], **weights), "cpu"
    tokens, level = torch.tensor([[5, 6, 0]]), torch.tensor([[1.0, 1.0, 9.0]], requires_grad=True)
    mels, zeros = torch.zeros(1, 4, 2), torch.zeros(1, 3)
    found = {"mels": mels, "pitch": level, "energy": level}
    spoken, start = SimpleNamespace(**found), SimpleNamespace(pitch=zeros, energy=zeros)
    made = SimpleNamespace(spoken=spoken, start=start, same=spoken, lengths=torch.ones(1))
    batch = SimpleNamespace(tokens=SimpleNamespace(data=tokens, lengths=torch.tensor([2 / 3])))
    brain.seen = {}
    slopes = {"energy": torch.tensor([8.0])}
    loss = brain.compute_objectives((made, torch.zeros(1), slopes), batch, None)
    assert float(loss.detach()) == pytest.approx(0.5 + 3.0)  # slopes add gradients, no value
    # Anchors: 2 (0.5 + 3) / 2 for each of two phonemes; the slope: 8 / 2. Padding has none.
    assert torch.allclose(torch.autograd.grad(loss, level)[0], torch.tensor([[-0.5, -0.5, 0.0]]))


def pretrained_folders(folder: Path) -> tuple[str, str]:
    """Write a FastSpeech2 and a HiFi-GAN with random weights as SpeechBrain publishes them."""
    made = load_hyperpyyaml(PRETRAINED_TTS)
    with torch.no_grad():
        made["model"].durPred.linear.w.weight.zero_()
        made["model"].durPred.linear.w.bias.fill_(2.0)  # ln(1 + 6.4 frames)
        made["model"].pitchPred.linear.w.bias.fill_(150.0)
    paths = {name: folder / name for name in ("tts", "vocoder")}
    for name, definition, keys in (
        ("tts", PRETRAINED_TTS, ("model", "spn_predictor")),
        ("vocoder", PRETRAINED_VOCODER, ("generator",)),
    ):
        paths[name].mkdir()
        (paths[name] / "hyperparams.yaml").write_text(definition)
        modules = made if name == "tts" else load_hyperpyyaml(definition)
        for key in keys:
            torch.save(modules[key].state_dict(), paths[name] / f"{key}.ckpt")
    return str(paths["tts"]), str(paths["vocoder"])


def test_pretrained_voices_of_speechbrain_can_be_used(tmp_path, monkeypatch):
    """If this fails, a voice from the Hub gives no candidates, or cannot be tuned.

    SpeechBrain's own interface turns text into phonemes; only its grapheme-to-phoneme model, which
    it always fetches from the Hub, is replaced.
    """
    spell = lambda words: [list(word.upper()) for word in words]  # noqa: E731
    monkeypatch.setattr(
        "speechbrain.inference.TTS.GraphemeToPhoneme.from_hparams", lambda *a, **k: spell
    )
    tts, vocoder = pretrained_folders(tmp_path)
    source = PretrainedVoice(tts, vocoder, n_sentences=2)
    candidates = source("an old boat.", "", 4, random.Random(0))
    assert {gender for _, gender in candidates} == {"female"}
    lengths = [len(wav) for wav, _ in candidates]
    assert len(set(lengths)) > 1 and all(torch.isfinite(wav).all() for wav, _ in candidates)
    reader = source.reader.encode_text(["an old boat."])
    spoken = source.frozen(reader.long(), torch.full_like(reader, 6))
    mels, *_ = FastSpeech2.from_hparams(tts, run_opts={"device": "cpu"}).encode_text(
        ["an old boat."]
    )
    assert torch.allclose(spoken.mels, mels.transpose(1, 2), atol=1e-5)
    item = source.sentences["train"][0]
    source.voice.requires_grad_(True)
    made = speak(source.voice, source, item["tokens"][None], item["frames"][None])
    assert torch.allclose(made.spoken.mels, made.same.mels, atol=1e-3)
    made.wavs.square().mean().backward()
    assert source.voice.fastspeech2.pitchPred.linear.w.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in source.frozen.parameters())
    seconds = int(made.lengths[0] * made.wavs.shape[1]) / 16000
    assert seconds == pytest.approx(6 * len(item["tokens"]) * 256 / 22050, rel=0.01)


PRETRAINED_TTS = """
lexicon: [A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z, spn]
input_encoder: !new:speechbrain.dataio.encoder.TextEncoder
sizes: &sizes
    enc_num_layers: 1
    enc_num_head: 1
    enc_d_model: 16
    enc_ffn_dim: 16
    enc_k_dim: 16
    enc_v_dim: 16
    enc_dropout: 0.0
    normalize_before: False
    ffn_type: 1dcnn
    ffn_cnn_kernel_size_list: [3, 1]
    n_char: 40
    padding_idx: 0
spn_predictor: !new:speechbrain.lobes.models.FastSpeech2.SPNPredictor
    <<: *sizes
model: !new:speechbrain.lobes.models.FastSpeech2.FastSpeech2
    <<: *sizes
    dec_num_layers: 1
    dec_num_head: 1
    dec_d_model: 16
    dec_ffn_dim: 16
    dec_k_dim: 16
    dec_v_dim: 16
    dec_dropout: 0.0
    n_mels: 20
    postnet_embedding_dim: 16
    postnet_kernel_size: 3
    postnet_n_convolutions: 2
    postnet_dropout: 0.0
    dur_pred_kernel_size: 3
    pitch_pred_kernel_size: 3
    energy_pred_kernel_size: 3
    variance_predictor_dropout: 0.0
modules:
    spn_predictor: !ref <spn_predictor>
    model: !ref <model>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        model: !ref <model>
        spn_predictor: !ref <spn_predictor>
"""
PRETRAINED_VOCODER = """
generator: !new:speechbrain.lobes.models.HifiGAN.HifiganGenerator
    in_channels: 20
    out_channels: 1
    resblock_type: "2"
    resblock_dilation_sizes: [[1, 2]]
    resblock_kernel_sizes: [3]
    upsample_kernel_sizes: [16, 16, 8]
    upsample_initial_channel: 16
    upsample_factors: [8, 8, 4]
modules:
    generator: !ref <generator>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        generator: !ref <generator>
"""
