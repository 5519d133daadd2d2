"""The command ``clsp prepare`` as a user runs it."""

from speechbrain_clsp.cli.main import main
from speechbrain_clsp.dataio.manifest import Manifest


def prepare(folder, source, *flags) -> list[dict]:
    """Run the command; returns the manifest's rows."""
    output = folder / "out.arrow"
    assert main(["prepare", str(folder / source), "--output", str(output), *flags]) == 0
    return list(Manifest(output))
