"""Settings are checked when they are read: their names, types and ranges."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from speechbrain_clsp.annotation.config import SECTIONS, read_settings

VALUES = st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=6)
VALUES |= st.lists(st.integers(0, 3), max_size=3) | st.dictionaries(st.text(max_size=2), st.none())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "caption.base_url=localhost:8000/v1",
            "base_url 'localhost:8000/v1' has no scheme",
        ),
        ("caption.base_url=[]", "caption.base_url is empty"),
        ("caption.base_url=[3]", "caption.base_url is [3], a list, but must be text or a list"),
        ("caption.timeout=fast", "caption.timeout is 'fast', text, but must be a finite number"),
        ("caption.timeout=.nan", "caption.timeout is nan"),
        ("caption.timeout=0", "caption.timeout is 0: it must be more than 0 seconds"),
        ("caption.attempts=2.5", "caption.attempts is 2.5, a number, but must be a whole number"),
        ("caption.attempts=true", "caption.attempts is True, true or false"),
        ("caption.attempts=0", "caption.attempts is 0: it must be at least 1"),
        ("caption.candidates=0", "caption.candidates is 0: it must be at least 1"),
        ("caption.price=[1]", "caption.price is [1], a list, but must be a list of 2 finite"),
        ("caption.sampling=[1]", "caption.sampling is [1], a list, but must be a mapping"),
        ("filter.absence=[no, not]", "in quotes, where YAML reads it otherwise"),
        ("filter.shortest='1'", "filter.shortest is '1', text, but must be a whole number"),
        ("select.gate=high", "select.gate is 'high', text, but must be a finite number or null"),
        ("judge.model=null", "judge.model is None, null, but must be text"),
        ("judge.rounds=0", "judge.rounds is 0"),
        ("verify.verdicts=0", "verify.verdicts is 0"),
        ("transcripts=3", "transcripts is 3, not the name of a file"),
        ("caption.sampling={a: ", "the value is not YAML"),
        ("caption.api_key_variable=sk-1", "caption.api_key_variable must be the name of"),
    ],
)
def test_a_wrong_value_names_its_setting_and_what_it_must_be(change, said):
    with pytest.raises(ValueError) as caught:
        read_settings(None, [change])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        "caption.timeout=300",
        "caption.price=[1, 2.5]",
        "caption.price=null",
        "caption.base_url=[http://a/v1, 'https://[::1]:8000/v1']",
        "verify.rounds=0",
        "filter.absence=['no', not]",
        "select.clsp=null",
        "transcripts=null",
    ],
)
def test_right_values_are_taken(change):
    found = read_settings(None, [change])
    name, _, text = change.partition("=")
    for part in name.split("."):
        found = getattr(found, part)
    assert found == yaml.safe_load(text)


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"caption: {model: \xff}")
    with pytest.raises(ValueError, match="x.yaml, line 1: the byte 0xff is not UTF-8"):
        read_settings(path)
    path.write_bytes(b"\xef\xbb\xbfcaption: {model: m}")
    assert read_settings(path, ["caption.candidates=2"]).caption.model == "m"
    path.write_text("caption: {timeout: fast}\n")
    with pytest.raises(ValueError, match="x.yaml: caption.timeout is 'fast'"):
        read_settings(path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_value_is_taken_or_refused_by_its_name(data):
    section = data.draw(st.sampled_from(sorted(SECTIONS)))
    name = data.draw(st.sampled_from(sorted(SECTIONS[section].__dataclass_fields__)))
    value = data.draw(VALUES)
    try:
        read_settings(None, [f"{section}.{name}={value!r}"])
    except ValueError as error:
        assert name in str(error)
