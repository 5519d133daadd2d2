"""Model folders: what a trained model is saved as and loaded from.

A folder holds ``hyperparams.yaml`` (SpeechBrain's HyperPyYAML), ``model.safetensors``, the
tokenizer, ``config.json``, which names the interface, ``modules.json``, by which
sentence-transformers opens it, and a model card, ``README.md``; one that classifies also
``label_encoder.txt``, and one that was trained here ``background.safetensors``.
"""

from __future__ import annotations

import filecmp
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ruamel.yaml
import torch
from huggingface_hub import try_to_load_from_cache
from hyperpyyaml import load_hyperpyyaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.fetching import FetchConfig, LocalStrategy, fetch
from speechbrain.utils.logger import get_logger
from speechbrain.utils.parameter_transfer import Pretrainer
from torch import Tensor, nn

from speechbrain_clsp import __version__
from speechbrain_clsp.pretrained.card import write_card
from speechbrain_clsp.utils.checks import join_some
from speechbrain_clsp.utils.content import describe_file
from speechbrain_clsp.utils.files import expand

logger = get_logger(__name__)

HYPERPARAMS = "hyperparams.yaml"
WEIGHTS = "model.safetensors"
# Files of graphs for each runtime: speech, text, and what lies beside them, with the weights.
GRAPHS = {
    "onnx": ("speech.onnx", "text.onnx", "speech.onnx.data", "text.onnx.data"),
    "openvino": ("speech.xml", "text.xml", "speech.bin", "text.bin"),
}
EXPORTED_WEIGHTS = tuple(names[2] for names in GRAPHS.values())
ADAPTERS = "adapters.safetensors"  # in place of weights, where a base model has the rest
BACKGROUND = "background.safetensors"  # embeddings of clips, which belong to these weights
LABELS = "label_encoder.txt"
TOKENIZERS = ("tokenizer.model", "tokenizer.json")  # of both kinds
CONFIG = "config.json"
INTERFACE_KEY = "speechbrain_interface"  # in it, and in no published config.json
SENTENCE_TRANSFORMERS = "modules.json"  # which class sentence-transformers opens a folder with
SENTENCE_TRANSFORMERS_MODULE = {
    "idx": 0,
    "name": "0",
    "path": "",
    "type": "speechbrain_clsp.integrations.sentence_transformers.CLSPModule",
}
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
PAGE = re.compile(r"https?:/+[^/]+/+([^/]+/[^/?#]+)")  # of a repository
# Put before keys by what modules were wrapped in when they were saved.
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod)\.")
PARTS = ("speech_tower", "text_tower", "logit_scale")  # modules of every CLSP
# Modules and names in folders that earlier versions wrote -> what they are now. A class or an
# argument of a class in hyperparams.yaml that is renamed needs a line here.
MOVED = {
    "speechbrain_clsp.folders": "speechbrain_clsp.pretrained.folder",
    "speechbrain_clsp.lobes.regularisation": "speechbrain_clsp.lobes.zipformer.regularization",
    "speechbrain_clsp.lobes.zipformer": "speechbrain_clsp.lobes.zipformer.encoder",
    "speechbrain_clsp.nnet.temperature": "speechbrain_clsp.nnet.logit_scale",
}
RENAMED = {
    "Regularisation": "Regularization",
    "RobertaCaptions": "FastTokenizerCaptions",
    "Temperature": "LogitScale",
    "Unnormalised": "Unnormalized",
    "attention_skip": "attention_drop",
    "convolution_skip": "convolution_drop",
    "feedforward_skip": "feedforward_drop",
    "frontend_skip": "frontend_drop",
    "layer_skip": "layer_drop",
    "position_skip": "position_drop",
    "regularisation": "regularization",
    "temperature": "logit_scale",
}


