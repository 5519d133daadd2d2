"""Fine-tuned models: a small file of adapters, beside a reference to the model that has the rest.

A folder holds ``adapters.safetensors``; ``config.json``, which names the base model, the revision
and the SHA-256 of its weights, and how adapters were made; and a model card.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechbrain_clsp.lobes.adapters import AdaptedTower
from speechbrain_clsp.pretrained.folder import (
    ADAPTERS,
    CONFIG,
    PARTS,
    WEIGHTS,
    check_state,
    find_source,
    new_folder,
    open_weights,
    write_about,
    write_weights,
)
from speechbrain_clsp.pretrained.hub import COMMIT_HASH, find_config, find_file
from speechbrain_clsp.utils.files import sha256_of_file

TOWERS = ("speech_tower", "text_tower")
BASE, OPTIONS = "base", "adapters"  # in config.json


@dataclass(frozen=True)
class Base:
    """The model that adapters belong to.

    Arguments
    ---------
    source : str
        A folder's absolute path, or a Hub repository.
    revision : str, optional
        Of the repository.
    sha256 : str
        Of its weights' file.

    Example
    -------
    >>> Base("yfyeung/CLSP", revision=None, sha256="7c8c").source
    'yfyeung/CLSP'
    """

    source: str
    revision: str | None
    sha256: str

    @classmethod
    def of(cls, source: str | os.PathLike, revision: str | None = None) -> Base:
        """Refer to a folder as it is now, or to a repository at the commit of a revision.

        Example
        -------
        >>> folder = getfixture("tmp_path")
        >>> (folder / WEIGHTS).touch()
        >>> Base.of(folder).sha256[:8]
        'e3b0c442'
        """
        place, path = find_source(source), _weights(source, revision)
        if isinstance(place, Path):
            return cls(str(place.resolve()), None, sha256_of_file(path))
        commit = path.parent.name  # in the Hub's cache files lie in snapshots/<commit>
        revision = commit if COMMIT_HASH.fullmatch(commit) else revision
        return cls(place, revision, sha256_of_file(path))

    def describe(self) -> str:
        """Return a paragraph for the card of a fine-tuned model.

        Example
        -------
        >>> Base("yfyeung/CLSP", None, "7c8c").describe().split(",")[0]
        'Adapters of `yfyeung/CLSP`'
        """
        at = f" at {self.revision}" if self.revision else ""
        return (
            f"Adapters of `{self.source}`{at}, whose license applies to the weights and which must"
            " be available, too. `clsp convert` makes a model of its own of the two."
        )


@dataclass(frozen=True)
class Adapters:
    """Adapters as they are saved.

    Arguments
    ---------
    place : Path or str
        Their folder or Hub repository.
    revision : str, optional
        Of the repository.
    base : Base
        The model that they belong to.
    options : dict
        Arguments of :class:`~speechbrain_clsp.lobes.adapters.AdaptedTower`.
    """

    place: Path | str
    revision: str | None
    base: Base
    options: Mapping[str, Any]

    def check_base(self) -> None:
        """Raise unless the base model is there, and is the one that adapters were trained on.

        Raises
        ------
        FileNotFoundError
            If it is missing.
        ValueError
            If its weights differ.
        """
        base, way_out = self.base, f"write where it is into {CONFIG}, as {BASE}'s source"
        try:
            place = find_source(base.source)
            path = _weights(place, base.revision)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.place} holds adapters of {base.source}, which is missing: put it back, or"
                f" {way_out} ({error})"
            ) from error
        if isinstance(place, Path) and not isinstance(self.place, Path):
            raise ValueError(
                f"{self.place} holds adapters of {place}, a folder where they were trained:"
                f" download them and {way_out}, or ask for a merged model"
            )
        found = sha256_of_file(path)
        if found != base.sha256:
            raise ValueError(
                f"{path} has SHA-256 {found}, but the adapters in {self.place} were trained on"
                f" {base.sha256}, with which alone they mean something: bring that model back, or"
                " fine-tune again"
            )

    @torch.no_grad()
    def apply(self, modules: Mapping[str, nn.Module]) -> None:
        """Add the adapters to the weights of the base model's modules, which stay what they are.

        Raises
        ------
        ValueError
            If the file is damaged, or does not fit.
        """
        path = find_file(self.place, ADAPTERS, self.revision)
        with open_weights(path) as file:
            state = {key: file.get_tensor(key) for key in file.keys()}
        try:
            adapted = adapt(modules, self.options)
        except TypeError as error:
            raise ValueError(
                f"{self.place}/{CONFIG} does not say how its adapters were made: {error}"
            ) from error
        check_state(state, tuned_state(adapted), path)
        for name, module in adapted.items():
            prefix = f"{name}."
            own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            if isinstance(module, AdaptedTower):
                module.load_tuned(own)
                module.merged().requires_grad_(False)
            else:
                module.load_state_dict(own)


def adapt(
    modules: Mapping[str, nn.Module], options: Mapping[str, Any]
) -> dict[str, AdaptedTower | nn.Module]:
    """Return the parts of a CLSP, of which the towers are adapted and the logit scale is not.

    Arguments
    ---------
    modules : dict of nn.Module
        Of the base model; towers are changed in place.
    options : dict
        Arguments of :class:`~speechbrain_clsp.lobes.adapters.AdaptedTower`.

    Returns
    -------
    dict of nn.Module
        Of ``speech_tower``, ``text_tower`` and ``logit_scale``.

    Example
    -------
    >>> from speechbrain_clsp.lobes import TransformerTextTower
    >>> from speechbrain_clsp.nnet import LogitScale
    >>> sizes = {"dim": 16, "n_layers": 1, "heads": 2, "feedforward": 32, "joint_dim": 8}
    >>> towers = {name: TransformerTextTower(40, **sizes) for name in TOWERS}
    >>> parts = adapt({**towers, "logit_scale": LogitScale()}, {"rank": 2, "layers": ["head.*"]})
    >>> [type(part).__name__ for part in parts.values()]
    ['AdaptedTower', 'AdaptedTower', 'LogitScale']
    """
    return {
        name: AdaptedTower(modules[name], **options) if name in TOWERS else modules[name]
        for name in PARTS
    }


def tuned_state(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Join what adapters hold under ``<module name>.<name in it>``; all of other modules."""
    return {
        f"{name}.{key}": value
        for name, module in modules.items()
        for key, value in (
            module.tuned_state() if isinstance(module, AdaptedTower) else module.state_dict()
        ).items()
    }


