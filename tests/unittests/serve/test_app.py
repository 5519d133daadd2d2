"""The HTTP interface on a live server: values against the model's own, and what it refuses."""

import base64
import io
import json
import re
import socket
import threading
import time
import urllib.request

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_clsp import CLSP, StyleReward
from speechbrain_clsp.inference.guards import LengthGuard, LevelGuard
from speechbrain_clsp.search import StyleIndex, write_store
from speechbrain_clsp.serve.limits import Limits
from speechbrain_clsp.serve.service import StyleService
from tests.utils.live_service import answer_of, live, npy_bytes, post, wav_bytes
from tests.utils.small import CAPTIONS, tone
from tests.utils.stores import buzzes

PROVENANCE = {"model", "revision", "weights_sha256", "precision", "preprocessing", "package"}
LIMITS = Limits(clips=8, clip_seconds=40.0, request_seconds=100.0, body_bytes=20_000_000)


@pytest.fixture(scope="module")
def url(clsp):
    with live(StyleService(clsp, LIMITS)) as url:
        yield url


def test_scores_are_those_of_files_in_any_form(url, clsp):
    rate = 22050
    flac = wav_bytes(1.5, rate, format="FLAC", subtype="PCM_16")
    array = npy_bytes(tone(1.5, rate))
    status, form = post(
        f"{url}/v1/score", {"captions": CAPTIONS, "sample_rate": rate}, [flac, array]
    )
    assert status == 200 and PROVENANCE <= set(form)
    audio = [base64.b64encode(content).decode() for content in (flac, array)]
    status, plain = post(
        f"{url}/v1/score", {"captions": CAPTIONS, "audio": audio, "sample_rate": rate}
    )
    assert status == 200
    sources = flac, {"array": tone(1.5, rate), "sampling_rate": rate}
    for number, source in enumerate(sources):
        expected = clsp.score_file(source, CAPTIONS).tolist()
        for answer in (form, plain):
            found = answer["results"][number]["scores"]
            assert found == pytest.approx(expected, abs=1e-5)


def test_embeddings_classes_and_timelines_are_the_models_own(url, clsp):
    long = wav_bytes(35.0)  # two windows
    status, found = post(f"{url}/v1/embed/audio", {}, [long, wav_bytes(0.5)])
    vectors = torch.tensor([one["embedding"] for one in found["results"]])
    assert status == 200
    torch.testing.assert_close(
        vectors, clsp.encode_files([long, wav_bytes(0.5)], progress=False), atol=1e-5, rtol=0
    )
    status, found = post(f"{url}/v1/contrasts", {"texts": [CAPTIONS[0], "speech"]})
    assert found["results"][0]["contrasts"] == StyleReward(clsp).contrasts(CAPTIONS[0])
    assert "can be swapped" in found["results"][1]["error"]
    status, found = post(f"{url}/v1/embed/text", {"texts": CAPTIONS})
    texts = torch.tensor([one["embedding"] for one in found["results"]])
    torch.testing.assert_close(texts, clsp.encode_text(CAPTIONS), atol=1e-6, rtol=0)
    prompts = {"m": CAPTIONS[0], "f": [CAPTIONS[1], CAPTIONS[2]]}
    status, found = post(f"{url}/v1/classify", {"prompts": prompts}, [wav_bytes(0.5)])
    out_prob, _, _, (label,) = clsp.classify_file(wav_bytes(0.5), prompts)
    assert found["results"][0]["label"] == label
    probabilities = list(found["results"][0]["probabilities"].values())
    assert probabilities == pytest.approx(out_prob[0].exp().tolist(), abs=1e-4)
    status, found = post(f"{url}/v1/classify", {"prompts": CAPTIONS}, [wav_bytes(0.5)])
    assert found["results"][0]["label"] == clsp.classify_file(wav_bytes(0.5), CAPTIONS)[3][0]
    fields = {"captions": CAPTIONS[:2], "window": 1.0, "hop": 0.5}
    status, found = post(f"{url}/v1/timeline", fields, [wav_bytes(2.2)])
    curve = clsp.timeline(wav_bytes(2.2), CAPTIONS[:2], 1.0, 0.5)
    assert found["times"] == pytest.approx(curve.times.tolist())
    assert np.allclose(found["scores"], curve.scores, atol=1e-5)


