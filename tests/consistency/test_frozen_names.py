"""Names and options that others build on do not change by accident."""

import pytest

from tests.consistency.frozen_names import NAMES_FILE, OPTIONS_FILE, cli_options, public_names

HELP = "changed; if that is meant: python -m tests.consistency.frozen_names, and CHANGELOG.md"


@pytest.mark.parametrize(
    "path, found", [(NAMES_FILE, public_names), (OPTIONS_FILE, cli_options)], ids=["names", "cli"]
)
def test_public_names_and_options_are_those_of_the_list(path, found):
    frozen, now = set(path.read_text(encoding="utf-8").splitlines()), set(found())
    assert (sorted(frozen - now), sorted(now - frozen)) == ([], []), HELP
