"""The published CLSP checkpoint, from a folder or the Hugging Face Hub.

Only JSON and safetensors are read; no downloaded code is run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import (
    _CACHED_NO_EXIST,
    HfApi,
    hf_hub_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from hyperpyyaml import load_hyperpyyaml
from safetensors import SafetensorError
from speechbrain.utils.logger import get_logger
from torch import nn

from speechbrain_clsp.dataio.tokenizers import FastTokenizerCaptions
from speechbrain_clsp.lobes.encoders import load_encoder
from speechbrain_clsp.lobes.features import SAMPLE_RATE
from speechbrain_clsp.lobes.pretrained_speech import PretrainedSpeechTower
from speechbrain_clsp.lobes.pretrained_text import PretrainedTextTower
from speechbrain_clsp.lobes.speech_tower import SpeechTower
from speechbrain_clsp.lobes.text_tower import RobertaTextTower
from speechbrain_clsp.pretrained.folder import (
    ADAPTERS,
    CONFIG,
    GRAPHS,
    HYPERPARAMS,
    INTERFACE_KEY,
    WEIGHTS,
    WRAPPERS,
    find_source,
    load_state,
    open_weights,
)
from speechbrain_clsp.pretrained.official import define, is_unused, read_architecture, to_ours
from speechbrain_clsp.utils.checks import join_some
from speechbrain_clsp.utils.files import expand, sha256_of_file

PREFIX = "model."
PREPROCESSOR = "preprocessor_config.json"  # of encoders of speech
LOGIT_SCALE = "logit_scale.logit_scale"


logger = get_logger(__name__)


class Pin(NamedTuple):
    """A revision of a Hub repository, the SHA-256 of files in it, and files it does not have."""

    revision: str
    hashes: Mapping[str, str] = {}
    absent: tuple[str, ...] = ()


PINS = {
    "yfyeung/CLSP": Pin(
        "30355ce67960e4cc1562e4e5fa154baf86a21430",
        {
            WEIGHTS: "7c8c461867815d86d42013b2f55ca79e9bb8ea9fa129f377c1bced9f8b66a743",
            CONFIG: "c8195b4a4e1c318253b2eb362165784b213e830703837c020c7d034211817af2",
        },
        absent=(FastTokenizerCaptions.FILENAME,),
    ),
    "FacebookAI/roberta-base": Pin("e2da8e2f811d1448a5b465c236feacd80ffbac7b"),
}
COMMIT_HASH = re.compile(r"[0-9a-f]{40}")
TEXT_MODEL = "FacebookAI/roberta-base"  # whose tokenizer the published model uses


def load_official(
    source: str | os.PathLike, revision: str | None = None
) -> tuple[dict[str, nn.Module], FastTokenizerCaptions]:
    """Load a CLSP in the published form: ``model.safetensors`` and, if there, ``config.json``.

    The architecture is read off the tensors' shapes; every tensor must find its place and every
    weight its tensor. Weights stay memory-mapped until they are used. Users call
    :meth:`~speechbrain_clsp.inference.clsp.CLSP.from_pretrained`, which raises the same errors.

    Arguments
    ---------
    source : str or path
        A folder, or a Hub repository such as ``yfyeung/CLSP``.
    revision : str, optional
        Commit, tag or branch of the repository; default: the pinned one, or ``main``.

    Returns
    -------
    modules : dict of nn.Module
        ``speech_tower``, ``text_tower`` and ``logit_scale``, in eval mode.
    tokenizer : FastTokenizerCaptions
        If it is neither in the folder, nor in the Hub's cache, nor to be downloaded, it raises when
        it is called, and says what is missing.

    Example
    -------
    >>> modules, tokenizer = load_official("yfyeung/CLSP")  # doctest: +SKIP
    >>> modules["text_tower"](*tokenizer(["He whispers."])).shape  # doctest: +SKIP
    torch.Size([1, 512])
    """
    weights = find_file(source, WEIGHTS, revision)
    sizes = read_sizes(source, revision)
    try:
        with torch.device("meta"):  # parameters take no memory until they are loaded
            built = load_hyperpyyaml(define(sizes))
    except Exception as error:  # sizes that do not go together fail in any of the parts
        raise ValueError(
            f"{weights}: the shapes of its tensors make no CLSP: {type(error).__name__}: {error}"
        ) from error
    state = {}
    with open_weights(weights) as file:
        for key, name in _published_keys(weights).items():
            if not is_unused(key):
                state[to_ours(key) or f"unknown {key}"] = _as_float32(file.get_tensor(name))
    if LOGIT_SCALE in state and state[LOGIT_SCALE].numel() == 1:
        state[LOGIT_SCALE] = state[LOGIT_SCALE].reshape(1)
    load_state(state, built["modules"], weights)
    _load_tokenizer(built["tokenizer"], source, revision)
    return {name: module.eval() for name, module in built["modules"].items()}, built["tokenizer"]


def read_sizes(source: str | os.PathLike, revision: str | None = None) -> dict[str, dict]:
    """Read a published model's sizes; the rest is as for :func:`load_official`.

    See :func:`~speechbrain_clsp.pretrained.official.read_architecture`.
    """
    weights = find_file(source, WEIGHTS, revision)
    keys = _published_keys(weights)
    with open_weights(weights) as file:
        shapes = {key: file.get_slice(name).get_shape() for key, name in keys.items()}
    config = find_config(source, revision)
    try:
        return read_architecture(shapes, config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{weights}: {error}") from error


def _as_float32(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def _published_keys(path: str | os.PathLike) -> dict[str, str]:
    """Return the keys of a safetensors file, without prefixes such as ``model.`` -> as they are."""
    with open_weights(path) as file:
        names = list(file.keys())
    if any(name.startswith("speech_tower.") for name in names):
        raise ValueError(
            f"{path} is in SpeechBrain's format, not in the published form: load its folder, with"
            f" {HYPERPARAMS} and {CONFIG} in it, by CLSP.from_pretrained"
        )
    return {WRAPPERS.sub("", name).removeprefix(PREFIX): name for name in names}


def load_pretrained_encoder(tower: SpeechTower, source: str | os.PathLike) -> None:
    """Start a speech tower from a pretrained Zipformer, such as SPEAR-XLarge.

    Arguments
    ---------
    tower : SpeechTower
        Its front end and encoder are overwritten; its head is left as it is.
    source : str or path
        Folder or Hub repository (``marcoyang/spear-xlarge-speech-audio``) with a
        ``model.safetensors`` of ``encoder_embed.*`` and ``encoder.*``, with or without ``model.``.

    Raises
    ------
    ValueError
        If weights of front end or encoder are missing, or have other shapes.

    Example
    -------
    >>> from safetensors.torch import save_file
    >>> from speechbrain_clsp.lobes import Zipformer2
    >>> sizes = [1, 2], [1, 1], [32, 48], [48, 64], [2, 2], [7, 7]
    >>> towers = [SpeechTower(Zipformer2(*sizes), 16, frontend_channels=(2, 4, 8)) for _ in "ab"]
    >>> folder = getfixture("tmp_path")
    >>> save_file(towers[0].state_dict(), folder / WEIGHTS)
    >>> load_pretrained_encoder(towers[1], folder)
    >>> first, second = (next(tower.encoder.parameters()) for tower in towers)
    >>> bool((first == second).all())
    True
    """
    weights = find_file(source, WEIGHTS)
    parts = {"encoder_embed": tower.encoder_embed, "encoder": tower.encoder}
    with open_weights(weights) as file:
        state = {
            key: _as_float32(file.get_tensor(name))
            for key, name in _published_keys(weights).items()
            if key.startswith(tuple(f"{part}." for part in parts)) and not is_unused(key)
        }
    load_state(state, parts, weights)


def read_encoder_config(source: str | os.PathLike) -> dict[str, Any]:
    """Read the configuration of a pretrained encoder of text or speech.

    Arguments
    ---------
    source : str or path
        As for :func:`load_pretrained_text_encoder` or :func:`load_pretrained_speech_encoder`.

    Returns
    -------
    dict
        The contents of ``config.json``, for a
        :class:`~speechbrain_clsp.lobes.pretrained_text.PretrainedTextTower` or a
        :class:`~speechbrain_clsp.lobes.pretrained_speech.PretrainedSpeechTower`.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is not a JSON object.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / CONFIG).write_text('{"model_type": "wavlm"}')
    >>> read_encoder_config(folder)
    {'model_type': 'wavlm'}
    """
    return _read_json(find_file(source, CONFIG))


def read_do_normalize(source: str | os.PathLike) -> bool:
    """Read whether a pretrained speech encoder wants samples of zero mean and unit variance.

    Arguments
    ---------
    source : str or path
        As for :func:`load_pretrained_speech_encoder`.

    Returns
    -------
    bool
        ``do_normalize`` of ``preprocessor_config.json``; True, as in transformers, if it or the
        file is missing.

    Raises
    ------
    ValueError
        If the file is not a JSON object, or names another sample rate than 16 kHz.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / PREPROCESSOR).write_text('{"do_normalize": false}')
    >>> read_do_normalize(folder)
    False
    """
    try:
        path = find_file(source, PREPROCESSOR)
    except FileNotFoundError:
        logger.warning(
            "%s has no %s: its encoder is taken for one that reads samples of unit variance, as"
            " those with layer norm do, and base WavLM does not",
            *(source, PREPROCESSOR),
        )
        return True
    settings = _read_json(path)
    rate = settings.get("sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise ValueError(
            f"{path}: the encoder reads {rate} Hz, and all audio here has {SAMPLE_RATE} Hz: choose"
            " another encoder"
        )
    return bool(settings.get("do_normalize", True))


def load_pretrained_text_encoder(
    tower: PretrainedTextTower | RobertaTextTower, source: str | os.PathLike
) -> None:
    """Start a text tower from a pretrained encoder, such as RoBERTa or MiniLM.

    Arguments
    ---------
    tower : PretrainedTextTower or RobertaTextTower
        Its encoder is overwritten; what is trained from scratch is left as it is.
    source : str or path
        Folder or Hub repository with ``config.json`` and safetensors, as transformers has them.

    Raises
    ------
    FileNotFoundError
        If there are no safetensors.
    ValueError
        If weights are missing, have other shapes, or are NaN or infinite.

    Example
    -------
    >>> size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    >>> config = {"model_type": "bert", "vocab_size": 40, "intermediate_size": 32, **size}
    >>> towers = [PretrainedTextTower(config, tuning=1, joint_dim=8) for _ in "ab"]
    >>> folder = getfixture("tmp_path")
    >>> towers[0].encoder.save_pretrained(folder)
    >>> load_pretrained_text_encoder(towers[1], folder)
    >>> first, second = (next(tower.encoder.parameters()) for tower in towers)
    >>> bool((first == second).all())
    True
    """
    _load_encoder(tower.encoder, source, "text tower")


def load_pretrained_speech_encoder(tower: PretrainedSpeechTower, source: str | os.PathLike) -> None:
    """Start a speech tower from a pretrained encoder, such as WavLM or Whisper's.

    Arguments
    ---------
    tower : PretrainedSpeechTower
        Its encoder is overwritten; its head is left as it is.
    source : str or path
        Folder or Hub repository with ``config.json`` and safetensors, as transformers has them. A
        model around the encoder, such as one for speech recognition, will do.

    Raises
    ------
    FileNotFoundError
        If there are no safetensors.
    ValueError
        If weights are missing, have other shapes, or are NaN or infinite.

    Example
    -------
    >>> size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    >>> config = {"model_type": "wavlm", "intermediate_size": 32, "conv_dim": [8] * 7, **size}
    >>> towers = [PretrainedSpeechTower(config, tuning=1, joint_dim=8) for _ in "ab"]
    >>> folder = getfixture("tmp_path")
    >>> towers[0].encoder.save_pretrained(folder)
    >>> load_pretrained_speech_encoder(towers[1], folder)
    >>> first, second = (next(tower.encoder.parameters()) for tower in towers)
    >>> bool((first == second).all())
    True
    """
    _load_encoder(tower.encoder, source, "speech tower")


def _load_encoder(encoder: nn.Module, source: str | os.PathLike, place: str) -> None:
    """Load an encoder of transformers out of what transformers' ``AutoModel`` opens."""
    from transformers import AutoModel  # takes seconds to import

    pin, found = PINS.get(str(source)), find_source(source)
    try:
        model, report = AutoModel.from_pretrained(
            found,
            revision=pin.revision if pin else "main",
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except OSError as error:
        raise FileNotFoundError(
            f"{source} could not be opened: {_one_line(error)}. If it has weights, but none in"
            " safetensors, open it once with transformers' AutoModel, call save_pretrained, and"
            " give that folder"
        ) from error
    except SafetensorError as error:
        raise ValueError(
            f"{source}: its safetensors are damaged or cut off ({_one_line(error)}): get them again"
        ) from error
    inside = "encoder." if model.config.is_encoder_decoder else ""
    absent = set(report["missing_keys"])
    state = {
        key.removeprefix(inside): value
        for key, value in model.state_dict().items()
        if key not in absent and key.startswith(inside)
    }
    damaged = [key for key, value in state.items() if not value.isfinite().all()]
    if damaged:
        raise ValueError(f"{source} has values that are NaN or infinite: {join_some(damaged)}")
    try:
        load_encoder(encoder, state)
    except ValueError as error:
        raise ValueError(f"{source} does not fit the {place}: {error}") from error


def has_definition(source: Path | str, revision: str | None = None) -> bool:
    """Tell a model in SpeechBrain's format, with a definition that is code, from a published one.

    Arguments are those of :func:`load_official`, ``source`` as
    :func:`~speechbrain_clsp.pretrained.folder.find_source` returns it. Of a repository only
    ``config.json`` is read.
    """
    config = find_config(source, revision)
    if INTERFACE_KEY in config:
        return True
    return isinstance(source, Path) and not config and (source / HYPERPARAMS).is_file()


def find_config(source: str | os.PathLike, revision: str | None = None) -> dict[str, Any]:
    """Read ``config.json`` of a folder or a Hub repository; {} if it has none.

    Arguments and errors are those of :func:`load_official`.

    Example
    -------
    >>> find_config(getfixture("tmp_path"))
    {}
    """
    try:
        path = find_file(source, CONFIG, revision)
    except FileNotFoundError:
        return {}  # the shapes say what is needed
    return _read_json(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return config


def _load_tokenizer(
    tokenizer: FastTokenizerCaptions, source: str | os.PathLike, revision: str | None
) -> None:
    """Load the tokenizer beside the weights, or RoBERTa's from the Hub or its cache.

    Speech needs none: where it is out of reach, the tokenizer only says so when it is called.
    """
    place = find_source(source)
    is_folder = isinstance(place, Path)
    try:
        tokenizer.load(place if is_folder else find_file(place, tokenizer.FILENAME, revision))
    except ConnectionError as error:  # the repository's own may differ from RoBERTa's
        tokenizer.missing = f"{error}. Load the model again when the Hub can be reached"
    except FileNotFoundError:
        try:
            tokenizer.load(_download(TEXT_MODEL, tokenizer.FILENAME, None, offline=is_folder))
        except (OSError, ValueError) as error:
            tokenizer.missing = (
                f"no tokenizer in {source}, and {TEXT_MODEL}'s could not be downloaded ({error})."
                f" Put {TEXT_MODEL}'s {tokenizer.FILENAME} into a folder beside the weights, or"
                f" run: hf download {TEXT_MODEL} {tokenizer.FILENAME}"
                f" --revision {PINS[TEXT_MODEL].revision}"
            )


def fetch_tokenizer(source: str | os.PathLike) -> FastTokenizerCaptions:
    """Return a text encoder's tokenizer from what its ``load`` reads, or from a Hub repository.

    Raises
    ------
    FileNotFoundError
        If there is no tokenizer.
    """
    name = FastTokenizerCaptions.FILENAME
    path = expand(source)
    return FastTokenizerCaptions(path if path.exists() else find_file(source, name))


def find_file(source: str | os.PathLike, name: str, revision: str | None = None) -> Path:
    """Return the path of a file in a folder or, after a download, in the Hub's cache.

    Arguments and errors are those of :func:`load_official`.
    """
    place = find_source(source)
    if isinstance(place, Path):
        if (place / name).is_file():
            return place / name
        raise FileNotFoundError(f"{place} has no {name}")
    return _download(place, name, revision)


def _download(repository: str, name: str, revision: str | None, offline: bool = False) -> Path:
    """Get a file from the Hub or its cache; that of a pinned revision must have its hash."""
    pin = PINS.get(repository, Pin("main"))
    revision = revision or pin.revision
    where = f"{repository} at revision {revision}"
    try:
        path = _fetch(repository, name, revision, offline)
    except GatedRepoError as error:
        raise PermissionError(
            f"{where} requires consent to its terms: give it on its page, then `hf auth login`"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"{where}: {name} is not in the Hub's cache and could not be downloaded:"
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
        if _status_of(error) in (401, 403):
            raise PermissionError(f"{where} is not open to you: try `hf auth login`") from error
        # The rest are errors of the HTTP library in use, which changes with the hub's version.
        raise ConnectionError(
            f"{where}: {name} could not be downloaded: {_one_line(error)}"
        ) from error
    if revision == pin.revision and name in pin.hashes:
        _check_hash(path, pin.hashes[name])
    return Path(path)


def _is_known_absent(repository: str, name: str, revision: str) -> bool:
    """Tell whether the Hub once answered that a revision of a repository has no such file."""
    pin = PINS.get(repository, Pin("main"))
    if revision == pin.revision and name in pin.absent:
        return True
    return try_to_load_from_cache(repository, name, revision=revision) is _CACHED_NO_EXIST


def _fetch(repository: str, name: str, revision: str, offline: bool) -> str:
    """Return the path of a file of a repository, out of the cache if the Hub does not answer.

    That a file is absent is an answer, too, and is cached. ``hf_hub_download`` raises in that case;
    and also for errors of a proxy, or of a connection that is closed without an answer.
    """
    download = partial(hf_hub_download, repository, name, revision=revision)
    absent = EntryNotFoundError(f"{repository} has no {name}")
    if COMMIT_HASH.fullmatch(revision) and _is_known_absent(repository, name, revision):
        raise absent  # what a commit lacks it will always lack
    try:
        return download(local_files_only=offline)
    except LocalEntryNotFoundError as error:
        if _is_known_absent(repository, name, revision):
            raise absent from error
        raise
    except Exception as error:
        if offline or isinstance(error, OSError | HfHubHTTPError | EntryNotFoundError):
            raise
        if _is_known_absent(repository, name, revision):
            raise absent from error
        try:
            return download(local_files_only=True)
        except LocalEntryNotFoundError as not_cached:
            raise not_cached from error


def _status_of(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


@lru_cache  # 3 GB take seconds, and several steps of one load ask for them
def _check_hash(path: str, expected: str) -> None:
    """Raise if a file's SHA-256 is not what it must be."""
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
        A model folder in SpeechBrain's format, or an exported one.
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
    FileNotFoundError, ValueError
        If it is not a model folder, or ``repository`` is not of the form ``user/name``.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in (HYPERPARAMS, WEIGHTS):
    ...     (folder / name).touch()
    >>> publish(folder, "me/my-clsp", dry_run=True)
    ['hyperparams.yaml', 'model.safetensors']
    """
    folder = expand(folder)
    if (folder / ADAPTERS).is_file():
        raise ValueError(
            f"{folder} holds adapters, which mean nothing without their base model: merge them by"
            f" `clsp convert {folder} merged`, and publish that"
        )
    kinds = [(HYPERPARAMS, WEIGHTS), *((CONFIG, *names[:3]) for names in GRAPHS.values())]
    if not any(all((folder / name).is_file() for name in kind) for kind in kinds):
        raise FileNotFoundError(
            f"{folder} is not a model folder: it must hold {HYPERPARAMS} and {WEIGHTS}, or what"
            " `clsp export` writes"
        )
    try:
        validate_repo_id(repository)
        _, _ = repository.split("/")
    except ValueError as error:
        raise ValueError(f"{repository!r} is not a Hub repository: it must be user/name") from error
    files = sorted(file.name for file in folder.iterdir() if file.is_file())
    if not dry_run:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=files)
    return files
