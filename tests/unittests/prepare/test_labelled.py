"""Labelled corpora, as miniature trees in the layout of their official releases."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_clsp.dataio.audio import read_audio
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.evaluation.zero_shot import read_tasks
from speechbrain_clsp.prepare.labelled import MAX_BAD_CLIPS, run_labelled, write_corpus
from speechbrain_clsp.ratings import read_alike
from tests.utils.small import tone, write

RECIPES = Path(__file__).parents[3] / "recipes"


def script(path: str):
    """Import a prepare script, which lies in no package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, RECIPES / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def clip(path: Path, rate: int = 16000) -> Path:
    """Write a short clip, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, tone(0.2, rate), rate)


def rows_of(folder: Path) -> dict[str, dict]:
    """Return a manifest's rows by id; every task of its prompt file finds a class or none."""
    rows = {row["id"]: row for row in Manifest(folder / "test.arrow")}
    for row in rows.values():
        assert Path(row["audio"]).is_file() and row["split"] == "test"
        assert row["source"] == folder.name
        for task in read_tasks(folder.name):
            task.label_of(row)
        if folder.name not in ("esd", "expresso"):
            (maeb,) = read_tasks(f"{folder.name}_maeb")
            maeb.label_of(row)
    return rows


def class_of(row: dict, task: str) -> str:
    """Return the class that a row has in a task of its corpus."""
    (task,) = [t for t in read_tasks(row["source"]) if t.name == task]
    return list(task.prompts)[task.label_of(row)]


def test_ravdess(tmp_path):
    root = tmp_path / "RAVDESS" / "Audio_Speech_Actors_01-24"
    clip(root / "Actor_01" / "03-01-01-01-01-01-01.wav", 48000)
    clip(root / "Actor_02" / "03-01-06-02-02-01-02.wav", 48000)
    clip(root / "Actor_24" / "03-01-08-01-02-02-24.wav", 48000)
    clip(root / "Actor_24" / "03-02-03-01-02-02-24.wav", 48000)  # a song
    (root / "Actor_02" / "._03-01-06-02-02-01-02.wav").write_bytes(b"Mac OS X")
    (root / "Actor_02" / "01-01-06-02-02-01-02.mp4").write_bytes(b"video")
    clip(root / "Actor_03" / "03-01-02-01-02-02-04.wav")  # of another actor
    clip(root / "Actor_03" / "03-01-09-01-02-02-03.wav")  # no such emotion
    (root / "Actor_03" / "03-01-03-01-01-01-03.wav").write_bytes(b"RIFF broken")
    copy = root / "audio_speech_actors_01-24"  # the archive on some mirrors holds all twice
    clip(copy / "Actor_01" / "03-01-01-01-01-01-01.wav")
    script("RAVDESS/ravdess_prepare.py").prepare_ravdess(
        str(tmp_path / "RAVDESS"), str(tmp_path / "ravdess")
    )
    rows = rows_of(tmp_path / "ravdess")
    assert {
        i: (r["gender"], class_of(r, "emotion"), r["labels"]["intensity"]) for i, r in rows.items()
    } == {
        "03-01-01-01-01-01-01": ("male", "neutral", "normal"),
        "03-01-06-02-02-01-02": ("female", "fear", "strong"),
        "03-01-08-01-02-02-24": ("female", "surprised", "normal"),
    }
    assert rows["03-01-01-01-01-01-01"]["sample_rate"] == 48000


def test_esd(tmp_path):
    """Sentences 21 to 50 of each emotion, in folders of the parts of the release or without."""
    root = tmp_path / "ESD" / "Emotion Speech Dataset"
    clip(root / "0011" / "Neutral" / "0011_000020.wav")  # validation
    clip(root / "0011" / "Neutral" / "0011_000021.wav")
    clip(root / "0011" / "Neutral" / "0011_000050.wav")
    clip(root / "0011" / "Neutral" / "0011_000051.wav")  # training
    clip(root / "0020" / "Surprise" / "test" / "0020_001421.wav")
    clip(root / "0015" / "Happy" / "test" / "0015_000750.wav")
    clip(root / "0015" / "Happy" / "evaluation" / "0015_000720.wav")
    clip(root / "0010" / "Happy" / "0010_000750.wav")  # Mandarin
    clip(root / "0016" / "Sad" / "0017_001080.wav")  # of another speaker
    clip(root / "0016" / "Calm" / "0016_000030.wav")  # no such emotion
    (root / "0016" / "Sad" / "0016_001080.wav").write_bytes(b"RIFF broken")
    (root / "0011" / "0011.txt").write_text("0011_000021\tA sentence.\tNeutral\n")
    script("ESD/esd_prepare.py").prepare_esd(str(tmp_path / "ESD"), str(tmp_path / "esd"))
    rows = rows_of(tmp_path / "esd")
    found = {name: (class_of(row, "emotion"), row["gender"]) for name, row in rows.items()}
    assert found == {
        "0011_000021": ("neutral", "male"),
        "0011_000050": ("neutral", "male"),
        "0015_000750": ("happy", "female"),
        "0020_001421": ("surprised", "male"),
    }
    assert {row["labels"]["sentence"] for row in rows.values()} == {"21", "50"}
    with pytest.raises(FileNotFoundError, match="ask for ESD"):
        script("ESD/esd_prepare.py").prepare_esd(str(tmp_path / "esd"), str(tmp_path / "none"))


