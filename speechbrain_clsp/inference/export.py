"""A CLSP exported to another runtime, and compared with itself before anything is written."""

from __future__ import annotations

import importlib
import math
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from speechbrain.inference.interfaces import Pretrained
from torch import Tensor, nn

from speechbrain_clsp.dataio.audio import SAMPLE_RATE
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.dataio.tokenizers import count_tokens
from speechbrain_clsp.inference.files import embed_rows, pad, spread_rows
from speechbrain_clsp.pretrained.background import read_background, write_background
from speechbrain_clsp.pretrained.exported import (
    EXPORT,
    Export,
    ExportedSpeechTower,
    load_export,
    needs_extra,
    open_graph,
)
from speechbrain_clsp.pretrained.folder import (
    CONFIG,
    GRAPHS,
    new_folder,
    sha256_of_weights,
    write_about,
)
from speechbrain_clsp.pretrained.graphs import (
    find_sensitive,
    halve,
    open_onnx,
    quantize,
    save_onnx,
    save_openvino,
    split_softplus,
    trace_speech,
    trace_text,
)
from speechbrain_clsp.utils.files import sha256_of_file

PRECISIONS = {
    "onnx": ("fp32", "fp16", "int8", "auto"),
    "openvino": ("fp32", "fp16", "bf16", "int8", "auto"),
}
# Least cosine with what torch computes in fp32, of any of the clips and captions below.
LEAST_COSINE = {"fp32": 0.99999, "fp16": 0.9995, "bf16": 0.9995, "int8": 0.995}
MOST_LOSS = 1.0  # points of R@1
MOST_ROWS = 1000  # of a manifest
LIBRARIES = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "onnxruntime", "openvino")}
TRIALS, WORTHWHILE = 3, 0.9  # of a choice of precision
# Lengths of the clips that are compared, in batches, in seconds; none that a graph is traced with.
CLIPS = ((0.1,), (1.2345,), (0.1001, 0.73, 2.6), (7.77, 0.31))
CAPTIONS = (  # the first two are what graphs are traced with
    "A man whispers.",
    "Loud!",
    "A woman with a high-pitched voice and a Scottish accent speaks quickly, then pauses.",
    "The speaker begins softly and slowly; towards the end, the voice rises and gets louder.",
)
ORIGIN = """Exported from `{source}` for {runtime} in {precision}: graphs, not code. Opened by
`CLSP.from_pretrained` where the extra `export` is installed."""


