"""Anything at all, at every entry of models: what is right, or an error that names what is wrong.

Errors are OSError, ValueError (AudioError among them) or TypeError, in one line; never another
exception, never NaN.
"""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from speechbrain_clsp import CLSP, StyleReward
from speechbrain_clsp.dataio.audio import check_audio, read_audio
from tests.utils.bad_audio import FOREIGN
from tests.utils.official_model import write_official, write_tokenizer
from tests.utils.small import CAPTIONS, model_folder, tone

EXPECTED = (OSError, ValueError, TypeError)
CPU = {"device": "cpu"}
fuzz = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,  # the same in every run
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = write_official(tmp_path_factory.mktemp("published"))
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def clsp(folder):
    return CLSP.from_pretrained(folder, run_opts=CPU)


def check_error(error: Exception, *names: str) -> None:
    """Fail if a message tells nothing, or does not name what is wrong."""
    text = str(error)
    assert len(text) > 10 and len(text) < 3000, text
    text.encode()  # can be printed
    assert any(name in text for name in names), f"{text!r} names none of {names}"


def sound(suffix: str) -> bytes:
    """Return a clip in a format."""
    content = io.BytesIO()
    soundfile.write(content, tone(0.3), 16000, format=suffix)
    return content.getvalue()


SOUNDS = {suffix: sound(suffix) for suffix in ("WAV", "FLAC", "MP3", "OGG", "AIFF", "AU", "CAF")}


