"""Settings of all tests: one thread per process, since several run at once; no network."""

import os
import sys

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems() -> None:
    """Keep hypothesis, which asks for modules' files, from importing SpeechBrain's lazy ones."""
    for module in list(sys.modules.values()):
        if type(module).__name__ in ("LazyModule", "DeprecatedModuleRedirect"):
            vars(module).setdefault("__file__", None)