def find_adapters(place: Path | str, revision: str | None = None) -> Adapters | None:
    """Return the adapters of a folder or a Hub repository; None if it holds a model of its own.

    Arguments
    ---------
    place : Path or str
        As :func:`~speechbrain_clsp.pretrained.folder.find_source` returns it.
    revision : str, optional
        Of the repository.

    Returns
    -------
    Adapters or None
        What is known of them; nothing is loaded yet.

    Raises
    ------
    ValueError
        If ``config.json`` is damaged.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> base = {"source": "yfyeung/CLSP", "revision": None, "sha256": "7c8c"}
    >>> _ = (folder / CONFIG).write_text(json.dumps({"base": base, "adapters": {"rank": 2}}))
    >>> found = find_adapters(folder)
    >>> found.base.source, found.options
    ('yfyeung/CLSP', {'rank': 2})
    """
    config = find_config(place, revision)
    if BASE not in config or OPTIONS not in config:
        return None
    try:
        return Adapters(place, revision, Base(**config[BASE]), dict(config[OPTIONS]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}/{CONFIG} does not say what its adapters belong to") from error


def save_adapters(
    folder: str | os.PathLike,
    modules: Mapping[str, nn.Module],
    base: Base,
    options: Mapping[str, Any],
    metrics: Mapping[str, float | Sequence[float | None]] | None = None,
) -> None:
    """Write a folder that ``CLSP.from_pretrained`` loads where the base model is available.

    Arguments
    ---------
    folder : str or path
        Where it goes; one with adapters that is there is replaced.
    modules : dict of nn.Module
        As :func:`adapt` returned them.
    base : Base
        What they were adapted from.
    options : dict
        As for :func:`adapt`.
    metrics : dict, optional
        For the model card, see :func:`~speechbrain_clsp.pretrained.card.write_card`.

    Raises
    ------
    FileExistsError
        If there is something else at ``folder``.

    Example
    -------
    >>> from speechbrain_clsp.lobes import TransformerTextTower
    >>> from speechbrain_clsp.nnet import LogitScale
    >>> sizes = {"dim": 16, "n_layers": 1, "heads": 2, "feedforward": 32, "joint_dim": 8}
    >>> towers = {name: TransformerTextTower(40, **sizes) for name in TOWERS}
    >>> options = {"rank": 2, "layers": ["head.*"]}
    >>> parts = adapt({**towers, "logit_scale": LogitScale()}, options)
    >>> folder = getfixture("tmp_path") / "tuned"
    >>> save_adapters(folder, parts, Base("yfyeung/CLSP", None, "7c8c"), options)
    >>> sorted(path.name for path in folder.iterdir())
    ['README.md', 'adapters.safetensors', 'config.json', 'modules.json']
    """
    with new_folder(folder, (CONFIG, ADAPTERS)) as partial:
        write_weights(tuned_state(modules), partial / ADAPTERS)
        config = {BASE: asdict(base), OPTIONS: json.loads(json.dumps(dict(options)))}
        write_about(partial, config, metrics, base.describe())


def _weights(source: str | os.PathLike, revision: str | None) -> Path:
    """Return the file of a model's weights; of a fine-tuned one, that of its adapters."""
    adapted = find_adapters(find_source(source), revision) is not None
    return find_file(source, ADAPTERS if adapted else WEIGHTS, revision)