@st.composite
def damaged(draw, contents):
    """Draw bytes that are those of a file, with some changed, cut off, repeated or moved."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(0, 3))):
        where = draw(st.integers(0, max(0, len(content) - 1)))
        if draw(st.booleans()):
            where %= 64  # headers
        what = draw(st.sampled_from(["set", "cut", "insert", "zero", "double"]))
        if what == "set":
            content[where : where + 4] = draw(st.binary(min_size=1, max_size=4))
        elif what == "cut":
            del content[where:]
        elif what == "insert":
            content[where:where] = draw(st.binary(max_size=20))
        elif what == "zero":
            content[where : where + 200] = bytes(min(200, len(content) - where))
        else:
            content += content[where : where + 4000]
    return bytes(content)


AUDIO = damaged([*SOUNDS.values(), *FOREIGN, *(magic + SOUNDS["WAV"] for magic in FOREIGN)])


@fuzz
@given(
    content=AUDIO,
    suffix=st.sampled_from(["wav", "mp3", "flac", "au", "vox", "raw", "gsm", "m4a", "", "wav.gz"]),
    start=st.sampled_from([0.0, 0.1, -1.0, 1e9, float("nan"), float("inf")]),
    duration=st.sampled_from([None, 0.1, 0.0, -1.0, 1e12, float("nan")]),
    channel=st.sampled_from([None, 0, 1, -1]),
)
def test_any_bytes_as_audio(clsp, tmp_path_factory, content, suffix, start, duration, channel):
    path = tmp_path_factory.mktemp("audio") / f"clip.{suffix}"
    path.write_bytes(content)
    for source in (path, content):
        try:
            wav = read_audio(source, "clip.7", start, duration, channel)
        except EXPECTED as error:
            check_error(error, "clip.7")
        else:
            assert wav.isfinite().all() and len(wav) >= 1600
        try:
            assert check_audio(source, "clip.7", start, duration, channel).seconds >= 0.1
        except EXPECTED as error:
            check_error(error, "clip.7")
    try:
        embedding = clsp.encode_file(path)
    except EXPECTED as error:
        check_error(error, str(path))
    else:
        assert embedding.isfinite().all()


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=8)
)
OBJECTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(
            st.sampled_from(["array", "sampling_rate", "bytes", "path", "m"]), inner, max_size=3
        ),
    ),
    max_leaves=5,
)


@fuzz
@given(things=st.lists(OBJECTS, max_size=3))
@example(things=[{"array": [[]], "sampling_rate": 16000}])
@example(things=[{"array": [0.0] * 4800, "sampling_rate": 16000}])
@example(things=[{"bytes": SOUNDS["WAV"], "path": 3}])
def test_any_object_as_audio(clsp, tmp_path, things):
    good = tmp_path / "good.wav"
    good.write_bytes(SOUNDS["WAV"])
    for thing in things:
        try:
            assert clsp.encode_file(thing).isfinite().all()
        except EXPECTED as error:
            check_error(error, "path", "audio", "no such file", repr(thing), str(thing))
    found = clsp.encode_files([*things, good], on_error="skip", progress=False)
    assert found[-1].isfinite().all()
    for each in (*things, things):
        try:
            clsp.encode_files(each, progress=False)
        except EXPECTED as error:
            check_error(error, "path", "audio", "no such file", str(each))


TENSORS = st.one_of(
    st.tuples(
        st.sampled_from(
            ["float16", "bfloat16", "float32", "float64", "int16", "int64", "bool", "complex64"]
        ),
        st.lists(st.sampled_from([0, 1, 2, 1599, 1600, 4800]), max_size=3).filter(
            lambda shape: np.prod([max(1, size) for size in shape]) < 30000
        ),
        st.sampled_from([0.0, 1e-30, 0.1, 1.5, 3.0, 99.0, 101.0, 1e30, float("nan"), float("inf")]),
        st.booleans(),
    ),
    OBJECTS,
)


def tensor_of(description):
    """Return a Tensor or array of a type, a shape and a size of its values; or the object."""
    if not (isinstance(description, tuple) and len(description) == 4):
        return description
    name, shape, scale, is_array = description
    dtype = getattr(torch, name)
    values = torch.from_numpy(np.resize(tone(), shape)).float() * scale
    values = values.nan_to_num().to(dtype) if not dtype.is_floating_point else values.to(dtype)
    return values.numpy() if is_array and name != "bfloat16" else values


LENS = st.one_of(
    st.none(),
    st.lists(st.sampled_from([0.0, 0.01, 0.5, 1.0, 1.5, -1.0, float("nan")]), max_size=3),
    OBJECTS,
)


@fuzz
@given(wavs=TENSORS, wav_lens=LENS)
def test_any_tensor_as_waveforms(clsp, wavs, wav_lens):
    wavs = tensor_of(wavs)
    try:
        found = clsp.encode_batch(wavs, wav_lens)
    except EXPECTED as error:
        check_error(error, "wav", "samples", "lens")
    else:
        assert found.isfinite().all() and torch.allclose(
            found.norm(dim=1), torch.ones(1), atol=1e-4
        )
    try:
        rewards = StyleReward(clsp)(wavs, ["slowly"] * 2, wav_lens)
    except EXPECTED as error:
        check_error(error, "wav", "captions", "lens")
    else:
        assert rewards.isfinite().all() and len(rewards) == 2


TEXTS = st.one_of(
    st.lists(st.one_of(st.sampled_from(CAPTIONS), st.text(), SCALARS), max_size=4),
    st.dictionaries(st.text(max_size=4), st.one_of(st.text(), st.lists(st.text())), max_size=4),
    st.sets(st.text(), max_size=3),
    OBJECTS,
)


@fuzz
@given(texts=TEXTS)
@example(texts=["\x00"])
@example(texts=["\u200b", "\ud800"])
@example(texts=["a" * 100_000, "b"])
@example(texts={"a": ["b", "b"], "c": "b"})
def test_any_texts_and_prompts(clsp, texts):
    names = ("texts", "prompts", "Caption", "labels", "label", "captions")
    for name, wanted in (("encode_text", (len,)), ("find_unknown", ())):
        try:
            found = getattr(clsp, name)(texts)
        except EXPECTED as error:
            check_error(error, *names)
        else:
            assert len(found) == len(texts)
            assert not wanted or found.isfinite().all()
    try:
        posteriors, score, index, labels = clsp.classify_batch(
            torch.from_numpy(tone()), None, texts
        )
    except EXPECTED as error:
        check_error(error, *names, "prompt")
    else:
        assert abs(float(posteriors.exp().sum()) - 1) < 1e-4 and score.isfinite().all()
        assert labels == [list(texts)[int(index)]]


def load(copy: Path) -> None:
    """Load what may be damaged; embed with it, if it loads."""
    try:
        clsp = CLSP.from_pretrained(copy, run_opts=CPU)
        speech = clsp.encode_batch(torch.from_numpy(tone(0.2)))
        text = clsp.encode_text(["a male speaker"])
    except EXPECTED as error:
        check_error(error, str(copy), "texts", "tokenizer")
    else:
        assert speech.isfinite().all() and text.isfinite().all()


def damage(draw_from: Path, name: str, content: bytes) -> None:
    copy = draw_from.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(draw_from, copy)
    (copy / name).write_bytes(content)
    load(copy)


YAML = st.sampled_from(
    [
        "",
        "a: [",
        "!new:nothing.at.all",
        "[1, 2]",
        "\x00",
        "{}",
        "a: !ref <b>",
        "- !!int x",
        "modules: 3",
        "pretrainer: 3",
        "modules: {a: !new:torch.nn.Identity}\npretrainer: null",
    ]
)


@settings(fuzz, max_examples=25)
@given(data=st.data())
def test_any_damage_to_a_model_folder(folder, tmp_path, data):
    model = tmp_path / "model"
    if not model.exists():
        shutil.copytree(folder, model)
    name = data.draw(st.sampled_from(sorted(path.name for path in model.iterdir())))
    original = (model / name).read_bytes()
    if name == "hyperparams.yaml":  # which is code: not changed at random
        lines = original.decode().splitlines()
        number = data.draw(st.integers(0, len(lines) - 1))
        what = data.draw(st.sampled_from(["drop", "indent", "replace", "number"]))
        if what == "drop":
            del lines[number]
        elif what == "indent":
            lines[number] = "  " + lines[number]
        elif what == "number":
            lines[number] = lines[number].replace(
                "32", data.draw(st.sampled_from(["0", "-1", "x"]))
            )
        content = "\n".join(lines) if what != "replace" else data.draw(YAML)
        damage(model, name, content.encode())
    else:
        damage(model, name, data.draw(damaged([original, *FOREIGN])))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["num_attention_heads", "hidden_size", "encoder_dim", "text_config"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


@settings(fuzz, max_examples=25)
@given(data=st.data())
@example(data=None)
def test_any_damage_to_a_published_model(published, tmp_path, data):
    model = tmp_path / "model"
    if not model.exists():
        shutil.copytree(published, model)
    if data is None:
        return damage(model, "config.json", b"[" * 100_000)
    name = data.draw(st.sampled_from(sorted(path.name for path in model.iterdir())))
    original = (model / name).read_bytes()
    if name == "config.json":
        return damage(model, name, json.dumps(data.draw(JSON)).encode())
    return damage(model, name, data.draw(damaged([original, *FOREIGN])))
