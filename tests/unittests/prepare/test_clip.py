"""Lines of damaged files, and errors that travel between processes."""

import gzip
import pickle

import pytest

from speechbrain_clsp.prepare.clip import UnusableClipError, parse_line, read_lines


def test_lines_are_read_to_the_point_of_damage(tmp_path):
    data = gzip.compress(b"".join(b'{"n": %d}\n' % i for i in range(50_000)))
    for name, content in {"cut": data[:-3000], "flipped": data[:20000] + b"\0" * 50}.items():
        path = tmp_path / f"{name}.jsonl.gz"
        path.write_bytes(content)
        lines = []
        with pytest.raises(ValueError, match=rf"{name}.jsonl.gz is cut off.*after line \d+"):
            for _, line in read_lines(path):
                lines.append(parse_line(line)["n"])
        assert len(lines) > 1000
        assert name == "flipped" or lines == list(range(len(lines)))


@pytest.mark.parametrize("line", [b"{broken", b"[]", b"\xff"])
def test_a_line_that_is_not_a_json_object_is_malformed(line):
    with pytest.raises(UnusableClipError) as caught:
        parse_line(line)
    assert caught.value.reason == "malformed line"


def test_errors_keep_reason_detail_and_name_between_processes():
    error = pickle.loads(pickle.dumps(UnusableClipError("no audio", "a.wav", "clip")))
    assert (error.reason, error.detail, error.name) == ("no audio", "a.wav", "clip")