def export_model(
    clsp: Pretrained,
    folder: str | os.PathLike,
    runtime: str = "onnx",
    precision: str = "fp32",
    manifest: str | os.PathLike | None = None,
) -> Export:
    """Write a model's towers as graphs; see :meth:`~speechbrain_clsp.inference.clsp.CLSP.export`.

    Arguments
    ---------
    clsp : CLSP
        The model, in fp32 and on the CPU.
    folder, runtime, precision, manifest
        As there.

    Returns
    -------
    Export
        What the folder's ``config.json`` says.

    Raises
    ------
    FileExistsError, ValueError
        As there.
    """
    check_choice(runtime, precision)
    check_installed(runtime)
    if precision == "int8" and manifest is None:
        raise ValueError("int8 needs a manifest of clips, on which it is compared with the model")
    pairs = read_pairs(manifest) if manifest is not None else []
    towers = clsp.mods.speech_tower, clsp.mods.text_tower
    for tower in towers:
        if any(p.dtype != torch.float32 or p.device.type != "cpu" for p in tower.parameters()):
            raise ValueError("Export a model that was opened on the CPU in fp32")
    background = clsp._background_file and read_background(clsp._background_file)
    tokenizer, names = clsp.hparams.tokenizer, GRAPHS[runtime]
    kinds = [(CONFIG, each[0]) for each in GRAPHS.values()]
    own = [name for each in GRAPHS.values() for name in each]
    with (
        tempfile.TemporaryDirectory() as temporary,
        new_folder(folder, *kinds, own=own) as partial,
    ):
        traced = [Path(temporary) / name for name in GRAPHS["onnx"][:2]]
        trace_speech(towers[0], traced[0])
        tokens, padding_mask = tokenizer(list(CAPTIONS[:2]))
        trace_text(towers[1], tokens, padding_mask, traced[1])
        checks: dict[str, Any] = {}
        stored = "fp16" if precision == "auto" else precision
        for path, name in zip(traced, names):
            sensitive = _convert(path, partial / name, runtime, stored, tokenizer)
            checks |= {f"{path.stem} kept in fp32": sensitive} if sensitive else {}
        if precision == "auto":
            precision, seconds = choose_precision(partial / names[0], runtime)
            checks["seconds"] = seconds
        tokenizer.save(partial / tokenizer.FILENAME)
        export = Export(
            runtime=runtime,
            precision=precision,
            weights_sha256=sha256_of_weights(clsp.mods),
            n_parameters=sum(p.numel() for p in clsp.parameters()),
            max_tokens=int(towers[1].max_tokens),
            vocab_size=int(towers[1].vocab_size),
            logit_scale=clsp.mods.logit_scale().item(),
            tokenizer=tokenizer.FILENAME,
            files={path.name: sha256_of_file(path) for path in sorted(partial.iterdir())},
            prompts=getattr(clsp.hparams, "prompts", None),
        )
        modules, hparams = load_export(partial, export)
        if precision != "int8":  # made-up sounds would say little of rounding
            checks |= compare_towers(clsp.mods, modules, tokenizer)
        if pairs:
            other = type(clsp)(modules, hparams, {"device": "cpu"})
            found = compare_on_pairs(clsp, other, pairs)
            for name in ("speech", "text"):
                found[name] = least([found[name], checks.get(name, 1.0)])
            checks |= found
        check_results(checks, runtime, precision)
        export = replace(export, checks=checks)
        origin = ORIGIN.format(source=clsp.source, runtime=runtime, precision=precision)
        write_about(partial, {EXPORT: asdict(export)}, origin=origin)
        if background is not None:
            write_background(partial, *background)
    return export


def check_choice(runtime: str, precision: str) -> None:
    """Raise ValueError if a runtime is unknown, or cannot compute in a precision.

    Example
    -------
    >>> check_choice("onnx", "bf16")
    Traceback (most recent call last):
    ...
    ValueError: ONNX Runtime has no bf16 on CPUs: choose one of fp32, fp16, int8, auto
    """
    if runtime not in PRECISIONS:
        raise ValueError(f"runtime must be one of {list(PRECISIONS)}, not {runtime!r}")
    choices = ", ".join(PRECISIONS[runtime])
    if (runtime, precision) == ("onnx", "bf16"):
        raise ValueError(f"ONNX Runtime has no bf16 on CPUs: choose one of {choices}")
    if precision not in PRECISIONS[runtime]:
        raise ValueError(f"precision must be one of {choices} for {runtime}, not {precision!r}")


def check_installed(runtime: str) -> None:
    """Raise ValueError if a library of the extra is missing, before minutes are spent."""
    try:
        for name in LIBRARIES[runtime]:
            importlib.import_module(name)
    except ImportError as error:
        raise ValueError(needs_extra("Exporting a model", error)) from error


def _convert(traced: Path, path: Path, runtime: str, precision: str, tokenizer: Any) -> list[str]:
    """Write a traced graph as it is stored; returns products that are too sensitive for int8."""
    if precision == "int8":
        if traced.stem == "speech":
            wavs, wav_lens = pad([make_clip(each, seed) for seed, each in enumerate((2.0, 1.3))])
            n_samples = (wav_lens * wavs.shape[1]).round().long()
            inputs = {"wavs": wavs.numpy(), "n_samples": n_samples.numpy()}
        else:
            tokens, padding_mask = tokenizer(list(CAPTIONS[:2]))
            inputs = {"tokens": tokens.numpy(), "padding_mask": padding_mask.numpy()}
        sensitive = find_sensitive(traced, inputs)
        quantize(traced, sensitive, is_dynamic=runtime == "onnx")
    if runtime == "openvino":
        save_openvino(traced, path, half=precision != "fp32")
    else:
        model = open_onnx(traced)
        split_softplus(model)
        if precision != "fp32":
            halve(model)
        save_onnx(model, path)
    return sorted(sensitive) if precision == "int8" else []


