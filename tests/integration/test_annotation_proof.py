"""The whole annotation pipeline and its judge, against mistakes that were planted at known rates.

Models are those of acoustic_server.py, which measure the audio and make mistakes at given rates.
What is true comes from MiniFCaps' synthesis settings and from the planted rates, not from it.
"""

import json
import math
import random
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from speechbrain_clsp.annotation.records import read_records
from speechbrain_clsp.captions.perturbation import AttributeSwap
from speechbrain_clsp.captions.policies import TwoCaptions
from speechbrain_clsp.cli.main import main
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.mini_fcaps.wording import swap_tables

RECIPES = Path(__file__).parents[2] / "recipes/FCaps"
sys.path.insert(0, str(RECIPES))
from mini_fcaps_prepare import prepare_mini_fcaps

QUOTED = "come to the open window"
PLANTED = {name: 0.07 for name in ("absence", "surroundings", "content", "several", "newline")}
PLANTED |= {"short": 0.07, "wrong_rate": 0.07}
FOUND_BY = {  # stage and rule that must find each mistake
    "absence": ("verify", "absence"),
    "surroundings": ("verify", "surroundings"),
    "content": ("verify", "content"),
    "several": ("verify", "single_speaker"),
    "newline": ("filter", "newline"),
    "short": ("filter", "length"),
    "wrong_rate": ("verify", "labels"),
}
DIMENSIONS = ("correctness", "coverage", "naturalness")


