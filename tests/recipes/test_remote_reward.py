"""The examples of rewards from a service, against a live one."""

import sys

import numpy as np
import pytest
import torch

from speechbrain_clsp import CLSP, StyleReward
from speechbrain_clsp.inference.guards import LengthGuard, LevelGuard
from speechbrain_clsp.serve.service import StyleService
from tests.utils.live_service import live
from tests.utils.recipes import ROOT
from tests.utils.small import CAPTIONS, model_folder, tone

sys.path.insert(0, str(ROOT / "recipes/FCaps/StyleReward/remote"))
import loop
import trl_reward
import verl_reward

from speechbrain_clsp.serve import RewardClient


@pytest.fixture(scope="module")
def clsp(tmp_path_factory):
    return CLSP.from_pretrained(model_folder(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def url(clsp):
    with live(StyleService(clsp)) as url:
        yield url


@pytest.fixture
def wavs(url, monkeypatch):
    monkeypatch.setenv("CLSP_URL", url)
    trl_reward.client.cache_clear()
    verl_reward.client.cache_clear()
    return [tone(0.5, frequency=f) for f in (100, 150, 220)] + [np.zeros(100, np.float32)]


@pytest.fixture
def expected(clsp, wavs):
    """Return the rewards of the first three clips, by the model itself."""
    reward = StyleReward(clsp, guards=[LengthGuard(), LevelGuard()])
    return [*reward(torch.from_numpy(np.stack(wavs[:3])), CAPTIONS).tolist(), -1.0]


def test_trl_gets_a_list_of_floats(wavs, expected):
    """As GRPOTrainer calls it: all by name, columns as lists, and more than is needed."""
    sounds = {f"<|{n}|>": wav for n, wav in enumerate(wavs)}
    asked = []

    def to_wav(completion, ids):
        asked.append(ids)
        return sounds[completion], 16000

    reward = trl_reward.make_reward(to_wav)
    call = {"completions": list(sounds), "caption": [*CAPTIONS, CAPTIONS[0]], "trainer_state": None}
    ids = [[n] for n in range(4)]
    found = reward(prompts=["say it"] * 4, completion_ids=ids, **call)
    assert type(found) is list and all(type(value) is float for value in found)
    assert found == pytest.approx(expected, abs=1e-5) and asked == ids
    assert reward(prompts=["say it"] * 4, **call) == found  # earlier versions pass no ids
    assert reward.__name__ == "style_reward"
    with pytest.raises(ValueError, match="4 completions for 1 prompts"):
        reward(prompts=["p"], **call)


def test_verl_gets_a_score_and_a_reason_of_each(wavs, expected):
    """As verl's batch manager calls it, and its managers of single samples."""
    infos = np.array([{"audio": wav, "sample_rate": 16000} for wav in wavs])
    captions = [*CAPTIONS, CAPTIONS[0]]
    found = verl_reward.compute_scores(
        data_sources=np.array(["tts"] * 4, object),
        solution_strs=[""] * 4,
        ground_truths=captions,
        extra_infos=infos,
    )
    assert [one["score"] for one in found] == pytest.approx(expected, abs=1e-5)
    assert [bool(one["veto"]) for one in found] == [False, False, False, True]
    for number, one in enumerate(found):
        alone = verl_reward.compute_score(
            data_source="tts",
            solution_str="",
            ground_truth=captions[number],
            extra_info=infos[number],
            reward_router_address=None,
        )
        assert alone["score"] == pytest.approx(one["score"], abs=1e-5)
    with pytest.raises(ValueError, match=r"samples \[0\] lacks audio"):
        verl_reward.compute_score("tts", "", captions[0], None)


def test_a_loop_climbs(url, capsys):
    history = loop.train(RewardClient(url), CAPTIONS[0], n_steps=6, n_candidates=12)
    assert np.mean(history[-2:]) > history[0]
    assert capsys.readouterr().out.count("step ") == 6
