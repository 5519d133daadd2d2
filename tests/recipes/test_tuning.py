"""Tuning a voice by style rewards: alignments, its vocoder, gradients, and short runs."""

import importlib.util
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

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.mini_fcaps.acoustics import pitch_track, spectral_tilt
from tests.utils.small import model_folder

RECIPE = Path(__file__).parents[2] / "recipes/FCaps/StyleReward"
VOICE_TUNING = RECIPE / "VoiceTuning"
sys.path.insert(0, str(VOICE_TUNING))
from embedded import embedded_voice, phoneme_encoder
from pretrained import pretrained_voice
from styles import TargetStyle
from vocoder import SourceFilterGenerator, SpectralLoss
from voice import TunableVoice
from voice_prepare import continuous_pitch, prepare_voice

HOP = 256
PARTS = ["pitchPred", "energyPred", "decoder", "linear", "postnet"]


def load(path: Path):
    """Import a module whose name another folder has as well."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voice")
    prepare_voice(folder, n_train=20, n_valid=2, n_test=2)
    return folder


def model() -> dict:
    return load_hyperpyyaml((VOICE_TUNING / "models/embedded.yaml").read_text(encoding="utf-8"))


def test_phonemes_sound_where_they_should(data):
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
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    for hertz in (93.7, 151.3, 262.9):
        wav = sum(np.sin(2 * np.pi * k * hertz * time) / k for k in range(1, 8))
        wav[6000:9000] = 0  # drawn through where there is none
        found = continuous_pitch(wav, HOP)
        assert len(found) == 1 + len(wav) // HOP
        assert np.allclose(found, hertz, rtol=0.003)
        assert np.isnan(pitch_track(wav)).any()
    with pytest.raises(ValueError, match="No pitch"):
        continuous_pitch(np.random.default_rng(0).standard_normal(SAMPLE_RATE), HOP)


def test_preparing_twice_does_nothing_and_other_settings_are_told(data):
    before = (data / "train.json").stat().st_mtime_ns
    prepare_voice(data, n_train=20, n_valid=2, n_test=2)
    assert (data / "train.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="made with .*name another folder"):
        prepare_voice(data, n_train=13)
    with pytest.raises(ValueError, match="variant must be one of"):
        prepare_voice(data / "other", variant="f9")


def test_the_source_has_the_pitch_that_is_asked_for():
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
    torch.manual_seed(0)
    generator = SourceFilterGenerator(8, channels=16).double()
    mels = torch.randn(1, 12, 8, dtype=torch.double, requires_grad=True)
    pitch = (150 + 10 * torch.rand(1, 12, dtype=torch.double)).requires_grad_()
    weights = torch.randn(12 * HOP, dtype=torch.double)

    def value(mels, pitch):
        return (generator(mels, pitch) * weights).sum()

    gradients = torch.autograd.grad(value(mels, pitch), (mels, pitch))
    for n, step in ((0, 1e-6), (1, 1e-6)):
        direction = [torch.zeros_like(mels), torch.zeros_like(pitch)]
        direction[n] = step * torch.randn_like(direction[n])
        with torch.no_grad():
            ends = [value(mels + s * direction[0], pitch + s * direction[1]) for s in (1, -1)]
        slope = float((gradients[n] * direction[n]).sum())
        assert slope != 0 and float(ends[0] - ends[1]) / 2 == pytest.approx(slope, rel=1e-4)
    assert torch.equal(generator(mels, pitch), generator(mels, pitch))  # its noise is fixed


def test_spectral_loss_measures_level_and_pitch():
    time, loss = torch.arange(16000) / 16000, SpectralLoss()

    def buzz(hertz):
        return sum(torch.sin(2 * torch.pi * k * hertz * time) / k for k in range(1, 20))

    # Bands without any power would be silent however loud the rest is.
    noise = 0.01 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    wav, other = (0.1 * buzz(hertz)[None] + noise for hertz in (150, 165))
    quieter, higher = float(loss(0.5 * wav, wav)), float(loss(other, wav))
    assert quieter == pytest.approx(np.log(2), rel=0.05)
    assert higher > 0.1
    assert float(loss(-wav, wav)) == 0  # phases are free


def test_what_tuning_changes_and_what_it_holds(data):
    torch.manual_seed(0)
    parts = model()
    encoder = phoneme_encoder(data / "phonemes.txt", data / "train.json")
    row = json.loads((data / "train.json").read_text())["train_00000"]
    tokens = encoder.encode_sequence_torch(row["phones"])[None]
    options = {"vocoder": parts["vocoder"], "sample_rate": 16000, "sentences": {}}
    voices = TunableVoice(parts["voice"], **options, trained=["pitchPred", "energyPred"])
    made = voices.speak(tokens, voices.tuned)
    assert torch.allclose(made.spoken.mels, made.same.mels, atol=1e-5)
    assert torch.equal(made.spoken.pitch, made.start.pitch)
    both = torch.nn.utils.rnn.pad_sequence([tokens[0], tokens[0, :5]], batch_first=True)
    padded = voices.speak(both, voices.frozen)
    for wav, wav_len in zip(padded.wavs, padded.wav_lens):
        assert wav[round(float(wav_len) * len(wav)) :].abs().sum() == 0
    assert sorted(padded.wav_lens.tolist())[0] < 1.0 == padded.wav_lens.max()
    made.wavs.square().mean().backward()
    learning = {n.split(".")[1] for n, p in voices.tuned.named_parameters() if p.grad is not None}
    assert learning == {"pitchPred", "energyPred"}
    assert all(p.grad is None for m in (voices.frozen, voices.vocoder) for p in m.parameters())
    for part in learning:
        parameters = getattr(voices.tuned.fastspeech2, part).parameters()
        assert any(p.grad.abs().sum() > 0 for p in parameters), part
    with pytest.raises(ValueError, match="has no .'pitch'.; its parts are"):
        TunableVoice(parts["voice"], **options, trained=["pitch"])


def run(script: str, *flags: str) -> None:
    command = [sys.executable, script, *flags, "--device=cpu", "--noprogressbar"]
    done = subprocess.run(command, cwd=VOICE_TUNING, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def check_tuning(folder: Path, start: dict) -> None:
    """Check two epochs of tuning with the rewarding model as its own held-out one."""
    log = (folder / "train_log.txt").read_text()
    assert [line.split(" ")[1] for line in log.splitlines() if line] == ["1", "2"]
    (results,) = json.loads((folder / "metrics.json").read_text()).values()
    assert (
        results["phonemes_per_second"]["change"]["value"] == 0
    )  # durations are the frozen voice's
    assert results["reward_gap"]["change"]["value"] == pytest.approx(0.0, abs=1e-4)
    assert results["log_mel_difference"]["before"]["value"] == pytest.approx(0.0, abs=1e-5)
    tuned = load_file(folder / "voice.safetensors")
    changed = {key.split(".")[2] for key in tuned if not torch.equal(start[key], tuned[key])}
    assert changed == set(PARTS)
    assert (folder / "report.html").read_text().count("<audio") == 4


def test_the_embedded_voice_is_trained_and_tuned(data, tmp_path):
    folders = {name: tmp_path / name for name in ("voice", "tuned")}
    common = [f"--data_folder={data}", "--batch_size=6"]
    flags = ["hparams/train_embedded.yaml", *common, "--skip_prep=True", "--number_of_epochs=1"]
    run("train_embedded.py", *flags, f"--output_folder={folders['voice']}")
    start = load_file(folders["voice"] / "embedded.safetensors")
    run("train_embedded.py", *flags, f"--output_folder={folders['voice']}")
    again = load_file(folders["voice"] / "embedded.safetensors")
    assert all(torch.equal(start[key], again[key]) for key in start)  # nothing is left to train
    clsp = model_folder(tmp_path)
    flags = ["hparams/embedded.yaml", f"--clsp={clsp}", f"--held_out_clsp={clsp}", *common]
    flags += [f"--voice_folder={folders['voice']}", "--scaling=cosine", "--pitch=2"]
    for epochs in (1, 2):
        more = [f"--output_folder={folders['tuned']}", f"--number_of_epochs={epochs}"]
        run("train.py", *flags, *more)
    check_tuning(folders["tuned"], start)


def test_wrong_settings_are_told(tmp_path):
    with pytest.raises(ValueError, match="Give --pitch or --loudness"):
        TargetStyle("female")
    with pytest.raises(FileNotFoundError, match="No weights at .*embedded.safetensors"):
        embedded_voice(tmp_path, tmp_path, model(), PARTS)


def test_only_what_is_asked_for_is_pulled():
    train = load(VOICE_TUNING / "train.py")
    brain = train.TuningBrain.__new__(train.TuningBrain)
    weights = {"asked_weight": 0.5, "kept_weight": 3.0, "mel_weight": 0.0}
    brain.hparams = SimpleNamespace(target=TargetStyle("female", loudness=2), **weights)
    brain.device, brain.values = "cpu", {}
    tokens, level = torch.tensor([[5, 6, 0]]), torch.tensor([[1.0, 1.0, 9.0]], requires_grad=True)
    mels, zeros = torch.zeros(1, 4, 2), torch.zeros(1, 3)
    found = {"mels": mels, "pitch": level, "energy": level}
    spoken, start = SimpleNamespace(**found), SimpleNamespace(pitch=zeros, energy=zeros)
    made = SimpleNamespace(spoken=spoken, start=start, same=spoken, wav_lens=torch.ones(1))
    batch = SimpleNamespace(tokens=SimpleNamespace(data=tokens, lengths=torch.tensor([2 / 3])))
    slopes = {"energy": torch.tensor([8.0])}
    loss = brain.compute_objectives((made, torch.zeros(1), slopes), batch, None)
    assert float(loss.detach()) == pytest.approx(0.5 + 3.0)  # slopes add gradients, no value
    # Anchors: 2 (0.5 + 3) / 2 for each of two phonemes; the slope: 8 / 2. Padding has none.
    assert torch.allclose(torch.autograd.grad(loss, level)[0], torch.tensor([[-0.5, -0.5, 0.0]]))


@pytest.fixture
def pretrained_folders(tmp_path, monkeypatch) -> tuple[str, str]:
    """Write a FastSpeech2 and a HiFi-GAN with random weights, laid out as SpeechBrain's.

    The grapheme-to-phoneme model, which SpeechBrain always fetches from the Hub, spells instead.
    """
    monkeypatch.setattr(
        "speechbrain.inference.TTS.GraphemeToPhoneme.from_hparams",
        lambda *args, **options: lambda words: [list(word.upper()) for word in words],
    )
    made = load_hyperpyyaml(PRETRAINED_TTS)
    with torch.no_grad():
        made["model"].durPred.linear.w.weight.zero_()
        made["model"].durPred.linear.w.bias.fill_(2.0)  # ln(1 + 6.4 frames)
        made["model"].pitchPred.linear.w.bias.fill_(0.5)
    made["generator"] = load_hyperpyyaml(PRETRAINED_VOCODER)["generator"]
    for name, definition, keys in (
        ("tts", PRETRAINED_TTS, ("model", "spn_predictor")),
        ("vocoder", PRETRAINED_VOCODER, ("generator",)),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hyperparams.yaml").write_text(definition)
        for key in keys:
            torch.save(made[key].state_dict(), tmp_path / name / f"{key}.ckpt")
    return str(tmp_path / "tts"), str(tmp_path / "vocoder")


def test_pretrained_voices_of_speechbrain_give_candidates(pretrained_folders):
    candidates = load(RECIPE / "BestOfN/pretrained.py").PretrainedCandidates(*pretrained_folders)
    clips = candidates("an old boat.", "", 4, random.Random(0))
    assert {gender for _, gender in clips} == {"female"}
    lengths = [len(wav) for wav, _ in clips]
    assert len(set(lengths)) > 1 and all(torch.isfinite(wav).all() for wav, _ in clips)


def test_pretrained_voices_of_speechbrain_speak_as_its_interface_does(pretrained_folders):
    voices = pretrained_voice(*pretrained_folders, PARTS, n_train=2, n_test=1)
    assert [len(items) for items in voices.sentences.values()] == [2, 1, 1]
    item = voices.sentences["train"][0]
    made = voices.speak(item["tokens"][None], voices.tuned)
    tts = FastSpeech2.from_hparams(pretrained_folders[0], run_opts={"device": "cpu"})
    mels, *_ = tts.encode_text([item["text"]])
    assert torch.allclose(made.spoken.mels, mels.transpose(1, 2), atol=1e-5)
    assert torch.allclose(made.spoken.mels, made.same.mels, atol=1e-3)
    seconds = made.wavs.shape[1] / 16000
    assert seconds == pytest.approx(6 * len(item["tokens"]) * 256 / 22050, rel=0.01)
    made.wavs.square().mean().backward()
    assert voices.tuned.fastspeech2.pitchPred.linear.w.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in voices.frozen.parameters())


def test_a_pretrained_voice_is_tuned(pretrained_folders, tmp_path, monkeypatch):
    monkeypatch.chdir(VOICE_TUNING)  # where YAML files find their includes
    clsp = model_folder(tmp_path)
    folder = tmp_path / "tuned"
    flags = ["hparams/pretrained.yaml", f"--clsp={clsp}", f"--held_out_clsp={clsp}"]
    flags += [f"--tts_source={pretrained_folders[0]}", f"--vocoder_source={pretrained_folders[1]}"]
    flags += ["--scaling=cosine", "--loudness=2", "--n_sentences=4", "--batch_size=2"]
    flags += [f"--output_folder={folder}", "--device=cpu", "--noprogressbar", "--num_threads=1"]
    flags += ["--voices={n_test: 2}"]
    start = pretrained_voice(*pretrained_folders, PARTS, n_train=1, n_test=1).frozen
    for epochs in (1, 2):
        monkeypatch.setattr(sys, "argv", ["train.py", *flags, f"--number_of_epochs={epochs}"])
        load(VOICE_TUNING / "train.py").main()
    check_tuning(folder, {f"voice.{key}": value for key, value in start.state_dict().items()})


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
