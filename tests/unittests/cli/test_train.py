"""``clsp train`` as a user runs it, on a few buzzes."""

import json
import re

import pytest

from speechbrain_clsp import CLSP
from speechbrain_clsp.cli.main import main
from tests.utils.small import tone, write

SHORT = ["--set", "epoch_clips=8", "num_threads=1", "n_negatives=1"]


@pytest.fixture
def clips(tmp_path):
    """Return a table of 16 buzzes of four speakers."""
    lines = ["wav,caption,speaker,gender,labels.language"]
    for i in range(16):
        write(tmp_path / f"{i}.wav", tone(0.4, 8000, 90 + 15 * i), 8000)
        who, language = ("A man", "A woman")[i % 2], ("Russian", "Dutch")[i // 2 % 2]
        speaker, gender = f"s{i % 8}", ("male", "female")[i % 2]
        lines.append(f"{i}.wav,{who} speaks {language}.,{speaker},{gender},{language}")
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    return tmp_path / "clips.csv"


def train(clips, *flags) -> int:
    return main(["train", str(clips), "--output", str(clips.parent / "model"), *flags])


def test_a_table_becomes_a_model_with_a_report_and_the_same_command_goes_on(clips, capsys):
    assert train(clips, "--epochs", "1", *SHORT) == 0
    printed, output = capsys.readouterr().out, clips.parent / "model"
    assert "16 clips, " in printed and "by speaker" in printed and "## language" in printed
    assert "true: " not in printed  # pairs are listed in tables.md
    for name in ("report.html", "metrics.json", "tables.md", "prompts.json"):
        assert (output / name).is_file(), name
    clsp = CLSP.from_pretrained(str(output / "model"))
    assert clsp.encode_text(["A man speaks Russian."]).isfinite().all()
    tables = json.loads((output / "metrics.json").read_text())["tables"]
    assert {"gender", "language", "global, equal captions merged", "probes"} <= set(tables)
    log = (output / "train_log.txt").read_text()
    (score,) = re.findall(r"valid mean_score: ([\d.e+-]+)", log)
    (r1,), (uar,) = (
        re.findall(rf"valid {name}: ([\d.e+-]+)", log) for name in ("mean_R@1", "zero_shot_UAR")
    )
    assert float(score) == pytest.approx((float(r1) + float(uar)) / 2, rel=0.01)

    assert train(clips, "--epochs", "2", *SHORT, "batch_size=5") == 0
    assert "other settings: batch_size was 8 and is 5" in capsys.readouterr().out
    assert "batch_size was 8 and is 5" in (output / "log.txt").read_text()
    log = (output / "train_log.txt").read_text()
    assert re.findall(r"^epoch: \d", log, flags=re.M) == ["epoch: 1", "epoch: 2"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--set", "lr"], "setting 'lr' is not of the form KEY=VALUE"),
        (["--set", "debug=True"], "There is no setting 'debug'"),
        (["--set", "most_clips=1"], "most_clips must be at least 2"),
        (["--set", "batch_size=0"], "batch_size must be a whole number of at least 1, not 0"),
        (["--set", "num_threads=0"], "num_threads must be at least 1"),
        (["--set", "rl=1"], "There is no setting 'rl'; own_data.yaml has seed,"),
        (["--set", "seed=1"], "seed has an option of its own"),
        (["--set", "longest=0.1"], "No training clip lasts 0.2 to 0.1 s"),
        (["--set", "model={text_tower: {max_tokens: 3}}"], "at most 3 tokens fit"),
        (["--prompts", "absent.json"], "No prompt file absent.json"),
        (["--device", "cuda:77"], "--device cuda:77 cannot be used"),
    ],
)
def test_what_cannot_be_trained_ends_in_one_line_before_the_first_epoch(
    clips, capsys, flags, message
):
    assert train(clips, *flags) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "clsp: error" in line]
    assert len(errors) == 1 and message in errors[0]
    assert not (clips.parent / "model" / "train_log.txt").exists()


def test_captions_alone_are_enough_in_any_script(clips, capsys):
    lines = ["wav,caption", *(f"{i}.wav,{chr(0x4E00 + i)}聲{chr(0x5000 + i)}" for i in range(12))]
    clips.write_text("\n".join(lines), encoding="utf-8")
    assert train(clips, "--epochs", "1", *SHORT) == 0
    printed = capsys.readouterr().out
    assert "No attributes" in printed and "There is no column speaker" in printed
    tables = json.loads((clips.parent / "model" / "metrics.json").read_text())["tables"]
    assert "probes" not in tables and {"global", "fine"} <= set(tables)


def test_a_table_is_read_with_the_options_of_prepare_and_guesses_are_shown(clips, capsys):
    lines = clips.read_text().replace("wav,caption,", "file,style_prompt,", 1).split("\n")
    lines = [f"{lines[0]},subset", *(f"{line},all" for line in lines[1:]), "absent.wav,A.,,,,x"]
    (clips.parent / "tables").mkdir()
    table = clips.parent / "tables" / "clips.csv"
    table.write_text("\n".join(lines))
    stop = ["--set", "model={text_tower: {max_tokens: 3}}"]  # before the first epoch
    flags = ["--output", str(clips.parent / "model"), "--data-root", str(clips.parent), *stop]
    chosen = ["--columns", "caption=style_prompt", "split=subset", "--split", "all"]
    assert main(["train", str(table), *flags, *chosen]) == 2
    captured = capsys.readouterr()
    assert "took column 'file' for wav; --columns sets others" in captured.out
    assert "16 clips" in captured.out and "at most 3 tokens fit" in captured.err


def test_a_kaldi_folder_and_its_captions_file_are_trained_on(clips, capsys):
    folder = clips.parent
    (folder / "wav.scp").write_text("".join(f"u{i} {i}.wav\n" for i in range(16)))
    (folder / "styles").write_text("".join(f"u{i} Voice {i}.\n" for i in range(16)))
    flags = ["--captions", "styles", "--set", "model={text_tower: {max_tokens: 3}}"]
    assert main(["train", str(folder), "--output", str(folder / "model"), *flags]) == 2
    captured = capsys.readouterr()
    assert "16 clips" in captured.out and "at most 3 tokens fit" in captured.err