class FolderPretrainer(Pretrainer):
    """Fetches a model folder's files under their own names and loads them strictly.

    SpeechBrain's own expects ``<key>.ckpt`` files, and only warns of weights that a file lacks.

    Arguments
    ---------
    modules : dict of nn.Module
        What the weights go into.
    tokenizer : object
        With a method ``load(path)`` and its file's name, ``FILENAME``.
    label_encoder : CategoricalEncoder, optional
        Loaded from ``label_encoder.txt``.

    Example
    -------
    >>> from speechbrain_clsp.dataio import FastTokenizerCaptions
    >>> from tokenizers import Tokenizer, models
    >>> folder, head = getfixture("tmp_path"), nn.Linear(2, 2)
    >>> write_weights(state_of({"head": nn.Linear(2, 2)}), folder / WEIGHTS)
    >>> words = models.WordLevel({"<pad>": 0, "<unk>": 1}, unk_token="<unk>")
    >>> Tokenizer(words).save(str(folder / "tokenizer.json"))
    >>> pretrainer = FolderPretrainer({"head": head}, FastTokenizerCaptions())
    >>> sorted(pretrainer.collect_files(folder))
    ['model.safetensors', 'tokenizer.json']
    >>> pretrainer.load_collected()
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        tokenizer: Any,
        label_encoder: CategoricalEncoder | None = None,
    ) -> None:
        super().__init__()
        self.loaders: dict[str, Callable[[Path], None]] = {
            WEIGHTS: partial(load_weights, modules=modules),  # pickled with the model
            tokenizer.FILENAME: tokenizer.load,
        }
        if label_encoder is not None:
            self.loaders[LABELS] = partial(load_labels, label_encoder=label_encoder)

    def collect_files(
        self,
        default_source: str,
        local_strategy: LocalStrategy = LocalStrategy.SYMLINK,
        fetch_config: FetchConfig | None = None,
    ) -> dict[str, Path]:
        """Fetch the files from a folder or a Hub repository; returns their paths.

        Raises
        ------
        FileExistsError
            If the files are to lie beside those of another model.
        """
        if self.collect_in is not None:  # SpeechBrain's own interfaces do not look what is there
            own = _own_file(HYPERPARAMS, str(default_source), fetch_config or FetchConfig())
            _check_same(self.collect_in / HYPERPARAMS, own, str(default_source))
        for name in self.loaders:
            self.paths[name] = fetch_file(
                name, str(default_source), self.collect_in, local_strategy, fetch_config
            )
        return self.paths

    def load_collected(self) -> None:
        """Load the weights, the tokenizer and the labels."""
        for name, load in self.loaders.items():
            load(self.paths[name])


def load_labels(path: str | os.PathLike, label_encoder: CategoricalEncoder) -> None:
    """Load the labels of classes into an encoder.

    Raises
    ------
    ValueError
        If the file holds no labels.
    """
    try:
        label_encoder.load(path)
    except OSError:
        raise
    except Exception as error:  # whatever comes of lines that are no literals of Python
        raise ValueError(f"{path} holds no labels: {type(error).__name__}: {error}") from error
    if not label_encoder.lab2ind:
        raise ValueError(f"{path} holds no labels: it is empty")


def fetch_file(
    name: str,
    source: str,
    savedir: str | os.PathLike | None = None,
    local_strategy: LocalStrategy = LocalStrategy.SYMLINK,
    fetch_config: FetchConfig | None = None,
) -> Path:
    """Fetch a file of a folder or a Hub repository as SpeechBrain does, but never another model's.

    SpeechBrain's ``fetch`` returns what is in ``savedir`` under the file's name, whatever it is.

    Arguments
    ---------
    name : str
        The file's name.
    source : str
        The folder or repository.
    savedir, local_strategy, fetch_config
        As for SpeechBrain's ``fetch``.

    Returns
    -------
    pathlib.Path
        Where it lies: in ``savedir``, if that is given.

    Raises
    ------
    FileExistsError
        If ``savedir`` holds a file of this name with other contents. A link to another model's
        file is replaced.
    """
    fetch_config = fetch_config or FetchConfig()
    is_updated = fetch_config.allow_updates and not Path(source).is_dir()
    if savedir is not None and not (fetch_config.overwrite or is_updated):
        _check_savedir(Path(savedir) / name, source, _own_file(name, source, fetch_config))
    found = fetch(
        filename=name,
        source=source,
        savedir=savedir,
        local_strategy=local_strategy,
        fetch_config=fetch_config,
    )
    return Path(found)


def _check_savedir(there: Path, source: str, own: Path | None) -> None:
    """Remove a link to another file than a model's own; raise if another file is in its place."""
    if there.is_symlink():
        if own is None or not (there.exists() and there.samefile(own)):
            there.unlink(missing_ok=True)
    elif there.exists() and own is None:
        logger.warning("%s is taken for that of %s, which is not in the cache", there, source)
    else:
        _check_same(there, own, source)


