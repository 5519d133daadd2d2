"""From the published captions of a test set to the paper's tables, as a user goes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile

from speechbrain_clsp.cli.main import main
from speechbrain_clsp.evaluation import tables
from speechbrain_clsp.evaluation.models.bounds import RandomModel
from speechbrain_clsp.evaluation.report import write_results
from speechbrain_clsp.evaluation.suites import run_suite
from speechbrain_clsp.evaluation.tables import TEST_SETS
from tests.recipes.test_paraspeechcaps_prepare import record
from tests.unittests.dataio.test_shards import make_tar
from tests.utils.corpora_trees import CONVERSATION, PLAIN, READ, cut, make_corpora, write_cuts

ROOT = Path(__file__).parents[2]
FCAPS = ROOT / "recipes" / "FCaps"
ACCENTS = ("scottish", "british", "american", "irish", "indian", "welsh", "english")
NAMES = {
    "test-ears-p001": "ears/p001/emo_awe_freeform.wav",
    "test-ears-p002": "ears/p002/emo_awe_freeform.wav",
    f"test-expresso-{READ}": f"{READ}.wav",
    "test-expresso-one": f"{CONVERSATION}_channel1_segment_0.50_2.00.wav",
    "test-expresso-two": f"{CONVERSATION}_channel2_segment_1.25_2.75.wav",
    "test-voxceleb1-a": "voxceleb1/dev/wav/id10001/1zcIwhmdeo4/00001.wav",
    "test-voxceleb2-b": "voxceleb2/dev/aac/id00012/2DLq_Kkc1r8/00001.wav",
}
SEGMENTS = ("test-expresso-one", "test-expresso-two")


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """Return the corpora; VoxCeleb1 is in a tar file."""
    root = make_corpora(tmp_path_factory.mktemp("audio"))
    name = next(name for name in PLAIN if name.startswith("voxceleb1"))
    make_tar(root / "voxceleb1" / "dev.tar", {name: (root / name).read_bytes()})
    (root / name).unlink()
    return root


def prepare(script: str, audio: Path, folder: Path) -> Path:
    """Run a prepare script on the captions in a folder; returns the test manifest."""
    arguments = [audio, folder / "out", "--source", folder, "--splits", "test", "--n_jobs", "1"]
    command = [sys.executable, FCAPS / script, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / "out" / "test.arrow"


@pytest.fixture(scope="module")
def fcaps(tmp_path_factory, audio):
    """Return FCaps' test manifest, of seven clips with two short and two long captions each."""
    folder = tmp_path_factory.mktemp("fcaps")
    records = []
    for (name, source), accent in zip(NAMES.items(), ACCENTS, strict=True):
        captions = {
            f"{kind}_captions": [
                f"{which} {kind} caption of {name}." for which in ("First", "Last")
            ]
            for kind in ("short", "long")
        }
        seconds = 1.5 if name in SEGMENTS else 1.0
        records.append(cut(name, source, seconds, accent=accent, **captions))
    write_cuts(folder / "fcaps-test.jsonl.gz", records)
    return prepare("fcaps_prepare.py", audio, folder)


class Recorder(RandomModel):
    """Remembers what it is given; not a bound, so that the report shows its retrievals."""

    is_bound = False

    def __init__(self) -> None:
        self.texts, self.clips = [], []

    def encode_files(self, paths):
        """Embed and remember name, samples and rate."""
        self.clips += [(Path(path).name, *soundfile.read(path, always_2d=True)) for path in paths]
        return super().encode_files(paths)

    def encode_text(self, texts):
        """Embed and remember."""
        self.texts.append(list(texts))
        return super().encode_text(texts)


def test_models_get_the_papers_captions_and_each_clip_by_itself(fcaps, audio):
    model = Recorder()
    run_suite("fcaps", {"recorder": model}, [fcaps])
    assert model.texts == [
        [f"First short caption of {name}." for name in NAMES],
        [f"Last long caption of {name}." for name in NAMES],
    ]
    clips = dict(zip(NAMES, model.clips))
    whole, rate = soundfile.read(next(audio.rglob(f"{CONVERSATION}.wav")), always_2d=True)
    for name, channel, start in zip(SEGMENTS, (0, 1), (0.5, 1.25)):
        file, samples, own = clips[name]
        assert file == f"{name}.wav" and own == rate == 48000
        first = round(start * rate)
        np.testing.assert_array_equal(samples[:, 0], whole[first : first + 72000, channel])
    _, samples, rate = clips["test-voxceleb1-a"]
    assert rate == 16000 and len(samples) == 16000 and np.abs(samples).max() > 0.1


