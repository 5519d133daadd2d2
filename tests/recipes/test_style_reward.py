"""The recipes that use CLSP as a reward: short runs, and the parts whose truth is known."""

import itertools
import json
import random
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from speechbrain.inference.ASR import EncoderASR

from speechbrain_clsp.inference.files import pad
from speechbrain_clsp.inference.reward import within_groups
from tests.utils.small import model_folder

RECIPE = Path(__file__).parents[2] / "recipes/FCaps/StyleReward"
sys.path.insert(0, str(RECIPE))
from best_of_n import best_weights  # noqa: E402
from policy import ProsodyPolicy, divergence_from_start, likeliest, sample  # noqa: E402
from styles import StyleRequest, contrast_swap, draw_request, is_met, measure  # noqa: E402
from voices import ACTIONS, action_sizes, count_phonemes, gender_of, speak  # noqa: E402

TEXT = "the bakers carried warm scarves across the yard before dark"


def run(script: str, *flags: str) -> str:
    """Run a recipe from its own folder, as users do; a script may be a command of torchrun."""
    command = [sys.executable, *script.split(), *flags]
    done = subprocess.run(command, cwd=RECIPE, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [f"--clsp={model_folder(folder)}", f"--judge={folder / 'model'}"]


def test_gains_by_n_are_unbiased():
    """If this fails, the expected gain of a smaller N is that of lucky draws."""
    values = np.sort(np.random.default_rng(0).standard_normal(7))
    for count in range(1, 8):
        subsets = [max(subset) for subset in itertools.combinations(values, count)]
        assert best_weights(7, count) @ values == pytest.approx(np.mean(subsets))


@pytest.mark.parametrize(
    ("attribute", "setting", "indices"),
    [("rate", "rate", (1, 3, 5)), ("loudness", "volume", (0, 2, 4)), ("pitch", "pitch", (1, 3, 4))],
)
def test_what_was_asked_is_measured(attribute, setting, indices):
    """If this fails, the share of captions that are met says nothing about the audio."""
    for voice in ("m7", "f4"):
        for wanted, index in enumerate(indices):
            action = [ACTIONS["voice"].index(voice), 3, 2, 1, 2]
            action[list(ACTIONS).index(setting)] = index
            wav, gender = speak(TEXT, action).double().numpy(), gender_of(action)
            for level in range(3):
                request = StyleRequest("", gender, {attribute: level})
                met = is_met(request, measure(wav, count_phonemes(TEXT)), gender)
                assert met == {"gender": True, attribute: level == wanted}, (voice, index, level)
            other = "male" if gender == "female" else "female"
            request = StyleRequest("", other, {})
            assert is_met(request, measure(wav, 30), gender) == {"gender": False}


def test_training_and_tests_share_no_caption_and_contrasts_are_false():
    """If this fails, the policy is tested on what it was trained on."""
    draw, swap = random.Random(0), contrast_swap()
    train = {draw_request(draw, False, 2).caption for _ in range(400)}
    test = {draw_request(draw, True, 2).caption for _ in range(100)}
    assert not train & test and len(test) > 50
    for caption in test:
        named = {name: set(values) for name, values in swap.named(caption).items()}
        other = {name: set(values) for name, values in swap.named(swap(caption, draw)).items()}
        assert sum(named[name] != other[name] for name in named) == 1, caption


def test_a_policy_learns_what_is_rewarded():
    """If this fails, log-probabilities do not belong to the actions that were drawn."""
    torch.manual_seed(0)
    policy = ProsodyPolicy(8, action_sizes())
    captions = torch.nn.functional.normalize(torch.randn(4, 8), dim=1)
    wanted = torch.stack([torch.randint(size, (4,)) for size in action_sizes()], dim=-1)
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
    reference = [torch.distributions.Categorical(logits=part) for part in policy(captions)]
    uniform = [torch.distributions.Categorical(torch.ones(size)) for size in action_sizes()]
    expected = sum(
        torch.distributions.kl_divergence(p, torch.distributions.Categorical(u.probs.expand(4, -1)))
        for p, u in zip(reference, uniform)
    )
    assert torch.allclose(divergence_from_start(policy(captions)), expected, atol=1e-4)
    actions, log_probs = sample(policy(captions), 3)
    by_hand = sum(p.log_prob(actions[..., n].T).T for n, p in enumerate(reference))
    assert torch.allclose(log_probs, by_hand, atol=1e-4)


def test_best_of_n_runs(models, tmp_path):
    """If this fails, a user's first run fails."""
    flags = ["--n_captions=3", "--n_candidates=4", f"--output_folder={tmp_path}"]
    printed = run("best_of_n.py", "hparams/best_of_n.yaml", *models, *flags)
    figures = json.loads((tmp_path / "best_of_n.json").read_text())
    assert list(figures["by_n"]) == ["1", "2", "4"] and "N = 4:" in printed
    rewards = [found["reward"]["value"] for found in figures["by_n"].values()]
    assert rewards == sorted(rewards)
    # The second model is the same one: it cannot disagree.
    assert figures["by_n"]["4"]["judged"] == pytest.approx(figures["by_n"]["4"]["reward"], abs=1e-5)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<audio") == 6 and "http" not in page.replace("http://www.w3.org", "")


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    """Return a recognizer that has learnt nothing yet."""
    folder = tmp_path_factory.mktemp("recognizer")
    flags = ["--n_train=4", "--n_valid=2", "--batch_size=2", "--number_of_epochs=1"]
    flags += [f"--output_folder={folder}", "--device=cpu", "--noprogressbar"]
    run("train_recognizer.py", "hparams/recognizer.yaml", *flags)
    assert "WER" in (folder / "train_log.txt").read_text()
    return folder / "model"


def test_a_recognizer_is_a_folder_of_speechbrain(recognizer):
    """If this fails, words cannot be counted, or depend on what else is in the batch."""
    asr = EncoderASR.from_hparams(str(recognizer), run_opts={"device": "cpu"})
    wavs = [speak(TEXT, action) for action in ([0, 0, 2, 1, 2], [4, 5, 2, 1, 2])]
    padded, lens = pad(wavs)
    together = asr.encode_batch(padded, lens)
    for wav, found in zip(wavs, together):
        alone = asr.encode_batch(wav[None], torch.ones(1))[0]
        # Where a clip ends, frames see the padding, as in all of SpeechBrain's convolutions.
        assert torch.allclose(found[: len(alone) - 10], alone[:-10], atol=0.02)
    heard, _ = asr.transcribe_batch(padded, lens)
    assert len(heard) == 2 and set("".join(heard)) <= set(" " + string.ascii_lowercase)


def test_words_are_counted_and_cost_the_reward(models, recognizer, tmp_path):
    """If this fails, a reward is won by speech that nobody understands."""
    flags = ["--n_captions=2", "--n_candidates=2", f"--output_folder={tmp_path}"]
    command = ["best_of_n.py", "hparams/best_of_n.yaml", *models, *flags]
    words = f"--recognizer={recognizer}"
    for most, vetoed in ((1e9, False), (0.3, True)):
        run(*command, words, f"--most_word_errors={most}")
        found = json.loads((tmp_path / "best_of_n.json").read_text())["by_n"]["2"]
        assert (found["reward"]["value"] == -1.0) == vetoed
        assert found["words"]["value"] > 0.3  # it has learnt nothing
    with pytest.raises(AssertionError, match="most_word_errors needs --recognizer="):
        run(*command, "--most_word_errors=0.3")


def test_policy_trains_and_goes_on(models, tmp_path):
    """If this fails, a training of a policy cannot be run, or starts over after a stop."""
    flags = [
        "--joint_dim=32",
        "--n_requests=4",
        "--batch_size=2",
        "--group_size=3",
        "--n_held_out=3",
    ]
    flags += [f"--output_folder={tmp_path}", "--device=cpu", "--noprogressbar"]
    run("train_policy.py", "hparams/policy.yaml", *models, *flags, "--number_of_epochs=1")
    # It goes on in two processes.
    torchrun = "-m torch.distributed.run --standalone --nproc_per_node=2 train_policy.py"
    flags.append("--distributed_backend=gloo")
    run(torchrun, "hparams/policy.yaml", *models, *flags, "--number_of_epochs=2")
    log = (tmp_path / "train_log.txt").read_text()
    assert [line.split(" ")[1] for line in log.splitlines() if line] == ["1", "2"]
    figures = json.loads((tmp_path / "policy.json").read_text())
    assert figures["hacking_gap"]["value"] == pytest.approx(0.0, abs=1e-4)  # the same model
    assert figures["variety"]["after"]["loudness"]["value"] > 0  # hardly anything was learnt
    assert set(figures["after"]["by_attribute"]) <= {"gender", "rate", "loudness", "pitch"}
    assert (tmp_path / "report.html").read_text().count("<audio") == 6