def _check_same(there: Path, own: Path | None, source: str) -> None:
    if own is not None and there.exists() and not filecmp.cmp(there, own, shallow=False):
        raise FileExistsError(
            f"{there} differs from that of {source}: it is another model's. Give each model a"
            " savedir of its own, or move this one away"
        )


def _own_file(name: str, source: str, fetch_config: FetchConfig) -> Path | None:
    """Return where a file of a folder is, or that of a repository in the Hub's cache."""
    if Path(source).is_dir():
        return Path(source) / name if (Path(source) / name).is_file() else None
    cache, revision = fetch_config.huggingface_cache_dir, fetch_config.revision
    cached = try_to_load_from_cache(source, name, cache_dir=cache, revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def find_source(source: str | os.PathLike) -> Path | str:
    """Return the path of a folder (``~`` is the home folder), or a Hub repository's ``user/name``.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or it is not a model folder and one lies below it, as
        ``results/mini/model`` does; the message names that.
    TypeError
        If ``source`` is neither a str nor a path, or is empty.

    Example
    -------
    >>> find_source("yfyeung/CLSP")
    'yfyeung/CLSP'
    """
    if not isinstance(source, str | os.PathLike) or not os.fspath(source):
        raise TypeError(f"A model is a folder or a Hub repository user/name, not {source!r}")
    if match := PAGE.match(str(source)):
        raise FileNotFoundError(f"{source} is a URL: of the Hub give the repository, {match[1]}")
    folder = expand(source)
    if folder.is_dir():
        names = (WEIGHTS, ADAPTERS, *EXPORTED_WEIGHTS)
        if not any((folder / name).exists() for name in names):
            below = [
                path.parent
                for depth in ("*", "*/*")
                for name in names
                for path in folder.glob(f"{depth}/{name}")
            ]
            if below:
                raise FileNotFoundError(
                    f"{folder} is not a model folder, but"
                    f" {join_some(sorted({*map(str, below)}), ', ')} is: give that"
                    f" ({folder.name} has no {WEIGHTS})"
                )
        return folder
    if folder.exists():
        raise FileNotFoundError(f"{source} is a file: give the model's folder, {folder.parent}")
    if not REPOSITORY.fullmatch(str(source)):
        raise FileNotFoundError(
            f"{source} is not a folder, and a Hub repository has the form user/name: train a model"
            " with `make demo`, or give another folder or repository"
        )
    return str(source)


def check_model_folder(folder: Path, hparams_file: str = HYPERPARAMS) -> None:
    """Raise unless a folder holds a definition and the weights that belong to it.

    Nothing is run. The folder of a training has a ``hyperparams.yaml``, too: that of the recipe.

    Raises
    ------
    FileNotFoundError
        If one of them is missing.
    """
    if not (folder / hparams_file).is_file():
        raise FileNotFoundError(f"{folder} is not a model folder: it has no {hparams_file}")
    if not (folder / WEIGHTS).exists():
        raise FileNotFoundError(
            f"{folder} is not a model folder: it has a {hparams_file}, but no {WEIGHTS}. If a"
            " recipe trains there, its model will be in the folder model when the training ends"
        )


def load_folder(
    source: str | os.PathLike,
    hparams_file: str = HYPERPARAMS,
    overrides: Mapping[str, Any] | str | None = None,
    overrides_must_match: bool = True,
    savedir: str | os.PathLike | None = None,
    download_only: bool = False,
    local_strategy: LocalStrategy = LocalStrategy.SYMLINK,
    fetch_config: FetchConfig | None = None,
) -> dict[str, Any]:
    """Build what the definition of a model in SpeechBrain's format names, and load its weights.

    It does what SpeechBrain's ``Pretrained.from_hparams`` does, but loads folders that earlier
    versions of this package wrote, too. The definition can run code.

    Arguments
    ---------
    source : str or path
        A folder or a Hub repository.
    hparams_file, overrides, overrides_must_match, savedir, download_only, local_strategy
        As of ``Pretrained.from_hparams``.
    fetch_config : speechbrain.utils.fetching.FetchConfig, optional
        As there; holds the revision.

    Returns
    -------
    dict
        What was built, by its key in the definition; ``modules`` among them.

    Raises
    ------
    FileExistsError
        If ``savedir`` holds another model.
    ValueError
        If the definition is not that of a model, or the weights do not fit.

    Example
    -------
    >>> load_folder("results/mini/model")["modules"]["text_tower"]  # doctest: +SKIP
    """
    savedir = None if savedir is None else expand(savedir)
    source = str(find_source(source))
    fetching = {"local_strategy": local_strategy, "fetch_config": fetch_config or FetchConfig()}
    path = fetch_file(hparams_file, source, savedir, **fetching)
    try:
        stream = io.StringIO(translate_definition(path.read_text(encoding="utf-8")))
        stream.name = str(path)  # files that it includes are looked for beside it
        hparams = load_hyperpyyaml(stream, overrides or {}, overrides_must_match)
        hparams["savedir"] = savedir
        pretrainer = hparams["pretrainer"]
        pretrainer.set_collect_in(savedir)
    except OSError:
        raise
    except Exception as error:  # anything can come of a definition that is empty, broken or foreign
        raise ValueError(
            f"{source}/{hparams_file} does not define a CLSP: {type(error).__name__}: {error}"
        ) from error
    pretrainer.collect_files(source, **fetching)
    if not download_only:
        pretrainer.load_collected()
    return hparams


def translate_definition(definition: str) -> str:
    r"""Replace the names of earlier versions in a definition.

    Example
    -------
    >>> old = "temperature: !new:speechbrain_clsp.nnet.temperature.Temperature\n"
    >>> print(translate_definition(old + "modules:\n  temperature: !ref <temperature>"))
    logit_scale: !new:speechbrain_clsp.nnet.logit_scale.LogitScale
    modules:
      logit_scale: !ref <logit_scale>
    """

    def translate_class(match: re.Match) -> str:
        module, _, name = match[0].rpartition(".")
        return f"{MOVED.get(module, module)}.{RENAMED.get(name, name)}"

    definition = re.sub(r"\bspeechbrain_clsp(?:\.\w+)+", translate_class, definition)
    keys_and_references = r"(?m)(^ *|<)(\w+)(?=[:>])"
    return re.sub(keys_and_references, lambda m: m[1] + RENAMED.get(m[2], m[2]), definition)


def load_weights(
    path: str | os.PathLike,
    modules: Mapping[str, nn.Module],
    absent: Mapping[str, Tensor] | None = None,
    in_part: bool = False,
) -> None:
    """Load a safetensors file into modules; other modules' weights in it are an error.

    Arguments
    ---------
    path : str or path
        Its keys are ``<module name>.<state-dict key>``, perhaps with names of earlier versions.
    modules : dict of nn.Module
        What the weights go into.
    absent : dict of Tensor, optional
        Values of keys that the file may lack.
    in_part : bool
        Whether the file may have other modules too, which are left out.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such safetensors file, or keys or shapes do not fit; all are named.

    Example
    -------
    >>> path = getfixture("tmp_path") / "model.safetensors"
    >>> save_file({"a.weight": nn.Linear(2, 3, bias=False).weight.data}, path)
    >>> load_weights(path, {"a": nn.Linear(2, 3)})
    Traceback (most recent call last):
    ...
    ValueError: ...model.safetensors does not fit the model: missing a.bias
    """
    path = expand(path)
    if not path.is_file():
        raise FileNotFoundError(f"No weights at {path}")
    with open_weights(path) as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}
    weights = translate_weights(weights)
    if in_part:
        weights = {key: x for key, x in weights.items() if key.partition(".")[0] in modules}
    load_state({**(absent or {}), **weights}, modules, path)


