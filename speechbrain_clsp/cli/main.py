"""The command ``clsp``: scores, embeddings and classes from the shell."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from speechbrain_clsp.cli.annotate import add_annotate
from speechbrain_clsp.cli.data import COMMANDS, add_data_commands
from speechbrain_clsp.cli.evaluate import add_evaluate
from speechbrain_clsp.cli.judge import add_judge
from speechbrain_clsp.cli.rate import add_rate

NAMES = ("score", "embed", "classify", "convert", "publish", "evaluate", "annotate", "judge")
NAMES += ("rate", *COMMANDS)
DEFAULT_MODEL = "results/mini/model"
USER_ERROR = 2


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Arguments
    ---------
    arguments : list of str, optional
        What follows ``clsp``; default: the command line.

    Returns
    -------
    int
        0; 1 if a check found something; 2 after a mistake of the user's, which is told in one line
        on stderr.
    """
    options = parser().parse_args(arguments)
    try:
        with quiet_libraries():
            return options.run(options) or 0
    except (OSError, ValueError, TypeError) as error:
        print(f"clsp: error: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what libraries log, warn of or print to stderr away from the user.

    SpeechBrain logs every file it loads, and the mp3 decoder, which is C, writes notes about a bad
    file to file descriptor 2 itself. ``sys.stderr`` still works inside, for the progress bar.
    """
    descriptor = os.dup(2)
    logging.disable(logging.WARNING)
    try:
        with (
            os.fdopen(os.dup(2), "w") as stderr,
            redirect_stderr(stderr),
            open(os.devnull, "w") as nowhere,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(descriptor, 2)
        os.close(descriptor)
        logging.disable(logging.NOTSET)


class Parser(argparse.ArgumentParser):
    """Tells of a wrong command line in one line, as of all other mistakes."""

    def error(self, message: str) -> None:
        """Print the message and leave with exit code 2."""
        self.exit(USER_ERROR, f"clsp: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    top = Parser(
        prog="clsp",
        description="Compare speech with descriptions of how it is spoken.",
        epilog='example: clsp score a.wav "A man whispers." "A woman speaks quickly."',
    )
    commands = top.add_subparsers(required=True, metavar=f"{{{','.join(NAMES)}}}")
    score = _command(
        commands,
        run_score,
        "score",
        "similarity of a recording with captions, in [-1, 1], in the order given",
        'clsp score a.wav "A man whispers." "A woman speaks quickly."',
    )
    score.add_argument("audio")
    score.add_argument("captions", nargs="+")
    embed = _command(
        commands,
        run_embed,
        "embed",
        "embeddings of recordings, as an .npz file with the arrays paths and embeddings",
        "clsp embed *.wav --output x.npz",
    )
    embed.add_argument("audio", nargs="+")
    embed.add_argument("--output", required=True, help="the .npz file to write")
    classify = _command(
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
    _add_publishing(commands)
    add_data_commands(commands, _example)
    add_evaluate(commands, _example)
    add_annotate(commands, _example)
    add_judge(commands, _example)
    add_rate(commands, _example)
    return top


def _add_publishing(commands) -> None:
    """Add the commands that read or write whole models."""
    convert = _example(
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
    publish = _example(
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


def _example(commands, run, name: str, description: str, example: str):
    """Add a command with an example in its help."""
    command = commands.add_parser(
        name, help=description, description=description.capitalize(), epilog=f"example: {example}"
    )
    command.set_defaults(run=run)
    return command


def _command(commands, run, name: str, description: str, example: str):
    """Add a command that loads a model."""
    command = _example(commands, run, name, description, example)
    command.add_argument(
        "--model",
        help=f"model folder or Hub repository; default: $CLSP_MODEL, else {DEFAULT_MODEL}",
    )
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...; default: cpu")
    command.add_argument("--json", action="store_true", help="print JSON")
    return command


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

    output = Path(options.output)
    if output.suffix != ".npz":
        raise ValueError(f"--output {output}: the name must end in .npz")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"--output {output}: make the folder {output.parent} first")
    embeddings = load_model(options).encode_files(options.audio, progress=sys.stderr.isatty())
    partial = output.with_name(f".{output.name}.partial")
    with open(partial, "wb") as file:
        np.savez(file, paths=np.array(options.audio), embeddings=embeddings.numpy())
    os.replace(partial, output)
    summary = {"output": str(output), "files": len(embeddings), "dim": embeddings.shape[1]}
    text = "{files} embeddings of size {dim} written to {output}".format(**summary)
    print(json.dumps(summary) if options.json else text)


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

    if options.to_official:
        if options.prompts:
            raise ValueError("--prompts has no place in the published form: leave it out")
        export_official(CLSP.from_hparams(options.source), options.folder)
    else:
        prompts = read_prompts([options.prompts]) if options.prompts else None
        if prompts is not None and not isinstance(prompts, dict):
            raise ValueError(f"{options.prompts} must be a .json file {{class: prompt}}")
        convert_official(options.source, options.folder, options.revision, prompts)
    print(f"Written: {options.folder}")


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
    try:
        prompts = json.loads(Path(words[0]).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{words[0]} is not JSON: {error}") from error
    if not isinstance(prompts, dict | list):
        raise ValueError(f"{words[0]} must hold {{label: prompt}} or a list of prompts")
    return prompts


def load_model(options: argparse.Namespace):
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
    from speechbrain_clsp.pretrained.folder import HYPERPARAMS

    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--device {options.device} cannot be used: {reason}") from error
    run_opts = {"device": options.device}
    if (Path(source) / HYPERPARAMS).is_file():
        return CLSP.from_hparams(source, run_opts=run_opts)
    return CLSP.from_pretrained(source, run_opts=run_opts)  # runs no code of a repository's


if __name__ == "__main__":
    sys.exit(main())
