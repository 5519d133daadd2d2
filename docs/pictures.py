"""Make the pictures of the guide from a model of ``make demo``.

> python docs/pictures.py --results results/mini --data data/mini_fcaps

Screenshots need Chromium.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch

from speechbrain_clsp import CLSP, StyleReward
from speechbrain_clsp.dataio import Manifest, read_audio

HERE = Path(__file__).parent
ROOT = HERE.parent
FOLDER = HERE / "pictures"


def save(figure: plt.Figure, name: str) -> None:
    """Write a figure without the time, so that the same values give the same file."""
    figure.savefig(FOLDER / name, metadata={"Date": None})
    plt.close(figure)


def run(*words: str) -> None:
    """Run a command of ``clsp``."""
    subprocess.run([sys.executable, "-m", "speechbrain_clsp.cli", *words], cwd=ROOT, check=True)


def photograph(page: Path, name: str, height: int) -> None:
    """Take a screenshot of the top of a page, 900 pixels wide."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options += [f"--window-size=900,{height}", f"--screenshot={FOLDER / name}"]
    subprocess.run(["chromium", *options, page.resolve().as_uri()], check=True)


def draw_timeline(results: Path, data: Path) -> None:
    """Draw cosines with two texts over a clip that gets louder."""
    clsp = CLSP.from_pretrained(str(results / "model"))
    row = next(r for r in Manifest(data / "test.arrow") if r["labels"].get("change") == "louder")
    texts = ["A person speaks softly.", "A person speaks loudly."]
    curve = clsp.timeline(row["audio"], texts, window=0.8, hop=0.1)
    wav = read_audio(row["audio"])
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 3.6), sharex=True, layout="constrained")
    parts = wav[: len(wav) // 160 * 160].view(-1, 160)  # of 10 ms
    top.fill_between(torch.arange(len(parts)) / 100, parts.amin(1), parts.amax(1), color="gray")
    top.set_ylabel("samples")
    for text, line in zip(curve.texts, curve.scores.T):
        bottom.plot(curve.times, line, label=text)
    bottom.set(xlabel="seconds", ylabel="cosine")
    bottom.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    save(figure, "timeline.svg")


def draw_learning(results: Path, data: Path) -> None:
    """Draw the loss over the steps of a training."""
    lines = (results / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line) for line in lines]
    figure, axis = plt.subplots(figsize=(7, 2.6))
    axis.plot([one["step"] for one in steps], [one["loss"] for one in steps], label="loss")
    axis.set(xlabel="step", ylabel="loss", ylim=(0, None))
    axis.legend()
    save(figure, "learning.svg")


def draw_reward(results: Path, data: Path) -> None:
    """Draw rewards of clips for their caption, for one false in one thing, and for another's."""
    clsp = CLSP.from_pretrained(str(results / "model"))
    rows = list(Manifest(data / "test.arrow"))[:60]
    reward = StyleReward(clsp)
    own = [row["global_captions"][0] for row in rows]
    false = [reward.contrasts(caption)[0] for caption in own]
    other = own[1:] + own[:1]
    figure, axis = plt.subplots(figsize=(7, 2.6))
    wavs = [read_audio(row["audio"]) for row in rows]
    for place, captions in enumerate((own, false, other)):
        values = [float(reward(wav[None], [text])) for wav, text in zip(wavs, captions)]
        axis.scatter(values, place + torch.linspace(-0.25, 0.25, len(values)), s=14)
    names = ["its own caption", "the same, false in one attribute", "another clip's caption"]
    axis.set_yticks(range(3), names)
    axis.set_xlabel("reward, cosine")
    axis.invert_yaxis()
    save(figure, "reward.svg")


def draw_finetuning(results: Path, data: Path) -> None:
    """Draw before and after a fine-tuning, of the first table of its results."""
    page = (HERE / "results/finetuning.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|[^|]*\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| [+-]", page, flags=re.M)
    figure, axis = plt.subplots(figsize=(7, 3))
    for place, (_, before, after) in enumerate(rows):
        (line,) = axis.plot([float(before), float(after)], [place, place], color=f"C{place == 0:d}")
        axis.plot(float(after), place, "o", color=line.get_color())
    axis.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axis.set_xlabel("%, from before to after (dot)")
    axis.invert_yaxis()
    save(figure, "finetuning.svg")


def show_report(results: Path, data: Path) -> None:
    """Show the report of what bounds reach on minimal pairs, which is the same for all models."""
    with TemporaryDirectory() as name:
        truth = str(data / "probes.arrow")
        models = ("random", f"words=bag-of-words:{truth}")
        inputs = ("--data", truth, "--pairs", str(data / "pairs.jsonl"), "--model", *models)
        run("evaluate", "--suite", "probes", *inputs, "--output", name)
        photograph(Path(name) / "report.html", "report.png", 560)


def show_hits(results: Path, data: Path) -> None:
    """Show hits of a search."""
    with TemporaryDirectory() as name:
        store, index, page = (f"{name}/{part}" for part in ("store", "index", "hits.html"))
        model = ("--model", str(results / "model"))
        run("embed", str(data / "test.arrow"), "--output", store, *model)
        run("index", store, "--output", index)
        text = "A whispering speaker speeds up."
        run("search", index, text, "--top", "4", "--output", page)
        photograph(Path(page), "hits.png", 600)


PICTURES: dict[str, Callable[[Path, Path], None]] = {
    "timeline": draw_timeline,
    "learning": draw_learning,
    "reward": draw_reward,
    "finetuning": draw_finetuning,
    "report": show_report,
    "hits": show_hits,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the pictures of the guide.")
    parser.add_argument("--results", type=Path, default=ROOT / "results/mini")
    parser.add_argument("--data", type=Path, default=ROOT / "data/mini_fcaps")
    parser.add_argument("--only", nargs="+", choices=PICTURES, default=list(PICTURES))
    options = parser.parse_args()
    plt.style.use(HERE / "tutorials/figures.mplstyle")
    for picture in options.only:
        PICTURES[picture](options.results, options.data)
