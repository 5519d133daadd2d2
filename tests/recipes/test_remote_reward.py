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
    captions = [*CAPTIONS, CAPTIONS[0]]
    found = trl_reward.style_reward(
        ["say it"] * 4, wavs, caption=captions, sample_rate=[16000] * 4, trainer_state=None
    )
    assert type(found) is list and all(type(value) is float for value in found)
    assert found == pytest.approx(expected, abs=1e-5)
    dicts = [{"array": wav, "sampling_rate": 16000} for wav in wavs]
    assert trl_reward.style_reward(["p"] * 4, dicts, caption=captions) == pytest.approx(found)
    with pytest.raises(ValueError, match="4 completions for 1 prompts"):
        trl_reward.style_reward(["p"], wavs, caption=captions)


def test_verl_gets_a_score_and_a_reason_of_each(wavs, expected):
    infos = [{"audio": wav, "sample_rate": 16000} for wav in wavs]
    found = verl_reward.compute_score(["tts"] * 4, [""] * 4, [*CAPTIONS, CAPTIONS[0]], infos)
    assert [one["score"] for one in found] == pytest.approx(expected, abs=1e-5)
    assert [bool(one["veto"]) for one in found] == [False, False, False, True]


def test_a_loop_climbs(url, capsys):
    history = loop.train(RewardClient(url), CAPTIONS[0], n_steps=6, n_candidates=12)
    assert np.mean(history[-2:]) > history[0]
    assert capsys.readouterr().out.count("step ") == 6