def choose_precision(path: Path, runtime: str) -> tuple[str, dict[str, float]]:
    """Choose what embeds speech fastest on this machine, of weights that are stored as float16.

    Many machines compute bf16 slower than fp32, and names of instruction sets do not tell which.

    Arguments
    ---------
    path : pathlib.Path
        The speech graph.
    runtime : str
        As for :func:`export_model`.

    Returns
    -------
    precision : str
        ``fp16`` (arithmetic in fp32), or ``bf16`` if that takes less than 0.9 of the time.
    seconds : dict of float
        What each takes for two clips of ten seconds.
    """
    choices = [each for each in PRECISIONS[runtime] if each in ("fp16", "bf16")]
    towers = {each: ExportedSpeechTower(open_graph(path, runtime, each)) for each in choices}
    clips = torch.stack([make_clip(10.0, seed) for seed in range(2)])
    seconds = dict.fromkeys(choices, math.inf)
    for _ in range(TRIALS):  # in turn, so that what else the machine does falls on all
        for name, tower in towers.items():
            start = time.perf_counter()
            tower(clips)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    is_faster = seconds.get("bf16", math.inf) < WORTHWHILE * seconds["fp16"]
    return ("bf16" if is_faster else "fp16"), seconds


@torch.no_grad()
def compare_towers(
    towers: Mapping[str, nn.Module], exported: Mapping[str, nn.Module], tokenizer: Any
) -> dict[str, float]:
    """Return the least cosines of what two pairs of towers compute.

    Arguments
    ---------
    towers, exported : dict of nn.Module
        With a ``speech_tower`` and a ``text_tower`` each.
    tokenizer : callable
        Of both.

    Returns
    -------
    dict of float
        ``speech`` and ``text``, over clips of 0.1 to 8 s and captions, in batches and alone.
    """
    found: dict[str, list[float]] = {"speech": [], "text": []}
    for seconds in CLIPS:
        batch = pad([make_clip(each, seed) for seed, each in enumerate(seconds)])
        pair = towers["speech_tower"](*batch), exported["speech_tower"](*batch)
        found["speech"].append(_cosine(*pair))
    counts = count_tokens(tokenizer, CAPTIONS).tolist()
    fitting = [text for text, n in zip(CAPTIONS, counts) if n <= exported["text_tower"].max_tokens]
    for some in (fitting, fitting[:1]):
        batch = tokenizer(some)
        pair = towers["text_tower"](*batch), exported["text_tower"](*batch)
        found["text"].append(_cosine(*pair))
    return {name: least(cosines) for name, cosines in found.items()}


def least(values: Iterable[float]) -> float:
    """Return the least value, and NaN if one is NaN, which Python's ``min`` passes over.

    Example
    -------
    >>> least([0.5, float("nan"), 1.0])
    nan
    """
    return torch.tensor(list(values), dtype=torch.float64).min().item()


def read_pairs(manifest: str | os.PathLike) -> list[tuple[dict[str, Any], str]]:
    """Return clips of a manifest, a thousand at most, with one of their captions each.

    Raises
    ------
    ValueError
        If a clip has no caption.
    """
    pairs = []
    for row in spread_rows(Manifest(manifest), MOST_ROWS):
        captions = [each for each in (*row["global_captions"], *row["fine_captions"]) if each]
        if not captions:
            raise ValueError(f"{manifest}: the clip {row['id']} has no caption to compare with")
        pairs.append((row, captions[0]))
    return pairs


