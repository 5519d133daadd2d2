"""The experiments that use CLSP as a reward: short runs, and the parts whose truth is known."""

import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.ASR import EncoderASR

from speechbrain_clsp.inference.reward import within_groups
from tests.utils.small import model_folder

RECIPE = Path(__file__).parents[2] / "recipes/FCaps/StyleReward"
sys.path[:0] = [str(RECIPE / "BestOfN"), str(RECIPE / "PolicyGradient")]
from best_of_n import best_weights, gains
from espeak import SETTINGS, count_phonemes, setting_sizes, speak
from judging import Judges, compare, estimate_mean, measure, metrics_frame
from policy import ProsodyPolicy, divergence_from_start, likeliest, sample
from styles import StyleRequest, TargetStyle, contrast_swap, draw_request

TEXT = "the bakers carried warm scarves across the yard before dark"


def run(experiment: str, script: str, *flags: str) -> str:
    """Run a recipe from its own folder, as users do; a script may be a command of torchrun."""
    command = [sys.executable, *script.split(), *flags]
    done = subprocess.run(
        command, cwd=RECIPE / experiment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def clsp(tmp_path_factory):
    return str(model_folder(tmp_path_factory.mktemp("models")))


def test_gains_by_n_are_unbiased():
    values = np.sort(np.random.default_rng(0).standard_normal(7))
    for count in range(1, 8):
        subsets = [max(subset) for subset in itertools.combinations(values, count)]
        assert best_weights(7, count) @ values == pytest.approx(np.mean(subsets))


def test_any_candidate_bounds_what_picking_gains():
    frame = pd.DataFrame({"satisfied": [1.0, 0.0, 0.0], "reward": [0.1, 0.2, 0.3]})
    by_n, bound = gains([frame, frame], seed=0)
    assert [by_n[n]["satisfied"].value for n in (1, 2, 3)] == pytest.approx([1 / 3, 0.0, 0.0])
    assert [by_n[n]["reward"].value for n in (1, 3)] == pytest.approx([0.2, 0.3])
    assert bound["any candidate"]["satisfied"].value == 1.0


@pytest.mark.parametrize(
    ("attribute", "setting", "indices"),
    [("rate", "rate", (1, 3, 5)), ("loudness", "volume", (0, 2, 4)), ("pitch", "pitch", (1, 3, 4))],
)
def test_what_was_asked_is_measured(attribute, setting, indices):
    for voice in ("m7", "f4"):
        for wanted, index in enumerate(indices):
            action = [SETTINGS["voice"].index(voice), 3, 2, 1, 2]
            action[list(SETTINGS).index(setting)] = index
            wav, gender = speak(TEXT, action)
            for level in range(3):
                request = StyleRequest("", gender, {attribute: level})
                found = measure(request, wav, gender, count_phonemes(TEXT))
                told = {name: found[name] for name in found if name.startswith("satisfied")}
                assert told == {
                    "satisfied": level == wanted,
                    "satisfied_gender": True,
                    f"satisfied_{attribute}": level == wanted,
                }, (voice, index, level)
            other = "male" if gender == "female" else "female"
            assert measure(StyleRequest("", other, {}), wav, gender, 30)["satisfied"] == 0


def test_a_clip_without_pitch_satisfies_no_pitch():
    noise = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    for level in range(3):
        found = measure(StyleRequest("", "male", {"pitch": level}), noise, "male", 9)
        assert np.isnan(found["f0_hz"]) and found["satisfied_pitch"] == 0


def test_means_and_changes_leave_out_what_was_not_measured():
    nan = float("nan")
    before = pd.DataFrame({"reward": [0.1, 0.3], "f0_hz": [100.0, nan]})
    after = pd.DataFrame({"reward": [0.4, 0.4], "f0_hz": [150.0, 90.0]})
    table = compare(before, after)
    assert table["reward"]["change"].value == pytest.approx(0.2)
    assert table["f0_hz"]["after"].value == 120 and table["f0_hz"]["change"].value == 50
    assert np.isnan(estimate_mean([nan]).value)


def test_training_and_tests_share_no_caption_and_contrasts_are_false():
    draw, swap = random.Random(0), contrast_swap()
    train = {draw_request(draw, False, 2).caption for _ in range(400)}
    test = {draw_request(draw, True, 2).caption for _ in range(100)}
    assert not train & test and len(test) > 50
    target = TargetStyle("male", pitch=0, loudness=2)
    assert not set(target.train_captions) & set(target.held_out_captions)
    for caption in test:
        named = {name: set(values) for name, values in swap.named(caption).items()}
        other = {name: set(values) for name, values in swap.named(swap(caption, draw)).items()}
        assert sum(named[name] != other[name] for name in named) == 1, caption


def test_a_policy_learns_what_is_rewarded():
    torch.manual_seed(0)
    policy = ProsodyPolicy(8, setting_sizes())
    captions = torch.nn.functional.normalize(torch.randn(4, 8), dim=1)
    wanted = torch.stack([torch.randint(size, (4,)) for size in setting_sizes()], dim=-1)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.01)
    assert divergence_from_start(policy(captions)).abs().max() < 1e-6
    for _ in range(150):
        actions, log_probs = sample(policy(captions), 16)
        rewards = (actions == wanted[:, None]).float().mean(dim=-1)
        advantages = within_groups(rewards.flatten(), [n for n in range(4) for _ in range(16)])
        optimizer.zero_grad()
        (-(advantages.view_as(rewards) * log_probs).mean()).backward()
        optimizer.step()
    assert (likeliest(policy(captions)) == wanted).float().mean() > 0.9
    log_probs = policy(captions)
    expected = sum((part.exp() * (part + np.log(part.shape[1]))).sum(dim=1) for part in log_probs)
    assert torch.allclose(divergence_from_start(log_probs), expected, atol=1e-4)
    actions, found = sample(log_probs, 3)
    by_hand = sum(part.gather(1, actions[..., n]) for n, part in enumerate(log_probs))
    assert torch.allclose(found, by_hand, atol=1e-4)


