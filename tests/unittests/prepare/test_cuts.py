"""Cuts from and to rows; against lhotse itself where it is installed."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_clsp.dataio.manifest import SCHEMA, Manifest, write_manifest
from speechbrain_clsp.dataio.shards import ClipReader, scan_shard
from speechbrain_clsp.prepare.clip import UnusableClipError, parse_line, read_lines
from speechbrain_clsp.prepare.cuts import clip_from_cut, cut_from_row, write_cuts
from tests.unittests.dataio.test_shards import encoded, make_tar
from tests.utils.corpora_trees import cut
from tests.utils.small import tone, write

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1).map(str.strip).filter(bool))
NAMES = st.text("aé '\"$;/.-_", min_size=1, max_size=9)


@settings(deadline=None)
@given(
    audio=NAMES,
    inside=st.none() | st.tuples(st.integers(0, 10**12), st.integers(1, 10**9)),
    start=st.none() | st.floats(0, 500),
    duration=st.floats(0.1, 60),
    channel=st.none() | st.integers(0, 3),
    captions=TEXTS.filter(bool),
    tags=TEXTS,
    accent=st.none() | st.sampled_from(["scottish", "brooklyn/new york"]),
)
def test_rows_survive_as_cuts(audio, inside, start, duration, channel, captions, tags, accent):
    row = dict.fromkeys(SCHEMA.names) | {"id": "x", "audio": audio, "duration": duration}
    row |= {"start": start, "channel": channel, "fine_captions": captions, "accent": accent}
    row |= {"global_captions": [], "intrinsic_tags": tags, "situational_tags": []}
    row |= {"sample_rate": 24000, "labels": {"mood": "calm"}, "gender": "male"}
    if inside:
        row["offset"], row["nbytes"] = inside
    length = (start or 0) + duration
    record = json.loads(json.dumps(cut_from_row(row, length + (1 if start is not None else 0))))
    back = clip_from_cut(record).row
    assert {key: back.get(key) for key in row} == row


@pytest.mark.parametrize(
    "record, reason",
    [
        ({"duration": 1}, "malformed line"),
        (cut("a", "a.wav", type="PaddingCut"), "not a MonoCut"),
        (cut("a", "a.wav") | {"duration": -1}, "malformed line"),
        (cut("a", "a.wav") | {"duration": "long"}, "malformed line"),
        (cut("a", "a.wav", supervisions=3), "malformed line"),
        (cut("a", "a.wav", supervisions=[]), "no caption"),
        (cut("a", "a.wav", short_captions=[" "], long_captions=None), "no caption"),
        (cut("a", "a.wav", transforms=["Volume"]), "audio changed"),
    ],
)
def test_unusable_cuts_say_why(record, reason):
    with pytest.raises(UnusableClipError) as caught:
        clip_from_cut(record)
    assert caught.value.reason == reason
    assert caught.value.name == record.get("id")


def test_a_transcript_is_no_caption_unless_it_is_said_to_be():
    record = cut("a", "a.wav", short_captions=[], long_captions=[])
    assert clip_from_cut(record, text_is_caption=True).row["fine_captions"] == ["the transcript"]
    with pytest.raises(UnusableClipError, match="no caption"):
        clip_from_cut(record)
    record = cut("a", "a.wav")
    assert "the transcript" not in clip_from_cut(record, text_is_caption=True).row["fine_captions"]


def test_lhotse_reads_our_cuts_and_we_its(tmp_path):
    lhotse = pytest.importorskip("lhotse")
    write(tmp_path / "a b.wav", tone(2.0, 24000), 24000)
    make_tar(tmp_path / "s.tar", {"x.flac": encoded(tone(1.0, 16000), 16000, "FLAC")})
    (member,) = scan_shard(tmp_path / "s.tar").members
    rows = [
        {"id": "whole", "audio": "a b.wav", "duration": 2.0},
        {"id": "part", "audio": "a b.wav", "start": 0.5, "duration": 1.0, "channel": 0},
        {"id": "in", "audio": "s.tar", "offset": member.offset, "nbytes": member.nbytes}
        | {"duration": 1.0},
    ]
    rows = [{**row, "fine_captions": ["F"], "accent": "scottish"} for row in rows]
    write_manifest(tmp_path / "a.arrow", rows)
    manifest = Manifest(tmp_path / "a.arrow")
    assert write_cuts(tmp_path / "cuts.jsonl.gz", manifest) == 3
    cuts = lhotse.CutSet.from_jsonl(tmp_path / "cuts.jsonl.gz")
    for row, found in zip(manifest, cuts):
        assert found.supervisions[0].custom["long_captions"] == ["F"]
        audio = found.resample(16000).load_audio()[0]
        ours = ClipReader()(row).numpy()
        assert len(audio) == len(ours)
        assert abs(audio[200:-200] - ours[200:-200]).max() < 0.02
    cuts.to_jsonl(tmp_path / "again.jsonl")
    for (_, line), row in zip(read_lines(tmp_path / "again.jsonl"), manifest):
        back = clip_from_cut(parse_line(line)).row
        keys = ("id", "audio", "offset", "nbytes", "start", "duration", "accent", "fine_captions")
        assert {key: back.get(key) for key in keys} == {key: row[key] for key in keys}


def test_cuts_replace_cuts_and_nothing_else(tmp_path):
    rows = [dict.fromkeys(SCHEMA.names) | {"id": "a", "audio": "a.wav", "duration": 1.0}]
    rows[0] |= {"global_captions": ["A man."], "fine_captions": []}
    for name in ("a.jsonl", "a.jsonl.gz"):
        path = tmp_path / name
        assert write_cuts(path, rows, False) == write_cuts(path, rows, False) == 1
        for content in (b"my only copy", b'{"wav": "a.wav", "caption": "A man."}\n', b"[1]\n"):
            path.write_bytes(content)
            with pytest.raises(FileExistsError, match="is not a file of cuts"):
                write_cuts(path, rows, False)
            assert path.read_bytes() == content
