"""The commands of ``clsp`` that use or write models."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from speechbrain_clsp.cli.common import add_command
from speechbrain_clsp.utils.reading import read_json

if TYPE_CHECKING:
    from speechbrain_clsp import CLSP

DEFAULT_MODEL = "results/mini/model"


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands."""
    score = add_command(
        commands,
        run_score,
        "score",
        "similarity of a recording with captions, in [-1, 1], in the order given",
        'clsp score a.wav "A man whispers." "A woman speaks quickly."',
    )
    score.add_argument("audio")
    score.add_argument("captions", nargs="+")
    embed = add_command(
        commands,
        run_embed,
        "embed",
        "embeddings of recordings, as an .npz file with the arrays paths and embeddings",
        "clsp embed *.wav --output x.npz",
    )
    embed.add_argument("audio", nargs="+")
    embed.add_argument("--output", required=True, help="the .npz file to write")
    classify = add_command(
        commands,
        run_classify,
        "classify",
        "the prompt that describes a recording best, with probabilities",
        'clsp classify a.wav --prompts "A male speaker." "A female speaker."',
    )
    classify.add_argument("audio")
    classify.add_argument(
        "--prompts", nargs="+", required=True, help="the classes, or one .json file {label: prompt}"
    )
    for command in (score, embed, classify):
        command.add_argument(
            "--model",
            help=f"model folder or Hub repository; default: $CLSP_MODEL, else {DEFAULT_MODEL}",
        )
        command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...; default: cpu")
        command.add_argument("--json", action="store_true", help="print JSON")
    convert = add_command(
        commands,
        run_convert,
        "convert",
        "write a published checkpoint as a SpeechBrain-format folder, or the other way round",
        "clsp convert yfyeung/CLSP my_clsp --prompts emotions.json",
    )
    convert.add_argument("source", help="folder or Hub repository")
    convert.add_argument("folder", help="where the result goes")
    convert.add_argument("--revision", help="of the Hub repository")
    convert.add_argument("--prompts", help="a .json file {class: prompt}, to make a classifier")
    convert.add_argument(
        "--to-official", action="store_true", help="from SpeechBrain's format to published names"
    )
    publish = add_command(
        commands,
        run_publish,
        "publish",
        "upload a model folder to the Hugging Face Hub",
        "clsp publish results/mini/model user/name --dry-run",
    )
    publish.add_argument("folder", help="model folder")
    publish.add_argument("repository", help="user/name; made if it does not exist")
    publish.add_argument("--private", action="store_true", help="hide a new repository")
    publish.add_argument("--dry-run", action="store_true", help="only list what would be sent")


def run_score(options: argparse.Namespace) -> None:
    """Print a recording's similarity with captions."""
    scores = load_model(options).score_file(options.audio, options.captions).tolist()
    if options.json:
        print(json.dumps(dict(zip(options.captions, scores))))
        return
    for caption, score in zip(options.captions, scores):
        print(f"{score:+.3f}  {caption}")


def run_embed(options: argparse.Namespace) -> None:
    """Write embeddings of recordings."""
    import numpy as np

    from speechbrain_clsp.utils.files import atomic_path

    output = Path(options.output)
    if output.suffix != ".npz":
        raise ValueError(f"--output {output}: the name must end in .npz")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"--output {output}: make the folder {output.parent} first")
    embeddings = load_model(options).encode_files(options.audio, progress=sys.stderr.isatty())
    with atomic_path(output) as path:
        np.savez(path, paths=np.array(options.audio), embeddings=embeddings.numpy())
    summary = {"output": str(output), "files": len(embeddings), "dim": embeddings.shape[1]}
    if options.json:
        print(json.dumps(summary))
    else:
        print("{files} embeddings of size {dim} written to {output}".format(**summary))


def run_classify(options: argparse.Namespace) -> None:
    """Print which prompt describes a recording best."""
    prompts = read_prompts(options.prompts)
    labels = list(prompts)
    log_posteriors, _, _, (best,) = load_model(options).classify_file(options.audio, prompts)
    probabilities = dict(zip(labels, log_posteriors[0].exp().tolist()))
    if options.json:
        print(json.dumps({"label": best, "probabilities": probabilities}))
        return
    for label, probability in sorted(probabilities.items(), key=lambda item: -item[1]):
        print(f"{probability:.3f}  {label}")


def run_convert(options: argparse.Namespace) -> None:
    """Convert between the published form and SpeechBrain's."""
    from speechbrain_clsp import CLSP
    from speechbrain_clsp.pretrained.conversion import convert_official, export_official

    folder = Path(options.folder).expanduser()
    if options.to_official:
        if options.prompts:
            raise ValueError("--prompts has no place in the published form: leave it out")
        export_official(CLSP.from_pretrained(options.source), folder)
    else:
        prompts = read_prompts([options.prompts]) if options.prompts else None
        if prompts is not None and not isinstance(prompts, dict):
            raise ValueError(f"{options.prompts} must be a .json file {{class: prompt}}")
        convert_official(options.source, folder, options.revision, prompts)
    print(f"Written: {folder}")


def run_publish(options: argparse.Namespace) -> None:
    """Upload a model folder, or list what would be uploaded."""
    from speechbrain_clsp.pretrained.hub import publish

    files = publish(options.folder, options.repository, options.private, options.dry_run)
    for name in files:
        print(f"{(Path(options.folder) / name).stat().st_size:>13,}  {name}")
    done = "would be uploaded" if options.dry_run else "uploaded"
    print(f"{len(files)} files {done} to {options.repository}")


def read_prompts(words: list[str]) -> list[str] | dict:
    """Return the prompts on the command line, or those in the .json file named there."""
    if len(words) != 1 or not words[0].endswith(".json"):
        return words
    prompts = read_json(words[0])
    if not isinstance(prompts, dict | list):
        raise ValueError(f"{words[0]} must hold {{label: prompt}} or a list of prompts")
    return prompts


def load_model(options: argparse.Namespace) -> CLSP:
    """Load the model that the options, the environment or the working directory name."""
    source = options.model or os.environ.get("CLSP_MODEL")
    if not source:
        if not Path(DEFAULT_MODEL).is_dir():
            raise ValueError(
                f"no model: give --model FOLDER, set CLSP_MODEL, or run `make demo` to train"
                f" {DEFAULT_MODEL}"
            )
        source = DEFAULT_MODEL
    import torch

    from speechbrain_clsp import CLSP

    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--device {options.device} cannot be used: {reason}") from error
    return CLSP.from_pretrained(source, run_opts={"device": options.device})
