"""Which corpora and files a record means."""

import pytest

from speechbrain_clsp.prepare.clip import ClipRecord, UnusableClipError
from speechbrain_clsp.prepare.corpora import AudioFinder, candidate_names, corpora_of
from tests.utils.small import tone, write


@pytest.mark.parametrize(
    "name, corpora",
    [
        ("train_base-ears-p001_emo", ["ears"]),
        ("download/Expresso/audio/x.wav", ["expresso"]),
        ("voxceleb/id1/x.wav", ["voxceleb1", "voxceleb2"]),
        ("voxceleb2_id1", ["voxceleb2"]),
        ("nuclears/x.wav", []),
        ("EN_B00000_S00000_W000000", []),
    ],
)
def test_corpora_are_read_from_names(name, corpora):
    assert corpora_of([name]) == corpora


def test_a_denoised_copy_falls_back_to_the_original():
    assert candidate_names("ears/p001/a_voicefixer.wav") == [
        "ears/p001/a_voicefixer.wav",
        "ears/p001/a.wav",
    ]


def test_unusable_audio_is_told_by_reason(tmp_path):
    finder = AudioFinder(tmp_path, template="{path}", check_length=True)
    write(tmp_path / "a.wav", tone(1.0))
    (tmp_path / "b.wav").write_bytes(b"broken")

    def reason(**row) -> str:
        with pytest.raises(UnusableClipError) as caught:
            finder(ClipRecord({"id": "x", "start": None, "duration": None, **row}, ["x"]))
        assert caught.value.name == "x"
        return caught.value.reason

    assert reason(audio="absent.wav") == "no audio"
    assert reason(audio="b.wav") == "unreadable audio"
    assert reason(audio="a.wav", start=0.5, duration=0.7) == "longer than its file"
    row = {"id": "x", "audio": "a.wav", "start": 0.25, "duration": None}
    assert finder(ClipRecord(row, ["x"]))["duration"] == 0.75


def test_wrong_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown corpora.*librispeech"):
        AudioFinder(tmp_path, {"librispeech": "x"})
    with pytest.raises(ValueError, match="template.*color"):
        AudioFinder(tmp_path, template="{color}")
    with pytest.raises(FileNotFoundError, match="No audio: none of the folders .*ears"):
        AudioFinder(tmp_path, corpora=["ears"]).index(tmp_path / "index")