@contextmanager
def open_weights(path: str | os.PathLike) -> Iterator[Any]:
    """Open a safetensors file; its tensors are read when they are asked for.

    Raises
    ------
    ValueError
        If it is damaged or something else; the message says what, such as a Git LFS pointer.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        kind = describe_file(path)
        reason = f"it is {kind}" if kind else str(error)
        raise ValueError(f"{path} is damaged or not a safetensors file: {reason}") from error


def translate_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights that earlier versions wrote under the names, and in the form, of this one.

    Example
    -------
    >>> import torch
    >>> old = {"text_tower.embedding.emb.Embedding.weight": torch.ones(5, 16)}
    >>> {key: value[0, 0].item() for key, value in translate_weights(old).items()}
    {'text_tower.embedding.weight': 4.0}
    """
    found = {}
    for old, value in weights.items():
        key = re.sub(r"^\w+", lambda m: RENAMED.get(m[0], m[0]), old)
        if key == "text_tower.embedding.emb.Embedding.weight":  # was multiplied while in use
            key, value = "text_tower.embedding.weight", value * value.shape[1] ** 0.5
        elif key == "text_tower.positions.pe":  # was a table of sines, [1, L, D]
            key, value = "text_tower.positions.weight", value[0]
        found[key] = value
    return found


