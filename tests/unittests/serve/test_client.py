"""The client against a live service, and against one that fails."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from speechbrain_clsp.serve import RewardClient, ServiceError
from speechbrain_clsp.serve.service import StyleService
from tests.utils.chat_server import answering
from tests.utils.live_service import live
from tests.utils.small import CAPTIONS, tone


@pytest.fixture(scope="module")
def service(clsp):
    return StyleService(clsp)


@pytest.fixture(scope="module")
def url(service):
    with live(service) as url:
        yield url


def test_rewards_come_in_order_over_several_requests(url, service):
    wavs = [tone(0.4 + 0.1 * n, 22050) for n in range(7)]
    wavs[4] = np.full(9000, np.nan)
    captions = [CAPTIONS[n % 3] for n in range(7)]
    found = RewardClient(url, batch_clips=2)(wavs, captions, 22050)
    at_once = RewardClient(url)(wavs, captions, [22050] * 7)
    assert found.values.dtype == np.float32 and found.values.shape == (7,)
    np.testing.assert_allclose(found.values, at_once.values, atol=1e-5)
    assert [bool(reason) for reason in found.reasons] == [n == 4 for n in range(7)]
    assert found.values[4] == -1.0 and np.isnan(found.parts["cosine"][4])
    assert found.passed["length"].tolist() == [n != 4 for n in range(7)]
    assert found.provenance["weights_sha256"] == service.provenance["weights_sha256"]


def test_groups_are_not_divided(url):
    wavs = [tone(0.4, frequency=100 + 20 * n) for n in range(6)]
    labels = ["a", "b", "a", "b", "a", "c"]
    whole = RewardClient(url)(wavs, CAPTIONS[:1] * 6, 16000, groups=labels, scaling="group")
    parts = RewardClient(url, batch_clips=3)(
        wavs, CAPTIONS[:1] * 6, 16000, groups=np.array(labels), scaling="group"
    )
    np.testing.assert_allclose(whole.values, parts.values, atol=2e-2)
    assert abs(whole.values[[0, 2, 4]].sum()) < 1e-4 and whole.values[5] == 0


def test_baselines_and_whole_numbers_arrive(url):
    wavs = [(tone(0.4) * 32767).astype(np.int16), tone(0.4)]
    client = RewardClient(url)
    cosines = client(wavs, CAPTIONS[:2], 16000).parts["cosine"]
    assert cosines[0] == pytest.approx(
        client([wavs[0] / 32768], CAPTIONS[:1], 16000).values[0], abs=1e-5
    )
    baseline = np.float32([cosines[0], 1.0])
    found = client(wavs, CAPTIONS[:2], 16000, scaling="improvement", baseline=baseline)
    assert found.values[0] == pytest.approx(0.0, abs=1e-4) and found.values[1] < 0


def test_wrong_input_is_named_before_anything_is_sent():
    client = RewardClient("http://127.0.0.1:9")
    with pytest.raises(ValueError, match="1 captions for 2 clips"):
        client([tone(0.2)] * 2, ["a"], 16000)
    with pytest.raises(ValueError, match=r"wavs\[1\] must be samples \[T\], not float32 \[2, 9\]"):
        client([tone(0.2), np.zeros((2, 9), np.float32)], ["a", "b"], 16000)
    with pytest.raises(ValueError, match="url must be"):
        RewardClient("localhost:8000")


@pytest.mark.parametrize(
    "captions, options, pattern",
    [
        ("ab", {}, "captions must be a list of str, one per clip, not 'ab'"),
        (["a", "b"], {"texts": "ab"}, "texts must be a list of str"),
        (["a", "b"], {"groups": [[1], [1]]}, r"groups\[0\] must be a label"),
    ],
    ids=range(3),
)
def test_columns_of_another_kind_are_named(captions, options, pattern):
    with pytest.raises(ValueError, match=pattern):
        RewardClient("http://127.0.0.1:9", retries=0)([tone(0.2)] * 2, captions, 16000, **options)


def test_a_token_is_one_word_and_never_shown(url, monkeypatch):
    monkeypatch.setenv("CLSP_TOKEN", "secret\n")  # as a file gives it
    assert RewardClient(url)([tone(0.4)], CAPTIONS[:1], 16000).reasons == [""]
    for token in ("two words", "sécret"):
        with pytest.raises(ValueError, match="must be one word") as caught:
            RewardClient(url, token=token)
        assert token not in str(caught.value)


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b'{"values": [1.0]}'], ids=range(4))
def test_another_service_is_told_by_its_answer(content):
    with (
        answering(lambda body: content, parse=bytes) as url,
        pytest.raises(ServiceError, match=f"{url} is not clsp serve, it answers"),
    ):
        RewardClient(url)([tone(0.4)] * 2, CAPTIONS[:2], 16000)


def test_a_refusal_is_raised_with_its_reason_and_not_repeated(url):
    with pytest.raises(ServiceError, match="scaling must be one of") as caught:
        RewardClient(url)([tone(0.2)], ["a"], 16000, scaling="best")
    assert caught.value.status == 422
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_busy_or_broken_service_is_asked_again():
    answer = {"values": [0.5], "parts": {}, "passed": {}, "reasons": [""], "model": "m"}
    found = []
    replies = [(429, {"error": "busy"}, {"Retry-After": "1"}), (503, b"<html>", {}), answer]

    def reply(body):
        found.append(body)
        return replies[len(found) - 1]

    with answering(reply, parse=bytes) as url:
        rewards = RewardClient(url)([tone(0.2)], ["a"], 16000)
        assert rewards.values.tolist() == [0.5] and len(found) == 3
        assert rewards.provenance == {"model": "m"}
        assert found[0].split(b"\r\n")[3:] == found[1].split(b"\r\n")[3:]  # the same request
    with pytest.raises(ConnectionError, match="no answer in 2 tries"):
        RewardClient("http://127.0.0.1:9", retries=1)([tone(0.2)], ["a"], 16000)


def test_importing_the_client_needs_numpy_only():
    code = """
import sys
for name in ("torch", "speechbrain", "fastapi", "starlette", "requests", "httpx"):
    sys.modules[name] = None
from speechbrain_clsp.serve import RewardClient
RewardClient("http://127.0.0.1:8000")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