def test_the_report_after_training_is_of_the_same_clips(fcaps, tmp_path):
    model = Recorder()
    (tasks,) = {
        re.search(r"^zero_shot_tasks: (\w+)", path.read_text(encoding="utf-8"), re.M)[1]
        for path in (FCAPS / "CLSP" / "hparams").glob("train_*.yaml")
    }
    evaluation = run_suite("mini", {"recorder": model}, [fcaps], prompts=tasks)
    write_results(evaluation, tmp_path)
    counts = {
        name: models["recorder"]["n"] for name, models in evaluation.to_dict()["confusions"].items()
    }
    assert counts == dict.fromkeys(("gender", "speaking rate", "pitch"), len(NAMES))
    lengths = {name: len(samples) / rate for name, samples, rate in model.clips}
    assert [lengths[f"{name}.wav"] for name in SEGMENTS] == [1.5, 1.5]
    assert SEGMENTS[0] in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_fcaps_from_its_release_to_its_tables(fcaps, tmp_path, capsys, monkeypatch):
    models = ["random", f"oracle=oracle:{fcaps}"]
    arguments = ["evaluate", "--suite", "fcaps", "--data", str(fcaps), "--model", *models]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics["tables"]) == ["global", "fine"] and metrics["warnings"] == []
    for table in metrics["tables"].values():
        assert table["oracle"]["speech_to_text_R@1"]["value"] == 1.0
        assert table["oracle"]["text_to_speech_R@1"]["value"] == 1.0
        assert table["random"]["speech_to_text_R@1"]["value"] < 0.6
    printed = capsys.readouterr().out  # seven clips are not the published test set
    assert "45.6 (39.6-51.6)" not in printed and "FCaps' test set, 241 clips" in printed
    known = json.loads(TEST_SETS.read_text(encoding="utf-8"))
    known[0]["clips"] = [len(NAMES)]
    (tmp_path / "known.json").write_text(json.dumps(known))
    monkeypatch.setattr(tables, "TEST_SETS", tmp_path / "known.json")
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    assert "45.6 (39.6-51.6)" in capsys.readouterr().out
    again = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert again == metrics


def test_paraspeechcaps_from_its_release_to_its_table(tmp_path, audio):
    records = [
        record("ears", "p001/emo_awe_freeform.wav"),
        record("ears", "p002/emo_awe_freeform.wav"),  # of the first's style
        record("expresso", f"audio_48khz/read/ex03/enunciated/{READ}.wav", accent="british"),
        record("voxceleb", "voxceleb1/dev/wav/id10001/1zcIwhmdeo4/00001.wav", gender="female"),
        record("voxceleb", "voxceleb2/dev/aac/id00012/2DLq_Kkc1r8/00001.wav", pitch="high-pitched"),
    ]
    for i, each in enumerate(records):
        words = f"The speaker number {i} talks slowly in a deep voice"
        each["text_description"] = [words + " at first.", words + " at last."]
    pyarrow.parquet.write_table(pa.Table.from_pylist(records), tmp_path / "holdout-0.parquet")
    test = prepare("paraspeechcaps_prepare.py", audio, tmp_path)
    recorder = Recorder()
    result = run_suite("fcaps", {"recorder": recorder}, [test])
    assert list(result.tables) == ["global"]
    (texts,) = recorder.texts
    assert [text.split()[3] for text in texts] == ["0", "2", "3", "4"]
    assert all("at first" in text for text in texts)
    output = tmp_path / "tables"
    arguments = ["--suite", "fcaps", "--data", str(test), "--output", str(output)]
    assert main(["evaluate", *arguments, "--model", "random", f"oracle=oracle:{test}"]) == 0
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["tables"]["global"]["oracle"]["speech_to_text_R@1"]["value"] == 1.0