def expresso(root: Path) -> Path:
    """Write a miniature Expresso; returns its folder."""
    (root / "splits").mkdir(parents=True)
    (root / "splits" / "train.txt").write_text("ex01_happy_00001\nex01-ex02_fast_001\t(4s,)\n")
    (root / "splits" / "test.txt").write_text(
        "# ex01/happy/base\nex01_happy_00002\n"
        "ex03_default_emphasis_00010\n"
        "ex01_default_longform_00001\t(0.1s,)\n"
        "\n"
        "ex01-ex02_fast_001\t(,2.5s)\n"
        "ex04-ex01_animal-animaldir_005\t(1.0s, 3.0s)\n"
        "ex04-ex01_sad-sympathetic_001\n"
    )
    (root / "VAD_segments.txt").write_text(
        "# FILE\t(start, end)\n"
        "ex01_default_longform_00001\t(0.00, 0.20)\n"
        "ex01-ex02_fast_001/channel1\t(0.25, 1.00) (2.25, 4.50)\n"  # the second: 0.25 s of test
        "ex01-ex02_fast_001/channel2\t(1.00, 3.00)\n"
        "ex04-ex01_animal-animaldir_005/channel1\t(0.00, 0.75) (1.50, 2.50)\n"
        "ex04-ex01_animal-animaldir_005/channel2\t\n"
        "ex04-ex01_sad-sympathetic_001/channel1\t(0.00, 30.00) (31.00, 32.51)\n"
        "ex04-ex01_sad-sympathetic_001/channel2\t(0.00, 15.50)\n"
    )
    audio = root / "audio_48khz"
    for name in ("ex01_happy_00001", "ex01_happy_00002"):
        clip(audio / "read" / "ex01" / "happy" / "base" / f"{name}.wav", 48000)
    default = audio / "read" / "ex03" / "default" / "base"
    clip(default / "ex03_default_emphasis_00010.wav", 48000)
    longform = audio / "read" / "ex01" / "default" / "longform"
    clip(longform / "ex01_default_longform_00001.wav", 48000)
    for name, seconds in (
        ("ex01-ex02_fast_001", 5),
        ("ex04-ex01_animal-animaldir_005", 4),
        ("ex04-ex01_sad-sympathetic_001", 32.5),
    ):
        pair, style, _ = name.split("_")
        path = audio / "conversational" / pair / style / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        both = [tone(seconds, 8000, 220), tone(seconds, 8000, 330)]
        soundfile.write(path, np.stack(both, axis=1), 8000)
    return root


