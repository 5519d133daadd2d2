"""Queries: what is combined, grouped, folded, explained and paged."""

import numpy as np
import pytest

from speechbrain_clsp import CLSP
from speechbrain_clsp.dataio.manifest import Manifest, write_manifest
from speechbrain_clsp.search.embed import describe_run, embed_corpus
from speechbrain_clsp.search.index import StyleIndex
from speechbrain_clsp.search.queries import Query, find, phrases_of
from speechbrain_clsp.search.results import check_output, to_record, to_text, write_hits
from speechbrain_clsp.search.store import vectors_of
from tests.utils.small import CAPTIONS, model_folder
from tests.utils.stores import buzzes


@pytest.fixture(scope="module")
def clsp(tmp_path_factory):
    return CLSP.from_pretrained(model_folder(tmp_path_factory.mktemp("m")))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return a manifest of 20 clips; the last four are copies of the first."""
    folder = tmp_path_factory.mktemp("clips")
    rows = list(buzzes(folder, 16))
    rows += [{**row, "id": f"copy{n}", "speaker": None} for n, row in enumerate(rows[:4])]
    write_manifest(folder / "all.arrow", rows)
    return Manifest(folder / "all.arrow")


@pytest.fixture(scope="module")
def index(clsp, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    embed_corpus(clsp, corpus, folder / "store", describe_run(clsp, corpus, shard_rows=6))
    return StyleIndex.create(folder / "index", folder / "store")


def scores_of(index, vector) -> dict[str, float]:
    """Return the score of every clip, by float64."""
    table = index.search(vector, 9999)
    vectors = vectors_of(table.column("vector")).astype(np.float64)
    return dict(zip(table.column("id").to_pylist(), vectors @ np.asarray(vector, np.float64)))


def test_scores_are_what_the_query_says(index, clsp, corpus):
    one, two, three = clsp.encode_text(CAPTIONS).numpy()
    audio = [corpus[n]["audio"] for n in (1, 2)]
    examples = clsp.encode_files(audio, progress=False).numpy().mean(axis=0)
    examples /= np.linalg.norm(examples)
    for query, vector in (
        (Query(CAPTIONS[:1]), one),
        (Query(CAPTIONS[:2]), (one + two) / 2),
        (Query(CAPTIONS[:1], excluded=CAPTIONS[1:]), one - (two + three) / 2),
        (Query(recordings=audio), examples),
        (Query(CAPTIONS[:1], audio), (one + examples) / 2),
    ):
        expected = scores_of(index, vector)
        hits = find(index, clsp, query)
        assert [hit.rank for hit in hits] == list(range(1, 11))
        for hit in hits:
            assert hit.score == pytest.approx(expected[hit.row["id"]], abs=1e-5)
        assert hits[-1].score >= sorted(expected.values())[-10] - 1e-5
    like = find(index, clsp, Query(recordings=[corpus[5]["audio"]], k=1))[0]
    assert like.row["id"] == "clip5" and like.score == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("options", [{}, {"per": "speaker"}, {"fold": 0.9999}], ids=str)
def test_pages_are_parts_of_one_list(index, clsp, options):
    whole = find(index, clsp, Query(CAPTIONS[:1], k=20, **options))
    pages = [
        find(index, clsp, Query(CAPTIONS[:1], k=3, offset=n, **options)) for n in range(0, 20, 3)
    ]
    assert [(hit.rank, hit.row["id"]) for page in pages for hit in page] == [
        (hit.rank, hit.row["id"]) for hit in whole
    ]


def test_each_speaker_has_its_best_hit_and_those_without_are_many(index, clsp):
    everything = find(index, clsp, Query(CAPTIONS[:1], k=20))
    hits = find(index, clsp, Query(CAPTIONS[:1], k=20, per="speaker"))
    speakers = [hit.row["speaker"] for hit in hits]
    assert len(hits) == 3 + 4 and speakers.count(None) == 4
    for name in ("speaker0", "speaker1", "speaker2"):
        best = next(hit for hit in everything if hit.row["speaker"] == name)
        assert best.row["id"] in [hit.row["id"] for hit in hits]
    moods = find(index, clsp, Query(CAPTIONS[:1], k=20, per="labels.mood"))
    assert sorted(hit.row["labels"]["mood"] for hit in moods) == ["angry", "calm", "sad"]


def test_copies_are_folded_below_the_clip(index, clsp):
    hits = find(index, clsp, Query(CAPTIONS[:1], k=20, fold=0.99999))
    folded = {hit.row["id"]: hit.folded for hit in hits if hit.folded}
    for n in range(4):
        pair = {f"clip{n}", f"copy{n}"}
        assert any(pair <= {name, *others} for name, others in folded.items()), n


def test_a_condition_holds_for_all_hits(index, clsp):
    hits = find(index, clsp, Query(CAPTIONS[:1], where="gender = 'female' AND duration < 0.35"))
    assert hits
    assert {hit.row["gender"] for hit in hits} == {"female"}
    assert max(hit.row["duration"] for hit in hits) < 0.35
    assert find(index, clsp, Query(CAPTIONS[:1], where="duration > 99")) == []


def test_phrases_are_what_stands_between_commas_and_conjunctions():
    caption = "A woman starts calmly, slowly and softly. Then she shouts!"
    phrases = [caption[start:end] for start, end in phrases_of(caption)]
    assert phrases == ["A woman starts calmly", "slowly", "softly", "Then she shouts"]
    assert phrases_of("...") == []


def test_a_phrase_contributes_what_the_score_loses_without_it(index, clsp):
    caption = "A female speaker whispers, quickly and softly."
    hits = find(index, clsp, Query([caption], k=3, explain=True))
    assert list(hits[0].phrases) == ["A female speaker whispers", "quickly", "softly"]
    without = scores_of(
        index, clsp.encode_text(["A female speaker whispers, and softly."]).numpy()[0]
    )
    for hit in hits:
        expected = hit.score - without[hit.row["id"]]
        assert hit.phrases["quickly"] == pytest.approx(expected, abs=1e-5)


def test_hits_are_written_as_lines_a_manifest_and_a_page(index, clsp, tmp_path):
    hits = find(index, clsp, Query(CAPTIONS[:1], k=3, explain=True))
    for suffix in ("jsonl", "arrow", "html"):
        for _ in range(2):  # its own result is replaced
            write_hits(tmp_path / f"hits.{suffix}", hits, "a < b")
    assert (tmp_path / "hits.jsonl").read_text().count('"rank"') == 3
    rows = list(Manifest(tmp_path / "hits.arrow"))
    assert [row["id"] for row in rows] == [hit.row["id"] for hit in hits]
    assert rows[0]["labels"] and rows[0]["global_captions"]
    assert rows[0]["audio"] == hits[0].row["audio"]
    page = (tmp_path / "hits.html").read_text()
    assert page.count("<audio controls") == 3 and "a &lt; b" in page
    assert to_text(hits).splitlines()[0].startswith("  1  +")
    assert to_record(hits[0])["phrases"] == hits[0].phrases
    for suffix in ("jsonl", "arrow", "html"):
        (tmp_path / f"mine.{suffix}").write_text('{"name": 1}')
        with pytest.raises(FileExistsError, match="is left as it is"):
            check_output(tmp_path / f"mine.{suffix}")
    write_manifest(tmp_path / "corpus.arrow", rows)
    with pytest.raises(FileExistsError, match="is not a result of clsp search"):
        write_hits(tmp_path / "corpus.arrow", hits[:1], "a < b")
    assert len(Manifest(tmp_path / "corpus.arrow")) == 3
    gone = [hit for hit in hits[:1]]
    gone[0].row["audio"] = str(tmp_path / "gone.wav")
    write_hits(tmp_path / "gone.html", gone, "gone")
    assert "cannot be played" in (tmp_path / "gone.html").read_text()


@pytest.mark.parametrize(
    "options, pattern",
    [
        ({}, "at least one caption or one recording"),
        ({"texts": [" "]}, "Caption 0 is empty"),
        ({"texts": ["A."], "k": 9000, "offset": 2000}, "at most 10000, not 9000 and 2000"),
        ({"texts": ["A."], "fold": 98}, "a cosine from 0 to 1, not 98"),
        ({"recordings": ["a.wav"], "explain": True}, "no phrases to explain"),
        ({"texts": ["A."], "per": "speeker"}, "no column 'speeker'"),
        ({"texts": ["A."], "per": "labels"}, "no column 'labels'; there are .*labels.mood"),
        ({"texts": ["A."], "where": "speeker = 'a'"}, "no column 'speeker'"),
        ({"recordings": ["absent.wav"]}, "absent.wav: no such file"),
    ],
    ids=range(9),
)
def test_wrong_queries_are_explained(index, clsp, options, pattern):
    with pytest.raises((ValueError, OSError), match=pattern):
        find(index, clsp, Query(**options))


def test_an_index_of_another_model_is_refused(index, clsp, tmp_path):
    other = CLSP.from_pretrained(model_folder(tmp_path))
    index.check_model(other.weights_sha256(), "the same weights")
    other.speech_tower.head.projection[0].weight.data[0, 0] += 1
    with pytest.raises(ValueError, match="holds vectors of .*, and other is another model"):
        index.check_model(other.weights_sha256(), "other")
