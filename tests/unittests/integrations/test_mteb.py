import io
import json

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_clsp.cli.main import main
from speechbrain_clsp.evaluation.models import CachedModel, ClspModel, open_model
from speechbrain_clsp.evaluation.zero_shot import classify, read_tasks
from speechbrain_clsp.integrations import MtebEncoder, evaluate_tasks, load_tasks
from tests.utils.small import CAPTIONS, model_folder, tone

mteb = pytest.importorskip("mteb")  # it needs Python 3.11
datasets = pytest.importorskip("datasets")
from mteb.abstasks import AbsTaskZeroShotClassification
from mteb.abstasks.task_metadata import TaskMetadata


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def clip(frequency: float, seconds: float, rate: int, channels: int = 1) -> bytes:
    samples = tone(seconds, rate, frequency)
    return wav_bytes(np.stack([samples] * channels, axis=1), rate)


CLIPS = [
    clip(110, 0.5, 8000),
    clip(150, 1.0, 16000),
    clip(220, 0.7, 44100, channels=2),
    clip(300, 0.4, 22050),
    clip(180, 0.05, 16000),  # shorter than a CLSP takes: padded
]
LABELS = [0, 1, 2, 0, 1]


def files_of(clips: list[bytes]) -> datasets.Dataset:
    """Return a data set of audio files, which would be decoded by torchcodec."""
    rows = datasets.Dataset.from_dict({"audio": [{"bytes": each, "path": None} for each in clips]})
    return rows.cast_column("audio", datasets.Audio())


class LocalTask(AbsTaskZeroShotClassification):
    """Sounds as tasks of MTEB have them: files of any rate, as bytes."""

    metadata = TaskMetadata(
        name="LocalSounds",
        description="Sounds.",
        dataset={"path": "local/sounds", "revision": "1"},
        type="AudioZeroshotClassification",
        category="a2t",
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="accuracy",
        date=("2026-01-01", "2026-01-02"),
        modalities=["audio", "text"],
    )
    input_column_name = "audio"
    label_column_name = "label"

    def load_data(self, **options) -> None:
        self.dataset = datasets.DatasetDict(test=files_of(CLIPS).add_column("label", LABELS))
        self.data_loaded = True

    def get_candidate_labels(self) -> list[str]:
        return CAPTIONS


class PitchModel:
    """Embeds a sound by its number in ``CLIPS``, and captions by theirs: always right."""

    model, revision, is_bound = "pitch", "1", False

    def encode_files(self, paths):
        right = []
        for path in paths:
            samples = soundfile.read(path, always_2d=True)[0][:, 0]
            expected = [soundfile.read(io.BytesIO(each), always_2d=True)[0][:, 0] for each in CLIPS]
            (number,) = (
                n for n, each in enumerate(expected) if np.array_equal(each, samples[: len(each)])
            )
            right.append(LABELS[number])
        return torch.eye(len(CAPTIONS))[right]

    def encode_text(self, texts):
        return torch.eye(len(CAPTIONS))[[CAPTIONS.index(t) if t in CAPTIONS else 0 for t in texts]]


@pytest.fixture(scope="module")
def clsp_model(tmp_path_factory):
    return ClspModel.open(str(model_folder(tmp_path_factory.mktemp("model"))))


def loader(**columns):
    return torch.utils.data.DataLoader(datasets.Dataset.from_dict(columns), batch_size=2)


