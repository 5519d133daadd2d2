"""Stages that work on records without a server."""

import numpy as np
import pytest

from speechbrain_clsp import CLSP
from speechbrain_clsp.annotation.config import AnnotationSettings
from speechbrain_clsp.annotation.pipeline import Annotation
from speechbrain_clsp.annotation.records import Records, read_records
from speechbrain_clsp.annotation.stages.select import SelectSettings, select
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from tests.utils.official_model import write_official, write_tokenizer
from tests.utils.small import tone, write

CAPTIONS = ["a man talks slow", "a girl sings", "a man talks very slow"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a published model, two clips and records of the filter stage."""
    folder = tmp_path_factory.mktemp("select")
    write_tokenizer(write_official(folder / "model"))
    rows = []
    for number in range(2):
        wav = write(folder / f"{number}.wav", tone(frequency=120.0 + 100 * number))
        rows.append({"id": str(number), "audio": str(wav), "duration": 1.0, "sample_rate": 16000})
    write_manifest(folder / "clips.arrow", rows)
    with Records(folder / "out/filter.jsonl") as records:
        for number, captions in enumerate((CAPTIONS, CAPTIONS[:2])):
            head = {"key": f"filter{number}", "id": str(number), "row": number}
            records.append({**head, "captions": captions, "dropped": []})
    return folder


def test_a_stage_whose_stage_before_did_nothing_is_refused(folder, tmp_path):
    annotation = Annotation(tmp_path, Manifest(folder / "clips.arrow"), AnnotationSettings())
    with pytest.raises(ValueError, match="verify.jsonl is not there: run --stage verify first"):
        annotation.run("filter")
    (tmp_path / "verify.jsonl").touch()
    with pytest.raises(ValueError, match="verify.jsonl is empty: run --stage verify first"):
        annotation.run("filter")
    (tmp_path / "verify.quarantine.jsonl").write_text('{"key": "a", "id": "0"}\n')
    assert annotation.run("filter")["clips"] == 0


def test_a_clsp_chooses_captions_by_its_embeddings_and_gates_by_the_speech(folder):
    clsp = CLSP.from_pretrained(folder / "model")
    fits = [clsp.score_file(folder / f"{n}.wav", CAPTIONS).tolist() for n in range(2)]
    gate = float(np.mean(fits))
    chosen = SelectSettings(most=2, clsp=str(folder / "model"), gate=gate)
    annotation = Annotation(
        folder / "out", Manifest(folder / "clips.arrow"), AnnotationSettings(select=chosen)
    )
    assert annotation.run("select")["clips"] == 2
    assert annotation.run("select")["kept now"] == 0  # nothing is done twice
    for number, record in enumerate(read_records(folder / "out/select.jsonl")):
        captions = CAPTIONS if number == 0 else CAPTIONS[:2]
        vectors = clsp.encode_text(captions).numpy()
        kept, dropped = select(captions, chosen, vectors, fits[number][: len(captions)])
        assert record["captions"] == kept
        assert [drop["rule"] for drop in record["dropped"]] == [drop["rule"] for drop in dropped]
