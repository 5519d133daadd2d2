"""Model folders: what a trained model is saved as and loaded from.

A folder holds ``hyperparams.yaml`` (SpeechBrain's HyperPyYAML), ``model.safetensors``, the
tokenizer, ``config.json``, which names the interface, and a model card, ``README.md``; one that
classifies also ``label_encoder.txt``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ruamel.yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.fetching import FetchConfig, LocalStrategy, fetch
from speechbrain.utils.parameter_transfer import Pretrainer
from torch import Tensor, nn

from speechbrain_clsp import __version__

HYPERPARAMS = "hyperparams.yaml"
WEIGHTS = "model.safetensors"
LABELS = "label_encoder.txt"
INTERFACE = "config.json"
CARD = "README.md"
CARD_TEXT = """# {name}
A contrastive language-speech model (CLSP): it embeds speech, and English descriptions of how it
is spoken, in one space. Made with speechbrain-clsp {version}.

```python
from speechbrain_clsp import CLSP

clsp = CLSP.from_hparams("path/to/{name}")
clsp.score_file("a.wav", ["A man whispers.", "A woman speaks loudly."])
```

Speech of any rate is taken; the model hears 16 kHz mono. `hyperparams.yaml` names the Python
classes to build, so load only folders that you trust.
"""


class FolderPretrainer(Pretrainer):
    """Fetches a model folder's files under their own names and loads them strictly.

    SpeechBrain's own pretrainer wants ``<key>.ckpt`` files, and leaves weights random
    that it does not find.

    Arguments
    ---------
    modules : dict of nn.Module
        What the weights go into.
    tokenizer : object
        With a method ``load(path)`` and its file's name, ``FILENAME``.
    label_encoder : CategoricalEncoder, optional
        Loaded from ``label_encoder.txt``.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        tokenizer: Any,
        label_encoder: CategoricalEncoder | None = None,
    ) -> None:
        super().__init__()
        self.modules = modules
        self.loaders = {
            WEIGHTS: lambda path: load_weights(path, self.modules),
            tokenizer.FILENAME: tokenizer.load,
        }
        if label_encoder is not None:
            self.loaders[LABELS] = label_encoder.load

    def collect_files(
        self,
        default_source: str | None = None,
        local_strategy: LocalStrategy = LocalStrategy.SYMLINK,
        fetch_config: FetchConfig | None = None,
    ) -> dict[str, Path]:
        """Fetch the files from a folder or a Hub repository; returns their paths."""
        for name in self.loaders:
            self.paths[name] = fetch(
                filename=name,
                source=default_source,
                savedir=self.collect_in,
                local_strategy=local_strategy,
                fetch_config=fetch_config or FetchConfig(),
            )
        return self.paths

    def load_collected(self) -> None:
        """Load the weights, the tokenizer and the labels."""
        for name, load in self.loaders.items():
            load(self.paths[name])


