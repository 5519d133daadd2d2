"""The sub-commands of ``clsp judge``; what they do is tested with ratings and with the judge."""

import pytest

from speechbrain_clsp.cli.main import main


@pytest.mark.parametrize("action", ["ask", "sheet", "read", "report"])
def test_help_ends_with_an_example(action, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["judge", action, "--help"])
    assert caught.value.code == 0
    assert f"example: clsp judge {action} " in capsys.readouterr().out.split("options:")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "--output", "x"], "--manifest, --captions"),
        (["sheet", "--manifest", "a.arrow", "--output", "x"], "--captions"),
        (["read", "--output", "x"], "--sheet, --rater"),
        (["read", "--output", "x", "--kinds", "pair"], "--sheet, --rater"),
        ([], "{ask,sheet,read,report}"),
    ],
)
def test_an_option_that_is_missing_is_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["judge", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_report_of_nothing_says_what_to_run(tmp_path, capsys):
    assert main(["judge", "report", "--output", str(tmp_path)]) == 2
    assert "run clsp judge ask, or read, first" in capsys.readouterr().err
