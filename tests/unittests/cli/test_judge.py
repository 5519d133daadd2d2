"""The sub-commands of ``clsp judge``; what they do is tested with ratings and with the judge."""

import json

import pytest

from speechbrain_clsp.annotation.records import read_records
from speechbrain_clsp.cli.main import main
from speechbrain_clsp.dataio.manifest import write_manifest
from tests.utils.chat_server import MODEL, answering, completion
from tests.utils.small import tone, write


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


SCORES = {"correctness": 4, "coverage": 5, "naturalness": 3}


@pytest.fixture
def ask(tmp_path, capfd):
    """Return a function that judges four captions by a server that answers from a function."""
    write(tmp_path / "a.wav", tone())
    names = [f"clip{number}" for number in range(4)]
    row = {"audio": str(tmp_path / "a.wav"), "duration": 1.0, "sample_rate": 16000}
    write_manifest(tmp_path / "clips.arrow", [{"id": name, **row} for name in names])
    lines = [f"{name},A man speaks at {name}." for name in names]
    (tmp_path / "ours.csv").write_text("\n".join(["id,caption", *lines]))

    def run(reply, kind: str = "score") -> tuple[int, str, list[dict]]:
        command = ["judge", "ask", "--manifest", str(tmp_path / "clips.arrow"), "--kinds", kind]
        command += [
            "--captions",
            f"ours={tmp_path / 'ours.csv'}",
            "--output",
            str(tmp_path / "out"),
        ]
        with answering(reply) as url:
            command += ["--set", f"base_url={url}/v1", f"model={MODEL}", "rounds=1", "pause=0.01"]
            code = main(command)
        path, printed = tmp_path / "out/judge.jsonl", capfd.readouterr()
        records = list(read_records(path)) if path.is_file() else []
        return code, printed.out + printed.err, records

    return run


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({name: str(value) for name, value in SCORES.items()}),
        f'<think>{{"correctness": 1}}?</think>{json.dumps(SCORES)}',
        json.dumps(SCORES | {"reason": "It fits."}),
    ],
)
def test_scores_as_text_and_after_reasoning_are_counted(ask, text):
    code, printed, records = ask(lambda request: completion([text]))
    assert code == 0 and "4 answers are new" in printed
    assert [{name: record[name] for name in SCORES} for record in records] == [SCORES] * 4


def test_scores_between_whole_numbers_are_kept(ask):
    code, _, records = ask(lambda request: completion([json.dumps(SCORES | {"coverage": 4.5})]))
    assert code == 0 and {record["coverage"] for record in records} == {4.5}


@pytest.mark.parametrize("value", ["very good", 9, None])
def test_no_answer_at_all_is_an_error_with_its_reason(ask, value):
    answer = json.dumps(SCORES | {"coverage": value})
    code, printed, records = ask(lambda request: completion([answer]))
    assert code == 2 and records == []
    assert "coverage is" in printed and "is not a number from 1 to 5" in printed


def test_answers_that_are_refused_are_counted_with_their_reason(ask):
    def reply(request):
        bad = "clip2" in json.dumps(request)
        return completion([json.dumps(SCORES | {"coverage": 9} if bad else SCORES)])

    code, printed, records = ask(reply)
    assert code == 0 and len(records) == 3
    assert "1 questions have no answer and are left out" in printed and "coverage is 9" in printed
    code, printed, _ = ask(reply)
    assert code == 0 and "0 answers are new, 4 were there or left out before" in printed


def test_pairs_of_one_source_are_no_question(ask):
    code, printed, _ = ask(lambda request: completion(["{}"]), "pair")
    assert code == 2 and "--kinds pair needs two sources in --captions" in printed
