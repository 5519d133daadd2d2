"""The background of a model folder: embeddings of clips that scores are compared with.

``background.safetensors`` holds them as float16 [M, D], and the SHA-256 of the file of weights (or
adapters) beside it, to which they belong.
"""

from __future__ import annotations

import os
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from speechbrain_clsp import __version__
from speechbrain_clsp.pretrained.folder import (
    ADAPTERS,
    BACKGROUND,
    EXPORTED_WEIGHTS,
    WEIGHTS,
    open_weights,
)
from speechbrain_clsp.pretrained.hub import find_file
from speechbrain_clsp.utils.files import atomic_path, expand, sha256_of_file

EMBEDDINGS = "embeddings"
WEIGHTS_SHA256, SOURCE, PACKAGE = "weights_sha256", "source", "package"  # keys of its metadata
WAY_OUT = "remove it, or write it anew by write_background"


def write_background(folder: str | os.PathLike, embeddings: Tensor, source: str) -> Path:
    """Put a background into a model folder.

    Arguments
    ---------
    folder : str or path
        The model folder; a background that is there is replaced.
    embeddings : Tensor
        [M, D] of the model in it, of a few hundred clips of all kinds.
    source : str
        Which clips they are, such as a manifest's name.

    Returns
    -------
    pathlib.Path
        The file, which is written atomically.

    Raises
    ------
    FileNotFoundError
        If it is not a model folder.
    ValueError
        If the embeddings have another shape, or are NaN or infinite.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "model.safetensors").write_bytes(b"weights")
    >>> path = write_background(folder, Tensor([[0.6, 0.8]]), "valid.arrow")
    >>> read_background(path)
    (tensor([[0.6002, 0.7999]]), 'valid.arrow')
    >>> _ = (folder / "model.safetensors").write_bytes(b"others")
    >>> read_background(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: ...background.safetensors holds embeddings of other weights than those in \
...model.safetensors: remove it, or write it anew by write_background
    """
    folder = expand(folder)
    if embeddings.dim() != 2 or not len(embeddings) or not embeddings.isfinite().all():
        raise ValueError(
            f"A background must be [M, D] without NaN, not {list(embeddings.shape)}: it is not"
            " written"
        )
    about = {
        WEIGHTS_SHA256: sha256_of_file(_weights_beside(folder)),
        SOURCE: source,
        PACKAGE: f"speechbrain-clsp {__version__}",
    }
    with atomic_path(folder / BACKGROUND) as path:
        save_file({EMBEDDINGS: embeddings.detach().cpu().half().contiguous()}, path, about)
        path.chmod(0o644)  # safetensors makes it readable by its owner alone
    return folder / BACKGROUND


def read_background(path: str | os.PathLike) -> tuple[Tensor, str]:
    """Read a background.

    Arguments
    ---------
    path : str or path
        As :func:`find_background` returns it; the weights lie beside it.

    Returns
    -------
    embeddings : Tensor
        [M, D] float32 of unit norm.
    source : str
        Which clips they are.

    Raises
    ------
    FileNotFoundError
        If there are no weights beside it.
    ValueError
        If the file is damaged, or belongs to other weights.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "model.safetensors").write_bytes(b"weights")
    >>> embeddings, source = read_background(write_background(folder, Tensor([[0, 2]]), "valid"))
    >>> embeddings.tolist(), source
    ([[0.0, 1.0]], 'valid')
    """
    path = expand(path)
    with open_weights(path) as file:
        about = file.metadata() or {}
        embeddings = file.get_tensor(EMBEDDINGS) if EMBEDDINGS in file.keys() else None
    if embeddings is None or embeddings.dim() != 2 or not {WEIGHTS_SHA256, SOURCE} <= set(about):
        raise ValueError(f"{path} is not a background: {WAY_OUT}")
    weights = _weights_beside(path.parent)
    if sha256_of_file(weights) != about[WEIGHTS_SHA256]:
        raise ValueError(
            f"{path} holds embeddings of other weights than those in {weights}: {WAY_OUT}"
        )
    return normalize(embeddings.float(), dim=-1), about[SOURCE]


def find_background(place: Path | str, revision: str | None = None) -> Path | None:
    """Return the file of a model's background, if it has one.

    Arguments
    ---------
    place : Path or str
        As :func:`~speechbrain_clsp.pretrained.folder.find_source` returns it.
    revision : str, optional
        Of a repository.

    Returns
    -------
    pathlib.Path, optional
        The file, which may have been downloaded.

    Example
    -------
    >>> find_background(getfixture("tmp_path")) is None
    True
    """
    try:
        return find_file(place, BACKGROUND, revision)
    except (FileNotFoundError, ConnectionError):  # in no cache: it is only an addition
        return None


def _weights_beside(folder: Path) -> Path:
    names = (ADAPTERS, WEIGHTS, *EXPORTED_WEIGHTS)
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{folder} is not a model folder: it has no {WEIGHTS}")
    return found[0]
