#!/usr/bin/env python3
"""Recipe for a prosody policy that CLSP rewards, where nothing has gradients.

A policy reads a caption and chooses espeak-ng's settings. It is trained by the reward alone; how
good it is, is *measured* in the audio (F0, phonemes per second, level) on captions that it never
saw, and by a second CLSP.

> python train_policy.py hparams/policy.yaml --clsp=/path/to/model --judge=/path/to/other/model
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
from experiment import AveragingBrain, start_experiment
from outcome import Critics, Outcome, mean_with_interval, open_critics, summarize
from page import write_outcome
from policy import ProsodyPolicy, divergence_from_start, likeliest, sample
from speechbrain.utils.distributed import run_on_main
from styles import StyleRequest, draw_request, is_met, measure
from torch.utils.data import Dataset
from voices import count_phonemes, draw_action, draw_text, gender_of, speak, speak_all

from speechbrain_clsp.inference.guards import LengthGuard, LevelGuard
from speechbrain_clsp.inference.reward import within_groups


class Requests(Dataset):
    """Captions and sentences, the same at every pass over an epoch."""

    def __init__(self, count: int, held_out: bool, most: int, seed: int) -> None:
        draw = random.Random(f"{seed} {held_out}")
        self.pairs = [(draw_request(draw, held_out, most), draw_text(draw)) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[StyleRequest, str]:
        return self.pairs[index]


class PolicyBrain(AveragingBrain):
    """Group-relative policy optimization: better than one's group is good."""

    def compute_forward(self, batch, stage):
        """Choose and speak; return settings, and log-probabilities and rewards [B, G]."""
        requests, texts = zip(*batch)
        captions = [request.caption for request in requests]
        embedded = self.hparams.reward.encode_text(captions).to(self.device)
        count = self.hparams.group_size if stage == sb.Stage.TRAIN else 1
        settings = self.modules.policy(embedded)
        actions, log_probs = sample(settings, count)
        if stage != sb.Stage.TRAIN:
            actions = likeliest(settings)[:, None]
        spoken = [text for text in texts for _ in range(count)]
        wavs, lens = speak_all(spoken, actions.flatten(0, 1).tolist())
        repeated = [caption for caption in captions for _ in range(count)]
        rewards = self.hparams.reward(wavs, repeated, lens, texts=spoken).view(-1, count)
        return settings, log_probs, rewards

    def compute_objectives(self, predictions, batch, stage):
        """Return the policy-gradient loss with its anchor to the start."""
        settings, log_probs, rewards = predictions
        groups = [n for n, row in enumerate(rewards) for _ in row]
        advantages = within_groups(rewards.flatten(), groups).view_as(rewards).to(self.device)
        divergence = divergence_from_start(settings).mean()
        self.note({"reward": rewards.mean(), "divergence": divergence})
        return self.hparams.kl_weight * divergence - (advantages * log_probs).mean()


def outcomes_of(pairs, actions, critics: Critics) -> list[Outcome]:
    """Speak every request by its action, reward and measure it."""
    return [
        critics.outcome(request, speak(text, action), gender_of(action), text, count_phonemes(text))
        for (request, text), action in zip(pairs, actions)
    ]


def variety(pairs, actions) -> dict[str, dict[str, float]]:
    """Return how much several clips of a request differ from each other.

    Arguments
    ---------
    pairs : list of (StyleRequest, str)
        Requests and texts.
    actions : list
        Several actions for each of them.

    Returns
    -------
    dict
        ``met``, the share of clips that meet their request, and the standard deviation within a
        request of all that is measured, as means with intervals.
    """
    met, spreads = [], {}
    for (request, text), settings in zip(pairs, actions):
        phonemes = count_phonemes(text)
        heard = [measure(speak(text, action).double().numpy(), phonemes) for action in settings]
        met += [
            all(is_met(request, one, gender_of(action)).values())
            for one, action in zip(heard, settings)
        ]
        for name in heard[0]:
            spreads.setdefault(name, []).append(np.nanstd([one[name] for one in heard]))
    return {name: mean_with_interval(values) for name, values in {"met": met, **spreads}.items()}


def compare(
    policy: ProsodyPolicy, pairs, critics: Critics, hparams: dict
) -> tuple[dict, list[list[Outcome]]]:
    """Return figures of a policy against settings by chance, and the outcomes of both."""
    draw, count = random.Random(hparams["seed"]), hparams["n_draws"]
    with torch.no_grad():
        embedded = critics.reward.encode_text([request.caption for request, _ in pairs])
        settings = policy(embedded)
        chosen, drawn = likeliest(settings).tolist(), sample(settings, count)[0].tolist()
    chance = [draw_action(draw) for _ in pairs]
    outcomes = [outcomes_of(pairs, actions, critics) for actions in (chance, chosen)]
    figures = summarize(*outcomes, hparams["seed"])
    by_chance = [[draw_action(draw) for _ in range(count)] for _ in pairs]
    figures["variety"] = {
        when: variety(pairs, actions) for when, actions in (("before", by_chance), ("after", drawn))
    }
    return figures, outcomes


def main() -> None:
    """Train, then measure what was learnt and write report.html."""
    hparams, run_opts = start_experiment(sys.argv[1:])
    guards = [LengthGuard(longest=hparams["longest"]), LevelGuard()]
    critics = open_critics(hparams, guards)
    hparams["reward"] = critics.reward
    brain = PolicyBrain(
        hparams["modules"], hparams["opt_class"], hparams, run_opts, hparams["checkpointer"]
    )
    most, seed = hparams["most_attributes"], hparams["seed"]
    train = Requests(hparams["n_requests"], False, most, seed)
    held_out = Requests(hparams["n_held_out"], True, most, seed)
    loader = {"batch_size": hparams["batch_size"], "collate_fn": list}
    brain.fit(
        hparams["epoch_counter"],
        train,
        Requests(2 * hparams["batch_size"], False, most, seed + 1),
        train_loader_kwargs={**loader, "shuffle": True},
        valid_loader_kwargs=loader,
    )
    run_on_main(finish, args=[hparams["policy"].cpu(), held_out.pairs, critics, hparams])


def finish(policy: ProsodyPolicy, pairs, critics: Critics, hparams: dict) -> None:
    """Compare the policy with settings by chance on held-out captions."""
    figures, outcomes = compare(policy, pairs, critics, hparams)
    output = Path(hparams["output_folder"])
    (output / "policy.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    page = output / "report.html"
    write_outcome(page, "Prosody policy", figures, *outcomes, hparams["train_log"])
    print(json.dumps(figures, indent=1))
    print(f"Examples to listen to are in {page}")


if __name__ == "__main__":
    main()