@torch.no_grad()
def compare_on_pairs(
    clsp: Any, other: Any, pairs: Sequence[tuple[Mapping[str, Any], str]]
) -> dict[str, float]:
    """Return the least cosines of two models' embeddings of clips and captions, and their R@1.

    Arguments
    ---------
    clsp, other : CLSP
        The models.
    pairs : list of (dict, str)
        Rows of a manifest, and a caption of each.

    Raises
    ------
    ValueError
        If there is a clip that only ``clsp`` embeds.
    """
    rows, captions = zip(*pairs)
    speech = [embed_rows(each, rows) for each in (clsp, other)]
    good = sorted(speech[0])
    if lost := sorted(set(good) - set(speech[1])):
        raise ValueError(
            f"Not exported: {len(lost)} clips that the model embeds have no embedding then, such as"
            f" {rows[lost[0]]['id']}"
        )
    captions = [captions[number] for number in good]
    ours, theirs = (torch.stack([found[number] for number in good]) for found in speech)
    texts = [each.encode_text(captions) for each in (clsp, other)]
    return {
        "clips": len(good),
        "speech": _cosine(ours, theirs),
        "text": _cosine(*texts),
        "R@1 of the model": recall_at_1(ours, texts[0], captions),
        "R@1": recall_at_1(theirs, texts[1], captions),
    }


def recall_at_1(speech: Tensor, text: Tensor, captions: Sequence[str]) -> float:
    """Return how often the nearest is the right one, in %, on average of both directions.

    Equal captions are right for all of their clips.

    Example
    -------
    >>> captions = ["A man.", "A man.", "A child."]
    >>> round(recall_at_1(torch.eye(3), torch.eye(3).roll(1, 0), captions), 2)
    33.33
    """
    numbers = {caption: number for number, caption in enumerate(captions)}
    item = torch.tensor([numbers[caption] for caption in captions])
    scores = speech @ text.T
    hits = torch.cat([item[scores.argmax(dim=dim)] == item for dim in (0, 1)])
    return 100 * hits.float().mean().item()


def check_results(checks: Mapping[str, Any], runtime: str, precision: str) -> None:
    """Raise ValueError if embeddings of an exported model are too far from the model's.

    Example
    -------
    >>> check_results({"speech": 0.9, "text": 1.0}, "onnx", "fp16")
    Traceback (most recent call last):
    ...
    ValueError: Not exported: for onnx in fp16, cosines with the model are down to 0.900000 for \
speech; at least 0.9995 is needed
    """
    least, problems = LEAST_COSINE[precision], []
    for name in ("speech", "text"):
        if not checks[name] >= least:
            problems.append(
                f"cosines with the model are down to {checks[name]:.6f} for {name}; at least"
                f" {least} is needed"
            )
    if "R@1" in checks and checks["R@1"] < checks["R@1 of the model"] - MOST_LOSS:
        problems.append(
            f"R@1 is {checks['R@1']:.1f} %, that of the model {checks['R@1 of the model']:.1f} %;"
            f" at most {MOST_LOSS} point may be lost"
        )
    if problems:
        raise ValueError(f"Not exported: for {runtime} in {precision}, {'; '.join(problems)}")


def make_clip(seconds: float, seed: int) -> Tensor:
    """Return [T], a buzz in noise whose level and pitch wander, the same for the same seed.

    Example
    -------
    >>> make_clip(0.5, seed=0).shape
    torch.Size([8000])
    """
    generator = torch.Generator().manual_seed(seed)
    size = int(seconds * SAMPLE_RATE)
    time = torch.arange(size) / SAMPLE_RATE
    pitch = 90 + 160 * torch.rand(1, generator=generator)
    phase = 2 * torch.pi * pitch * (time + 0.05 * torch.sin(2 * torch.pi * 0.7 * time))
    buzz = torch.stack([torch.sin(k * phase) / k for k in range(1, 15)]).sum(dim=0)
    level = 0.01 + 0.2 * torch.sin(2 * torch.pi * 2.3 * time).square()
    return level * (buzz + 0.1 * torch.randn(size, generator=generator))


def _cosine(first: Tensor, second: Tensor) -> float:
    """Return the least cosine of rows; NaN if a row has one."""
    return float((first.double() * second.double()).sum(dim=1).min())
