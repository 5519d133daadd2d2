"""Exported models: the same embeddings, in all that a CLSP is used for."""

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from sentence_transformers import SentenceTransformer

from speechbrain_clsp import CLSP, StyleReward
from speechbrain_clsp.cli.main import main
from speechbrain_clsp.dataio.manifest import write_manifest
from speechbrain_clsp.dataio.tokenizers import train_sentencepiece
from speechbrain_clsp.evaluation.models import open_model
from speechbrain_clsp.inference import export as exporting
from speechbrain_clsp.inference.files import pad
from speechbrain_clsp.lobes.pretrained_speech import PretrainedSpeechTower
from speechbrain_clsp.pretrained import graphs
from speechbrain_clsp.pretrained.background import write_background
from speechbrain_clsp.pretrained.exported import open_graph
from speechbrain_clsp.pretrained.folder import save_model_folder
from speechbrain_clsp.pretrained.hub import publish
from speechbrain_clsp.serve import space
from speechbrain_clsp.serve.limits import Limits
from speechbrain_clsp.serve.service import StyleService
from speechbrain_clsp.training.finetuning import open_base
from tests.utils.live_service import live, post, wav_bytes
from tests.utils.official_model import write_official, write_tokenizer
from tests.utils.reference import tensor_for
from tests.utils.small import CAPTIONS, MINI, tone, write
from tests.utils.stores import buzzes

pytestmark = pytest.mark.skipif(
    "PYTEST_XDIST_WORKER" in os.environ,
    reason="tests/integration/test_export_alone.py runs these in a process without other tests",
)

SECONDS = ((0.1,), (0.10006,), (2.5, 0.1, 1.37), (30.0,), tuple(0.2 + 0.31 * n for n in range(16)))
# bf16 of OpenVINO is stored as fp16 is.
CHOICES = ("onnx-fp32", "onnx-fp16", "openvino-fp32", "openvino-bf16")


def mini_folder(folder):
    """Write a small model of the kind of clsp_mini; returns its folder."""
    modules = load_hyperpyyaml(MINI)["modules"]
    with torch.no_grad():
        for module in modules.values():
            for key, parameter in module.named_parameters():
                parameter.copy_(tensor_for(key, parameter.shape))
    tokenizer = folder / "tokenizer.model"
    train_sentencepiece(CAPTIONS, tokenizer, vocab_size=60)
    save_model_folder(folder / "model", MINI, modules, {"tokenizer.model": tokenizer})
    return folder / "model"