def test_best_of_n_runs(clsp, tmp_path):
    flags = ["--n_captions=3", "--n_candidates=4", f"--output_folder={tmp_path}"]
    flags += [f"--clsp={clsp}", f"--held_out_clsp={clsp}"]
    printed = run("BestOfN", "best_of_n.py", "hparams/best_of_n.yaml", *flags)
    by_n = json.loads((tmp_path / "metrics.json").read_text())["By N"]
    assert list(by_n) == ["1", "2", "4"] and "any candidate" in printed
    rewards = [found["reward"]["value"] for found in by_n.values()]
    assert rewards == sorted(rewards)
    # The held-out model is the same one: it cannot disagree.
    assert by_n["4"]["held_out_reward"] == pytest.approx(by_n["4"]["reward"], abs=1e-5)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<audio") == 6 and "http" not in page.replace("http://www.w3.org", "")


def test_word_errors_are_measured_and_cost_the_reward(clsp):
    recognizer = SimpleNamespace(
        transcribe_batch=lambda wavs, wav_lens: ([TEXT.upper(), "something else"], None)
    )
    clips = [speak(TEXT, [4, 2, 2, 1, 2]) for _ in range(2)]
    request = StyleRequest("A woman speaks loudly.", "female", {"loudness": 2})
    for most, vetoed in ((None, False), (1e9, False), (0.3, True)):
        judges = Judges(clsp, recognizer=recognizer, max_word_error_rate=most)
        found = metrics_frame(judges.judge(request, clips, TEXT, count_phonemes(TEXT)))
        assert found["word_error_rate"].tolist() == [0.0, 1.0]
        assert found["reward"][0] != -1.0 and (found["reward"][1] == -1.0) == vetoed
    with pytest.raises(ValueError, match="needs a recognizer: give --recognizer="):
        Judges(clsp, max_word_error_rate=0.3)


def test_any_encoder_asr_counts_word_errors(clsp, tmp_path):
    made = load_hyperpyyaml(RECOGNIZER)
    made["tokenizer"].insert_blank(index=0)
    made["tokenizer"].update_from_iterable("abcdefghijklmnopqrstuvwxyz ", sequence_input=False)
    (tmp_path / "hyperparams.yaml").write_text(RECOGNIZER)
    torch.save(made["encoder"].state_dict(), tmp_path / "encoder.ckpt")
    made["tokenizer"].save(tmp_path / "tokenizer.ckpt")
    judges = Judges(clsp, recognizer=str(tmp_path))
    assert isinstance(judges.recognizer, EncoderASR)
    request = StyleRequest("A woman speaks loudly.", "female", {"loudness": 2})
    (clip,) = judges.judge(request, [speak(TEXT, [4, 2, 2, 1, 2])], TEXT, 40)
    assert clip.metrics["word_error_rate"] > 0.3  # its weights are random


def test_policy_trains_and_goes_on(clsp, tmp_path):
    flags = [f"--clsp={clsp}", f"--held_out_clsp={clsp}", "--joint_dim=32", "--n_requests=4"]
    flags += ["--batch_size=2", "--group_size=3", "--n_held_out=3", f"--output_folder={tmp_path}"]
    flags += ["--device=cpu", "--noprogressbar"]
    run("PolicyGradient", "train.py", "hparams/train.yaml", *flags, "--number_of_epochs=1")
    # It goes on in two processes.
    torchrun = "-m torch.distributed.run --standalone --nproc_per_node=2 train.py"
    flags += ["--distributed_backend=gloo", "--number_of_epochs=2"]
    run("PolicyGradient", torchrun, "hparams/train.yaml", *flags)
    log = (tmp_path / "train_log.txt").read_text()
    assert [line.split(" ")[1] for line in log.splitlines() if line] == ["1", "2"]
    results, variety = json.loads((tmp_path / "metrics.json").read_text()).values()
    assert results["reward_gap"]["change"]["value"] == pytest.approx(0.0, abs=1e-4)  # same model
    assert variety["level_db"]["after"]["value"] > 0  # hardly anything was learnt
    attributes = {name.split("_")[1] for name in results if name.startswith("satisfied_")}
    assert attributes <= {"gender", "rate", "loudness", "pitch"}
    assert (tmp_path / "report.html").read_text().count("<audio") == 6


RECOGNIZER = """
encoder: !new:speechbrain.nnet.containers.LengthsCapableSequential
    features: !new:speechbrain.lobes.features.Fbank
        n_mels: 40
    output: !new:speechbrain.nnet.linear.Linear
        input_size: 40
        n_neurons: 28
    log_softmax: !new:speechbrain.nnet.activations.Softmax
        apply_log: True
tokenizer: !new:speechbrain.dataio.encoder.CTCTextEncoder
decoding_function: !name:speechbrain.decoders.ctc.ctc_greedy_decode
    blank_id: 0
modules:
    encoder: !ref <encoder>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        encoder: !ref <encoder>
        tokenizer: !ref <tokenizer>
"""
