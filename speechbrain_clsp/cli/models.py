"""The commands of ``clsp`` that use or write models."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechbrain_clsp.cli.common import (
    DEFAULT_MODEL,
    InsteadOf,
    add_command,
    check_device,
    check_list,
    list_entries,
    name_of_model,
    write_list,
)
from speechbrain_clsp.cli.stores import add_store_options, embed_store, refuse_store_options
from speechbrain_clsp.utils.files import expand
from speechbrain_clsp.utils.reading import read_json, read_text

if TYPE_CHECKING:
    from speechbrain_clsp import CLSP

FILES = (".txt", ".csv", ".json", ".jsonl", ".npy", ".arrow", ".parquet", ".pt", ".wav")
RUNTIMES = ("onnx", "openvino")
EXPORT_PRECISIONS = ("auto", "fp32", "fp16", "bf16", "int8")
FILE_NAME = re.compile(
    r"\S+\.(wav|flac|mp3|ogg|opus|m4a|aac|txt|json|jsonl|csv|tsv|yaml|yml)", re.IGNORECASE
)


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands."""
    score = add_command(
        commands,
        run_score,
        "score",
        "similarity of recordings with captions, in [-1, 1], in the order given",
        'clsp score a.wav "A man whispers." "A woman speaks quickly."',
    )
    score.add_argument("audio", help="recording")
    captions = score.add_argument(
        "captions", nargs="+", help="what it is compared with; with --captions, further recordings"
    )
    score.add_argument(
        "--captions",
        action=InsteadOf,
        positional=captions,
        nargs="+",
        dest="texts",
        metavar="CAPTION",
        help="what all recordings before are compared with",
    )
    embed = add_command(
        commands,
        run_embed,
        "embed",
        "embeddings of recordings, as an .npz file or, for a whole corpus, as a store",
        "clsp embed train.arrow --output train_store",
    )
    embed.add_argument(
        "audio",
        nargs="+",
        help="recordings; for a store also a manifest, folders, patterns, .txt lists of files",
    )
    embed.add_argument(
        "--output",
        required=True,
        help="an .npz file with the arrays paths and embeddings; or a folder, the store, which is"
        " continued if it was begun, by any number of processes at once",
    )
    add_store_options(embed)
    classify = add_command(
        commands,
        run_classify,
        "classify",
        "the prompt that describes recordings best, with probabilities",
        'clsp classify a.wav --prompts "A male speaker." "A female speaker."',
    )
    classify.add_argument("audio", nargs="+", help="recordings")
    classify.add_argument(
        "--prompts",
        nargs="+",
        required=True,
        help="the classes, or one file: .txt with a prompt per line, or .json {label: prompt}",
    )
    for command in (score, embed, classify):
        place = "in OUTPUT.bad.txt" if command is embed else "on stderr"
        command.add_argument(
            "--skip-bad",
            action="store_true",
            help=f"leave bad recordings out, and list them {place}",
        )
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
        "write a published or a fine-tuned model as a SpeechBrain-format folder, or the published"
        " form of a model",
        "clsp convert yfyeung/CLSP my_clsp --prompts emotions.json",
    )
    convert.add_argument("source", help="folder or Hub repository")
    convert.add_argument("folder", help="where the result goes")
    convert.add_argument("--revision", help="of the Hub repository")
    convert.add_argument("--prompts", help="a .json file {class: prompt}, to make a classifier")
    convert.add_argument(
        "--to-official", action="store_true", help="from SpeechBrain's format to published names"
    )
    export = add_command(
        commands,
        run_export,
        "export",
        "write a model for ONNX Runtime or OpenVINO, which embed faster on CPUs",
        "clsp export results/mini/model fast --runtime openvino",
    )
    export.add_argument("source", help="folder or Hub repository")
    export.add_argument("folder", help="where the result goes; a model as any other")
    export.add_argument("--runtime", choices=RUNTIMES, default="onnx", help="default: onnx")
    export.add_argument(
        "--precision",
        choices=EXPORT_PRECISIONS,
        default="fp32",
        help="fp32; fp16, of weights in files; bf16, of OpenVINO's arithmetic; int8, of products"
        " with weights; auto: fp16, or bf16 if that is faster here. Default: fp32",
    )
    export.add_argument(
        "--manifest", help="clips with captions, on which it is compared; needed for int8"
    )
    export.add_argument("--revision", help="of the Hub repository")
    publish = add_command(
        commands,
        run_publish,
        "publish",
        "upload a model folder to the Hugging Face Hub",
        "clsp publish results/mini/model user/name --dry-run",
    )
    publish.add_argument("folder", help="model folder")
    publish.add_argument("repository", help="user/name; made if it does not exist")
    publish.add_argument(
        "--space",
        action="store_true",
        help="upload a Hugging Face Space instead, which serves the model with its page",
    )
    publish.add_argument("--private", action="store_true", help="hide a new repository")
    publish.add_argument("--dry-run", action="store_true", help="only list what would be sent")