def load_state(
    weights: Mapping[str, Tensor], modules: Mapping[str, nn.Module], path: str | os.PathLike
) -> None:
    """Load weights, as :func:`state_of` returns them; else as :func:`load_weights`.

    Parameters on the meta device are replaced by the given tensors themselves. ``path`` is where
    weights come from, for the error. Prefixes of wrappers, such as the ``module.`` of
    ``DistributedDataParallel``, are dropped.
    """
    expected = state_of(modules)
    weights = {key if key in expected else WRAPPERS.sub("", key): v for key, v in weights.items()}
    check_state(weights, expected, path)
    for name, module in modules.items():
        prefix = f"{name}."
        own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        module.load_state_dict(own, assign=any(p.is_meta for p in module.parameters()))


def check_state(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: str | os.PathLike
) -> None:
    """Raise ValueError unless weights from ``path`` can take the place of the expected ones.

    Example
    -------
    >>> check_state({}, {"scale": Tensor([1.0])}, "a.safetensors")
    Traceback (most recent call last):
    ...
    ValueError: a.safetensors does not fit the model: missing scale
    """
    problems = [f"missing {key}" for key in expected if key not in weights]
    problems += [f"unexpected {key}" for key in weights if key not in expected]
    for key, value in weights.items():
        if key in expected and (fault := _fault(value, expected[key])):
            problems.append(f"{key} {fault}")
    if problems:
        raise ValueError(f"{path} does not fit the model: {join_some(problems)}")


def _fault(value: Tensor, expected: Tensor) -> str:
    """Return why a tensor cannot take the place of another one, "" if it can."""
    if value.shape != expected.shape:
        return f"has shape {list(value.shape)}, not {list(expected.shape)}"
    if value.is_floating_point() != expected.is_floating_point() or value.is_complex():
        return f"has type {value.dtype}, not {expected.dtype}"
    if value.is_floating_point() and value.numel():
        extremes = value if value.element_size() > 1 else value.float()
        if not all(extreme.isfinite() for extreme in extremes.aminmax()):
            return "has values that are NaN or infinite: the training failed or the file is damaged"
    return ""


