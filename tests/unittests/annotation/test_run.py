"""Runs of ``clsp annotate`` that are killed, refused and resumed: nothing lost, nothing twice."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import soundfile

from speechbrain_clsp.annotation.client import ServerSettings
from speechbrain_clsp.annotation.records import read_records
from speechbrain_clsp.annotation.retries import RequestRejectedError, ServerUnavailableError
from speechbrain_clsp.annotation.run import Job, gather_or_cancel, run_jobs
from speechbrain_clsp.cli.main import main
from speechbrain_clsp.dataio.manifest import write_manifest
from tests.utils.chat_server import MODEL, answering, chat_server, completion

CLIPS, IN_FLIGHT = 1000, 16


def write_clips(folder, count: int, files: int = 20) -> None:
    """Write a manifest of parts of some files, all different."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(files):
        path = folder / f"{number}.wav"
        soundfile.write(path, 0.1 * generator.standard_normal(16000 * 10), 16000)
        for part in range(count // files):
            row = {"id": f"clip{number}_{part}", "audio": str(path), "sample_rate": 16000}
            rows.append({**row, "start": part * 0.15, "duration": 0.3})
    write_manifest(folder / "clips.arrow", rows)


def config(folder, url: str) -> str:
    """Write a configuration whose pauses are short."""
    path = folder / "config.yaml"
    caption = {"base_url": url, "model": MODEL, "candidates": 2, "timeout": 1.0, "pause": 0.05}
    caption |= {"attempts": 25, "concurrency": IN_FLIGHT, "price": [1.0, 2.0]}
    path.write_text(json.dumps({"caption": caption}))
    return str(path)


def jobs_of(*texts: str) -> list[Job]:
    """Return jobs that ask texts, one each."""

    def job(text: str) -> Job:
        async def ask(client) -> dict:
            message = {"role": "user", "content": text}
            return {"n": len(await client.complete([message], {"n": 1}))}

        return Job(text, text, lambda: (text, ask))

    return [job(text) for text in texts]


def kept_and_aside(path) -> tuple[list[str], list[str]]:
    """Return the ids that have a record, and those that are in quarantine."""
    files = (path, path.with_suffix(".quarantine.jsonl"))
    kept, aside = ([record["id"] for record in read_records(file)] for file in files)
    return kept, aside


def arguments(folder, url: str, *further: str) -> list[str]:
    words = ["annotate", config(folder, url), "--manifest", str(folder / "clips.arrow")]
    return [*words, "--output", str(folder / "out"), "--stage", "caption", *further]


def test_killed_runs_lose_nothing_and_do_nothing_twice(tmp_path):
    write_clips(tmp_path, CLIPS)
    records, draw, kills = tmp_path / "out/caption.jsonl", random.Random(1), 0
    with chat_server(tmp_path, faults=0.1, slow=0.3, delay=0.005) as (url, log):
        command = [sys.executable, "-m", "speechbrain_clsp.cli.main", *arguments(tmp_path, url)]
        code = None
        while code is None:
            before = sum(1 for _ in open(records)) if records.exists() else 0
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            goal = before + draw.randrange(20, 300) if kills < 4 else CLIPS * 2
            while (code := process.poll()) is None and goal:
                time.sleep(0.002)
                if records.exists() and records.read_bytes().count(b"\n") >= goal:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    kills, code = kills + 1, None
                    break
        assert code == 0 and kills >= 3
        served = Counter(json.loads(line)["digest"] for line in open(log))
    found = Counter(record["id"] for record in read_records(records))
    assert len(found) == CLIPS and set(found.values()) == {1}
    assert sum(1 for _ in open(records)) == CLIPS  # also the raw lines
    # What a kill or a timeout of the client's loses was answered for nothing.
    report = json.loads((tmp_path / "out/caption.report.json").read_text())
    wasted = sum(served.values()) - CLIPS
    assert len(served) == CLIPS
    assert 0 <= wasted <= kills * IN_FLIGHT + 40, (wasted, report)


def test_poison_is_put_aside_and_a_limit_stops(tmp_path, capsys):
    write_clips(tmp_path, 40)
    (tmp_path / "3.wav").write_bytes(b"RIFF no audio")
    os.remove(tmp_path / "5.wav")
    with chat_server(tmp_path) as (url, log):
        assert main(arguments(tmp_path, url)) == 0
        aside = list(read_records(tmp_path / "out/caption.quarantine.jsonl"))
        assert {record["id"] for record in aside} == {"clip3_0", "clip3_1", "clip5_0", "clip5_1"}
        assert any("3.wav" in record["reason"] for record in aside)
        served = sum(1 for _ in open(log))
        assert main(arguments(tmp_path, url)) == 0  # neither asked nor read again
        assert sum(1 for _ in open(log)) == served == 36
        report = json.loads((tmp_path / "out/caption.report.json").read_text())
        assert report["skipped"] == 40 and report["done"] == 0 and not report["requests"]
        away = arguments(tmp_path, "http://127.0.0.1:9/v1")  # nothing to ask: none is missed
        assert main(away) == 0
        (tmp_path / "out/caption.quarantine.jsonl").unlink()
        assert main(arguments(tmp_path, url, "--set", "caption.failure_limit=2")) == 2
        error = capsys.readouterr().err
        assert "More than 2 requests were put aside" in error and "caption.quarantine" in error


def test_shards_cover_all_and_other_settings_are_refused(tmp_path, capsys):
    write_clips(tmp_path, 60)
    with chat_server(tmp_path) as (url, _):
        for shard in ("0/3", "1/3", "2/3"):
            assert main(arguments(tmp_path, url, "--shard", shard)) == 0
        parts = [
            {record["id"] for record in read_records(tmp_path / f"out/caption.{n}-of-3.jsonl")}
            for n in range(3)
        ]
        assert len(set.union(*parts)) == sum(map(len, parts)) == 60 and all(parts)
        again = arguments(tmp_path, url, "--shard", "0/3", "--set", "caption.sampling={seed: 1}")
        assert main(again) == 2
        assert "other settings of sampling" in capsys.readouterr().err
        faster = arguments(tmp_path, url, "--shard", "0/3", "--set", "caption.concurrency=2")
        assert main(faster) == 0


def test_files_that_were_touched_are_not_sent_again(tmp_path):
    write_clips(tmp_path, 20)
    with chat_server(tmp_path) as (url, log):
        assert main(arguments(tmp_path, url)) == 0
        for path in tmp_path.glob("*.wav"):
            os.utime(path, (0, 0))
        assert main(arguments(tmp_path, url)) == 0
        assert sum(1 for _ in open(log)) == 20
    report = json.loads((tmp_path / "out/caption.report.json").read_text())
    assert report["skipped"] == 20 and report["done"] == 0


def test_long_clips_are_counted_and_not_sent(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.zeros(16000 * 31), 16000)
    row = {"id": "long", "audio": str(tmp_path / "long.wav"), "duration": 31.0}
    write_manifest(tmp_path / "clips.arrow", [row])
    with chat_server(tmp_path) as (url, log):
        assert main(arguments(tmp_path, url)) == 0
        assert not log.read_text()
    (record,) = read_records(tmp_path / "out/caption.jsonl")
    assert record["captions"] == [] and record["dropped"][0]["rule"] == "duration"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("caption.candidate=3", "caption.candidate is unknown; known are"),
        ("captions.candidates=3", "no section 'captions'"),
        ("caption.candidates", "--set 'caption.candidates' is not of the form KEY=VALUE"),
        ("candidates=3", "must be section.name=value"),
        ("caption.template=nowhere.txt", "Template nowhere.txt: no such file"),
        ("caption.model=other", "does not serve 'other'"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, capsys, change, reason):
    write_clips(tmp_path, 20)
    with chat_server(tmp_path) as (url, _):
        assert main(arguments(tmp_path, url, "--set", change)) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") <= 2


def test_an_interrupt_finishes_what_is_in_flight_and_ends_all_stages(tmp_path):
    write_clips(tmp_path, 400)
    stages = ("--stage", "caption", "filter")
    with chat_server(tmp_path, delay=0.1) as (url, log):
        command = [
            sys.executable,
            "-m",
            "speechbrain_clsp.cli.main",
            *arguments(tmp_path, url, *stages),
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (log.exists() and log.read_text().count("\n") > 20):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        time.sleep(0.3)
        served = log.read_text().count("\n")
    assert not list((tmp_path / "out").glob("filter*"))
    kept = sum(1 for _ in read_records(tmp_path / "out/caption.jsonl"))
    assert kept == served < 400


@pytest.mark.parametrize("then", ["429", "402", "500", "400", "dies"])
def test_clips_in_flight_are_not_condemned_when_servers_stop_answering(tmp_path, capsys, then):
    path, texts = tmp_path / "r.jsonl", [f"clip {n}" for n in range(60)]
    options = {"model": MODEL, "pause": 0.02, "attempts": 3, "concurrency": IN_FLIGHT}
    with chat_server(tmp_path, most=15, then=then, delay=0.05) as (url, _):
        with pytest.raises(ServerUnavailableError) as caught:
            run_jobs(jobs_of(*texts), ServerSettings(url, **options), path)
        assert then == "dies" or "the quota is used up" in str(caught.value)
    kept, aside = kept_and_aside(path)
    assert aside == [] and 1 <= len(kept) <= 15
    with chat_server(tmp_path) as (url, _):
        run_jobs(jobs_of(*texts), ServerSettings(url, **options), path)
    kept, aside = kept_and_aside(path)
    assert sorted(kept) == sorted(texts) and aside == []


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("place", ["first", "last"])
def test_bad_requests_are_put_aside_wherever_they_stand(tmp_path, concurrency, place):
    good, bad = [f"clip {n}" for n in range(10)], ["CRASH", "POISON", "POISON 2"]
    path = tmp_path / "r.jsonl"
    with chat_server(tmp_path) as (url, _):
        settings = ServerSettings(url, MODEL, pause=0.01, attempts=2, concurrency=concurrency)
        texts = [*bad, *good] if place == "first" else [*good, *bad]
        report = run_jobs(jobs_of(*texts), settings, path)
    kept, aside = kept_and_aside(path)
    assert (sorted(kept), sorted(aside)) == (good, sorted(bad))
    assert report.in_quarantine == sum(report.quarantined.values()) == 3


@pytest.mark.parametrize(("bad", "count"), [("POISON", 60), ("POISON", 2), ("CRASH", 1)])
def test_requests_that_are_all_refused_stop_the_run_and_are_kept(tmp_path, bad, count):
    path = tmp_path / "r.jsonl"
    with chat_server(tmp_path) as (url, _):
        settings = ServerSettings(url, MODEL, pause=0.01, attempts=2, concurrency=4)
        texts = [f"{bad} {n}" for n in range(count)]
        with pytest.raises(ServerUnavailableError, match="No request was answered") as caught:
            run_jobs(jobs_of(*texts), settings, path)
    said = {"POISON": "cannot process that", "CRASH": "this one always fails"}
    assert said[bad] in str(caught.value) and "Nothing was put aside" in str(caught.value)
    assert kept_and_aside(path) == ([], [])
    report = json.loads((tmp_path / "r.report.json").read_text())
    assert report["requests"] <= 12


def test_work_that_fails_takes_its_siblings_along(recwarn):
    ended = []

    async def ask(number: int) -> None:
        try:
            await asyncio.sleep(0 if number == 3 else 60)
            raise RequestRejectedError("refused")
        finally:
            ended.append(number)

    async def go() -> None:
        with pytest.raises(RequestRejectedError, match="refused"):
            await gather_or_cancel(map(ask, range(6)))
        assert sorted(ended) == list(range(6))

    asyncio.run(go())


def test_candidates_are_written_without_reasoning_and_all_of_them(tmp_path, capsys):
    """Of a server that ignores ``n`` and thinks aloud."""
    write_clips(tmp_path, 20)
    texts = iter(f"<think>Number {n}?</think>A man speaks, number {n}." for n in range(999))
    with answering(lambda request: completion([next(texts)])) as url:
        assert main(arguments(tmp_path, f"{url}/v1", "--set", "caption.candidates=3")) == 0
    printed = capsys.readouterr().out
    assert "short_answers 40" in printed
    records = list(read_records(tmp_path / "out/caption.jsonl"))
    captions = [caption for record in records for caption in record["captions"]]
    assert len(captions) == len(set(captions)) == 60
    assert all(caption.startswith("A man speaks, number") for caption in captions)


def test_candidates_that_are_no_captions_are_dropped_by_their_reason(tmp_path):
    write_clips(tmp_path, 20)
    answer = completion(["A man speaks.", "<think>A man, or", "", ""])
    answer["choices"][2]["message"]["refusal"] = "I cannot."
    answer["choices"][3]["message"]["reasoning_content"] = "A woman?"
    with answering(lambda request: answer) as url:
        assert main(arguments(tmp_path, f"{url}/v1", "--set", "caption.candidates=4")) == 0
    record = next(read_records(tmp_path / "out/caption.jsonl"))
    assert record["captions"] == ["A man speaks."]
    found = [(drop["rule"], drop["reason"]) for drop in record["dropped"]]
    assert [rule for rule, _ in found] == ["empty", "refused", "empty"]
    assert (
        "only reasoning" in found[0][1] and "I cannot." in found[1][1] and "A woman?" in found[2][1]
    )


def test_a_refusal_of_all_clips_stops_at_once_with_the_text_of_the_server(tmp_path, capsys):
    write_clips(tmp_path, 60)
    requests = []

    def reply(request):
        requests.append(request)
        return 400, {"error": {"message": "audio input is off"}}, {}

    with answering(lambda r: {"data": []} if isinstance(r, str) else reply(r)) as url:
        assert main(arguments(tmp_path, f"{url}/v1")) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "audio input is off" in error and "Nothing was put aside" in error
    assert len(requests) < 60
    assert kept_and_aside(tmp_path / "out/caption.jsonl") == ([], [])
