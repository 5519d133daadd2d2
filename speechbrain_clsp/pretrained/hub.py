"""The published CLSP checkpoint, from a folder or the Hugging Face Hub.

Only JSON and safetensors are read; no downloaded code is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from torch import nn

from speechbrain_clsp.dataio.tokenizers import RobertaCaptions
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.lobes.speech_tower import SpeechTower
from speechbrain_clsp.lobes.text_tower import RobertaTextTower
from speechbrain_clsp.lobes.zipformer.encoder import Zipformer2
from speechbrain_clsp.nnet.logit_scale import Temperature
from speechbrain_clsp.pretrained.folder import HYPERPARAMS, WEIGHTS, load_state
from speechbrain_clsp.pretrained.official import is_unused, read_architecture, to_ours
from speechbrain_clsp.utils.files import sha256_of_file

CONFIG = "config.json"
PREFIX = "model."


@dataclass(frozen=True)
class Pin:
    """A revision of a Hub repository, and the SHA-256 of files in it."""

    revision: str
    hashes: Mapping[str, str] = field(default_factory=dict)


PINS = {
    "yfyeung/CLSP": Pin(
        "30355ce67960e4cc1562e4e5fa154baf86a21430",
        {
            WEIGHTS: "7c8c461867815d86d42013b2f55ca79e9bb8ea9fa129f377c1bced9f8b66a743",
            CONFIG: "c8195b4a4e1c318253b2eb362165784b213e830703837c020c7d034211817af2",
        },
    ),
    "FacebookAI/roberta-base": Pin("e2da8e2f811d1448a5b465c236feacd80ffbac7b"),
}
TEXT_MODEL = "FacebookAI/roberta-base"  # whose tokenizer the published model uses


def load_official(
    source: str | os.PathLike, revision: str | None = None, run_opts: dict | None = None
) -> CLSP:
    """Load a CLSP in the published form: ``model.safetensors`` and, if there, ``config.json``.

    The architecture is read off the tensors' shapes; every tensor must find its place and every
    weight its tensor. Weights stay memory-mapped until they are used.

    Arguments
    ---------
    source : str or path
        A folder, or a Hub repository such as ``yfyeung/CLSP``.
    revision : str, optional
        Commit, tag or branch of the repository. Default: the revision that is pinned here, whose
        files' SHA-256 are checked; for other repositories, ``main``.
    run_opts : dict, optional
        As for SpeechBrain's ``Pretrained``: ``{"device": "cuda"}``.

    Returns
    -------
    CLSP
        The model, in eval mode. Without a RoBERTa tokenizer in the folder or the Hub's cache it
        embeds speech, and ``encode_text`` says what is missing.

    Raises
    ------
    FileNotFoundError
        If the folder, the repository or a file in it cannot be had.
    PermissionError
        If the Hub asks for a token that allows to read the repository.
    ConnectionError
        If the Hub cannot be reached and the files are not in its cache.
    ValueError
        If a file is damaged, its hash is not the pinned one, or weights do not fit.

    Example
    -------
    >>> clsp = load_official("yfyeung/CLSP")  # doctest: +SKIP
    >>> clsp.score_file("a.wav", ["A female speaker with a British accent."])  # doctest: +SKIP
    tensor([0.6210])
    """
    sizes = read_sizes(source, revision)
    weights = find_file(source, WEIGHTS, revision)
    with weightless():
        modules = _build(sizes)
    keys, state = published_keys(weights), {}
    with safe_open(weights, framework="pt") as file:
        for key, name in keys.items():
            if not is_unused(key):
                state[to_ours(key) or f"unknown {key}"] = file.get_tensor(name).float()
    state["temperature.logit_scale"] = state["temperature.logit_scale"].reshape(1)
    load_state(state, modules, weights)
    hparams = {"tokenizer": _find_tokenizer(source, revision)}
    return CLSP(modules=modules, hparams=hparams, run_opts=run_opts)


def read_sizes(source: str | os.PathLike, revision: str | None = None) -> dict[str, dict]:
    """Read a published model's sizes.

    See :func:`~speechbrain_clsp.pretrained.official.read_architecture`.

    Arguments and errors are those of :func:`load_official`.
    """
    weights = find_file(source, WEIGHTS, revision)
    keys = published_keys(weights)
    with safe_open(weights, framework="pt") as file:
        shapes = {key: file.get_slice(name).get_shape() for key, name in keys.items()}
    return read_architecture(shapes, _find_config(source, revision))


def published_keys(path: str | os.PathLike) -> dict[str, str]:
    """Return the keys of a safetensors file without ``model.`` in front -> as they are.

    Raises
    ------
    ValueError
        If the file is damaged, or is a SpeechBrain-format folder's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    if any(name.startswith("speech_tower.") for name in names):
        raise ValueError(
            f"{path} belongs to a SpeechBrain-format folder: load it with CLSP.from_hparams"
        )
    return {name.removeprefix(PREFIX): name for name in names}