def state_of(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Join the state dicts of modules under ``<module name>.<key>``."""
    return {
        f"{name}.{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }


def sha256_of_weights(modules: Mapping[str, nn.Module]) -> str:
    """Return the SHA-256 of all weights with their names, whatever form they were saved in.

    Example
    -------
    >>> one, other = (nn.Linear(2, 2), nn.Linear(2, 2))
    >>> _ = other.load_state_dict(one.state_dict())
    >>> sha256_of_weights({"a": one}) == sha256_of_weights({"a": other})
    True
    """
    digest = hashlib.sha256()
    for key, value in sorted(state_of(modules).items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{key} {array.dtype} {list(array.shape)}\n".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def extract_definition(
    hyperparams: str, key: str, changes: Mapping[str, Mapping[str, Any]] | None = None
) -> str:
    r"""Cut a model's definition, below a top-level key, out of a recipe's hyperparameters.

    Those are HyperPyYAML without references or includes, as SpeechBrain writes it into an
    experiment's folder: overrides from the command line are in it.

    Arguments
    ---------
    hyperparams : str
        The recipe's hyperparameters.
    key : str
        Where the model is defined.
    changes : dict, optional
        For some of the model's parts, arguments that replace those of the recipe.

    Example
    -------
    >>> recipe = "lr: 1\nmodel:\n  a: &x !new:dict {b: 1, c: 2}\n  d: *x\n"
    >>> print(extract_definition(recipe, "model", {"a": {"b": 3}}), end="")
    a: &x !new:dict {b: 3, c: 2}
    d: *x
    """
    lines = [line for line in hyperparams.splitlines() if not line.lstrip().startswith("#")]
    yaml = ruamel.yaml.YAML()
    stream = ruamel.yaml.compat.StringIO()
    definition = yaml.load("\n".join(lines))[key]
    for part, arguments in (changes or {}).items():
        definition[part].update(arguments)
    yaml.dump(definition, stream)
    return stream.getvalue()


def save_model_folder(
    folder: str | os.PathLike,
    definition: str,
    modules: Mapping[str, nn.Module],
    files: Mapping[str, str | os.PathLike],
    metrics: Mapping[str, float | Sequence[float | None]] | None = None,
    origin: str = "",
) -> None:
    """Write a folder that ``CLSP.from_pretrained`` loads, atomically.

    Arguments
    ---------
    folder : str or path
        Where it goes; a model folder that is there is replaced, further files in it stay.
    definition : str
        Contents of ``hyperparams.yaml``.
    modules : dict of nn.Module
        What is saved.
    files : dict of path
        Further files, above all the tokenizer's: name in the folder -> file to copy.
    metrics, origin
        For the model card, see :func:`~speechbrain_clsp.pretrained.card.write_card`.

    Raises
    ------
    FileExistsError
        If there is something at ``folder`` that is not a model folder.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "model"
    >>> save_model_folder(folder, "# of modules", {"head": nn.Linear(2, 2)}, {})
    >>> sorted(path.name for path in folder.iterdir())
    ['README.md', 'config.json', 'hyperparams.yaml', 'model.safetensors', 'modules.json']
    """
    with new_folder(folder, (HYPERPARAMS, WEIGHTS)) as partial:
        (partial / HYPERPARAMS).write_text(definition, encoding="utf-8")
        write_weights(state_of(modules), partial / WEIGHTS)
        for name, file in files.items():
            shutil.copyfile(file, partial / name)
        write_about(partial, {}, metrics, origin)


@contextmanager
def new_folder(
    folder: str | os.PathLike, *kinds: Sequence[str], own: Collection[str] = ()
) -> Iterator[Path]:
    """Give a folder to write to, which takes the place of another one when the block ends well.

    Arguments
    ---------
    folder : str or path
        Where it goes; further files in it stay.
    *kinds : sequence of str
        Files by which a folder that is there is known as one that may be replaced, if it has all of
        one kind.
    own : collection of str
        Files of the model itself: none of the one that is replaced stays.

    Raises
    ------
    FileExistsError
        If there is something else.
    """
    folder = expand(folder).resolve()
    absent = [[name for name in kind if not (folder / name).is_file()] for kind in kinds]
    if folder.exists() and all(absent):
        missing = " and no ".join(dict.fromkeys(names[0] for names in absent))
        raise FileExistsError(
            f"{folder} is not a model folder that may be replaced: it has no {missing}: save to"
            " another place"
        )
    hidden = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(hidden, ignore_errors=True)
    partial = hidden / folder.name  # the card has the folder's name
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        _copy_further(folder, partial, {BACKGROUND, LABELS, *TOKENIZERS, *own})
        os.replace(folder, old)
    os.replace(partial, folder)
    for path in (hidden, old):
        shutil.rmtree(path, ignore_errors=True)


def write_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file that others may read, too."""
    save_file({key: value.cpu().contiguous() for key, value in weights.items()}, path)
    path.chmod(0o644)  # safetensors makes it readable by its owner alone


def write_about(
    folder: Path,
    config: Mapping[str, Any],
    metrics: Mapping[str, float | Sequence[float | None]] | None = None,
    origin: str = "",
) -> None:
    """Write what names a model's interfaces, with further entries of ``config.json``; its card."""
    about = {INTERFACE_KEY: "CLSP", "speechbrain_clsp_version": __version__, **config}
    (folder / CONFIG).write_text(json.dumps(about) + "\n", encoding="utf-8")
    (folder / SENTENCE_TRANSFORMERS).write_text(
        json.dumps([SENTENCE_TRANSFORMERS_MODULE]) + "\n", encoding="utf-8"
    )
    write_card(folder, metrics, origin)


def _copy_further(folder: Path, target: Path, own: Collection[str]) -> None:
    """Copy what a user put into a model folder beside the model."""
    for path in folder.iterdir():
        if (target / path.name).exists() or path.name in own:
            continue
        if path.is_dir():
            shutil.copytree(path, target / path.name, symlinks=True)
        else:
            shutil.copy2(path, target / path.name, follow_symlinks=False)