@pytest.mark.parametrize("scaling", ["cosine", "margin", "group"])
def test_rewards_are_those_of_style_reward_with_reasons(url, clsp, scaling):
    wavs = [tone(1.0, frequency=f) for f in (100, 150, 220)]
    wavs.append(np.full(16000, np.nan, np.float32))
    captions = [CAPTIONS[0], CAPTIONS[0], CAPTIONS[1], CAPTIONS[1]]
    fields = {"captions": captions, "sample_rate": 16000, "scaling": scaling}
    files = [npy_bytes(wav) for wav in wavs]
    status, found = post(f"{url}/v1/reward", fields, files)
    assert status == 200
    reward = StyleReward(clsp, scaling, guards=[LengthGuard(), LevelGuard()])
    expected = reward.explain(torch.from_numpy(np.stack(wavs)), captions)
    assert found["values"] == pytest.approx(
        expected.total.tolist(), abs=2e-2 if scaling == "group" else 1e-5
    )
    assert found["parts"]["cosine"][:3] == pytest.approx(
        expected.parts["cosine"][:3].tolist(), abs=1e-5
    )
    assert found["parts"]["cosine"][3] is None
    assert found["passed"]["length"] == expected.passed["length"].tolist()
    assert found["reasons"][0] == "" and "NaN" in found["reasons"][3]


def test_a_bad_clip_or_caption_costs_its_own_place_only(url):
    files = [wav_bytes(), b"no audio", wav_bytes(0.05), npy_bytes(np.array(["a"], object)), b""]
    status, found = post(f"{url}/v1/score", {"captions": [*CAPTIONS, "slowly " * 300]}, files)
    assert status == 200
    scores = found["results"][0]["scores"]
    assert None not in scores[:3] and scores[3] is None
    assert "captions[3] has" in found["caption_errors"][3]
    for number, word in enumerate(("cannot be read", "0.050 s", "sample_rate", "is empty"), 1):
        error = found["results"][number]["error"]
        assert error.startswith(f"audio[{number}]") and word in error
    status, found = post(
        f"{url}/v1/reward", {"captions": [CAPTIONS[0], ""], "scaling": "margin"}, files[:2]
    )
    assert status == 200 and found["values"][1] == -1.0 and found["reasons"][0] == ""
    long = {"captions": ["a " * 2001, CAPTIONS[0]]}
    status, found = post(f"{url}/v1/reward", long, [wav_bytes()] * 2)
    assert status == 200 and found["values"][0] == -1.0 and found["reasons"][1] == ""
    assert found["reasons"][0].startswith("captions[0] has 4002 characters")
    array = npy_bytes(tone(0.5))
    for rate in (0, -1):
        status, found = post(
            f"{url}/v1/score", {"captions": CAPTIONS, "sample_rate": rate}, [array]
        )
        assert status == 422 and f"sample_rate is {rate} Hz" in found["error"]
    status, found = post(f"{url}/v1/embed/text", {"texts": ["", CAPTIONS[0], "slowly " * 999]})
    assert status == 200 and "embedding" in found["results"][1]
    assert "Caption 0 is empty" in found["results"][0]["error"]
    assert "texts[2] has 6993 characters" in found["results"][2]["error"]
    status, found = post(f"{url}/v1/score", {"captions": CAPTIONS, "audio": ["%%"]})
    assert status == 422 and found["error"].startswith("audio[0]: is not base64")


def test_limits_are_refused_with_a_reason_that_names_the_item(url):
    captions = {"captions": CAPTIONS}
    opus = io.BytesIO()
    soundfile.write(opus, np.zeros(48000 * 600, np.float32), 48000, format="OGG", subtype="OPUS")
    assert len(opus.getvalue()) < 200_000  # ten minutes
    start = time.monotonic()
    status, found = post(f"{url}/v1/score", captions, [opus.getvalue()])
    assert status == 413 and "audio[0]" in found["error"] and "lasts 600 s" in found["error"]
    assert time.monotonic() - start < 5.0
    status, found = post(f"{url}/v1/score", captions, [opus.getvalue(), wav_bytes()])
    assert status == 200 and "lasts 600 s" in found["results"][0]["error"]
    status, found = post(f"{url}/v1/score", captions, [wav_bytes(0.2)] * 9)
    assert status == 413 and found["error"].startswith("audio[8] is one too many: 9 are given")
    long = wav_bytes(39.0, 8000)
    status, found = post(f"{url}/v1/score", captions, [long] * 3)
    assert status == 413 and found["error"].startswith("audio[2]") and "117 s" in found["error"]
    fields = {**captions, "window": 30.0, "hop": 0.05}
    status, found = post(f"{url}/v1/timeline", fields, [long])
    assert status == 413 and "23400 s" in found["error"] and "hop" in found["error"]
    status, found = post(f"{url}/v1/embed/text", {"texts": ["a"] * 1025})
    assert status == 413 and found["error"].startswith("texts[1024]")
    prompts = {"prompts": {str(number): f"voice {number}" for number in range(1025)}}
    status, found = post(f"{url}/v1/classify", prompts, [wav_bytes(0.2)])
    assert status == 413 and found["error"].startswith("prompts[1024]")
    status, found = post(f"{url}/v1/timeline", {"captions": ["a"] * 1025}, [wav_bytes(0.2)])
    assert status == 413 and found["error"].startswith("captions[1024]")
    status, found = post(f"{url}/v1/score", captions, [b"x" * 20_000_001])
    assert status == 413 and "20000000 bytes" in found["error"]
    wide = io.BytesIO()
    soundfile.write(wide, np.zeros((9000, 9), np.float32), 16000, format="WAV")
    status, found = post(f"{url}/v1/score", captions, [wide.getvalue()])
    assert status == 422 and "9 channels" in found["error"]
    scalar = npy_bytes(np.float32(1))
    status, found = post(f"{url}/v1/score", {**captions, "sample_rate": 16000}, [scalar])
    assert status == 422 and "shape []" in found["error"]
    bomb = npy_bytes(np.zeros(1, np.float32)).replace(b"(1,)", b"(9" + b"9" * 11 + b",)", 1)
    status, found = post(f"{url}/v1/score", {**captions, "sample_rate": 16000}, [bomb])
    assert status == 422 and "no .npy file" in found["error"]


