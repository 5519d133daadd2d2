"""ParaSpeechCaps from its published columns, on miniature trees."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.recipes.test_fcaps_prepare import RECIPE, left_out, rows_of
from tests.utils.corpora_trees import EMILIA, PLAIN, READ, make_corpora

sys.path.insert(0, str(RECIPE))
from paraspeechcaps_prepare import prepare_paraspeechcaps

LONG = "A men speaks slowly in a deep voice, scotish in origin"


def record(source: str, path: str, **changes) -> dict:
    """Return a record with the published columns."""
    return {
        "source": source,
        "relative_audio_path": path,
        "text_description": [LONG],
        "transcription": "hello",
        "intrinsic_tags": ["deep"],
        "situational_tags": None,
        "basic_tags": ["male"],
        "all_tags": ["male", "deep"],
        "speakerid": "s1",
        "name": "n1",
        "duration": 1.0,
        "gender": "male",
        "accent": "scottish",
        "pitch": "low-pitched",
        "speaking_rate": "slow speed",
        "noise": "clean",
        "utterance_pitch_mean": 100.0,
        "snr": 40.0,
        "phonemes": "h",
    } | changes


RECORDS = [
    record("ears", "p001/emo_awe_freeform.wav"),
    record("ears", "p002/emo_awe_freeform.wav", situational_tags=["calm", "awed"], duration=None),
    record("ears", "p002/absent.wav"),
    record("expresso", f"audio_48khz/read/ex03/enunciated/{READ}.wav", accent=None),
    record("voxceleb", "voxceleb1/dev/wav/id10001/1zcIwhmdeo4/00001.wav", situational_tags=[]),
    record("VoxCeleb", "voxceleb2/dev/aac/id00012/-1Uxsk56VDQ/00001_voicefixer.wav", gender=None),
    record("voxceleb", "id00012/2DLq_Kkc1r8/00001.wav", situational_tags=["awed", "calm"]),
    record("ears", "p001/emo_awe_freeform.wav", text_description=["(or)", "Short."]),
    record("ears", "p002/emo_awe_freeform.wav", text_description=None, accent="klingon"),
]


def write_parquet(path: Path, records: list[dict]) -> None:
    """Write records as the Hub stores data sets."""
    pyarrow.parquet.write_table(pa.Table.from_pylist(records), path)


def test_parquet_and_json_lines_give_clean_captions(tmp_path):
    audio = make_corpora(tmp_path / "download")
    (tmp_path / "a").mkdir()
    write_parquet(tmp_path / "a" / "dev-00000-of-00002.parquet", RECORDS[:4])
    write_parquet(tmp_path / "a" / "dev-00001-of-00002.parquet", RECORDS[4:])
    (tmp_path / "b").mkdir()
    lines = "".join(json.dumps(r) + "\n" for r in RECORDS)
    (tmp_path / "b" / "dev.jsonl").write_text(lines)
    for name in "ab":
        out = tmp_path / f"out_{name}"
        prepare_paraspeechcaps(audio, out, source=tmp_path / name, splits=["valid"], n_jobs=1)
        rows = rows_of(out / "valid.arrow")
        found = [str(Path(row["audio"]).relative_to(audio)) for row in rows.values()]
        assert found == list(PLAIN)
        first, second, expresso, *_ = rows.values()
        assert first["id"] == "dev-ears-p001-emo_awe_freeform" and first["split"] == "valid"
        assert first["global_captions"] == ["A man speaks slowly in a deep voice, Scottish accent."]
        assert first["speaker"] == "s1" and first["situational_tags"] == []
        assert second["duration"] == pytest.approx(1.0) and expresso["accent"] is None
        assert left_out(out / "valid_left_out.tsv") == {
            "dev-ears-p002-absent": "no audio in ears",
            "dev-ears-p001-emo_awe_freeform": "no caption",
            "dev-ears-p002-emo_awe_freeform": "no caption",
        }


def prepare(audio: Path, folder: Path, splits: list[str], **settings) -> None:
    """Prepare splits of the captions in a folder, in its folder ``out``."""
    settings = {"source": folder, "splits": splits, "n_jobs": 1, **settings}
    prepare_paraspeechcaps(audio, folder / "out", **settings)


def test_the_test_set_has_one_clip_per_style(tmp_path):
    audio = make_corpora(tmp_path / "download")
    write_parquet(tmp_path / "holdout-00000-of-00001.parquet", RECORDS)
    prepare(audio, tmp_path, ["test", "holdout"])
    names = [name.removeprefix("holdout-") for name in rows_of(tmp_path / "out" / "test.arrow")]
    # The third has no audio; the fifth and seventh have the first's and the second's style.
    assert names == [
        "ears-p001-emo_awe_freeform",
        "ears-p002-emo_awe_freeform",
        f"expresso-{READ}",
        "voxceleb--1Uxsk56VDQ-00001_voicefixer".replace("--", "-id00012--"),
    ]
    assert len(rows_of(tmp_path / "out" / "holdout.arrow")) == 6


def test_scaled_clips_are_found_in_emilia(tmp_path):
    audio = make_corpora(tmp_path / "download")
    path = f"EN/EN_B00000/EN_B00000_S00000/mp3/{EMILIA[2]}.mp3"
    write_parquet(tmp_path / "train_scaled-00000-of-00001.parquet", [record("emilia", path)])
    prepare(audio, tmp_path, ["train_scaled"])
    (row,) = rows_of(tmp_path / "out" / "train_scaled.arrow").values()
    assert row["audio"].endswith("EN-B000000.tar") and row["source"] == "emilia"


def test_damaged_and_missing_files_are_named(tmp_path):
    audio = make_corpora(tmp_path / "download")
    (tmp_path / "dev-00000-of-00001.parquet").write_bytes(b"PAR1" + b"\0" * 100)
    with pytest.raises(ValueError, match="dev-00000.*download it again"):
        prepare(audio, tmp_path, ["valid"])
    with pytest.raises(FileNotFoundError, match="No train_base"):
        prepare(audio, tmp_path, ["train_base"])
    prepare(audio, tmp_path, ["valid"], skip_prep=True)
