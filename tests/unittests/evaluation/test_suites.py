"""``clsp evaluate`` from the command line to its tables; leaks and mixed-up pairs are noticed."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from speechbrain_clsp.cli.main import main
from speechbrain_clsp.dataio.checks import check_lengths
from speechbrain_clsp.dataio.manifest import write_manifest
from speechbrain_clsp.evaluation.models import open_model
from speechbrain_clsp.evaluation.probes import ProbePair, write_pairs
from speechbrain_clsp.evaluation.report import write_results
from speechbrain_clsp.evaluation.result import Evaluation
from speechbrain_clsp.evaluation.statistics import Estimate
from speechbrain_clsp.evaluation.suites import SYNTHETIC, run_suite
from speechbrain_clsp.evaluation.tables import (
    AGREEMENT,
    PUBLISHED,
    is_published_test,
    latex_tables,
    markdown_tables,
    published_tables,
)
from tests.utils.small import model_folder, tone, write

SIZE = 60


def rows(folder, count: int = SIZE, first: int = 0) -> list[dict]:
    """Write clips; return their rows, of which three share a global caption."""
    made = []
    for i in range(first, first + count):
        loudness = np.random.default_rng(i).uniform(0.1, 1.0, 40).repeat(80)  # each its own
        write(folder / f"{i}.wav", loudness * tone(0.2, frequency=100 + 3 * i))
        made.append(
            {
                "id": f"clip{i}",
                "audio": f"{i}.wav",
                "duration": 0.2,
                "speaker": f"speaker{i}",
                "gender": "male" if i % 3 else "female",
                "labels": {"emotion": ("ang", "exc", "neu", "sad", "fru")[i % 5]},
                "global_captions": [f"global {max(i, 2)}"],
                "fine_captions": [f"fine {i}"],
                "source": "iemocap",
            }
        )
    return made


def save_vectors(path, clips: list[dict], captions_of, noise: float, seed: int = 0) -> str:
    """Write vectors of a made-up model: a clip is near to the captions that it is said to have."""
    draw = torch.Generator().manual_seed(seed)
    axes = torch.nn.functional.normalize(torch.randn(len(clips), 32, generator=draw), dim=1)
    texts = {}
    for row, axis in zip(clips, axes):
        for caption in captions_of(row):
            texts.setdefault(caption, axis + noise * torch.randn(32, generator=draw))
    for word in ("happy", "excited", "angry", "sad", "neutral"):
        texts[f"A speaker in a {word} tone."] = torch.randn(32, generator=draw)
    np.savez(
        path,
        paths=[row["audio"] for row in clips],
        embeddings=axes.numpy(),
        texts=list(texts),
        text_embeddings=torch.stack(list(texts.values())).numpy(),
    )
    return f"file:{path}"


def own(row: dict) -> list[str]:
    """Return a row's captions."""
    return row["global_captions"] + row["fine_captions"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder with test clips and two models, one of them noisier."""
    folder = tmp_path_factory.mktemp("data")
    clips = rows(folder)
    write_manifest(folder / "test.arrow", clips)
    save_vectors(folder / "good.npz", clips, own, 0.05)
    save_vectors(folder / "weak.npz", clips, own, 0.45)
    return folder, clips


def evaluate(folder, *arguments: str) -> dict:
    """Run the command; return metrics.json."""
    code = main(["evaluate", *map(str, arguments), "--output", str(folder)])
    assert code == 0
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def test_models_stand_side_by_side(data, tmp_path, capsys):
    folder, _ = data
    models = [f"good=file:{folder / 'good.npz'}", f"weak=file:{folder / 'weak.npz'}", "random"]
    arguments = ["--suite", "fcaps", "--data", folder / "test.arrow", "--model", *models]
    metrics = evaluate(tmp_path, *arguments)
    fine = metrics["tables"]["fine"]
    assert list(fine) == ["good", "weak", "random"]
    first, second, chance = (fine[m]["speech_to_text_R@1"]["value"] for m in fine)
    assert first == 1.0 > second > 0.1 > chance
    apart = metrics["tables"]["global"]["good"]["speech_to_text_R@1"]["value"]
    merged = metrics["tables"]["global, equal captions merged"]["good"]["text_to_speech_R@1"]
    assert abs(apart - 57 / 60) < 1e-9 and merged["value"] == 1.0
    assert "fine, equal captions merged" not in metrics["tables"]  # no fine caption occurs twice
    pair = next(
        found
        for found in metrics["comparisons"]
        if (found["table"], found["metric"], found["first"], found["second"])
        == ("fine", "speech_to_text_R@1", "good", "weak")
    )
    assert abs(pair["difference"]["value"] - (first - second)) < 1e-9 and pair["p_value"] < 0.01
    assert metrics["models"]["good"]["revision"].startswith("sha256:")
    assert len(metrics["data"][0]["sha256"]) == 64 and metrics["versions"]["transformers"]
    printed = " ".join(capsys.readouterr().out.split())
    assert "| speech to text R@1 | 100.0 (100.0-100.0) |" in printed
    difference = pair["difference"]
    points = f"good - weak | {100 * difference['value']:.1f} ({100 * difference['low']:.1f}-"
    assert f"| fine | speech to text R@1 | {points}" in printed
    assert "45.6 (39.6-51.6)" not in printed  # published, of another test set
    assert "those in arXiv 2601.03065 are of FCaps' test set, 241 clips, which this" in printed
    latex = (tmp_path / "tables.tex").read_text()
    assert r"\toprule" in latex and "100.0 (100.0--100.0)" in latex
    assert "CLSP (published)" not in (tmp_path / "report.html").read_text()
    table = pd.read_csv(tmp_path / "tables.csv", keep_default_na=True)
    row = table[(table["table"] == "fine") & (table["model"] == "weak")].iloc[0]
    estimate = fine["weak"][row["metric"]]
    assert [row[key] for key in ("value", "low", "high", "chance")] == list(estimate.values())
    assert evaluate(tmp_path, *arguments) == metrics  # from the cache, and to the last digit


def test_captions_that_a_model_does_not_know_are_counted(tmp_path):
    """If this fails, a model is judged by captions that are all the same to it."""
    clips = rows(tmp_path, 6)
    for row, caption in zip(clips, ("你好", "再见")):
        row["global_captions"] = row["fine_captions"] = [caption]
    write_manifest(tmp_path / "test.arrow", clips)
    models = {"ours": open_model(str(model_folder(tmp_path)))}
    found = run_suite("fcaps", models, [tmp_path / "test.arrow"]).warnings
    pattern = r"ours: 10 captions or prompts .* does not know, such as '.*你好.*' of '你好'"
    assert sum(bool(re.search(pattern, warning)) for warning in found) == 1


def test_bounds_are_not_warned_of(data, tmp_path):
    folder, _ = data
    test = folder / "test.arrow"
    models = ["random", f"oracle:{test}"]
    metrics = evaluate(tmp_path, "--suite", "fcaps", "--data", test, "--model", *models)
    assert metrics["warnings"] == []


def test_a_permuted_pairing_is_noticed(data, tmp_path):
    folder, clips = data
    shuffled = np.random.default_rng(0).permutation(SIZE)
    other = {row["id"]: own(clips[i]) for row, i in zip(clips, shuffled)}
    spec = save_vectors(tmp_path / "x.npz", clips, lambda row: other[row["id"]], 0.05)
    metrics = evaluate(
        tmp_path, "--suite", "fcaps", "--data", folder / "test.arrow", "--model", f"mixed={spec}"
    )
    assert any("mixed, fine" in w and "chance" in w for w in metrics["warnings"])


def test_permuted_labels_are_noticed(tmp_path):
    clips = rows(tmp_path)
    words = {"ang": "angry", "exc": "excited", "neu": "neutral", "sad": "sad", "fru": "happy"}
    prompts = {
        row["id"]: [f"A speaker in a {words[row['labels']['emotion']]} tone."] for row in clips
    }
    spec = save_vectors(tmp_path / "x.npz", clips, lambda row: prompts[row["id"]], 0.0)
    arrays = dict(np.load(tmp_path / "x.npz"))
    known = dict(zip(arrays["texts"], arrays["text_embeddings"]))
    arrays["embeddings"] = np.stack([known[prompts[row["id"]][0]] for row in clips])
    np.savez(tmp_path / "x.npz", **arrays)
    order = np.random.default_rng(0).permutation(SIZE)
    mixed = [{**row, "labels": clips[i]["labels"]} for row, i in zip(clips, order)]
    for name, some in (("true", clips), ("mixed", mixed)):
        write_manifest(tmp_path / f"{name}.arrow", some)
        data = tmp_path / f"{name}.arrow"
        command = ("--suite", "zero-shot", "--data", data, "--model", f"m={spec}")
        metrics = evaluate(tmp_path / name, *command)
        warned = any("UAR is no better than chance" in text for text in metrics["warnings"])
        assert warned == (name == "mixed"), metrics["warnings"]


def test_a_leak_is_noticed(data, tmp_path, capsys):
    folder, _ = data
    train = tmp_path / "train"
    train.mkdir()
    fresh = rows(train, 5, first=500)
    (train / "copy.wav").write_bytes((folder / "7.wav").read_bytes())
    stolen = {**fresh[0], "id": "renamed", "audio": "copy.wav", "fine_captions": ["fine 9"]}
    write_manifest(train / "clean.arrow", fresh)
    write_manifest(train / "leaky.arrow", [*fresh, stolen])
    test = ("--suite", "fcaps", "--data", folder / "test.arrow")
    model = ("--model", f"file:{folder / 'good.npz'}", "--train-manifest")
    clean = evaluate(tmp_path / "clean", *test, *model, train / "clean.arrow")
    assert not any(clean["leaks"]["test.arrow"].values())
    metrics = evaluate(tmp_path / "out", *test, *model, train / "leaky.arrow")
    counts = metrics["leaks"]["test.arrow"]
    assert (counts["id"], counts["speaker"]) == (0, 0)
    assert counts["audio"] >= 1 and counts["caption"] >= 1
    assert any("audio" in warning and "clip7" in warning for warning in metrics["warnings"])
    assert any("perfect" in w for w in metrics["warnings"])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "clip7" in capsys.readouterr().out and "clip7" in page


def test_zero_shot_takes_the_prompts_of_the_corpus(data, tmp_path, capsys):
    folder, _ = data
    metrics = evaluate(
        tmp_path,
        *("--suite", "zero-shot", "--data", folder / "test.arrow"),
        *("--model", f"a=file:{folder / 'good.npz'}", f"b=file:{folder / 'weak.npz'}"),
    )
    table = metrics["tables"]["iemocap emotion"]
    assert set(table["a"]) == {"WA", "UAR"}
    found = metrics["confusions"]["iemocap emotion"]["a"]
    assert found["n"] == np.sum(found["confusion"]) == 48  # without the 12 of "fru"
    assert {c["metric"] for c in metrics["comparisons"]} == {"WA"}
    printed = capsys.readouterr().out  # what is published is of all of IEMOCAP
    assert "57.2" not in printed and "are of IEMOCAP, 5,531 clips" in printed


def test_tables_of_clips_without_a_source_are_called_by_their_manifest(data, tmp_path):
    folder, clips = data
    rows = [{**row, "audio": str(folder / row["audio"]), "source": None} for row in clips]
    write_manifest(tmp_path / "mine.arrow", rows)
    metrics = evaluate(
        tmp_path,
        *("--suite", "zero-shot", "--data", tmp_path / "mine.arrow", "--prompts", "iemocap"),
        *("--model", "random"),
    )
    assert {name.split()[0] for name in metrics["tables"]} == {"mine"}


def test_two_manifests_of_one_corpus_are_refused(data):
    folder, _ = data
    paths = [folder / "test.arrow"] * 2
    with pytest.raises(ValueError, match="test.arrow are both of .* one after the other"):
        run_suite("zero-shot", {"random": open_model("random")}, paths, prompts="iemocap")


def test_similarity_with_people(data, tmp_path):
    folder, clips = data
    generator = np.random.default_rng(0)
    with np.load(folder / "good.npz") as arrays:
        speech = arrays["embeddings"]
        text = dict(zip(arrays["texts"], arrays["text_embeddings"]))
    lines = []
    for i, row in enumerate(clips):
        caption = f"fine {(i + (i % 4)) % SIZE}"
        cosine = speech[i] @ text[caption] / np.linalg.norm(text[caption])
        for rater in range(4):
            rating = round(float(np.clip(2.5 + 2 * cosine + 0.3 * generator.normal(), 0, 5)), 2)
            category = ("intrinsic", "fusion")[i % 2]
            lines.append([row["audio"], caption, category, f"r{rater}", rating])
    for name, shift in (("ratings.csv", 0), ("mixed.csv", 21)):
        with open(folder / name, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["clip", "caption", "category", "rater", "rating"])
            for i, line in enumerate(lines):
                writer.writerow([*line[:4], lines[(i + 4 * shift) % len(lines)][4]])
    model = ["--suite", "similarity", "--model", f"good=file:{folder / 'good.npz'}", "--data"]
    metrics = evaluate(tmp_path, *model, folder / "ratings.csv")
    assert metrics["tables"]["all"]["good"]["pearson"]["value"] > 0.9
    assert metrics["agreement"]["fusion"]["alpha"] > 0.7 and not metrics["warnings"]
    spread = metrics["agreement"]["all"]["raters"]["good"]
    assert spread["count"] == 4
    shown = " ".join((tmp_path / "tables.md").read_text(encoding="utf-8").split())
    assert f"| good | {spread['model']:.3f} | {100 * spread['below_model']:.1f} |" in shown
    assert AGREEMENT in (tmp_path / "report.html").read_text(encoding="utf-8")
    mixed = evaluate(tmp_path, *model, folder / "mixed.csv")
    assert any("no correlation" in warning for warning in mixed["warnings"])


def test_speech_is_compared_with_speech_as_people_do(data, tmp_path):
    """Ratings that follow the cosines of one model and not those of another."""
    folder, clips = data
    generator = np.random.default_rng(0)
    with np.load(folder / "good.npz") as arrays:
        speech = arrays["embeddings"] / np.linalg.norm(arrays["embeddings"], axis=1, keepdims=True)
    names = [row["audio"] for row in clips]
    pairs = [(i, (i + shift) % SIZE) for shift in (1, 2, 7) for i in range(SIZE)]
    cosines = np.array([speech[i] @ speech[j] for i, j in pairs])
    ratings = np.round(3 + 2 * cosines + 0.1 * generator.normal(size=len(pairs)), 2)
    lines = ["first,second,category,rating"]
    lines += [
        f"{names[i]},{names[j]},{('near', 'far')[n % 2]},{rating}"
        for n, ((i, j), rating) in enumerate(zip(pairs, ratings))
    ]
    (folder / "pairs.csv").write_text("\n".join(lines))
    model = [
        "--suite",
        "speech-similarity",
        "--model",
        f"good=file:{folder / 'good.npz'}",
        "random",
    ]
    metrics = evaluate(tmp_path, *model, "--data", folder / "pairs.csv")
    found = metrics["tables"]["all"]["good"]
    for name, correlation in (("pearson", pearsonr), ("spearman", spearmanr)):
        expected = correlation(cosines, ratings).statistic
        assert found[name]["value"] == pytest.approx(expected, abs=1e-6) and expected > 0.9
        assert found[name]["low"] < expected < found[name]["high"]
    assert set(metrics["tables"]) == {"near", "far", "all"} and metrics["agreement"] == {}
    assert any(w.startswith("random, all: no correlation") for w in metrics["warnings"])
    assert not any(w.startswith("good") for w in metrics["warnings"])


def test_speech_is_chosen_as_people_do(data, tmp_path):
    """Nine choices in ten follow the model; a tie of two equal clips is no right choice."""
    folder, clips = data
    with np.load(folder / "good.npz") as file:
        arrays = dict(file)
    speech = arrays["embeddings"] / np.linalg.norm(arrays["embeddings"], axis=1, keepdims=True)
    lines = ["clip,nearer,farther"]
    for i in range(SIZE):
        others = sorted(((i + 1) % SIZE, (i + 9) % SIZE), key=lambda j: -(speech[i] @ speech[j]))
        a, b = others[:: -1 if i % 10 == 0 else 1]
        lines.append(f"{clips[i]['audio']},{clips[a]['audio']},{clips[b]['audio']}")
    twin = Path(clips[1]["audio"]).with_name("twin.wav")
    shutil.copy(folder / clips[1]["audio"], folder / twin)
    lines.append(f"{clips[0]['audio']},{clips[1]['audio']},{twin}")
    arrays["paths"] = np.append(arrays["paths"], str(twin))
    arrays["embeddings"] = np.vstack([arrays["embeddings"], arrays["embeddings"][1]])
    np.savez(folder / "twins.npz", **arrays)
    (folder / "choices.csv").write_text("\n".join(lines))
    vectors = [f"{name}=file:{folder / 'twins.npz'}" for name in ("good", "same")]
    arguments = ["--suite", "speech-similarity", "--data", folder / "choices.csv", "--model"]
    metrics = evaluate(tmp_path, *arguments, *vectors, "random")
    found = metrics["tables"]["all"]["good"]["accuracy"]
    assert found["value"] == pytest.approx(0.9 * SIZE / (SIZE + 1)) and found["chance"] == 0.5
    assert 0.7 < found["low"] < found["value"] < found["high"]
    assert metrics["tables"]["all"]["random"]["accuracy"]["value"] < 0.8
    (compared,) = metrics["comparisons"]
    assert (compared["first"], compared["second"], compared["p_value"]) == ("good", "same", 1.0)
    assert "| accuracy | 88.5 (" in " ".join((tmp_path / "tables.md").read_text().split())


def test_probes_from_captions_and_from_their_file(data, tmp_path, capsys):
    folder, clips = data
    begins = {"softly": "begins softly and ends loudly", "loudly": "begins loudly and ends softly"}
    spoken = [
        {**row, "fine_captions": [f"A man {begins[('softly', 'loudly')[i % 2]]}."]}
        for i, row in enumerate(clips)
    ]
    write_manifest(folder / "spoken.arrow", spoken)
    words = [f"A {who} {what}." for who in ("man", "woman") for what in begins.values()]
    axes = torch.eye(5)
    arrays = {"paths": [row["audio"] for row in clips], "texts": words}
    # The first model knows the order and not the gender, the second one only the gender.
    vectors = {
        "knows": (axes[[i % 2 for i in range(SIZE)]], axes[[0, 1, 0, 1]]),
        "bag": (axes[[0] * SIZE], axes[[0, 0, 1, 1]]),
    }
    for name, (speech, text) in vectors.items():
        embeddings = {"embeddings": speech.numpy(), "text_embeddings": text.numpy()}
        np.savez(folder / f"{name}.npz", **arrays, **embeddings)
    prompts = {
        "gender": {
            "column": "gender",
            "prompts": {"male": [words[0], words[2]], "female": [words[1], words[1]]},
        }
    }
    (folder / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
    command = ["--suite", "probes", "--data", folder / "spoken.arrow", "--model"]
    command += [f"{name}=file:{folder / name}.npz" for name in vectors]
    command += [
        f"words=bag-of-words:{folder / 'spoken.arrow'}",
        f"oracle:{folder / 'spoken.arrow'}",
    ]
    command += ["--prompts", folder / "prompts.json"]
    made = evaluate(tmp_path / "made", *command)
    table = made["tables"]["probes"]
    accuracies = {name: {m: e["value"] for m, e in table[name].items()} for name in table}
    gender, order = "attribute: gender, captions", "order: loudness, captions"
    assert accuracies["knows"] == {"attribute": 0, gender: 0, "order": 1, order: 1}
    assert accuracies["bag"] == {"attribute": 1, gender: 1, "order": 0, order: 0}
    assert accuracies["words"][gender] == 1 and accuracies["words"][order] == 0
    (known,) = [name for name in accuracies if name.startswith("oracle")]
    assert set(accuracies[known]) == {"order", order}  # it knows no caption of a woman
    assert made["counts"]["probes"] == dict.fromkeys(accuracies["knows"], SIZE)
    margins = made["tables"]["probes: mean margins in cosine"]
    assert margins["knows"]["order margin"]["value"] == pytest.approx(1.0)
    # Clips of even number are nearest to the first prompt of each kind, and so on.
    wording = made["tables"]["unseen wording: unweighted average recall"]["knows"]
    assert set(wording) == {f"{t}, {n}" for t in ("gender", "mean") for n in
                            ("one prompt", "all prompts")}  # fmt: skip
    male = [row["gender"] == "male" for row in clips]
    right = [is_male == (i % 2 == 0) for i, is_male in enumerate(male)]
    recalls = [np.mean([r for r, m in zip(right, male) if m == one]) for one in (True, False)]
    assert wording["gender, one prompt"]["value"] == pytest.approx(np.mean(recalls))
    difference = {
        found["metric"]: found["difference"]["value"]
        for found in made["comparisons"]
        if found["table"] == "probes"
    }
    assert difference == {"attribute": -1, "order": 1}
    assert any("bag, probes: " in w or "knows, probes: attribute" in w for w in made["warnings"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "| order: loudness, captions | 60 | 100.0 (100.0-100.0) | 0.0 (0.0-0.0) |" in printed
    assert f"| {gender} | 60 | 100.0 |" in printed  # pairs, of clips
    assert printed.count(" - true: ") == 30

    pairs = tmp_path / "made" / "pairs.jsonl"
    given = evaluate(tmp_path / "given", *command, "--pairs", pairs)
    assert given["tables"] == made["tables"]
    assert [data["name"] for data in given["data"]] == ["spoken.arrow", "pairs.jsonl"]
    assert not (tmp_path / "given" / "pairs.jsonl").exists()


def test_the_page_plays_both_clips_of_a_pair(data, tmp_path):
    folder, clips = data
    pairs = [
        ProbePair("order", "loudness", "clips", "fine 3", "clip4", "clip3"),
        ProbePair("order", "loudness", "captions", "clip5", "fine 6 & so", "fine 5"),
    ]
    write_pairs(folder / "two.jsonl", pairs)
    spec = save_vectors(folder / "x.npz", clips, lambda row: [*own(row), "fine 6 & so"], 0.0)
    command = ("--suite", "probes", "--data", folder / "test.arrow", "--model", f"m={spec}")
    evaluate(tmp_path, *command, "--pairs", folder / "two.jsonl")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    cards = page.split('<div class="card">')[1:]
    players = {card.split("</b>")[0].split("<b>")[1]: card.count("<audio") for card in cards}
    assert players == {"order: loudness, clips": 2, "order: loudness, captions": 1}
    assert "fine <mark>6 &amp; so</mark>" in page


def test_probes_stand_beside_retrieval(data, tmp_path):
    folder, _ = data
    pairs = [ProbePair("order", "loudness", "captions", "clip5", "fine 5", "fine 6")]
    write_pairs(folder / "one.jsonl", pairs)
    models = {"m": open_model(f"file:{folder / 'good.npz'}")}
    evaluation = run_suite("fcaps", models, [folder / "test.arrow"])
    before = list(evaluation.tables)
    data = [folder / "test.arrow"]
    evaluation.merge(run_suite("probes", models, data, pairs=folder / "one.jsonl"))
    write_results(evaluation, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics["tables"])[: len(before)] == before
    assert metrics["tables"]["probes"]["m"]["order"]["value"] == 1.0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "worst retrievals" in page and "worst pairs" in page


def test_synthetic_speech_is_said_once(data, tmp_path):
    """If this fails, figures of a synthesizer's voices are taken for those of people."""
    folder, clips = data
    mini = folder / "mini.arrow"
    write_manifest(mini, [clips[0] | {"source": "mini_fcaps"}, *clips[1:]])
    models = {"m": open_model(f"file:{folder / 'good.npz'}")}
    evaluation = run_suite("fcaps", models, [mini])
    evaluation.merge(run_suite("fcaps", models, [mini]))
    assert evaluation.warnings.count(SYNTHETIC) == 1
    write_results(evaluation, tmp_path)
    assert SYNTHETIC in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert SYNTHETIC not in run_suite("fcaps", models, [folder / "test.arrow"]).warnings


def test_mistakes_get_one_line(data, tmp_path, capfd):
    folder, _ = data
    test, output = str(folder / "test.arrow"), ["--output", str(tmp_path)]
    for arguments, pattern in (
        (["--suite", "fcaps", "--model", "random"], "needs --data"),
        (["--suite", "fcaps", "--model", "a=random", "a=random", "--data", test], "of its own"),
        (["--suite", "fcaps", "--model", "random", "--data", test, test], "one data file"),
        (["--suite", "fcaps", "--model", "file:no.npz", "--data", test], "no.npz"),
        (["--suite", "similarity", "--model", "random", "--data", "no.csv"], "no.csv"),
        (["--suite", "speech-similarity", "--model", "random", "--data", "no.csv"], "no.csv"),
        (["--suite", "fcaps", "--model", "random", "--data", test, "--pairs", "x"], "of fcaps"),
        (
            ["--suite", "probes", "--model", "random", "--data", test, "--pairs", "no.jsonl"],
            "no.js",
        ),
        (["--suite", "probes", "--model", "random", "--data", test], "No caption gives a pair"),
        (["--suite", "probes", "--model", "random"], "data/mini_fcaps/probes.arrow"),
        (
            ["--suite", "fcaps", "--model", "random", "--data", test, "--ensemble"],
            "mini, zero-shot",
        ),
        (
            ["--suite", "fcaps", "--model", "random", "--data", test, "--audio-root", "."],
            "of fcaps",
        ),
    ):
        assert main(["evaluate", *arguments, *output]) == 2
        error = capfd.readouterr().err
        assert error.startswith("clsp: error: ") and error.count("\n") == 1, pattern
        assert pattern in error


def test_published_metrics_have_sources():
    entries = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert all(entry["source"] and 0 <= entry["value"] <= 1 for entry in entries)
    assert published_tables("mini") == {}
    (published,) = published_tables("zero-shot")["crema_d age"].values()
    assert published["UAR"].low is None


def test_published_metrics_stand_beside_their_own_test_set_alone(tmp_path):
    clips = rows(tmp_path, 3)
    write_manifest(tmp_path / "test.arrow", clips)
    report = {"settings": {"file": "fcaps-test.jsonl.gz"}}
    (tmp_path / "test_report.json").write_text(json.dumps(report))
    path = tmp_path / "test.arrow"
    assert is_published_test("fine", path, 241) and not is_published_test("fine", path, 240)
    (tmp_path / "test_report.json").write_text(json.dumps({"settings": {"file": "mine.jsonl"}}))
    assert not is_published_test("fine", path, 241)
    (tmp_path / "test_report.json").unlink()
    assert not is_published_test("fine", path, 241)
    assert is_published_test("iemocap emotion", path, 5531)
    assert not is_published_test("my emotion", path, 5531)
    assert not is_published_test("fusion", path, 3)

    estimate = {"ours": {"speech_to_text_R@1": Estimate(0.5)}}
    evaluation = Evaluation("fcaps", 0, tables={"global": estimate, "fine": estimate})
    evaluation.recognized = ["fine"]
    text = " ".join(markdown_tables(evaluation).split())
    assert "68.1 (62.1-74.1)" in text and "45.6" not in text
    assert "published metrics: arXiv 2601.03065 - published metrics of global are not" in text


def test_names_cannot_break_latex():
    tables = {"a_b": {"x_1 & 50%": {"WA": Estimate(0.5, 0.4, 0.6)}}}
    text = latex_tables(Evaluation("mini", 0, tables=tables))
    assert r"x\_1 \& 50\%" in text and r"\caption{a\_b}" in text


class Unused:
    """A model that must not be asked to embed anything."""

    model, revision, is_bound = "unused", "1", False

    def encode_files(self, paths):
        raise AssertionError("embedded before the data was checked")

    encode_text = encode_files

    def check_texts(self, texts, where):
        check_lengths(texts, self.tokenizer, 40, where)

    def tokenizer(self, texts):
        padding_mask = torch.arange(200) >= torch.tensor([len(text) for text in texts])[:, None]
        return padding_mask.long(), padding_mask


@pytest.mark.parametrize(
    ("suite", "change", "message"),
    [
        ("fcaps", {"audio": "absent.wav"}, r"1 of 3 clips cannot be read: 'clip1': .*absent.wav"),
        ("fcaps", {"fine_captions": ["f" * 41]}, "clip 'clip1': 41 tokens, 'fff"),
        ("fcaps", {"fine_captions": []}, "1 of 3 clips lack a fine caption, such as 'clip1'"),
        ("zero-shot", {"audio": "absent.wav"}, "'clip1': .*absent.wav"),
        ("zero-shot", {"gender": "robot"}, "Clip 'clip1': gender is 'robot'"),
        ("probes", {"audio": "absent.wav"}, "'clip1': .*absent.wav"),
    ],
)
def test_what_is_wrong_with_data_is_said_before_anything_is_embedded(
    tmp_path, suite, change, message
):
    clips = rows(tmp_path, 3)
    clips[1] |= change
    write_manifest(tmp_path / "test.arrow", clips)
    prompts = tmp_path / "prompts.json"
    task = {"column": "gender", "prompts": {"male": "A man.", "female": "A woman."}}
    prompts.write_text(json.dumps({"gender": task}))
    options = {"prompts": prompts} if suite == "zero-shot" else {}
    with pytest.raises(ValueError, match=message) as error:
        run_suite(suite, {"unused": Unused()}, [tmp_path / "test.arrow"], **options)
    assert "gender" in message or "lack" in message or "test.arrow" in str(error.value)


def test_prompts_and_rated_captions_that_are_too_long_are_named(tmp_path):
    write_manifest(tmp_path / "test.arrow", rows(tmp_path, 3))
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"sex": {"column": "gender", "prompts": {"male": "A" * 41}}}))
    with pytest.raises(ValueError, match="task 'sex': 41 tokens, 'AAA"):
        run_suite("zero-shot", {"x": Unused()}, [tmp_path / "test.arrow"], prompts=prompts)
    header = "clip,caption,category,rater,rating\n"
    (tmp_path / "r.csv").write_text(f"{header}0.wav,{'B' * 41},fusion,ann,3\n")
    with pytest.raises(ValueError, match="clip '0.wav': 41 tokens, 'BBB"):
        run_suite("similarity", {"x": Unused()}, [tmp_path / "r.csv"])
    (tmp_path / "r.csv").write_text(f"{header}absent.wav,B.,fusion,ann,3\n")
    with pytest.raises(ValueError, match="1 of 1 clips cannot be read: 'absent.wav'"):
        run_suite("similarity", {"x": Unused()}, [tmp_path / "r.csv"])
    (tmp_path / "r.csv").write_text("first,second,rating\n0.wav,absent.wav,3\n")
    with pytest.raises(ValueError, match="1 of 2 clips cannot be read: 'absent.wav'"):
        run_suite("speech-similarity", {"x": Unused()}, [tmp_path / "r.csv"])


def test_an_empty_manifest_is_refused_by_name(tmp_path):
    write_manifest(tmp_path / "none.arrow", [])
    for suite in ("mini", "fcaps", "zero-shot", "probes"):
        with pytest.raises(ValueError, match="none.arrow holds no clips"):
            run_suite(suite, {"x": Unused()}, [tmp_path / "none.arrow"])