def test_a_task_of_real_files_gives_the_accuracy_that_we_compute(clsp_model, tmp_path):
    models = {"ours": CachedModel(clsp_model), "right": PitchModel()}
    evaluation = evaluate_tasks(models, [LocalTask()], tmp_path)
    # The clip of 0.05 s by itself is too short; all others are embedded as files are.
    padded = wav_bytes(np.pad(tone(0.05, 16000, 180), (0, 801)), 16000)
    speech = clsp_model.encode_files([*CLIPS[:4], padded])
    prompts = clsp_model.encode_text(CAPTIONS)
    hits = classify(speech, list(prompts[:, None])).numpy() == np.array(LABELS)
    table = evaluation.tables["LocalSounds"]
    assert table["ours"]["accuracy"].value == pytest.approx(hits.mean())
    assert table["right"]["accuracy"].value == 1.0 and next(iter(table["right"])) == "accuracy"
    # MTEB's own results are where they can be submitted from.
    written = {path.name for path in tmp_path.rglob("*.json")}
    assert {"LocalSounds.json", "model_meta.json"} <= written


def test_clips_are_embedded_as_files_are_in_their_order(clsp_model):
    inputs = torch.utils.data.DataLoader(files_of(CLIPS[:4]), batch_size=3)
    found = MtebEncoder(clsp_model).encode(inputs, task_metadata=None, hf_split="", hf_subset="")
    np.testing.assert_allclose(found, clsp_model.encode_files(CLIPS[:4]).numpy(), atol=1e-5)


def test_text_and_audio_together_are_the_direction_of_their_sum(clsp_model):
    arrays = [{"array": tone().tolist(), "sampling_rate": 16000}] * 2
    encoder = MtebEncoder(clsp_model)
    both = encoder.encode(loader(text=CAPTIONS[:2], audio=arrays))
    text, audio = encoder.encode(loader(text=CAPTIONS[:2])), encoder.encode(loader(audio=arrays))
    sums = text + audio
    np.testing.assert_allclose(both, sums / np.linalg.norm(sums, axis=1, keepdims=True), atol=1e-6)
    with pytest.raises(ValueError, match="not \\['image'\\]"):
        encoder.encode(loader(image=["x"]))


def test_long_texts_are_cut_where_the_model_ends(clsp_model):
    encoder = MtebEncoder(clsp_model)
    long = "a man talks slowly " * 30
    (found,) = encoder.encode(loader(text=[long]))
    tokenizer = clsp_model.clsp.hparams.tokenizer
    longest = clsp_model.clsp.mods.text_tower.max_tokens
    counts = {n: int((~tokenizer([long[:n]])[1]).sum()) for n in range(1, len(long))}
    fits = max(n for n, count in counts.items() if count <= longest)
    np.testing.assert_allclose(found, clsp_model.encode_text([long[:fits]])[0], atol=1e-6)
    assert encoder.shortened == 1
    assert clsp_model.cut_texts(CAPTIONS) == CAPTIONS