def test_expresso(tmp_path, caplog):
    """Sentences of the test part whole, of conversations the turns within it, by speaker."""
    root = expresso(tmp_path / "release" / "expresso")
    module = script("Expresso/expresso_prepare.py")
    module.prepare_expresso(str(tmp_path / "release"), str(tmp_path / "expresso"))
    rows = rows_of(tmp_path / "expresso")
    read = {i: row for i, row in rows.items() if "read_style" in row["labels"]}
    assert {i: (r["speaker"], class_of(r, "read style")) for i, r in read.items()} == {
        "ex01_happy_00002": ("expresso_ex01", "happy"),
        "ex03_default_emphasis_00010": ("expresso_ex03", "default"),
    }
    turns = {i: row for i, row in rows.items() if i not in read}
    assert {
        i: (
            row["speaker"],
            row["labels"]["conversation_style"],
            row["channel"],
            row["start"],
            row["duration"],
        )
        for i, row in turns.items()
    } == {
        "ex01-ex02_fast_001_channel1_segment_0.25_1.00": ("expresso_ex01", "fast", 0, 0.25, 0.75),
        "ex01-ex02_fast_001_channel2_segment_1.00_2.50": ("expresso_ex02", "fast", 1, 1.0, 1.5),
        "ex04-ex01_animal-animaldir_005_channel1_segment_1.50_2.50": (
            *("expresso_ex04", "animal", 0, 1.5, 1.0),
        ),
        "ex04-ex01_sad-sympathetic_001_channel1_segment_0.00_15.00": (
            *("expresso_ex04", "sad", 0, 0.0, 15.0),
        ),
        "ex04-ex01_sad-sympathetic_001_channel1_segment_15.00_30.00": (
            *("expresso_ex04", "sad", 0, 15.0, 15.0),
        ),
        "ex04-ex01_sad-sympathetic_001_channel1_segment_31.00_32.50": (
            *("expresso_ex04", "sad", 0, 31.0, 1.5),
        ),
        "ex04-ex01_sad-sympathetic_001_channel2_segment_0.00_7.75": (
            *("expresso_ex01", "sympathetic", 1, 0.0, 7.75),
        ),
        "ex04-ex01_sad-sympathetic_001_channel2_segment_7.75_15.50": (
            *("expresso_ex01", "sympathetic", 1, 7.75, 7.75),
        ),
    }
    tasks = {task.name: task for task in read_tasks("expresso")}
    classes = [tasks["conversation style"].label_of(row) for row in turns.values()]
    assert classes.count(-1) == 1  # the animal
    for row in turns.values():
        samples = read_audio(row["audio"], row["id"], row["start"], row["duration"], row["channel"])
        spectrum = torch.fft.rfft(samples).abs()
        assert abs(float(spectrum.argmax()) / row["duration"] - (220, 330)[row["channel"]]) < 2
    (root / "audio_48khz" / "read" / "ex01" / "happy" / "base" / "ex01_happy_00002.wav").unlink()
    with caplog.at_level("WARNING"):
        module.prepare_expresso(str(root), str(tmp_path / "again"))
    assert "lacks 1 recordings, such as ex01_happy_00002: they are left out" in caplog.text


