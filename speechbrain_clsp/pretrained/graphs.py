"""Making graphs of towers: ONNX by torch's tracing exporter, smaller weights, OpenVINO.

The speech graph begins with the waveform, not with features: who embeds speech elsewhere then needs
samples at 16 kHz and their number, and no library has these filter banks, whose windows are
reflected at each utterance's own end.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechbrain_clsp.lobes.speech_tower import SpeechTower
from speechbrain_clsp.lobes.text_tower import TextTower
from speechbrain_clsp.pretrained.exported import ENCODED, FEATURES

OPSET = 17
LARGE = 1024  # numbers in a weight from which on it is worthwhile to store fewer bits
TRACED_SAMPLES = (32123, 20000)  # an odd number; two clips, one of them padded
HIGHEST_HALF = 65504.0  # of float16
LEVELS = 127  # of int8, on either side of zero
PER_STEP = 12**-0.5  # standard deviation of what rounding to steps adds
MOST_ROUNDING = 0.1  # it is 0.01 of normally distributed values


class _SpeechGraph(nn.Module):
    """What of a speech tower becomes a graph; two tensors inside are outputs, too."""

    def __init__(self, tower: SpeechTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, wavs: Tensor, n_samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return embeddings [B, D], features and encoded frames of waveforms [B, T]."""
        seen: dict[str, Tensor] = {}

        def see_features(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[FEATURES] = inputs[0]

        def see_encoded(
            module: nn.Module, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
        ) -> None:
            seen[ENCODED] = outputs[0]

        handles = [
            self.tower.encoder_embed.register_forward_pre_hook(see_features),
            self.tower.encoder.register_forward_hook(see_encoded),
        ]
        speech = self.tower.embed(wavs, n_samples)
        for handle in handles:
            handle.remove()
        return speech, seen[FEATURES], seen[ENCODED]


class _TextGraph(nn.Module):
    """What of a text tower becomes a graph: one batch, not in groups of similar length."""

    def __init__(self, tower: TextTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, tokens: Tensor, padding_mask: Tensor) -> Tensor:
        """Return embeddings [B, D] of tokens [B, L], with a mask that is True on padding."""
        return self.tower.head(self.tower.pooled(tokens, padding_mask))


def trace_speech(tower: nn.Module, path: Path) -> None:
    """Write the ONNX graph of a speech tower.

    Arguments
    ---------
    tower : SpeechTower
        In eval mode, float32, on the CPU.
    path : pathlib.Path
        Gets a graph of ``wavs`` [B, T] float32 and ``n_samples`` [B] int64 to ``speech`` [B, D];
        ``features`` [B, F, M] and ``encoded`` [B, F', E] are tensors on the way.

    Raises
    ------
    ValueError
        If the tower is of a kind that cannot be exported.
    """
    if not isinstance(tower, SpeechTower):
        raise ValueError(
            f"A {type(tower).__name__} cannot be exported: its encoder of transformers chooses"
            " operations by the lengths in a batch, which a graph cannot; only models with a"
            " SpeechTower (Zipformer2) can"
        )
    wavs = 0.1 * torch.randn(len(TRACED_SAMPLES), max(TRACED_SAMPLES))
    axes = {
        "wavs": {0: "batch", 1: "samples"},
        "n_samples": {0: "batch"},
        "speech": {0: "batch"},
        FEATURES: {0: "batch", 1: "frames"},
        ENCODED: {0: "batch", 1: "encoded_frames"},
    }
    _trace(_SpeechGraph(tower), (wavs, torch.tensor(TRACED_SAMPLES)), axes, 2, path)


def trace_text(tower: nn.Module, tokens: Tensor, padding_mask: Tensor, path: Path) -> None:
    """Write the ONNX graph of a text tower.

    Arguments
    ---------
    tower : TextTower
        In eval mode, float32, on the CPU.
    tokens, padding_mask : Tensor
        Two captions of different lengths, [2, L].
    path : pathlib.Path
        Gets a graph of ``tokens`` [B, L] int64 and ``padding_mask`` [B, L] bool to ``text`` [B, D].

    Raises
    ------
    ValueError
        If the exporter does not know what the tower's encoder does.
    """
    if not isinstance(tower, TextTower):
        raise ValueError(f"A {type(tower).__name__} cannot be exported: it is not a TextTower")
    length = {0: "batch", 1: "tokens"}
    axes = {"tokens": length, "padding_mask": length, "text": {0: "batch"}}
    _trace(_TextGraph(tower), (tokens, padding_mask), axes, 2, path)


def _trace(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    axes: Mapping[str, Mapping[int, str]],
    n_inputs: int,
    path: Path,
) -> None:
    """Export by tracing.

    ``dynamo=False``: the exporter that became the default with torch 2.9 proves for which lengths a
    graph holds. Of five frame rates it concludes that lengths must be multiples of 1,280 samples,
    and it takes minutes where tracing takes seconds. Nothing of the kind is proved here, so that
    whoever exports compares the graph with the tower, on lengths other than the traced ones.
    """
    names = list(axes)
    try:
        with torch.no_grad(), _quietly():
            torch.onnx.export(
                module.eval(),
                inputs,
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=names[:n_inputs],
                output_names=names[n_inputs:],
                dynamic_axes={name: dict(axis) for name, axis in axes.items()},
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        kind = type(getattr(module, "tower", module)).__name__
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"This {kind} cannot be exported: {reason}") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep what the exporter prints, of the graph that failed and of itself, to itself."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def open_onnx(path: Path) -> Any:
    """Read an ONNX graph with all its weights."""
    import onnx  # an extra

    return onnx.load(str(path))


def save_onnx(model: Any, path: Path) -> None:
    """Write an ONNX graph; weights go into a file beside it, since the format ends at 2 GB."""
    import onnx  # an extra

    beside = f"{path.name}.data"
    onnx.save(model, str(path), save_as_external_data=True, location=beside, size_threshold=LARGE)


def split_softplus(model: Any) -> None:
    """Write the softplus in an ONNX graph as max(x, 0) + log(1 + exp(-|x|)), which never overflows.

    ONNX Runtime's own computes one number at a time, which was a third of the time of a mini model.

    Arguments
    ---------
    model : onnx.ModelProto
        Changed in place.
    """
    from onnx import helper, numpy_helper  # an extra

    nodes = []
    for node in model.graph.node:
        if node.op_type != "Softplus":
            nodes.append(node)
            continue
        (x,), (y,) = node.input, node.output
        steps = [f"{y}.{name}" for name in ("size", "negative", "exp", "sum", "log", "relu")]
        size, negative, exp, total, log, relu = steps
        nodes += [
            helper.make_node("Abs", [x], [size]),
            helper.make_node("Neg", [size], [negative]),
            helper.make_node("Exp", [negative], [exp]),
            helper.make_node("Add", [exp, "softplus.one"], [total]),
            helper.make_node("Log", [total], [log]),
            helper.make_node("Relu", [x], [relu]),
            helper.make_node("Add", [log, relu], [y], node.name),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    one = numpy_helper.from_array(np.array(1.0, np.float32), "softplus.one")
    model.graph.initializer.append(one)


def halve(model: Any) -> None:
    """Store large weights of an ONNX graph as float16; arithmetic stays float32.

    The filter banks keep their bits, since errors there are as loud as quiet parts of speech: what
    is no parameter of a tower is no weight of a graph, but a constant in it.

    Arguments
    ---------
    model : onnx.ModelProto
        Changed in place.
    """
    from onnx import TensorProto, helper, numpy_helper  # an extra

    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        if values.size < LARGE or np.abs(values).max() > HIGHEST_HALF:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def save_openvino(onnx_path: Path, path: Path, half: bool) -> None:
    """Write an ONNX graph in OpenVINO's form.

    Arguments
    ---------
    onnx_path : pathlib.Path
        The graph.
    path : pathlib.Path
        The ``.xml``; a ``.bin`` goes beside it.
    half : bool
        Whether large weights are stored as float16; see :func:`halve`.
    """
    import openvino  # an extra

    model = openvino.convert_model(str(onnx_path))
    if half:
        _halve_openvino(model)
    openvino.save_model(model, str(path), compress_to_fp16=False)


def _halve_openvino(model: Any) -> None:
    """Do what :func:`halve` does; here, the weights' names are lost."""
    import openvino  # an extra

    operators = openvino.opset13
    before_encoder = _sources(each for each in model.outputs if FEATURES in each.names)
    for node in model.get_ops():
        if node.get_type_name() != "Constant" or node.friendly_name in before_encoder:
            continue
        if node.get_element_type() != openvino.Type.f32 or node.data.size < LARGE:
            continue
        if np.abs(node.data).max() <= HIGHEST_HALF:
            targets = node.output(0).get_target_inputs()
            back = operators.convert(operators.constant(node.data.astype(np.float16)), "f32")
            back.get_rt_info()["decompression_0"] = ""  # so that it is not computed before saving
            for target in targets:
                target.replace_source_output(back.output(0))


def _sources(outputs: Iterable[Any]) -> set[str]:
    """Return the names of all nodes of an OpenVINO model that outputs depend on."""
    found: dict[str, Any] = {}
    todo = [each.node for each in outputs]
    while todo:
        node = todo.pop()
        if node.friendly_name not in found:
            found[node.friendly_name] = node
            todo += [each.get_source_output().get_node() for each in node.inputs()]
    return set(found)


def find_sensitive(path: Path, inputs: Mapping[str, np.ndarray]) -> list[str]:
    """Return which products with weights would lose much in int8, by outliers on either side.

    Per channel of a weight, and for all of what it is multiplied with, a step is what the largest
    number needs, so that one outlier rounds the others coarsely.

    Arguments
    ---------
    path : pathlib.Path
        An ONNX graph.
    inputs : dict of array
        What it is computed for.

    Returns
    -------
    list of str
        Names of nodes where the error of rounding, relative to the mean absolute value (which
        outliers hardly raise), is above ``MOST_ROUNDING``.
    """
    import onnxruntime  # an extra
    from onnx import TensorProto, helper, numpy_helper  # an extra

    model = open_onnx(path)
    weights = {each.name: each for each in model.graph.initializer}
    errors: dict[str, float] = {}
    for node in _products(model):
        weight = numpy_helper.to_array(weights[node.input[1]])
        steps = np.abs(weight).max(axis=0) / LEVELS
        errors[node.name] = float((steps / np.abs(weight).mean(axis=0)).mean()) * PER_STEP
    factors = {node.name: node.input[0] for node in _products(model)}
    names = sorted(set(factors.values()))
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    probed = path.with_name(f"probed.{path.name}")
    save_onnx(model, probed)  # from here on, weights are in the file
    session = onnxruntime.InferenceSession(str(probed), providers=["CPUExecutionProvider"])
    rounding = {}
    for name, values in zip(names, session.run(names, dict(inputs))):
        step = (values.max() - values.min()) / (2 * LEVELS)
        rounding[name] = float(step / np.abs(values).mean()) * PER_STEP
    return [name for name, of in factors.items() if max(errors[name], rounding[of]) > MOST_ROUNDING]


def _products(model: Any) -> list[Any]:
    """Return the nodes that multiply with a matrix of weights."""
    matrices = {each.name for each in model.graph.initializer if len(each.dims) == 2}
    return [
        node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in matrices
    ]


def quantize(path: Path, excluded: Collection[str], is_dynamic: bool) -> None:
    """Store the weights of matrix products of an ONNX graph as int8, with a step per channel.

    Arguments
    ---------
    path : pathlib.Path
        The graph, which is replaced.
    excluded : collection of str
        Nodes that are left as they are.
    is_dynamic : bool
        Whether the graph itself rounds what weights are multiplied with, for ONNX Runtime; OpenVINO
        does so by itself when it finds weights in int8.
    """
    from onnx import TensorProto, helper, numpy_helper  # an extra

    model = open_onnx(path)
    weights = {each.name: each for each in model.graph.initializer}
    done: dict[str, list[Any]] = {}
    nodes = []
    for node in model.graph.node:
        is_product = node.op_type == "MatMul" and node.input[1] in weights
        if not is_product or node.name in excluded or len(weights[node.input[1]].dims) != 2:
            nodes.append(node)
            continue
        source, name = node.input
        if name not in done:
            values = numpy_helper.to_array(weights[name])
            steps = np.maximum(np.abs(values).max(axis=0), 1e-12).astype(np.float32) / LEVELS
            rounded = np.rint(values / steps).astype(np.int8)
            done[name] = [
                numpy_helper.from_array(rounded, f"{name}.int8"),
                numpy_helper.from_array(steps, f"{name}.steps"),
            ]
            if not is_dynamic:
                nodes.append(
                    helper.make_node(
                        "DequantizeLinear", [f"{name}.int8", f"{name}.steps"], [name], axis=1
                    )
                )
        if not is_dynamic:
            nodes.append(node)
            continue
        made = [f"{source}.{part}" for part in ("uint8", "step", "zero")]
        if made[0] not in done:  # once for all products with it
            done[made[0]] = []
            nodes.append(helper.make_node("DynamicQuantizeLinear", [source], made))
        integer, scale = f"{node.output[0]}.int32", f"{node.output[0]}.scale"
        nodes += [
            helper.make_node("MatMulInteger", [made[0], f"{name}.int8", made[2]], [integer]),
            helper.make_node("Cast", [integer], [f"{integer}.float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [made[1], f"{name}.steps"], [scale]),
            helper.make_node("Mul", [f"{integer}.float", scale], list(node.output), node.name),
        ]
    kept = [each for each in model.graph.initializer if each.name not in done]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend([*kept, *(part for parts in done.values() for part in parts)])
    save_onnx(model, path)