def load_weights(path: str | os.PathLike, modules: Mapping[str, nn.Module]) -> None:
    """Load a safetensors file into modules, all of it and nothing else.

    Arguments
    ---------
    path : str or path
        File with the keys ``<module name>.<state-dict key>``.
    modules : dict of nn.Module
        The modules.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no safetensors file, or keys or shapes do not fit; all are named.

    Example
    -------
    >>> path = getfixture("tmp_path") / "model.safetensors"
    >>> save_file({"a.weight": nn.Linear(2, 3, bias=False).weight.data}, path)
    >>> load_weights(path, {"a": nn.Linear(2, 3)})
    Traceback (most recent call last):
    ...
    ValueError: ...model.safetensors does not fit the model: missing a.bias
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"No weights at {path}")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    load_state(weights, modules, path)


def load_state(
    weights: Mapping[str, Tensor], modules: Mapping[str, nn.Module], path: str | os.PathLike
) -> None:
    """Load a joined state dict into modules, all of it and nothing else.

    Arguments
    ---------
    weights : dict of Tensor
        As :func:`state_of` returns them.
    modules : dict of nn.Module
        The modules; parameters on the meta device are replaced by the given tensors themselves.
    path : str or path
        Where the weights come from, for the error.

    Raises
    ------
    ValueError
        If keys or shapes do not fit; all are named.
    """
    expected = state_of(modules)
    problems = [f"missing {key}" for key in expected if key not in weights]
    problems += [f"unexpected {key}" for key in weights if key not in expected]
    problems += [
        f"{key} has shape {list(value.shape)}, not {list(expected[key].shape)}"
        for key, value in weights.items()
        if key in expected and value.shape != expected[key].shape
    ]
    if problems:
        raise ValueError(f"{path} does not fit the model: {'; '.join(problems)}")
    for name, module in modules.items():
        prefix = f"{name}."
        own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        module.load_state_dict(own, assign=any(p.is_meta for p in module.parameters()))


def state_of(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Join the state dicts of modules under ``<module name>.<key>``."""
    return {
        f"{name}.{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }


def extract_definition(hyperparams: str, key: str) -> str:
    r"""Cut a model's definition out of a recipe's resolved hyperparameters.

    Arguments
    ---------
    hyperparams : str
        HyperPyYAML without references or includes, as SpeechBrain writes it into an
        experiment's folder: overrides from the command line are in it.
    key : str
        Top-level key that holds the definition.

    Returns
    -------
    str
        The definition as HyperPyYAML of its own.

    Example
    -------
    >>> print(extract_definition("lr: 1\nmodel:\n  a: &x !new:set\n  b: *x\n", "model"), end="")
    a: &x !new:set
    b: *x
    """
    lines = [line for line in hyperparams.splitlines() if not line.lstrip().startswith("#")]
    yaml = ruamel.yaml.YAML()
    stream = ruamel.yaml.compat.StringIO()
    yaml.dump(yaml.load("\n".join(lines))[key], stream)
    return stream.getvalue()


def save_model_folder(
    folder: str | os.PathLike,
    definition: str,
    modules: Mapping[str, nn.Module],
    files: Mapping[str, str | os.PathLike],
    metrics: Mapping[str, float] | None = None,
    origin: str = "",
) -> None:
    """Write a folder that ``CLSP.from_hparams`` loads, whole or not at all.

    Arguments
    ---------
    folder : str or path
        Where it goes; a model folder that is there is replaced.
    definition : str
        Contents of ``hyperparams.yaml``.
    modules : dict of nn.Module
        What is saved.
    files : dict of path
        Further files, above all the tokenizer's: name in the folder -> file to copy.
    metrics : dict of float, optional
        Figures for the model card: name -> value.
    origin : str
        A paragraph for the model card: data, license.

    Raises
    ------
    FileExistsError
        If there is something at ``folder`` that is no model folder.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / HYPERPARAMS).is_file():
        raise FileExistsError(f"{folder} is no model folder: remove it, or save to another place")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / HYPERPARAMS).write_text(definition, encoding="utf-8")
    weights = {key: value.detach().cpu().contiguous() for key, value in state_of(modules).items()}
    save_file(weights, partial / WEIGHTS)
    (partial / WEIGHTS).chmod(0o644)  # safetensors makes it readable by its owner alone
    for name, file in files.items():
        shutil.copyfile(file, partial / name)
    about = {"speechbrain_interface": "CLSP", "speechbrain_clsp_version": __version__}
    (partial / INTERFACE).write_text(json.dumps(about) + "\n", encoding="utf-8")
    card = _card(folder.name, metrics or {}, origin)
    (partial / CARD).write_text(card, encoding="utf-8")
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old)
    else:
        os.replace(partial, folder)


def _card(name: str, metrics: Mapping[str, float], origin: str) -> str:
    """Return a model card in Markdown."""
    card = CARD_TEXT.format(name=name, version=__version__)
    if origin:
        card += f"\n{origin}\n"
    if metrics:
        rows = "".join(f"| {key} | {value:.4g} |\n" for key, value in metrics.items())
        card += f"\n| figure | value |\n|---|---|\n{rows}"
    return card
