"""Exported models: graphs of the two towers for ONNX Runtime or OpenVINO, in place of modules.

A folder holds the two graphs, ``config.json``, which says what they were made of, the tokenizer,
and what else a model folder has. Nothing in it is code.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechbrain_clsp.dataio.tokenizers import FastTokenizerCaptions, SentencePieceCaptions
from speechbrain_clsp.nnet.logit_scale import LogitScale
from speechbrain_clsp.nnet.masking import valid_lengths
from speechbrain_clsp.pretrained.folder import CONFIG, GRAPHS
from speechbrain_clsp.pretrained.hub import find_config, find_file
from speechbrain_clsp.utils.checks import quote
from speechbrain_clsp.utils.files import sha256_of_file

EXPORT = "export"  # in config.json
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
ANOTHER_PRECISION = "export on this machine, with --precision fp32 or --runtime onnx"
TOKENIZERS = {kind.FILENAME: kind for kind in (SentencePieceCaptions, FastTokenizerCaptions)}
KINDS: dict[str, Any] = {
    **dict.fromkeys(("runtime", "precision", "weights_sha256", "tokenizer"), str),
    **dict.fromkeys(("n_parameters", "max_tokens", "vocab_size"), int),
    **{"logit_scale": (int, float), "files": Mapping},
}
# Tensors in the speech graph: only what lies between them is computed in bf16.
FEATURES, ENCODED = "features", "encoded"


@dataclass(frozen=True)
class Export:
    """What an exported model was made of, as ``config.json`` holds it.

    Arguments
    ---------
    runtime : str
        ``onnx`` or ``openvino``.
    precision : str
        ``fp32``, ``fp16``, ``bf16`` or ``int8``; never ``auto``, but what that chose.
    weights_sha256 : str
        Of the weights of the model that was exported; see
        :func:`~speechbrain_clsp.pretrained.folder.sha256_of_weights`.
    n_parameters, max_tokens, vocab_size : int
        Of that model.
    logit_scale : float
        Its factor on cosines.
    tokenizer : str
        Name of the tokenizer's file.
    files : dict of str
        SHA-256 of the files of graphs and tokenizer, by name.
    prompts : dict or list, optional
        Its default classes.
    checks : dict, optional
        What was measured before it was written.
    """

    runtime: str
    precision: str
    weights_sha256: str
    n_parameters: int
    max_tokens: int
    vocab_size: int
    logit_scale: float
    tokenizer: str
    files: Mapping[str, str]
    prompts: Any = None
    checks: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, kinds in KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds):
                raise TypeError(f"{name} must not be {quote(value)}")
        if not 0 < self.logit_scale < math.inf:
            raise TypeError(f"logit_scale must not be {quote(self.logit_scale)}")


def find_export(place: Path | str, revision: str | None = None) -> Export | None:
    """Return what an exported model was made of; None if a folder or repository holds another one.

    Arguments
    ---------
    place : Path or str
        As :func:`~speechbrain_clsp.pretrained.folder.find_source` returns it.
    revision : str, optional
        Of a repository.

    Raises
    ------
    ValueError
        If ``config.json`` is damaged, or names a runtime, precision or tokenizer that is not known
        here.

    Example
    -------
    >>> find_export(getfixture("tmp_path")) is None
    True
    """
    config = find_config(place, revision).get(EXPORT)
    if config is None:
        return None
    try:
        export = Export(**config)
    except TypeError as error:
        raise ValueError(
            f"{place}/{CONFIG} does not say how it was exported: {error}; export the model again"
        ) from error
    known = (export.runtime, GRAPHS), (export.precision, PRECISIONS), (export.tokenizer, TOKENIZERS)
    if unknown := [name for name, names in known if name not in names]:
        raise ValueError(
            f"{place} was exported with {quote(unknown[0])}, which this version does not know:"
            " export the model again"
        )
    needed = (*GRAPHS[export.runtime][:2], export.tokenizer)
    if absent := [name for name in needed if name not in export.files]:
        raise ValueError(
            f"{place}/{CONFIG} does not say how it was exported: files has no {absent[0]}"
        )
    return export


def load_export(
    place: Path | str, export: Export, revision: str | None = None
) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """Return the modules and the tokenizer of an exported model.

    Arguments
    ---------
    place, revision
        As for :func:`find_export`.
    export : Export
        What that returned.

    Returns
    -------
    modules : dict of nn.Module
        ``speech_tower``, ``text_tower`` and ``logit_scale``, whose calls are those of any CLSP.
    hparams : dict
        ``tokenizer``, and ``prompts`` if there are any.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If the runtime is not installed, or a file is damaged or of another model, whose embeddings
        would be taken for this one's.
    """
    paths = {name: find_file(place, name, revision) for name in export.files}
    for name, path in paths.items():  # before a runtime maps a file that was cut off
        if sha256_of_file(path) != export.files[name]:
            raise ValueError(
                f"{path} is not what was exported: it is damaged, cut off or of another model; copy"
                " it again, delete it to download it again, or export the model again"
            )
    graphs = [
        open_graph(paths[name], export.runtime, export.precision)
        for name in GRAPHS[export.runtime][:2]
    ]
    logit_scale = LogitScale(export.logit_scale, maximum=math.inf)
    modules = {
        "speech_tower": ExportedSpeechTower(graphs[0]),
        "text_tower": ExportedTextTower(graphs[1], export.max_tokens, export.vocab_size),
        "logit_scale": logit_scale,
    }
    tokenizer = TOKENIZERS[export.tokenizer](paths[export.tokenizer])
    hparams = {"tokenizer": tokenizer}
    return modules, hparams if export.prompts is None else {**hparams, "prompts": export.prompts}


class Graph:
    """A graph that computes a tower; the runtime's own objects are made again after pickling.

    Arguments
    ---------
    path : pathlib.Path
        The graph's file.
    precision : str
        As for :class:`Export`.
    """

    def __init__(self, path: Path, precision: str) -> None:
        self.path, self.precision = path, precision
        self.run = self.open()

    def open(self) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
        """Return what computes the first output from inputs by name."""
        raise NotImplementedError

    def __call__(self, **inputs: Tensor) -> Tensor:
        """Compute; inputs and output lie on the CPU.

        Raises
        ------
        ValueError
            If the runtime returns another number of rows than it was given.
        """
        arrays = {name: value.detach().cpu().numpy() for name, value in inputs.items()}
        output = torch.from_numpy(self.run(arrays))
        size = len(next(iter(arrays.values())))
        if len(output) != size:  # OpenVINO, where it takes a processor for another
            raise ValueError(
                f"{self.path} gives {len(output)} embeddings for {size} inputs on this processor:"
                f" {ANOTHER_PRECISION}"
            )
        return output

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.precision)


class OnnxGraph(Graph):
    """A graph in ONNX Runtime, on as many threads as torch has when it is opened."""

    def open(self) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
        """Start a session."""
        import onnxruntime  # an extra

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(
            str(self.path), options, providers=["CPUExecutionProvider"]
        )
        names = [session.get_outputs()[0].name]
        return lambda arrays: session.run(names, arrays)[0]


class OpenVinoGraph(Graph):
    """A graph in OpenVINO, on as many threads as torch has when it is opened.

    What is computed in bf16 is the encoder alone, as in torch. Filter banks need float32: there,
    errors are as loud as quiet parts of speech; pooling needs it to count frames.
    """

    def open(self) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
        """Compile the graph for this machine."""
        import openvino  # an extra

        core = openvino.Core()
        whole = core.read_model(str(self.path))
        goal, *bounds = (_name_of(each) for each in whole.get_results())
        if self.precision != "bf16" or ENCODED not in bounds:
            return self._compile(core, _part(whole, [], goal), "f32")
        parts = [
            (FEATURES, self._compile(core, _part(whole, [], FEATURES), "f32")),
            (ENCODED, self._compile(core, _part(whole, [FEATURES], ENCODED), "bf16")),
            (goal, self._compile(core, _part(whole, [FEATURES, ENCODED], goal), "f32")),
        ]

        def run(arrays: dict[str, np.ndarray]) -> np.ndarray:
            found = dict(arrays)
            for name, compute in parts:
                found[name] = compute(found)
            return found[goal]

        return run

    def _compile(
        self, core: Any, model: Any, precision: str
    ) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
        options = {
            "INFERENCE_PRECISION_HINT": precision,  # the default is bf16 where the machine has it
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = core.compile_model(model, "CPU", options).create_infer_request()
        names = [each.node.friendly_name for each in model.inputs]
        lock = threading.Lock()  # a request has buffers for one call

        def run(arrays: dict[str, np.ndarray]) -> np.ndarray:
            with lock:
                return request.infer({name: arrays[name] for name in names})[0]

        return run


def _part(whole: Any, inputs: Sequence[str], output: str) -> Any:
    """Return the part of an OpenVINO model that computes an output from tensors inside of it."""
    import openvino  # an extra

    model = whole.clone()
    sources = {_name_of(each): each.input_value(0) for each in model.get_results()}
    parameters = list(model.get_parameters())
    for name in inputs:
        source = sources[name]
        parameter = openvino.opset13.parameter(source.partial_shape, source.element_type, name)
        parameter.friendly_name = name
        for target in source.get_target_inputs():
            target.replace_source_output(parameter.output(0))
        parameters.append(parameter)
    result = openvino.opset13.result(sources[output])
    part = openvino.Model([result], parameters)
    for each in part.get_parameters():  # those of the other parts
        if not each.output(0).get_target_inputs():
            part.remove_parameter(each)
    return part


def _name_of(result: Any) -> str:
    """Return the name that an output had in ONNX, which OpenVINO calls ``name/sink_port_0``."""
    return result.friendly_name.partition("/")[0]


def needs_extra(what: Any, error: ImportError) -> str:
    """Return what to install.

    Example
    -------
    >>> needs_extra("a.onnx", ImportError("No module named 'onnxruntime'"))
    "a.onnx needs the extra export (No module named 'onnxruntime'): pip install \
'speechbrain-clsp[export]'"
    """
    return f"{what} needs the extra export ({error}): pip install 'speechbrain-clsp[export]'"


def open_graph(path: Path, runtime: str, precision: str) -> Graph:
    """Open a graph in a runtime.

    Raises
    ------
    ValueError
        If the runtime is not installed, or the file is damaged.
    """
    kind = OnnxGraph if runtime == "onnx" else OpenVinoGraph
    try:
        return kind(path, precision)
    except ImportError as error:
        raise ValueError(needs_extra(path, error)) from error
    except Exception as error:  # runtimes have classes of their own
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path} could not be opened by {runtime}: {reason}. If the file is whole,"
            f" {ANOTHER_PRECISION}"
        ) from error


class ExportedSpeechTower(nn.Module):
    """A speech tower whose arithmetic is a graph's.

    Arguments
    ---------
    graph : Graph
        (wavs [B, T] float32, n_samples [B] int64) -> [B, D].
    """

    max_seconds = math.inf  # of a clip

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed speech, as :class:`~speechbrain_clsp.lobes.speech_tower.SpeechTower` does.

        Raises
        ------
        ValueError
            If gradients are asked for.
        """
        if wavs.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                "An exported model has no gradients: open the model that it was made of"
            )
        n_samples = valid_lengths(lengths, wavs.shape[1], wavs.shape[0], wavs.device)
        return self.graph(wavs=wavs.float(), n_samples=n_samples)


class ExportedTextTower(nn.Module):
    """A text tower whose arithmetic is a graph's.

    Arguments
    ---------
    graph : Graph
        (tokens [B, L] int64, padding_mask [B, L] bool) -> [B, D].
    max_tokens, vocab_size : int
        As of a :class:`~speechbrain_clsp.lobes.text_tower.TextTower`.
    """

    def __init__(self, graph: Graph, max_tokens: int, vocab_size: int) -> None:
        super().__init__()
        self.graph, self.max_tokens, self.vocab_size = graph, max_tokens, vocab_size

    def forward(self, tokens: Tensor, padding_mask: Tensor) -> Tensor:
        """Embed captions, as :class:`~speechbrain_clsp.lobes.text_tower.TextTower` does."""
        return self.graph(tokens=tokens, padding_mask=padding_mask)
