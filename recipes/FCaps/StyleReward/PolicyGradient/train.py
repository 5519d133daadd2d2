#!/usr/bin/env python3
"""Recipe for a prosody policy that CLSP rewards, where nothing has gradients.

A policy reads a caption and chooses espeak-ng's settings. It is trained by the reward alone and
tested on held-out captions by acoustic measurement and a held-out reward model.

> python train.py hparams/train.yaml --clsp=/path/to/model
"""

import random
import sys

import pandas as pd
import speechbrain as sb
import torch
from common import MeanLoggingBrain, start_experiment
from espeak import count_phonemes, draw_action, draw_text, speak
from judging import JudgedClip, compare, measure, metrics_frame
from policy import divergence_from_start, likeliest, sample
from report import training_curves, write_results
from speechbrain.utils.distributed import run_on_main
from styles import StyleRequest, draw_request

from speechbrain_clsp.inference.files import pad
from speechbrain_clsp.inference.reward import within_groups

N_EXAMPLES = 8


def draw_requests(
    count: int, held_out: bool, max_attributes: int, seed: int
) -> list[tuple[StyleRequest, str]]:
    """Draw captions, and a sentence to be spoken for each."""
    generator = random.Random(f"{seed} {held_out}")
    return [
        (draw_request(generator, held_out, max_attributes), draw_text(generator))
        for _ in range(count)
    ]


class PolicyBrain(MeanLoggingBrain):
    """Group-relative policy optimization: a clip's advantage is over the others of its caption."""

    def compute_forward(self, batch, stage):
        """Choose and speak; return settings, and log-probabilities and rewards [B, G]."""
        requests, texts = zip(*batch)
        captions = [request.caption for request in requests]
        reward = self.hparams.judges.reward
        count = self.hparams.group_size if stage == sb.Stage.TRAIN else 1
        settings = self.modules.policy(reward.encode_text(captions).to(self.device))
        actions, log_probs = sample(settings, count)
        if stage != sb.Stage.TRAIN:
            actions = likeliest(settings)[:, None]
        texts = [text for text in texts for _ in range(count)]
        captions = [caption for caption in captions for _ in range(count)]
        clips = [speak(*pair) for pair in zip(texts, actions.flatten(0, 1).tolist())]
        wavs, wav_lens = pad([wav for wav, _ in clips])
        rewards = reward(wavs, captions, wav_lens, texts=texts).view(-1, count)
        return settings, log_probs, rewards

    def compute_objectives(self, predictions, batch, stage):
        """Return the policy-gradient loss with its anchor to the start."""
        settings, log_probs, rewards = predictions
        groups = [n for n, row in enumerate(rewards) for _ in row]
        advantages = within_groups(rewards.flatten(), groups).view_as(rewards).to(self.device)
        divergence = divergence_from_start(settings).mean()
        self.log_values({"reward": rewards.mean(), "divergence": divergence})
        return self.hparams.kl_weight * divergence - (advantages * log_probs).mean()


def judge_actions(requests, actions, judges) -> list[JudgedClip]:
    """Speak every request by its action, and judge the clips."""
    return [
        clip
        for (request, text), action in zip(requests, actions)
        for clip in judges.judge(request, [speak(text, action)], text, count_phonemes(text))
    ]


def variety(requests, actions) -> pd.DataFrame:
    """Speak each request by several actions, and return how much the clips differ.

    A row per request: the fraction ``satisfied``, and the standard deviations of what is measured.
    """
    rows = []
    for (request, text), settings in zip(requests, actions):
        n_phonemes = count_phonemes(text)
        frame = pd.DataFrame(
            [measure(request, *speak(text, action), n_phonemes) for action in settings]
        )
        acoustics = frame.loc[:, ~frame.columns.str.startswith("satisfied")]
        rows.append({"satisfied": frame["satisfied"].mean(), **acoustics.std(ddof=0)})
    return pd.DataFrame(rows)


def evaluate_policy(hparams: dict, requests: list[tuple[StyleRequest, str]]) -> None:
    """Compare the policy with random settings on held-out captions, and write the results."""
    judges, seed, count = hparams["judges"], hparams["seed"], hparams["n_draws"]
    with torch.no_grad():
        captions = judges.reward.encode_text([request.caption for request, _ in requests])
        settings = hparams["policy"].cpu()(captions)
        chosen, drawn = likeliest(settings).tolist(), sample(settings, count)[0].tolist()
    generator = random.Random(seed)
    at_random = [draw_action(generator) for _ in requests]
    before, after = (judge_actions(requests, each, judges) for each in (at_random, chosen))
    at_random = [[draw_action(generator) for _ in range(count)] for _ in requests]
    write_results(
        hparams["output_folder"],
        "Prosody policy",
        {
            "Random settings before, the policy's after": compare(
                metrics_frame(before), metrics_frame(after), seed
            ),
            "Variety: standard deviations within a caption": compare(
                variety(requests, at_random), variety(requests, drawn), seed
            ),
        },
        training_curves(hparams["train_log"]),
        [
            (first.caption, {"random": first.wav, "policy": second.wav})
            for first, second in list(zip(before, after))[:N_EXAMPLES]
        ],
    )


def main() -> None:
    """Train, then test and write metrics.json and report.html."""
    hparams, run_opts = start_experiment(sys.argv[1:])
    torch.set_num_threads(hparams["num_threads"])
    seed, batch_size = hparams["seed"], hparams["batch_size"]
    train, valid, test = (
        draw_requests(count, held_out, hparams["max_attributes"], seed)
        for count, held_out, seed in (
            (hparams["n_requests"], False, seed),
            (2 * batch_size, False, seed + 1),
            (hparams["n_held_out"], True, seed),
        )
    )
    brain = PolicyBrain(
        hparams["modules"],
        hparams["opt_class"],
        hparams,
        run_opts,
        hparams["checkpointer"],
        train_logger=hparams["train_logger"],
    )
    loader = {"batch_size": batch_size, "collate_fn": list}
    brain.fit(
        hparams["epoch_counter"],
        train,
        valid,
        train_loader_kwargs={**loader, "shuffle": True},
        valid_loader_kwargs=loader,
    )
    run_on_main(evaluate_policy, args=[hparams, test])


if __name__ == "__main__":
    main()