def official_folder(folder):
    """Write the published architecture in small; returns its folder."""
    write_tokenizer(folder)
    return write_official(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return the two kinds of model, one with a background."""
    mini = mini_folder(tmp_path_factory.mktemp("mini"))
    clsp = CLSP.from_pretrained(mini, run_opts={"device": "cpu"})
    clips = [exporting.make_clip(1.0, seed) for seed in range(100, 108)]
    write_background(mini, clsp.encode_batch(*pad(clips)), "buzzes")
    official = official_folder(tmp_path_factory.mktemp("official"))
    return {
        "mini": CLSP.from_pretrained(mini, run_opts={"device": "cpu"}),
        "official": CLSP.from_pretrained(official, run_opts={"device": "cpu"}),
    }


@pytest.fixture(scope="module")
def exported(models, tmp_path_factory):
    """Return a function that exports a model, once, and opens what was written."""
    place, found = tmp_path_factory.mktemp("exported"), {}

    def export(kind, choice="onnx-fp32"):
        if (kind, choice) not in found:
            folder = place / f"{kind}-{choice}"
            models[kind].export(folder, *choice.split("-"))
            found[kind, choice] = CLSP.from_pretrained(folder)
        return found[kind, choice]

    return export


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("kind", ["mini", "official"])
def test_embeddings_are_those_of_the_model(models, exported, kind, choice):
    """If this fails, an exported model is another model: at some length, padding or batch size."""
    clsp, other = models[kind], exported(kind, choice)
    least = 0.99999 if choice.endswith("fp32") else 0.9995
    for number, seconds in enumerate(SECONDS):
        clips = [exporting.make_clip(each, 50 + 16 * number + n) for n, each in enumerate(seconds)]
        speech, theirs = (model.encode_batch(*pad(clips)) for model in (clsp, other))
        assert theirs.dtype == torch.float32 and theirs.shape == speech.shape
        torch.testing.assert_close(theirs.norm(dim=1), torch.ones(len(clips)))
        assert (speech * theirs).sum(dim=1).min() >= least, seconds
        if len(clips) == 3:
            alone = torch.cat([other.encode_batch(clip) for clip in clips])
            assert (alone * theirs).sum(dim=1).min() >= least
            if choice.endswith("fp32"):
                torch.testing.assert_close(alone, theirs, atol=1e-5, rtol=0)
    for texts in (CAPTIONS[:1], [f"{'so ' * (n % 5)}{CAPTIONS[n % 3][:40]}" for n in range(16)]):
        text, theirs = clsp.encode_text(texts), other.encode_text(texts)
        assert (text * theirs).sum(dim=1).min() >= least
    assert other.provenance()["precision"] == choice.split("-")[1]
    assert other.weights_sha256() == clsp.weights_sha256()


def test_half_precision_halves_the_weights(models, exported):
    for beside, *choices in (
        ("speech.onnx.data", "onnx-fp32", "onnx-fp16"),
        ("speech.bin", "openvino-fp32", "openvino-bf16"),
    ):
        folders = [Path(exported("official", choice).source) for choice in choices]
        sizes = [(folder / beside).stat().st_size for folder in folders]
        # The filter banks, in which a bit counts, are a third of this little model.
        assert sizes[1] < 0.75 * sizes[0]


def test_an_exported_model_does_all_that_a_model_does(models, exported, tmp_path):
    """If this fails, something that works with the model does not with its exported form."""
    clsp, other = models["mini"], exported("mini")
    files = [
        write(tmp_path / f"{n}.wav", tone(0.4 + 0.7 * n, frequency=100 + 60 * n), 16000)
        for n in range(4)
    ]
    close = {"atol": 1e-4, "rtol": 0}  # of tones, which leave bins at the floor
    speech = clsp.encode_files(files, progress=False)
    for seconds in (0.1, 60.0):
        theirs = other.encode_files(files, max_batch_seconds=seconds, progress=False)
        torch.testing.assert_close(theirs, speech, **close)
    scores = clsp.score_file(files[2], CAPTIONS)
    torch.testing.assert_close(other.score_file(files[2], CAPTIONS), scores, **close)
    posteriors = [model.classify_file(files[1], CAPTIONS)[0] for model in (clsp, other)]
    torch.testing.assert_close(*posteriors, atol=1e-3, rtol=0)
    timelines = [model.timeline(files[3], CAPTIONS, 1.0, 0.5).scores for model in (clsp, other)]
    torch.testing.assert_close(*timelines, **close)
    percentiles = [model.percentile(scores, CAPTIONS) for model in (clsp, other)]
    torch.testing.assert_close(*percentiles, atol=13.0, rtol=0)  # of 8 clips
    evaluated = open_model(other.source)
    torch.testing.assert_close(evaluated.encode_files(list(map(str, files))), speech, **close)
    evaluated.check_texts([("one", CAPTIONS[0])], "here")
    rewards = [StyleReward(m)(torch.from_numpy(tone())[None], CAPTIONS[:1]) for m in (clsp, other)]
    torch.testing.assert_close(*rewards, **close)
    for again in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
        torch.testing.assert_close(again.encode_file(files[0]), speech[0], **close)


def test_the_service_serves_an_exported_model(models, exported):
    clsp, content = exported("mini", "openvino-fp32"), wav_bytes(1.5, 16000)
    with live(StyleService(clsp, Limits(clips=8))) as url:
        status, answer = post(f"{url}/v1/score", {"captions": CAPTIONS}, [content] * 3)
    assert status == 200 and answer["precision"] == "fp32"
    expected = models["mini"].score_file(content, CAPTIONS).tolist()
    for each in answer["results"]:
        assert each["scores"] == pytest.approx(expected, abs=1e-5)


def test_gradients_are_refused(exported):
    """If this fails, a waveform that is optimized for a reward stays as it is, without a word."""
    with pytest.raises(ValueError, match="no gradients"):
        exported("mini").encode_batch(torch.from_numpy(tone()).requires_grad_())


def test_what_cannot_be_exported_is_refused(models, tmp_path, monkeypatch):
    clsp = models["mini"]
    with pytest.raises(ValueError, match="ONNX Runtime has no bf16 on CPUs: choose one of fp32"):
        clsp.export(tmp_path / "x", "onnx", "bf16")
    with pytest.raises(ValueError, match="runtime must be one of"):
        clsp.export(tmp_path / "x", "tensorrt")
    with pytest.raises(ValueError, match="precision must be one of"):
        clsp.export(tmp_path / "x", "openvino", "int4")
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="mine is not a model folder .* no config.json: save"):
        clsp.export(tmp_path / "mine")
    half = CLSP.from_pretrained(clsp.source, precision="bf16")
    with pytest.raises(ValueError, match="on the CPU in fp32"):
        half.export(tmp_path / "x")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tower = PretrainedSpeechTower({"model_type": "wavlm", "intermediate_size": 32, **size})
    other = CLSP({**clsp.mods, "speech_tower": tower}, vars(clsp.hparams), {"device": "cpu"})
    with pytest.raises(ValueError, match="A PretrainedSpeechTower cannot be exported"):
        other.export(tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_only_an_exported_model_is_replaced(models, tmp_path):
    """If this fails, a user's files are lost, or graphs of two models lie in one folder."""
    model = shutil.copytree(models["mini"].source, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    clsp = CLSP.from_pretrained(model, run_opts={"device": "cpu"})
    with pytest.raises(FileExistsError, match="it has no speech.onnx and no speech.xml: save to"):
        clsp.export(model)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    clsp.export(tmp_path / "fast", "onnx")
    (tmp_path / "fast" / "notes.txt").write_text("mine")
    clsp.export(tmp_path / "fast", "openvino")
    found = {path.name for path in (tmp_path / "fast").iterdir()}
    assert "notes.txt" in found and not [name for name in found if ".onnx" in name]
    again = CLSP.from_pretrained(tmp_path / "fast")
    assert again.exported.runtime == "openvino" and len(again.background) == 8


def test_a_graph_that_computes_something_else_is_not_written(models, tmp_path, monkeypatch):
    """If this fails, a fault of an exporter reaches users."""

    def spoil(model):
        weight = max(model.graph.initializer, key=lambda each: len(each.raw_data))
        weight.raw_data = bytes(len(weight.raw_data))

    monkeypatch.setattr(exporting, "halve", spoil)
    with pytest.raises(
        ValueError, match="Not exported: for onnx in fp16, cosines with the model are down to"
    ):
        models["mini"].export(tmp_path / "x", "onnx", "fp16")
    assert list(tmp_path.iterdir()) == []


def test_wrong_ways_to_open_one_are_explained(models, exported, tmp_path, monkeypatch):
    folder = exported("mini").source
    assert CLSP.from_pretrained(folder, precision="fp32").exported.runtime == "onnx"
    with pytest.raises(ValueError, match="onnx-fp32 was exported in fp32, not in bf16: export"):
        CLSP.from_pretrained(folder, precision="bf16")
    with pytest.raises(ValueError, match="exported for CPUs: it does not run on cuda"):
        CLSP.from_pretrained(folder, run_opts={"device": "cuda"})
    with pytest.raises(ValueError, match="exported for CPUs: it does not run on banana"):
        CLSP.from_pretrained(folder, run_opts={"device": "banana"})
    assert CLSP.from_pretrained(folder, run_opts={"device": "cpu:0"}).device == "cpu"
    with pytest.raises(ValueError, match="is exported already"):
        exported("mini").export(tmp_path / "x")
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "text.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match="text.onnx is not what was exported: it is damaged, cut"):
        CLSP.from_pretrained(broken)
    with pytest.raises(ValueError, match="text.onnx could not be opened by onnx"):
        open_graph(broken / "text.onnx", "onnx", "fp32")
    (broken / "text.onnx").unlink()
    with pytest.raises(FileNotFoundError, match="broken has no text.onnx"):
        CLSP.from_pretrained(broken)
    for name in ("onnx", "onnxruntime", "openvino"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ValueError, match=r"Exporting a model needs the extra export .*pip"):
                models["mini"].export(tmp_path / "x", "openvino")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"needs the extra export .*speechbrain-clsp\[export\]"):
        CLSP.from_pretrained(folder)


@pytest.mark.parametrize("name", ["speech.onnx.data", "tokenizer.model"])
def test_a_file_of_another_model_is_refused(exported, tmp_path, name):
    """If this fails, a store mixes embeddings of two models, or a cut-off file ends the process."""
    folder = shutil.copytree(exported("mini").source, tmp_path / "x")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is not what was exported"):
        CLSP.from_pretrained(folder)


def test_an_exported_model_stays_where_it_is(exported, caplog):
    """If this fails, libraries that move models to a GPU cannot use it."""
    clsp = exported("mini")
    expected = clsp.encode_text(CAPTIONS)
    for change in ({"device": "meta"}, {"dtype": torch.float64}):
        torch.nn.Sequential(clsp).to(**change)
        assert "was exported for CPUs, and stays there in float32" in caplog.text
        caplog.clear()
        assert clsp.encode_text(CAPTIONS).equal(expected)
    assert clsp.to("cpu").device == "cpu" and not caplog.text


def test_sentence_transformers_opens_and_saves_one(exported, tmp_path):
    folder = exported("mini").source
    model = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    model.save_pretrained(str(tmp_path / "copy"))
    again = CLSP.from_pretrained(tmp_path / "copy")
    np.testing.assert_allclose(model.encode(CAPTIONS), again.encode_text(CAPTIONS), atol=1e-6)


def test_one_whose_files_are_links_is_opened(exported, tmp_path):
    """If this fails, an exported model of the Hub, whose cache holds links, is not opened."""
    (tmp_path / "snapshot").mkdir()
    for path in Path(shutil.copytree(exported("mini").source, tmp_path / "blobs")).iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    found = CLSP.from_pretrained(tmp_path / "snapshot").encode_text(CAPTIONS)
    assert found.equal(exported("mini").encode_text(CAPTIONS))


def test_a_runtime_that_loses_rows_is_told_apart(exported, monkeypatch):
    """OpenVINO returns no row where ONEDNN_MAX_CPU_ISA takes the processor for an older one."""
    clsp = exported("mini", "openvino-fp32")
    run = clsp.text_tower.graph.run
    monkeypatch.setattr(clsp.text_tower.graph, "run", lambda arrays: run(arrays)[:0])
    with pytest.raises(ValueError, match=r"text.xml gives 0 embeddings for 2 inputs on this"):
        clsp.encode_text(["A quick voice.", "A slow voice."])


@torch.no_grad()
def test_cosines_that_are_no_numbers_are_found(models):
    """If this fails, a graph that computes nothing passes its check."""
    towers = models["mini"].mods
    broken = {"speech_tower": lambda *batch: towers["speech_tower"](*batch) * float("nan")}
    broken["text_tower"] = towers["text_tower"]
    found = exporting.compare_towers(towers, broken, models["mini"].hparams.tokenizer)
    assert np.isnan(found["speech"]) and found["text"] > 0.99999


def test_clips_that_are_lost_are_named(models, tmp_path, monkeypatch):
    rows = list(buzzes(tmp_path, 3))
    found = [{n: torch.ones(4) for n in range(3)}, {0: torch.ones(4)}]
    monkeypatch.setattr(exporting, "embed_rows", lambda *_: found.pop(0))
    with pytest.raises(ValueError, match="2 clips that the model embeds have no .* such as clip1"):
        exporting.compare_on_pairs(None, None, [(row, "A man.") for row in rows])


def test_an_exported_model_is_published_as_any_other(exported, tmp_path, monkeypatch):
    folder = Path(exported("mini").source)
    names = sorted(path.name for path in folder.iterdir())
    assert publish(folder, "me/fast", dry_run=True) == names
    needed = ["torch>=2", 'onnxruntime>=1; extra == "export"', 'ray>=2; extra == "ray"']
    monkeypatch.setattr(space, "requires", lambda package: needed)
    space.write_space(folder, "me/fast", tmp_path / "space")
    found = (tmp_path / "space" / "requirements.txt").read_text()
    assert found == "torch>=2\nonnxruntime>=1\n"
    half = shutil.copytree(folder, tmp_path / "half")
    (half / "speech.onnx.data").unlink()
    with pytest.raises(FileNotFoundError, match="or what `clsp export` writes"):
        publish(half, "me/fast", dry_run=True)


def test_what_trains_or_converts_weights_refuses_an_exported_model(exported, tmp_path, capsys):
    folder = exported("mini").source
    with pytest.raises(ValueError, match="onnx-fp32 was exported, and cannot be trained"):
        open_base(folder)
    for option in ([], ["--to-official"]):
        assert main(["convert", *option, folder, str(tmp_path / "x")]) == 2
        assert "was exported: convert the model that it was made of" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_folders_above_and_below_an_exported_model_are_told_apart(exported, tmp_path):
    """If this fails, another model in an exported one's folder takes its place."""
    folder = shutil.copytree(exported("mini").source, tmp_path / "fast")
    with pytest.raises(FileNotFoundError, match="is not a model folder, but .*fast is: give that"):
        CLSP.from_pretrained(tmp_path)
    (folder / "tuned").mkdir()
    (folder / "tuned" / "adapters.safetensors").touch()
    assert CLSP.from_pretrained(folder).exported.runtime == "onnx"


@pytest.mark.parametrize(
    "change, pattern",
    [
        ({"logit_scale": "high"}, "does not say how it was exported: logit_scale must not be"),
        ({"logit_scale": float("nan")}, "logit_scale must not be nan"),
        ({"logit_scale": 0.0}, "logit_scale must not be 0.0"),
        ({"max_tokens": None}, "max_tokens must not be None"),
        ({"files": ["speech.onnx"]}, "files must not be"),
        ({"files": {}}, "files has no speech.onnx"),
        ({"colour": 1}, "unexpected keyword argument 'colour'"),
        ({"runtime": "tensorrt"}, "exported with 'tensorrt', which this version does not know"),
        ({"precision": "auto"}, "exported with 'auto', which this version does not know"),
    ],
)
def test_a_damaged_config_is_named(exported, tmp_path, change, pattern):
    folder = shutil.copytree(exported("mini").source, tmp_path / "x")
    config = json.loads((folder / "config.json").read_text())
    config["export"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=pattern):
        CLSP.from_pretrained(folder)


def test_no_tower_is_built_and_no_exporter_imported(models, exported, tmp_path):
    """If this fails, a model that starts in a second starts in five."""
    code = """
import sys
from speechbrain_clsp import CLSP
CLSP.from_pretrained(sys.argv[1]).encode_text(["abc"])
print(*[name for name in ("transformers", "torch.onnx._internal", "onnx") if name in sys.modules])
"""
    folder = exported("official").source
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_the_command_exports_and_the_result_scores(models, tmp_path, capsys):
    wav, folder = write(tmp_path / "a.wav", tone(), 16000), tmp_path / "fast"
    assert main(["export", models["mini"].source, str(folder), "--precision", "fp16"]) == 0
    assert "for onnx in fp16; least cosine with the model " in capsys.readouterr().out
    assert main(["score", str(wav), CAPTIONS[0], "--model", str(folder), "--json"]) == 0
    score = json.loads(capsys.readouterr().out)[CAPTIONS[0]]
    assert abs(score - models["mini"].score_file(wav, CAPTIONS[:1]).item()) < 2e-3
    config = json.loads((folder / "config.json").read_text())["export"]
    assert config["checks"]["speech"] >= 0.9995


def test_int8_is_measured_on_clips_and_refused_if_it_costs_too_much(models, tmp_path, monkeypatch):
    """If this fails, an int8 model that has lost its way reaches users."""
    clips = buzzes(tmp_path, 6)
    with pytest.raises(ValueError, match="int8 needs a manifest"):
        models["mini"].export(tmp_path / "x", "onnx", "int8")
    for runtime in ("onnx", "openvino"):
        export = models["mini"].export(tmp_path / runtime, runtime, "int8", clips.path)
        assert export.checks["clips"] == 6
        assert 0.995 <= export.checks["speech"] < 0.9999999
        found = CLSP.from_pretrained(tmp_path / runtime).encode_files([clips[2]["audio"]])
        expected = models["mini"].encode_files([clips[2]["audio"]])
        assert found @ expected.T >= 0.995
    monkeypatch.setattr(graphs, "LEVELS", 2)
    monkeypatch.setattr(graphs, "MOST_ROUNDING", np.inf)
    with pytest.raises(ValueError, match=r"in int8, cosines with the model are down to 0\.\d+ for"):
        models["mini"].export(tmp_path / "x", "onnx", "int8", clips.path)
    assert not (tmp_path / "x").exists()


def test_clips_without_captions_are_named_before_anything_is_traced(models, tmp_path, monkeypatch):
    row = {**buzzes(tmp_path, 1)[0], "global_captions": [], "fine_captions": []}
    write_manifest(tmp_path / "clips.arrow", [row])
    monkeypatch.setattr(exporting, "trace_speech", None)
    with pytest.raises(ValueError, match="clips.arrow: the clip clip0 has no caption"):
        models["mini"].export(tmp_path / "x", "onnx", "int8", tmp_path / "clips.arrow")


def test_results_are_refused_by_either_measure():
    good = {"speech": 0.996, "text": 0.9999, "R@1": 60.0, "R@1 of the model": 60.9}
    exporting.check_results(good, "onnx", "int8")
    for change, pattern in (
        ({"R@1": 59.8}, "R@1 is 59.8 %, that of the model 60.9 %; at most 1.0 point"),
        ({"text": 0.99}, "down to 0.990000 for text; at least 0.995"),
        ({"speech": float("nan")}, "down to nan for speech"),
    ):
        with pytest.raises(ValueError, match=pattern):
            exporting.check_results({**good, **change}, "onnx", "int8")


def test_a_product_with_an_outlier_stays_in_fp32(models, tmp_path):
    """If this fails, one large weight rounds all others of its channel away."""
    tower = copy.deepcopy(models["mini"].speech_tower)
    wavs, _ = pad([exporting.make_clip(1.0, 3)])
    inputs = {"wavs": wavs.numpy(), "n_samples": np.array([wavs.shape[1]])}

    def sensitive():
        graphs.trace_speech(tower, tmp_path / "speech.onnx")
        return set(graphs.find_sensitive(tmp_path / "speech.onnx", inputs))

    before = sensitive()
    with torch.no_grad():
        weight = tower.encoder.encoders[1].encoder.layers[0].feed_forward2.out_proj.weight
        weight[:, 0] = 80 * weight.abs().max()
    name = "/encoder/encoders.1/encoder/layers.0/feed_forward2/out_proj/MatMul"
    assert name not in before and name in sensitive()


@pytest.mark.parametrize("seconds, chosen", [((1.0, 0.8), "bf16"), ((1.0, 0.95), "fp16")])
def test_auto_takes_bf16_only_where_it_is_faster(models, tmp_path, monkeypatch, seconds, chosen):
    """If this fails, machines that emulate bf16 embed at half the speed."""
    clock = [0.0]

    class Slow(torch.nn.Module):
        def __init__(self, graph):
            super().__init__()
            self.seconds = dict(zip(("fp16", "bf16"), seconds))[graph]

        def forward(self, wavs):
            clock[0] += self.seconds

    monkeypatch.setattr(exporting, "open_graph", lambda path, runtime, precision: precision)
    monkeypatch.setattr(exporting, "ExportedSpeechTower", Slow)
    monkeypatch.setattr(exporting.time, "perf_counter", lambda: clock[0])
    assert exporting.choose_precision(tmp_path, "openvino")[0] == chosen
    assert exporting.choose_precision(tmp_path, "onnx")[0] == "fp16"


def test_auto_writes_what_it_chose(models, tmp_path):
    export = models["mini"].export(tmp_path / "x", "onnx", "auto")
    assert export.precision == "fp16" and set(export.checks["seconds"]) == {"fp16"}
    assert CLSP.from_pretrained(tmp_path / "x").provenance()["precision"] == "fp16"