def run_score(options: argparse.Namespace) -> None:
    """Print the similarity of recordings with captions."""
    paths, captions = [options.audio], options.captions
    if options.texts:
        paths, captions = paths + (captions or []), options.texts
    refuse_files(captions)
    clsp = load_model(options)
    text = clsp.encode_text(captions)
    found = work_on_files(
        paths, lambda path: (clsp.encode_file(path) @ text.T).tolist(), options.skip_bad
    )
    if options.json:
        scores = {path: dict(zip(captions, values)) for path, values in found.items()}
        print(json.dumps(scores[paths[0]] if len(paths) == 1 else scores))
        return
    for path, values in found.items():
        for caption, score in zip(captions, values):
            print(f"{score:+.3f}  {f'{path}  ' if len(paths) > 1 else ''}{caption}")


def run_embed(options: argparse.Namespace) -> None:
    """Write embeddings of recordings: of a few as one file, of a corpus as a store."""
    import numpy as np

    from speechbrain_clsp.utils.files import atomic_path, check_replaceable

    output = Path(options.output)
    if output.suffix.lower() in FILES and not output.is_dir():
        raise ValueError(f"--output {output}: the name must end in .npz, or be that of a folder")
    if output.suffix != ".npz":
        return embed_store(options)
    refuse_store_options(options)
    bad_list = output.with_name(f"{output.name}.bad.txt")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"--output {output}: make the folder {output.parent} first")
    check_replaceable(output, holds_embeddings, "a file of embeddings")
    check_list(bad_list)
    clsp = load_model(options)
    embeddings = clsp.encode_files(
        options.audio,
        on_error="skip" if options.skip_bad else "raise",
        progress=sys.stderr.isatty(),
    )
    good = embeddings.isfinite().all(dim=1)
    paths = [path for path, is_good in zip(options.audio, good.tolist()) if is_good]
    bad = [path for path, is_good in zip(options.audio, good.tolist()) if not is_good]
    with atomic_path(output) as path:
        np.savez(path, paths=np.array(paths), embeddings=embeddings[good].numpy())
    reasons = [reason_of(clsp, path) for path in bad]
    write_list(bad_list, reasons)
    summary = {"output": str(output), "files": len(paths), "dim": embeddings.shape[1]}
    if options.json:
        print(json.dumps({**summary, "bad": len(bad)} if options.skip_bad else summary))
    else:
        print("{files} embeddings of size {dim} written to {output}".format(**summary))
    if bad:
        print(f"{len(bad)} of {len(options.audio)} files left out, see {bad_list}", file=sys.stderr)


def run_classify(options: argparse.Namespace) -> None:
    """Print which prompt describes recordings best."""
    prompts, paths = read_prompts(options.prompts), options.audio
    clsp, labels = load_model(options), list(prompts)
    found = {}
    answers = work_on_files(paths, lambda path: clsp.classify_file(path, prompts), options.skip_bad)
    for path, (log_posteriors, _, _, (best,)) in answers.items():
        probabilities = dict(zip(labels, log_posteriors[0].exp().tolist()))
        found[path] = {"label": best, "probabilities": probabilities}
    if options.json:
        print(json.dumps(found[paths[0]] if len(paths) == 1 else found))
    elif len(paths) > 1:
        for path, answer in found.items():
            print(f"{answer['probabilities'][answer['label']]:.3f}  {path}  {answer['label']}")
    else:
        probabilities = found[paths[0]]["probabilities"]
        for label, probability in sorted(probabilities.items(), key=lambda item: -item[1]):
            print(f"{probability:.3f}  {label}")


def work_on_files(
    paths: Sequence[str], work: Callable[[str], Any], skip_bad: bool
) -> dict[str, Any]:
    """Return what is found about each recording, by its path.

    Arguments
    ---------
    paths : list of str
        The recordings.
    work : callable
        Gets a path.
    skip_bad : bool
        Whether bad recordings are left out, and listed on stderr, as long as one is good.

    Raises
    ------
    FileNotFoundError, AudioError
        What is wrong with one recording, or a list.
    """
    from speechbrain_clsp.dataio.audio import AudioError
    from speechbrain_clsp.inference.files import report_bad_files

    found, errors = {}, {}
    for number, path in enumerate(paths):
        try:
            found[path] = work(path)
        except (AudioError, OSError) as error:
            errors[number] = error
    report_bad_files(errors, len(paths), "skip" if skip_bad else "raise")
    if errors:
        reasons = [" ".join(str(errors[number]).split()) for number in sorted(errors)]
        print(f"{len(errors)} of {len(paths)} files left out:", file=sys.stderr)
        print(list_entries(reasons), file=sys.stderr)
    return found


def reason_of(clsp: CLSP, path: str) -> str:
    """Return what is wrong with a recording, in a line that names it."""
    try:
        clsp.encode_file(path)
    except (OSError, ValueError) as error:
        return " ".join(str(error).split())
    return f"{path}: its embedding is NaN or infinite"


