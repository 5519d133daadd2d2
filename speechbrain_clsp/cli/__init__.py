"""The command ``clsp``."""

from speechbrain_clsp.cli.main import main

__all__ = ["main"]
