"""What the results were measured on."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "torch torchaudio triton speechbrain transformers tokenizers safetensors numpy scipy pyarrow"
    " soundfile sentencepiece hyperpyyaml ruamel.yaml nvidia-cublas nvidia-cudnn-cu13"
    " nvidia-nccl-cu13"
).split()


def environment(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the device, its driver, the versions and the commit."""
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    facts = {
        "device type": device,
        "device": _cpu_name(),
        "sizes": "small: a check of the code, no measurement" if options.small else "full",
        "driver": None,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "commit": _commit(root),
        "threads": options.threads,
        "cpus": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
    }
    if device == "cuda":
        facts |= {"device": _gpu_name(), "driver": _driver()}
    return facts


def _gpu_name() -> str:
    if not torch.cuda.is_available():
        return "no CUDA device is visible"
    properties = torch.cuda.get_device_properties(0)
    memory = properties.total_memory / 2**30
    return f"{properties.name}, {memory:.0f} GiB, {properties.multi_processor_count} SMs"


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return _output(query).splitlines()[0] if _output(query) else None


def _commit(root: Path) -> str | None:
    """Return the commit, marked if files differ from it; None outside a git checkout."""
    commit = _output(["git", "-C", str(root), "rev-parse", "HEAD"])
    changed = _output(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    return f"{commit}{' with changes' if changed else ''}" if commit else None


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