def holds_embeddings(path: Path) -> bool:
    """Return whether a file is what ``clsp embed`` writes."""
    try:
        with zipfile.ZipFile(path) as file:
            return set(file.namelist()) == {"paths.npy", "embeddings.npy"}
    except zipfile.BadZipFile:
        return False


def run_convert(options: argparse.Namespace) -> None:
    """Convert between the published form and SpeechBrain's."""
    from speechbrain_clsp import CLSP
    from speechbrain_clsp.pretrained.adapters import find_adapters
    from speechbrain_clsp.pretrained.conversion import (
        convert_official,
        export_official,
        merge_adapters,
    )
    from speechbrain_clsp.pretrained.exported import find_export
    from speechbrain_clsp.pretrained.folder import find_source

    folder = expand(options.folder)
    if find_export(find_source(options.source), options.revision):
        raise ValueError(f"{options.source} was exported: convert the model that it was made of")
    if options.to_official:
        if options.prompts:
            raise ValueError("--prompts has no place in the published form: leave it out")
        export_official(CLSP.from_pretrained(options.source, options.revision), folder)
    else:
        prompts = read_prompts([options.prompts]) if options.prompts else None
        if prompts is not None and not isinstance(prompts, dict):
            raise ValueError(f"{options.prompts} must be a .json file {{class: prompt}}")
        if find_adapters(find_source(options.source), options.revision):
            clsp = CLSP.from_pretrained(options.source, options.revision)
            merge_adapters(clsp, options.source, folder, options.revision, prompts)
        else:
            convert_official(options.source, folder, options.revision, prompts)
    print(f"Written: {folder}")


def run_export(options: argparse.Namespace) -> None:
    """Write a model for another runtime."""
    from speechbrain_clsp import CLSP

    clsp = CLSP.from_pretrained(options.source, options.revision, {"device": "cpu"})
    export = clsp.export(options.folder, options.runtime, options.precision, options.manifest)
    folder = expand(options.folder)
    for name in export.files:
        print(f"{(folder / name).stat().st_size:>13,}  {name}")
    checks = export.checks or {}
    print(
        f"Written: {folder}, for {export.runtime} in {export.precision}; least cosine with the"
        f" model {checks['speech']:.6f} of clips, {checks['text']:.6f} of captions"
    )


def run_publish(options: argparse.Namespace) -> None:
    """Upload a model folder, or list what would be uploaded."""
    from speechbrain_clsp.pretrained.hub import publish

    if options.space:
        from speechbrain_clsp.serve.space import publish_space

        sizes = publish_space(options.folder, options.repository, options.private, options.dry_run)
    else:
        files = publish(options.folder, options.repository, options.private, options.dry_run)
        folder = expand(options.folder)
        sizes = {name: (folder / name).stat().st_size for name in files}
    for name, size in sizes.items():
        print(f"{size:>13,}  {name}")
    done = "would be uploaded" if options.dry_run else "uploaded"
    print(f"{len(sizes)} files {done} to {options.repository}")


def read_prompts(words: list[str]) -> list[str] | dict:
    r"""Return the prompts on the command line, or those in the one file named there.

    Raises
    ------
    ValueError
        If the file holds none, is neither ``.txt`` nor ``.json``, or is one word of several.

    Example
    -------
    >>> path = getfixture("tmp_path") / "prompts.txt"
    >>> _ = path.write_text("A man speaks.\n\nA woman speaks.\n")
    >>> read_prompts([str(path)])
    ['A man speaks.', 'A woman speaks.']
    """
    path = Path(words[0])
    if len(words) > 1 or path.suffix.lower() not in (".json", ".txt"):
        refuse_files(words)
        return words
    if path.suffix.lower() == ".txt":
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        if not lines:
            raise ValueError(f"{path} holds no prompt: write one per line")
        return lines
    prompts = read_json(path)
    if not isinstance(prompts, dict | list):
        raise ValueError(f"{path} must hold {{label: prompt}} or a list of prompts")
    return prompts


def refuse_files(texts: Sequence[str]) -> None:
    """Raise ValueError if a caption or a prompt is the name of a file, or looks like one.

    Example
    -------
    >>> refuse_files(["A man speaks.", "b.wav"])
    Traceback (most recent call last):
    ...
    ValueError: b.wav looks like the name of a file, not like a text, and there is no such file
    """
    for text in texts:
        if os.path.isfile(text):
            raise ValueError(
                f"{text} is a file, not a text: recordings stand before --captions and --prompts;"
                " of prompts, name one .txt or .json file alone"
            )
        if FILE_NAME.fullmatch(text):
            raise ValueError(
                f"{text} looks like the name of a file, not like a text, and there is no such file"
            )


def load_model(options: argparse.Namespace) -> CLSP:
    """Load the model that the options, the environment or the working directory name."""
    from speechbrain_clsp import CLSP

    source = name_of_model(options)
    check_device(options.device)
    return CLSP.from_pretrained(source, run_opts={"device": options.device})
