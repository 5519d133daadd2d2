"""A Hugging Face Space around a model: the service in a container."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from huggingface_hub import HfApi
from packaging.requirements import Requirement

from speechbrain_clsp import __version__
from speechbrain_clsp.pretrained.exported import find_export
from speechbrain_clsp.pretrained.hub import publish
from speechbrain_clsp.utils.files import expand

PACKAGE = Path(__file__).parents[1]
PORT = 7860  # that Spaces open
DOCKERFILE = """FROM python:3.11-slim
RUN useradd --create-home --uid 1000 user
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --requirement requirements.txt
COPY --chown=user . .
USER user
ENV PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
EXPOSE {port}
CMD ["python", "-m", "speechbrain_clsp.cli", "serve", "--model", "model", "--host", "0.0.0.0", \
"--port", "{port}", "--allow-host", "{host}", "--allow-frame", "https://huggingface.co"]
"""
CARD = """---
title: {name}
sdk: docker
app_port: {port}
license: apache-2.0
pinned: false
---

# {name}
How is it spoken? Record or drop speech, and compare it with descriptions of its style. Made by
speechbrain-clsp {version}; `/docs` lists the interfaces. To keep it to yourself, set the secret
`CLSP_TOKEN` and open the page with `#token=TOKEN` at the end of its address.
"""


def write_space(model: str | os.PathLike, repository: str, folder: str | os.PathLike) -> list[str]:
    """Write what a Space needs: a Dockerfile, requirements, this package and the model.

    Arguments
    ---------
    model : str or path
        A model folder in SpeechBrain's format, or an exported one.
    repository : str
        The Space, ``user/name``.
    folder : str or path
        Where it goes; it is made, and must be empty.

    Returns
    -------
    list of str
        The files, relative to ``folder``.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is not a model folder, or ``repository`` is not of the form ``user/name``; or if the
        package is not installed, so that its requirements are not known.
    FileExistsError
        If the folder is not empty.
    """
    folder, model, names = Path(folder), expand(model), publish(model, repository, dry_run=True)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: choose another folder")
    (folder / "model").mkdir(parents=True)
    for name in names:
        shutil.copyfile(model / name, folder / "model" / name)
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    extras = ["", "serve", "search", *(["export"] if find_export(model) else [])]
    host = f"{repository.replace('/', '-').replace('_', '-').replace('.', '-').lower()}.hf.space"
    name = repository.split("/")[1]
    for file, text in (
        ("requirements.txt", "\n".join(_requirements(extras)) + "\n"),
        ("Dockerfile", DOCKERFILE.format(port=PORT, host=host)),
        ("README.md", CARD.format(name=name, port=PORT, version=__version__)),
    ):
        (folder / file).write_text(text, encoding="utf-8")
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def publish_space(
    model: str | os.PathLike, repository: str, private: bool = False, dry_run: bool = False
) -> dict[str, int]:
    """Upload a Space with a model; see :func:`write_space`.

    Arguments
    ---------
    model : str or path
        A model folder.
    repository : str
        The Space; made if it does not exist.
    private : bool
        Whether a new Space is hidden from others.
    dry_run : bool
        Only tell what would be uploaded; nothing is sent.

    Returns
    -------
    dict
        Bytes of each file.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = write_space(model, repository, Path(folder) / "space")
        place = Path(folder) / "space"
        if not dry_run:
            api = HfApi()
            options = {"repo_id": repository, "repo_type": "space"}
            api.create_repo(**options, space_sdk="docker", private=private, exist_ok=True)
            api.upload_folder(**options, folder_path=place)
        return {name: (place / name).stat().st_size for name in files}


def _requirements(extras: Sequence[str]) -> list[str]:
    """Return what the service needs, as the installed package says."""
    try:
        lines = requires("speechbrain-clsp") or []
    except PackageNotFoundError as error:
        raise ValueError("speechbrain-clsp must be installed: pip install -e '.[serve]'") from error
    needed = []
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in extras
        ):
            requirement.marker = None
            needed.append(str(requirement))
    return needed