@pytest.mark.parametrize(
    ("path", "fields", "word"),
    [
        ("score", {"captions": []}, "captions: "),
        ("score", {"captions": ["a", 1]}, r"captions\[1\]: "),
        ("score", {"captions": ["a"], "caption": "a"}, "caption: Extra"),
        ("score", {"captions": ["a"], "sample_rate": [1, 2]}, "2 sample_rate for 1"),
        ("classify", {}, "prompts are missing"),
        ("classify", {"prompts": {"a": "x", "b": "x"}}, "have the same prompts"),
        ("timeline", {"captions": ["a"], "window": -1.0}, "window must be"),
        ("timeline", {"captions": ["a"], "hop": 1e-9}, "hop 0.05 to"),
        ("timeline", {"captions": ["a"], "hop": 1e308}, "hop 0.05 to"),
        ("timeline", {"captions": ["a " * 2001]}, r"captions\[0\] has 4002 characters"),
        ("classify", {"prompts": {"a": ["x", "y" * 4001]}}, r"prompts\[1\] has 4001"),
        ("reward", {"captions": ["a", "b"]}, "2 captions for 1 clips"),
        ("reward", {"captions": ["a"], "scaling": "best"}, "scaling must be one of"),
        ("reward", {"captions": ["a"], "guards": ["no"]}, "guards must be of"),
        ("reward", {"captions": ["a"], "require": {"gender": "x"}}, "must be one of"),
        ("reward", {"captions": ["a"], "scaling": "improvement"}, "needs a baseline"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_fields_are_named(url, path, fields, word):
    status, found = post(f"{url}/v1/{path}", fields, [wav_bytes(0.5)])
    assert status == 422, found
    assert re.search(word, found["error"]), found["error"]


def test_what_is_no_request_is_told_so(url):
    for kind, body, status in (
        ("text/plain", b"{}", 415),
        ("application/json", b"{", 422),
        ("application/json", b"[" * 100_000, 422),
        ("application/json", b"\xff", 422),
        ("multipart/form-data; boundary=x", b"--y", 422),
        ("multipart/form-data", b"--y", 422),
    ):
        request = urllib.request.Request(f"{url}/v1/score", body, {"Content-Type": kind})
        found, answer = answer_of(request)
        assert found == status and answer["error"], (kind, body[:9], found)
    assert answer_of(f"{url}/v1/none")[0] == 404
    assert answer_of(f"{url}/v1/score")[0] == 405


def test_other_sites_cannot_use_it(url):
    port = url.rsplit(":", 1)[1]
    ask = f"{url}/v1/embed/text", {"texts": ["a man"]}
    assert post(*ask)[0] == 200
    assert post(*ask, Origin=url)[0] == 200
    for headers in (
        {"Host": "evil.example"},  # a name that resolves to this machine
        {"Host": f"evil.example:{port}"},
        {"Host": f"192.168.1.7:{port}"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://[::1"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        status, found = post(*ask, **headers)
        assert status == 403 and found["error"], headers
    with urllib.request.urlopen(f"{url}/") as response:
        assert "access-control-allow-origin" not in {name.lower() for name in response.headers}
        assert "frame-ancestors" in response.headers["Content-Security-Policy"]


def test_a_token_is_asked_for_where_there_is_data(clsp):
    with live(StyleService(clsp), token="secret") as url:
        ask = f"{url}/v1/embed/text", {"texts": ["a man"]}
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
            status, found = post(*ask, **headers)
            assert status == 401 and found["headers"]["www-authenticate"] == "Bearer"
        assert post(*ask, Authorization="Bearer secret")[0] == 200
        assert answer_of(f"{url}/v1/model")[0] == 401
        assert answer_of(f"{url}/healthz") == (200, {"status": "ok"})


def test_an_address_of_others_takes_numbers_and_allowed_names(clsp):
    with live(StyleService(clsp), is_public=True, allowed=["Style.example"]) as url:
        ask = f"{url}/v1/embed/text", {"texts": ["a man"]}
        for host, status in (("10.0.0.3:80", 200), ("style.example", 200), ("evil.example", 403)):
            assert post(*ask, Host=host)[0] == status


def test_beyond_the_queue_it_is_busy_for_a_while(clsp, monkeypatch):
    service = StyleService(clsp, Limits(requests=2))
    held, entered = threading.Event(), threading.Semaphore(0)
    embed_text = service.embed_text

    def slowly(texts):
        entered.release()
        assert held.wait(30)
        return embed_text(texts)

    monkeypatch.setattr(service, "embed_text", slowly)
    with live(service) as url:
        found = []
        ask = lambda: found.append(post(f"{url}/v1/embed/text", {"texts": ["a man"]})[0])  # noqa: E731 - for threads
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert entered.acquire(timeout=30)
        status, answer = post(f"{url}/v1/embed/text", {"texts": ["a man"]})
        assert status == 429 and int(answer["headers"]["retry-after"]) >= 1
        assert answer_of(f"{url}/healthz")[0] == 200
        held.set()
        for thread in threads:
            thread.join(30)
        assert found == [200, 200]
        assert post(f"{url}/v1/embed/text", {"texts": ["a man"]})[0] == 200


def test_slow_and_half_requests_do_not_keep_it_from_others(clsp, capfd):
    limits = Limits(header_timeout=0.5, body_timeout=0.5, requests=2)
    with live(StyleService(clsp, limits)) as url:
        port = int(url.rsplit(":", 1)[1])
        head = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        sent = (b"POST /v1/sc", head + b"Content-Length: 100000\r\n\r\n{", b"")
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
        for number, connection in enumerate(slow):
            connection.sendall(sent[number % 3])
        gone = socket.create_connection(("127.0.0.1", port))
        gone.sendall(head + b"Content-Length: 100000\r\n\r\n{")
        gone.close()
        start = time.monotonic()
        assert post(f"{url}/v1/embed/text", {"texts": ["a man"]})[0] == 200
        assert time.monotonic() - start < 5.0
        for number, connection in enumerate(slow):
            connection.settimeout(10)
            answer = connection.recv(1000)  # nothing is left open
            assert answer.startswith(b"HTTP/1.1 408") if number % 3 == 1 else answer == b""
            connection.close()
    assert "Traceback" not in capfd.readouterr().err  # who left is no fault


def test_metrics_count_requests_batches_and_hits(clsp):
    fresh = CLSP(dict(clsp.mods), vars(clsp.hparams))
    with live(StyleService(fresh)) as url:
        files = [wav_bytes(0.5, frequency=111.0)] * 2
        for _ in range(2):
            assert post(f"{url}/v1/score", {"captions": CAPTIONS[:1]}, files)[0] == 200
        answer_of(f"{url}/v1/none")
        with urllib.request.urlopen(f"{url}/metrics") as response:
            lines = response.read().decode().splitlines()
        counts = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        assert counts['clsp_requests_total{path="/v1/score",status="200"}'] == "2.0"
        assert counts['clsp_requests_total{path="other",status="404"}'] == "1.0"
        assert counts['clsp_cache_hits_total{kind="audio"}'] == "1.0"
        assert counts['clsp_cache_misses_total{kind="audio"}'] == "1.0"
        assert counts['clsp_cache_hits_total{kind="text"}'] == "1.0"
        assert counts["clsp_batch_clips_count"] == "1.0"


def test_pages_and_descriptions_need_no_other_server(url):
    for path in ("/", "/docs"):
        with urllib.request.urlopen(f"{url}{path}") as response:
            page = response.read().decode()
        assert "<html" in page and "//cdn" not in page and "https://" not in page
    status, found = answer_of(f"{url}/openapi.json")
    paths = {"score", "contrasts", "embed/audio", "embed/text", "classify", "timeline", "reward"}
    assert status == 200 and {f"/v1/{name}" for name in paths} <= set(found["paths"])
    body = found["paths"]["/v1/score"]["post"]["requestBody"]["content"]
    assert body["application/json"]["schema"]["required"] == ["audio", "captions"]
    status, found = answer_of(f"{url}/v1/model")
    assert status == 200 and found["dimension"] == 32 and found["limits"]["clips"] == 8
    assert PROVENANCE <= set(found)
    assert "gender" in answer_of(f"{url}/v1/attributes")[1]
    json.dumps(found)


def test_percentiles_come_with_scores(clsp, small_folder):
    calibrated = CLSP.from_pretrained(small_folder)
    clips = [wav_bytes(0.5, frequency=f) for f in (90, 120, 200)]
    calibrated.set_background(calibrated.encode_files(clips, progress=False))
    with live(StyleService(calibrated)) as url:
        fields = {"captions": CAPTIONS, "percentiles": True}
        status, found = post(f"{url}/v1/score", fields, clips)
        with_bad = post(f"{url}/v1/score", {**fields, "captions": [CAPTIONS[0], ""]}, clips)[1]
    assert status == 200
    for one in with_bad["results"]:  # a bad caption has no score, and is higher than none
        assert one["scores"][1] is None and one["percentiles"][1] is None
    for column in range(3):
        ranked = sorted(one["percentiles"][column] for one in found["results"])
        assert ranked == pytest.approx([16.667, 50.0, 83.333], abs=0.01)


def test_an_index_is_searched_by_caption_clip_and_likeness(clsp, tmp_path):
    manifest = buzzes(tmp_path, 8)
    vectors = clsp.encode_files([row["audio"] for row in manifest], progress=False).numpy()
    write_store(tmp_path / "store", manifest.column("id"), vectors, weights_sha256="ab")
    index = StyleIndex.create(tmp_path / "index", tmp_path / "store", tmp_path / "clips.arrow")
    with live(StyleService(clsp, index=index)) as url:
        status, found = post(f"{url}/v1/search", {"text": CAPTIONS[0], "k": 3})
        assert status == 200 and PROVENANCE <= set(found)
        order = (vectors @ clsp.encode_text(CAPTIONS[:1])[0].numpy()).argsort()[::-1]
        assert [hit["id"] for hit in found["results"]] == [f"clip{n}" for n in order[:3]]
        assert "audio" not in found["results"][0]
        for where, word in (
            ("audio LIKE '/%'", "no column 'audio'"),
            ("(" * 1900 + "1=1" + ")" * 1900, "nested too deeply"),
            ("id = 'a' OR " * 400 + "id = 'b'", "where[0] has"),
        ):
            status, found = post(f"{url}/v1/search", {"text": CAPTIONS[0], "where": where})
            assert status == 422 and word in found["error"], found
        where = {"text": CAPTIONS[0], "where": "gender = 'male'"}
        hits = post(f"{url}/v1/search", where)[1]["results"]
        assert {hit["gender"] for hit in hits} == {"male"} and len(hits) == 4
        clip = (tmp_path / "5.wav").read_bytes()
        for fields, files in (({"k": 1}, [clip]), ({"k": 1, "like": "clip5"}, None)):
            hits = post(f"{url}/v1/search", fields, files)[1]["results"]
            assert [hit["id"] for hit in hits] == ["clip5"]
            assert hits[0]["score"] == pytest.approx(1.0, abs=1e-3)
        with urllib.request.urlopen(f"{url}/v1/clips?id=clip5") as response:
            samples, rate = soundfile.read(io.BytesIO(response.read()))
        assert rate == 16000 and len(samples) == soundfile.info(tmp_path / "5.wav").frames
        assert answer_of(f"{url}/v1/clips?id=clip99")[0] == 404
        (tmp_path / "2.wav").unlink()
        (tmp_path / "4.wav").write_bytes(b"no audio")
        for name, word in (("clip2", "no such file"), ("clip4", "cannot be read as audio")):
            for status, found in (
                answer_of(f"{url}/v1/clips?id={name}"),
                post(f"{url}/v1/search", {"like": name}),
            ):
                assert status == 404 and word in found["error"]
                assert f"the index's clip '{name}'" in found["error"]
                assert str(tmp_path) not in found["error"]  # where files lie is not told
        assert "labels.mood" in answer_of(f"{url}/v1/model")[1]["columns"]
        for fields, word in (({}, "needs at least"), ({"text": "a", "where": "no = 1"}, "no")):
            status, found = post(f"{url}/v1/search", fields)
            assert status == 422 and word in found["error"]


def test_without_an_index_there_is_no_search(url):
    status, found = post(f"{url}/v1/search", {"text": "a man"})
    assert status == 404 and "--index" in found["error"]