def load_pretrained_encoder(tower: SpeechTower, source: str | os.PathLike, revision=None) -> None:
    """Start a speech tower from a pretrained Zipformer, such as SPEAR-XLarge.

    Arguments
    ---------
    tower : SpeechTower
        Its front end and encoder are overwritten; its head is left as it is.
    source : str or path
        Folder or Hub repository (``marcoyang/spear-xlarge-speech-audio``) with a
        ``model.safetensors`` of ``encoder_embed.*`` and ``encoder.*``, with or without ``model.``.
    revision : str, optional
        Of the repository.

    Raises
    ------
    ValueError
        If weights of front end or encoder are missing, or have other shapes.
    """
    weights = find_file(source, WEIGHTS, revision)
    parts = {"encoder_embed": tower.encoder_embed, "encoder": tower.encoder}
    with safe_open(weights, framework="pt") as file:
        state = {
            key: file.get_tensor(name).float()
            for key, name in published_keys(weights).items()
            if key.startswith(tuple(f"{part}." for part in parts)) and not is_unused(key)
        }
    load_state(state, parts, weights)


@contextmanager
def weightless() -> Iterator[None]:
    """Make modules without memory for their parameters; buffers are made as usual."""
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            parameter = nn.Parameter(parameter.to("meta"), parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = register_on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def _build(sizes: Mapping[str, dict[str, Any]]) -> dict[str, nn.Module]:
    return {
        "speech_tower": SpeechTower(Zipformer2(**sizes["encoder"]), **sizes["speech_tower"]),
        "text_tower": RobertaTextTower(**sizes["text_tower"]),
        "temperature": Temperature(),
    }


def _find_config(source: str | os.PathLike, revision: str | None) -> dict[str, Any]:
    try:
        path = find_file(source, CONFIG, revision)
    except FileNotFoundError:
        return {}  # the shapes say what is needed
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return config


def _find_tokenizer(source: str | os.PathLike, revision: str | None) -> RobertaCaptions:
    """Load the tokenizer beside the weights, or RoBERTa's from the Hub or its cache."""
    tokenizer = RobertaCaptions()
    is_folder = Path(source).is_dir()
    try:
        if is_folder:
            tokenizer.load(source)
        else:
            tokenizer.load(find_file(source, tokenizer.FILENAME, revision))
    except FileNotFoundError:
        try:
            tokenizer.load(_download(TEXT_MODEL, tokenizer.FILENAME, None, offline=is_folder))
        except (OSError, ValueError) as error:
            tokenizer.missing = (
                f"no tokenizer in {source}, and {TEXT_MODEL}'s cannot be had ({error}). Put"
                f" {TEXT_MODEL}'s {tokenizer.FILENAME} into a folder beside the weights, or run:"
                f" hf download {TEXT_MODEL} {tokenizer.FILENAME}"
                f" --revision {PINS[TEXT_MODEL].revision}"
            )
    return tokenizer


def fetch_tokenizer(source: str | os.PathLike) -> RobertaCaptions:
    """Return RoBERTa's tokenizer.

    Arguments
    ---------
    source : str or path
        Folder with ``tokenizer.json`` (or the file, or ``vocab.json`` and ``merges.txt``), or a Hub
        repository that has it.

    Raises
    ------
    FileNotFoundError
        If it has none.
    """
    path = Path(source)
    if not path.exists():
        pin = PINS.get(str(source))
        path = find_file(source, RobertaCaptions.FILENAME, pin.revision if pin else None)
    return RobertaCaptions(path)


def find_file(source: str | os.PathLike, name: str, revision: str | None = None) -> Path:
    """Return the path of a file in a folder or, after a download, in the Hub's cache.

    Arguments and errors are those of :func:`load_official`; ``name`` is the file's.
    """
    folder = Path(source)
    if folder.is_dir():
        if (folder / name).is_file():
            return folder / name
        hint = ": load it with CLSP.from_hparams" if (folder / HYPERPARAMS).is_file() else ""
        raise FileNotFoundError(f"{folder} has no {name}{hint}")
    if folder.is_absolute() or len(folder.parts) != 2 or str(source).startswith("."):
        raise FileNotFoundError(f"No folder {source}, and a Hub repository is user/name")
    return _download(str(source), name, revision)


def _download(repository: str, name: str, revision: str | None, offline: bool = False) -> Path:
    """Get a file from the Hub or its cache; that of a pinned revision must have its hash."""
    pin = PINS.get(repository, Pin("main"))
    revision = revision or pin.revision
    where = f"{repository} at revision {revision}"
    try:
        path = hf_hub_download(repository, name, revision=revision, local_files_only=offline)
    except GatedRepoError as error:
        raise PermissionError(f"{where} asks for consent: log in with `hf auth login`") from error
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"{where}: {name} is not in the Hub's cache, and cannot be had from the Hub:"
            f" {_one_line(error.__cause__ or error)}"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        missing = "file" if isinstance(error, EntryNotFoundError) else "repository or revision"
        raise FileNotFoundError(
            f"{where}: no such {missing} ({name}); private ones need `hf auth login`"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, HfHubHTTPError):
            raise  # a full disk, for one
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            raise PermissionError(f"{where} is not open to you: try `hf auth login`") from error
        # The rest are errors of the HTTP library in use, which changes with the hub's version.
        raise ConnectionError(f"{where}: {name} cannot be had: {_one_line(error)}") from error
    if revision == pin.revision and name in pin.hashes:
        check_hash(str(path), pin.hashes[name])
    return Path(path)


@lru_cache  # 3 GB take seconds, and several steps of one load ask for them
def check_hash(path: str, expected: str) -> None:
    """Compare a file's SHA-256 with what it must be.

    Raises
    ------
    ValueError
        If they differ; both are shown.
    """
    found = sha256_of_file(path)
    if found != expected:
        raise ValueError(
            f"{path} has SHA-256 {found}, and {expected} is pinned: delete it to download it"
            " again, or give a revision= to trust another one"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def publish(
    folder: str | os.PathLike, repository: str, private: bool = False, dry_run: bool = False
) -> list[str]:
    """Upload a model folder to the Hub.

    Arguments
    ---------
    folder : str or path
        A folder that ``CLSP.from_hparams`` loads.
    repository : str
        ``user/name``; made if it does not exist.
    private : bool
        Whether a new repository is hidden from others.
    dry_run : bool
        Only list what would be uploaded; nothing is sent.

    Returns
    -------
    list of str
        The files' names.

    Raises
    ------
    FileNotFoundError
        If it is no model folder.
    ValueError
        If ``repository`` is not of the form ``user/name``.
    """
    folder = Path(folder)
    if not (folder / HYPERPARAMS).is_file() or not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder} is no model folder: {HYPERPARAMS}, {WEIGHTS} missing")
    if len(repository.split("/")) != 2 or not all(repository.split("/")):
        raise ValueError(f"{repository!r} is no Hub repository: it must be user/name")
    files = sorted(file.name for file in folder.iterdir() if file.is_file())
    if not dry_run:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=files)
    return files