def test_similarities_are_cosines():
    encoder, generator = MtebEncoder(open_model("random")), np.random.default_rng(0)
    a, b = generator.normal(size=(3, 8)), generator.normal(size=(3, 8))
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    cosines = encoder.similarity(a, torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(cosines, a @ b.T / norms, atol=1e-6)
    np.testing.assert_allclose(encoder.similarity_pairwise(a, b), cosines.diagonal(), atol=1e-6)
    np.testing.assert_allclose(encoder.similarity(a[0], b), cosines[:1], atol=1e-6)


def test_the_meta_data_say_what_the_model_is(clsp_model):
    meta = MtebEncoder(clsp_model, training_datasets={"CREMA_D"}).mteb_model_meta
    assert meta.name.startswith("local/") and meta.revision.startswith("sha256-")
    assert meta.embed_dim == 32 and meta.training_datasets == {"CREMA_D"}
    assert meta.n_parameters == sum(p.numel() for p in clsp_model.clsp.parameters())
    assert MtebEncoder(clsp_model).mteb_model_meta.training_datasets is None
    published = ClspModel(clsp_model.clsp, "yfyeung/CLSP", "30355ce")
    meta = MtebEncoder(published).mteb_model_meta
    assert (meta.name, meta.revision) == ("yfyeung/CLSP", "30355ce")
    known = {task.metadata.name for task in mteb.get_tasks()}
    assert "VoxCelebSA" in meta.training_datasets and meta.training_datasets <= known


def test_our_prompts_of_maeb_are_those_of_its_task():
    """The truth is the library's own list of candidates."""
    for corpus, others in (("ravdess", set()), ("crema_d", set()), ("iemocap", {"excited"})):
        (task,) = read_tasks(f"{corpus}_maeb")
        theirs = set(mteb.get_task("RavdessZeroshot").get_candidate_labels())
        theirs |= {f"this person is feeling {word}" for word in others}
        assert set(task.texts) == theirs if corpus == "ravdess" else set(task.texts) < theirs


def test_results_of_what_a_model_was_trained_on_are_marked(clsp_model, tmp_path, monkeypatch):
    monkeypatch.setattr("speechbrain_clsp.integrations.mteb.TRAINED_ON", {"pitch": {"LocalSounds"}})
    evaluation = evaluate_tasks({"right": PitchModel()}, [LocalTask()], tmp_path)
    assert evaluation.warnings == ["right was trained on recordings of LocalSounds"]


def test_mteb_s_mock_run_passes_for_audio(clsp_model, monkeypatch):
    """MTEB demands it of every model; with files in place of torchcodec's, which encodes them."""
    from mteb.mocks import mock_run  # a function; the module of this name is behind it

    def encode_example(self, value):
        return {"bytes": wav_bytes(value["array"], value["sampling_rate"]), "path": None}

    monkeypatch.setattr(datasets.Audio, "encode_example", encode_example)
    tasks = [t for t in mteb.mocks.ALL_MOCK_TASK_TEST_GRID if "audio" in t.metadata.modalities]
    tasks += [t for t in mteb.mocks.ALL_MOCK_TASK_TEST_GRID if "Dialog" in t.metadata.name]
    run = getattr(mock_run, "mock_run", mock_run)
    monkeypatch.setitem(run.__globals__, "ALL_MOCK_TASK_TEST_GRID", tasks)
    results = run(MtebEncoder(clsp_model))
    states = {name: type(status).__name__ for name, status in results.items() if status}
    assert len(states) >= 11 and set(states.values()) == {"TaskResult"}, results.to_markdown()


def test_unknown_tasks_and_data_that_cannot_be_loaded_are_told():
    with pytest.raises(ValueError, match="no task RavdesZeroshot: did you mean RavdessZeroshot"):
        load_tasks(["RavdesZeroshot"])
    with pytest.raises(ConnectionError, match="RavdessZeroshot: its data, mteb/RavdessZeroshot"):
        load_tasks(["RavdessZeroshot"])  # tests are offline


def test_the_command_writes_tables(clsp_model, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(
        "speechbrain_clsp.integrations.mteb.load_tasks", lambda names: [LocalTask() for _ in names]
    )
    command = ["evaluate", "--suite", "maeb", "--tasks", "LocalSounds", "--output", str(tmp_path)]
    assert main([*command, "--model", f"ours={clsp_model.model}", "random"]) == 0
    assert "LocalSounds" in capfd.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics["tables"]["LocalSounds"]) == {"ours", "random"}
    assert metrics["versions"]["mteb"].startswith("2.")
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "--suite maeb needs --tasks"),
        (["--tasks", "A", "--data", "a.arrow"], "--data is an option of the suites mini"),
        (["--tasks", "NoSuchTaskAtAll"], "MTEB has no task NoSuchTaskAtAll"),
        (["--tasks", "CREMA_D"], "CREMA_D: its data, mteb/crema-d, could not be loaded"),
    ],
)
def test_wrong_options_are_told_before_models_are_opened(tmp_path, capfd, words, error):
    command = ["evaluate", "--suite", "maeb", "--model", "absent/model"]
    assert main([*command, "--output", str(tmp_path), *words]) == 2
    found = capfd.readouterr().err
    assert error in found and found.count("\n") == 1, found
