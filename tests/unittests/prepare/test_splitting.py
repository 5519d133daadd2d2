"""How a user's clips become training, validation and test clips."""

import random
from collections import Counter

import pytest

from speechbrain_clsp.dataio.labels import value_of
from speechbrain_clsp.prepare.splitting import SPLITS, split_clips


def clips(number=60, speakers=12, **columns):
    """Return rows whose values in ``columns`` are functions of the clip's and speaker's number."""
    rows = []
    for i in range(number):
        speaker = i % speakers if speakers else None
        row = {"id": f"clip{i}", "audio": f"{i}.wav", "start": None, "split": None, "labels": {}}
        row["speaker"] = None if speaker is None else f"speaker{speaker}"
        rows.append(row | {name: make(i, speaker) for name, make in columns.items()})
    return rows


def names(parts, column="id"):
    return {split: {row[column] for row in parts.rows[split]} for split in SPLITS}


def test_speakers_are_in_one_part_each_and_every_value_is_in_training():
    rows = clips(accent=lambda i, s: ["us", "uk", "in"][s % 3], gender=lambda i, s: "mf"[s % 2])
    parts = split_clips(rows, ["accent", "gender"])
    speakers = names(parts, "speaker")
    assert not speakers["train"] & speakers["test"] | speakers["train"] & speakers["valid"]
    assert not speakers["valid"] & speakers["test"]
    for split in SPLITS:
        assert {row["accent"] for row in parts.rows[split]} == {"us", "uk", "in"}
    sizes = {split: len(parts.rows[split]) for split in SPLITS}
    assert sum(sizes.values()) == 60 and sizes["train"] >= 30 and min(sizes.values()) >= 9
    assert parts.notes == [
        "Valid and test clips were taken from the training clips by speaker: no speaker is in two"
        " of the parts."
    ]


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_rows():
    rows = clips()
    shuffled = random.Random(0).sample(rows, len(rows))
    assert names(split_clips(rows)) == names(split_clips(shuffled))
    assert names(split_clips(rows)) != names(split_clips(rows, seed=1))


def test_a_speaker_who_alone_has_a_value_stays_in_training():
    rows = clips(accent=lambda i, s: "rare" if s == 5 else "usual")
    for seed in range(8):
        parts = split_clips(rows, ["accent"], seed)
        assert "speaker5" in names(parts, "speaker")["train"]


def test_clips_are_split_one_by_one_if_each_value_has_its_own_speaker():
    rows = clips(60, 5, accent=lambda i, s: f"accent{s}")
    parts = split_clips(rows, ["accent"])
    for split in SPLITS:
        assert {row["accent"] for row in parts.rows[split]} == {f"accent{s}" for s in range(5)}
    assert "Each value of accent has one speaker" in parts.notes[1]
    assert "results hold for speakers that were heard in training" in parts.notes[1]


def test_clips_without_a_speaker_do_not_stand_for_all_of_a_value():
    rows = clips(120, 4, accent=lambda i, speaker: f"accent{speaker}")
    for row in rows[:12]:  # some of each accent
        row["speaker"] = None
    parts = split_clips(rows, ["accent"])
    assert "Each value of accent has one speaker" in parts.notes[1]
    counts = Counter(row["accent"] for row in parts.rows["train"])
    assert len(counts) == 4 and min(counts.values()) > 10
    parts = split_clips(rows)
    assert parts.notes[1] == "12 clips without a speaker stay in training."
    assert names(parts, "speaker")["train"] >= {None}
    assert not {None} & (names(parts, "speaker")["test"] | names(parts, "speaker")["valid"])


def test_two_speakers_are_too_few_for_three_parts():
    parts = split_clips(clips(20, 2))
    assert "2 speakers are too few for 3 parts" in parts.notes[1]
    assert {split: len(own) for split, own in parts.rows.items()}["train"] == 14


def test_without_speakers_the_parts_of_a_recording_stay_together():
    rows = clips(40, 0, audio=lambda i, s: f"talk{i // 5}.wav", start=lambda i, s: i % 5 * 2.0)
    parts = split_clips(rows)
    recordings = names(parts, "audio")
    assert not recordings["train"] & (recordings["test"] | recordings["valid"])
    assert "by recording" in parts.notes[0] and "no column speaker" in parts.notes[1]


def test_a_column_says_the_split_under_usual_names_and_what_it_lacks_is_taken():
    word = ["train-clean", "Dev", "test_other", "training"]
    parts = split_clips(clips(split=lambda i, s: word[s % 4]))
    assert {split: len(own) for split, own in parts.rows.items()} == {
        "train": 30,
        "valid": 15,
        "test": 15,
    }
    parts = split_clips(clips(split=lambda i, s: "train" if s % 3 else "test"))
    speakers = names(parts, "speaker")
    assert len(parts.rows["test"]) == 20 and not speakers["train"] & speakers["valid"]
    assert parts.notes[1].startswith("Valid clips were taken from the training clips by speaker")


def test_clips_without_a_split_beside_others_are_left_out():
    parts = split_clips(clips(split=lambda i, s: None if i < 5 else "train" if s % 3 else "test"))
    assert sum(map(len, parts.rows.values())) == 55
    assert "5 clips without a split are left out." in parts.notes


@pytest.mark.parametrize(
    "rows, message",
    [
        (clips(9), "9 clips are too few"),
        (clips(split=lambda i, s: "fold 1"), "'fold 1' \\(60 clips\\): it must be train, valid or"),
        (clips(split=lambda i, s: "test"), "No clip has the split 'train'"),
        (clips(12, split=lambda i, s: "train" if i == 0 else "test"), "too few"),
    ],
)
def test_what_cannot_be_split_is_said(rows, message):
    with pytest.raises(ValueError, match=message):
        split_clips(rows)


def test_many_values_in_many_clips_take_little_time():
    rows = clips(20000, 0, labels=lambda i, s: {"word": f"word{i % 40}"})
    parts = split_clips(rows, ["labels.word"])
    test = {value_of(row, "labels.word") for row in parts.rows["test"]}
    assert len(test) == 40 and abs(len(parts.rows["test"]) - 3000) < 60