def test_expresso_tells_what_is_wrong(tmp_path):
    prepare = script("Expresso/expresso_prepare.py").prepare_expresso
    with pytest.raises(FileNotFoundError, match="No folder splits in .*download the release"):
        prepare(str(tmp_path), str(tmp_path / "x"))
    root = expresso(tmp_path / "expresso")
    test = root / "splits" / "test.txt"
    listed = test.read_text()
    test.write_text(listed + "".join(f"ex02_sad_{n:05}\n" for n in range(MAX_BAD_CLIPS + 1)))
    with pytest.raises(FileNotFoundError, match="lacks 11 recordings, such as ex02_sad_00000"):
        prepare(str(root), str(tmp_path / "x"))
    test.write_text(f"{listed}ex01-ex02_happy_001\t60.0s-\n")
    with pytest.raises(ValueError, match="test.txt, line 9, is not of the form NAME or"):
        prepare(str(root), str(tmp_path / "x"))
    test.write_text(listed)
    (root / "VAD_segments.txt").write_text("ex01-ex02_fast_001/channel1\t0.25-1.00\n")
    with pytest.raises(ValueError, match="VAD_segments.txt, line 1, is not of the form"):
        prepare(str(root), str(tmp_path / "x"))
    (root / "VAD_segments.txt").write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match="VAD_segments.txt, line 1: the byte 0xff is not"):
        prepare(str(root), str(tmp_path / "x"))
    (root / "VAD_segments.txt").unlink()
    with pytest.raises(FileNotFoundError, match="No .*VAD_segments.txt: download"):
        prepare(str(root), str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def crema_d(root: Path) -> Path:
    """Write a miniature CREMA-D; returns its folder."""
    names = ("1001_DFA_ANG_XX", "1001_IEO_HAP_HI", "1040_ITH_SAD_X", "1091_WSI_FEA_XX")
    for name in names:
        clip(root / "AudioWAV" / f"{name}.wav")
    clip(root / "AudioWAV" / "1076_MTI_SAD_XX.wav")  # known to be silent
    (root / "VideoDemographics.csv").write_text(
        "ActorID,Age,Sex,Race,Ethnicity\n"
        "1001,51,Male,Caucasian,Not Hispanic\n1040,42,Female,Asian,Not Hispanic\n"
        "1076,25,Female,Caucasian,Hispanic\n1091,19, Female ,African American,Not Hispanic\n",
        encoding="utf-8-sig",
    )
    return root


def test_crema_d(tmp_path):
    root = crema_d(tmp_path / "CREMA-D")
    clip(root / "AudioWAV" / "1099_DFA_ANG_XX.wav")  # in no table
    module = script("CREMA-D/crema_d_prepare.py")
    module.prepare_crema_d(str(root), str(tmp_path / "crema_d"))
    rows = rows_of(tmp_path / "crema_d")
    assert {
        i: (r["gender"], class_of(r, "emotion"), class_of(r, "age")) for i, r in rows.items()
    } == {
        "1001_DFA_ANG_XX": ("male", "angry", "middle-aged"),
        "1001_IEO_HAP_HI": ("male", "happy", "middle-aged"),
        "1040_ITH_SAD_X": ("female", "sad", "middle-aged"),
        "1091_WSI_FEA_XX": ("female", "fear", "child"),
    }
    assert rows["1001_IEO_HAP_HI"]["labels"]["intensity"] == "high"
    assert "intensity" not in rows["1001_DFA_ANG_XX"]["labels"]


def test_crema_d_tells_what_is_missing(tmp_path):
    prepare = script("CREMA-D/crema_d_prepare.py").prepare_crema_d
    with pytest.raises(FileNotFoundError, match="VideoDemographics.csv"):
        prepare(str(tmp_path), str(tmp_path / "x"))
    root = crema_d(tmp_path / "CREMA-D")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    for number in range(MAX_BAD_CLIPS + 1):
        (root / "AudioWAV" / f"1001_T{chr(65 + number)}A_ANG_XX.wav").write_text(pointer)
    with pytest.raises(ValueError, match="git lfs pull"):
        prepare(str(root), str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()
    (root / "VideoDemographics.csv").write_text("ActorID,Age,Sex\n1001,old,Male\n")
    with pytest.raises(ValueError, match="line 2"):
        prepare(str(root), str(tmp_path / "x"))
    (root / "VideoDemographics.csv").write_text("ActorID,Age\n1001,51\n")
    with pytest.raises(ValueError, match="lacks the columns .*Sex"):
        prepare(str(root), str(tmp_path / "x"))
    prepare(str(root), str(tmp_path / "x"), skip_prep=True)


def test_the_command_line_names_both_folders(monkeypatch):
    called = []
    monkeypatch.setattr("sys.argv", ["x_prepare.py", "in", "out"])
    run_labelled(lambda corpus, output: called.append((corpus, output)), "X")
    assert called == [("in", "out")]


EVALUATION = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\t{0}_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
C-E3:\tNeutral;\t()
A-E3:\tval 3; act 2; dom  2;\t()

[10.0100 - 11.3925]\t{0}_M001\texc\t[4.0000, 3.5000, 3.0000]
C-E2:\tExcited;\t()

[14.8872 - 18.0175]\t{0}_M002\txxx\t[2.5000, 3.0000, 2.0000]
[19.2900 - 20.7875]\t{0}_FXX0\tfru\t[2.5000, 3.5000, 3.5000]
[21.3257 - 24.7400]\t{0}_F003\tsad\t[2.5000, 3.5000, 3.5000]
"""


def test_iemocap(tmp_path):
    root = tmp_path / "IEMOCAP_full_release"
    for session, dialog in ((1, "Ses01F_impro01"), (5, "Ses05M_script01_1b")):
        folder = root / f"Session{session}"
        for turn in ("F000", "M001", "M002", "FXX0"):
            clip(folder / "sentences" / "wav" / dialog / f"{dialog}_{turn}.wav")
        labels = folder / "dialog" / "EmoEvaluation"
        (labels / "Categorical").mkdir(parents=True)
        (labels / f"{dialog}.txt").write_text(EVALUATION.format(dialog))
        (labels / f"._{dialog}.txt").write_bytes(b"\x00\x05\x16\x07\xff")
        (labels / "Categorical" / f"{dialog}_e1_cat.txt").write_text(f"{dialog}_F000 :Anger; ()\n")
    wavs = root / "Session1" / "sentences" / "wav" / "Ses01F_impro01"
    clip(wavs / "Ses01F_impro01_F099.wav")  # without a label
    (wavs / "._Ses01F_impro01_F000.wav").write_bytes(b"\x00\x05")
    prepare = script("IEMOCAP/iemocap_prepare.py").prepare_iemocap
    prepare(str(tmp_path), str(tmp_path / "iemocap"))  # the folder above will do as well
    rows = rows_of(tmp_path / "iemocap")
    assert len(rows) == 8
    first = rows["Ses01F_impro01_M001"]
    assert (first["gender"], first["speaker"]) == ("male", "iemocap_1M")
    assert class_of(first, "emotion") == "happy" and first["labels"]["valence"] == "4.0000"
    last = rows["Ses05M_script01_1b_F000"]
    assert (last["gender"], last["labels"]["style"], last["labels"]["session"]) == (
        "female",
        "script",
        "5",
    )
    (task,) = read_tasks("iemocap")
    assert [task.label_of(row) >= 0 for row in rows.values()].count(True) == 4  # no xxx, no fru
    (root / "Session5" / "dialog" / "EmoEvaluation" / "Ses05M_script01_1b.txt").unlink()
    with pytest.raises(FileNotFoundError, match="Session5"):
        prepare(str(root), str(tmp_path / "x"))
    with pytest.raises(FileNotFoundError, match="Session1 to Session5"):
        prepare(str(tmp_path / "nothing"), str(tmp_path / "x"))


PAIRS = """id10982/Arfpvkafpag/00010.wav,id11244/baXSnp3NMjs/00012.wav,0,,2.0
id10889/Dx-aPGUIX50/00017.wav,id10889/Dx-aPGUIX50/00025.wav,1,,5.5
id10889/Dx-aPGUIX50/00017.wav,id10105/vJSc3FB4US0/00015.wav,0,,1.0
"""


def test_voxsim(tmp_path, caplog):
    """Clips of both parts of VoxCeleb1, in folders as they are unpacked; one clip is absent."""
    root = tmp_path / "voxceleb1"
    first = clip(root / "dev" / "wav" / "id10982" / "Arfpvkafpag" / "00010.wav")
    second = clip(root / "test" / "wav" / "id11244" / "baXSnp3NMjs" / "00012.wav")
    for name in ("00017", "00025", "00026"):
        clip(root / "dev" / "wav" / "id10889" / "Dx-aPGUIX50" / f"{name}.wav")
    prepare = script("VoxSim/voxsim_prepare.py").prepare_voxsim
    with pytest.raises(FileNotFoundError, match="voxsim_test_list.txt.*put the list"):
        prepare(str(root), str(tmp_path / "voxsim"))
    (root / "voxsim_test_list.txt").write_text(PAIRS)
    with caplog.at_level("WARNING"):
        prepare(str(root), str(tmp_path / "voxsim"))
    assert "1 pairs left out: no ['id10105/vJSc3FB4US0/00015']" in caplog.text
    found = read_alike(tmp_path / "voxsim" / "test.csv")
    assert found.items[0] == (str(first), str(second)) and len(found.items) == 2
    assert found.categories == ["different speakers", "same speaker"]
    assert found.scores.tolist() == [[2.0], [5.5]]
    clip(root / "copy" / "id10982" / "Arfpvkafpag" / "00010.wav")
    with pytest.raises(ValueError, match="Arfpvkafpag/00010 is in .*: keep one of them"):
        prepare(str(root), str(tmp_path / "voxsim"))
    for line, reason in (
        ("id10982/Arfpvkafpag/00010.wav,id11244/baXSnp3NMjs/00012.wav,0,,7.0", "line 4: .*7.0"),
        ("id10982/Arfpvkafpag/00010.wav,id11244/baXSnp3NMjs/00012.wav,2.0", "is not of the form"),
    ):
        (root / "voxsim_test_list.txt").write_text(f"{PAIRS}{line}\n")
        with pytest.raises(ValueError, match=reason):
            prepare(str(root), str(tmp_path / "voxsim"))
    (root / "voxsim_test_list.txt").write_bytes(PAIRS.encode() + b"\xff\n")
    with pytest.raises(ValueError, match="voxsim_test_list.txt, line 4: the byte 0xff is not"):
        prepare(str(root), str(tmp_path / "voxsim"))


def test_wrong_input_of_a_script_ends_in_one_line(monkeypatch, capsys):
    def prepare(data_folder: str, save_folder: str) -> None:
        raise FileNotFoundError(f"No clips under {data_folder}")

    monkeypatch.setattr("sys.argv", ["esd_prepare.py", "/data/ESD", "esd"])
    with pytest.raises(SystemExit) as ended:
        run_labelled(prepare, "ESD")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "esd_prepare.py: error: No clips under /data/ESD\n"


def test_a_silent_clip_of_a_corpus_is_left_out_and_said(tmp_path, caplog):
    for name in ("good", "silent"):
        clip(tmp_path / f"{name}.wav")
    write(tmp_path / "silent.wav", 0 * tone(0.2))
    files = [tmp_path / "good.wav", tmp_path / "silent.wav"]
    with caplog.at_level("WARNING"):
        write_corpus(tmp_path, files, lambda path: {"gender": "male"}, "mine")
    assert [row["id"] for row in Manifest(tmp_path / "test.arrow")] == ["good"]
    assert "1 clips left out" in caplog.text and "silent.wav: is silent" in caplog.text