@contextmanager
def acoustic_server(*options: str):
    """Run the recipe's server; yields its address."""
    command = [sys.executable, str(RECIPES / "annotation/acoustic_server.py"), "--port", "0"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with ``clips.arrow``: MiniFCaps clips in which nothing changes."""
    folder = tmp_path_factory.mktemp("proof")
    prepare_mini_fcaps(folder, n_train=160, n_valid=20, n_test=20, n_jobs=1)
    manifest = Manifest(folder / "train.arrow")
    rows = [row for row in manifest if row["speaking_rate"] and row["pitch"]]
    rows = [row for row in rows if dict(row["labels"]).get("loudness")]
    write_manifest(folder / "clips.arrow", rows)
    return folder


def within_chance(count: int, trials: int, share: float) -> bool:
    """Tell whether a count is within 3.5 standard deviations of a binomial's mean."""
    return abs(count - trials * share) < 3.5 * math.sqrt(trials * share * (1 - share))


def test_planted_mistakes_are_dropped_for_their_reasons(folder, tmp_path):
    manifest, count = Manifest(folder / "clips.arrow"), 10
    said = {row["id"]: f"Would you {QUOTED} now" for row in manifest}
    lines = ["id,text", *(f"{name},{text}" for name, text in said.items())]
    (tmp_path / "said.csv").write_text("\n".join(lines))
    mistakes = [f"{name}={rate}" for name, rate in PLANTED.items()]
    with acoustic_server("--mistakes", *mistakes) as url:
        settings = ["caption.candidates=10", f"transcripts={tmp_path / 'said.csv'}"]
        settings += [f"{stage}.base_url={url}" for stage in ("caption", "verify")]
        command = ["annotate", str(RECIPES / "annotation/mini.yaml"), "--set", *settings]
        command += ["--manifest", str(folder / "clips.arrow"), "--output", str(tmp_path / "out")]
        assert main(command) == 0
    asked = len(manifest) * count
    assert asked > 400
    for mistake, (stage, rule) in FOUND_BY.items():
        records = read_records(tmp_path / f"out/{stage}.jsonl")
        drops = Counter(drop["rule"] for record in records for drop in record["dropped"])
        assert within_chance(drops[rule], asked, PLANTED[mistake]), (mistake, drops, asked)
    records = list(read_records(tmp_path / "out/filter.jsonl"))
    kept = [text for record in records for text in record["captions"]]
    for trace in ("not harsh", "microphone", "open window", "second speaker", "\n"):
        assert not any(trace in text for text in kept)
    rates = {row["id"]: row["speaking_rate"] for row in manifest}
    words = {"slow speed": "slowly", "measured speed": "measured pace", "fast speed": "quickly"}
    for record in records:
        assert all(words[rates[record["id"]]] in text for text in record["captions"])
    good = sum(PLANTED.values())
    repeated = sum(
        drop["rule"] == "repeated"
        for record in read_records(tmp_path / "out/filter.jsonl")
        for drop in record["dropped"]
    )
    assert within_chance(len(kept) + repeated, asked, 1 - good)


def test_the_release_is_ready_to_train_on(folder, tmp_path):
    with acoustic_server() as url:
        settings = [f"{stage}.base_url={url}" for stage in ("caption", "verify")]
        command = ["annotate", str(RECIPES / "annotation/mini.yaml"), "--set", *settings]
        command += ["--manifest", str(folder / "clips.arrow"), "--output", str(tmp_path / "out")]
        assert main(command) == 0
        release = tmp_path / "out/release"
        before = {path.name: path.read_bytes() for path in release.iterdir()}
        assert main(command) == 0  # everything is there already
    assert {path.name: path.read_bytes() for path in release.iterdir()} == before
    manifest = Manifest(release / "manifest.arrow")
    kept = {
        record["id"]: record["captions"]
        for record in read_records(tmp_path / "out/select.jsonl")
        if record["captions"]
    }
    assert {row["id"]: row["fine_captions"] for row in manifest} == kept
    assert all(1 <= len(captions) <= 2 for captions in kept.values())
    dataset = CaptionedSpeechDataset(manifest, TwoCaptions(global_probability=0.0))
    assert set(dataset[3]["texts"].positives) <= set(manifest[3]["fine_captions"])
    sheet = json.loads((release / "datasheet.json").read_text())
    assert sheet["captions"] == sum(map(len, kept.values())) and sheet["clips"] == len(kept)
    assert sheet["stages"]["caption"]["clips"] == len(Manifest(folder / "clips.arrow"))
    assert "acoustic-captioner" in (release / "datasheet.md").read_text()


def sources(folder) -> dict[str, Path]:
    """Write captions of four kinds: true, one audible attribute swapped, vague, and clumsy."""
    tables = {name: swap_tables()[name] for name in ("rate", "pitch", "loudness")}
    swap, draw = AttributeSwap(tables), random.Random(0)
    written: dict[str, list[dict]] = {"true": [], "swapped": [], "vague": [], "clumsy": []}
    for row in Manifest(folder / "clips.arrow"):
        true = row["fine_captions"][0]
        swapped = true
        while swapped == true:
            swapped = swap(true, draw)
        clumsy = ", ".join(word.strip(".,").lower() for word in true.split())
        texts = {"true": true, "swapped": swapped, "vague": "Somebody speaks.", "clumsy": clumsy}
        for name, text in texts.items():
            written[name].append({"id": row["id"], "caption": text})
    paths = {name: folder / f"{name}.jsonl" for name in written}
    for name, lines in written.items():
        paths[name].write_text("\n".join(map(json.dumps, lines)))
    return paths


def judge(folder, output, url: str, names: list[str], *further: str) -> dict:
    """Ask; return the judge's figures."""
    paths = sources(folder)
    command = ["judge", "ask", "--manifest", str(folder / "clips.arrow"), "--output", str(output)]
    command += ["--captions", *(f"{name}={paths[name]}" for name in names), *further]
    command += ["--set", f"base_url={url}", "model=acoustic-judge", "rounds=3", "concurrency=8"]
    assert main(command) == 0
    return json.loads((output / "judge.json").read_text())["judges"]["acoustic-judge"]


def test_the_judge_ranks_good_captions_first(folder, tmp_path, capsys):
    with acoustic_server("--noise", "0.2") as url:
        figures = judge(
            folder, tmp_path, url, ["true", "swapped", "vague", "clumsy"], "--clips", "40"
        )
    scores = figures["scores"]
    assert scores["true"]["correctness"]["low"] > scores["swapped"]["correctness"]["high"]
    assert scores["true"]["coverage"]["low"] > scores["vague"]["coverage"]["high"]
    assert scores["true"]["naturalness"]["low"] > scores["clumsy"]["naturalness"]["high"]
    same = scores["true"]["coverage"], scores["swapped"]["coverage"]
    assert abs(same[0]["value"] - same[1]["value"]) < 0.4
    wins = figures["pairs"]["swapped vs true"]["correctness"]
    assert wins["worse"]["value"] > 0.6 > wins["tie"]["value"]
    shares = figures["pairs"]["true vs vague"]["coverage"]
    assert abs(sum(share["value"] for share in shares.values()) - 1) < 1e-9
    for name in DIMENSIONS:  # no position bias was planted
        bias = figures["position_bias"][name]
        assert bias["low"] - 0.05 <= 0 <= bias["high"] + 0.05
        assert 0.3 < figures["agreement"][name]["scores"] < 1.0  # one score in five is off
    assert "| true |" in capsys.readouterr().out
    given = [f"{name}={folder / name}.jsonl" for name in ("true", "vague")]
    sheet = ["--manifest", str(folder / "clips.arrow"), "--captions", *given, "--clips", "10"]
    assert main(["judge", "sheet", "--output", str(tmp_path), *sheet]) == 0
    lines = (tmp_path / "sheet.csv").read_text().splitlines()
    filled = [
        lines[0],
        *(f"{line.rstrip(',')},{1 if 'Somebody' in line else 5},3,3" for line in lines[1:]),
    ]
    (tmp_path / "ann.csv").write_text("\n".join(filled))
    read = ["--sheet", str(tmp_path / "ann.csv"), "--rater", "ann"]
    assert main(["judge", "read", "--output", str(tmp_path), *read]) == 0
    agreement = json.loads((tmp_path / "judge.json").read_text())["agreement"]
    assert agreement["acoustic-judge vs people"]["correctness"]["spearman"] > 0.5
    with acoustic_server() as url:  # ratings of people do not disturb a judge that goes on
        judge(folder, tmp_path, url, ["true", "vague"], "--clips", "2", "--kinds", "score")


def test_a_position_bias_is_found_and_rounds_that_agree_do(folder, tmp_path):
    with acoustic_server("--position-bias", "0.4") as url:
        figures = judge(folder, tmp_path, url, ["true", "swapped"], "--kinds", "pair")
    for name in DIMENSIONS:
        bias = figures["position_bias"][name]
        assert bias["low"] - 0.05 <= 0.4 <= bias["high"] + 0.05 and bias["low"] > 0.1
    with acoustic_server() as url:
        steady = judge(folder, tmp_path / "steady", url, ["true", "swapped"], "--kinds", "score")
    assert steady["agreement"]["correctness"]["scores"] == 1.0
    assert yaml.safe_load((RECIPES / "annotation/judge.yaml").read_text())["judge"]["rounds"] == 5
