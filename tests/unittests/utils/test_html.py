"""Charts and pages that are written from any values."""

import re
from itertools import pairwise

import pytest

from speechbrain_clsp.utils.html import HEIGHT, bar_chart, line_chart, table


@pytest.mark.parametrize("values", [[-0.004], [0.0, 0.0], [-3.0, -1.0], [2.0], [-1.0, 5.0]])
def test_curves_of_any_sign_can_be_drawn(values):
    chart = line_chart("x", {"x": list(enumerate(values))})
    points = re.search(r'points="([^"]*)"', chart)[1].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(heights) == len(values) and all(0 <= height <= HEIGHT for height in heights)
    assert [a > b for a, b in pairwise(values)] == [a < b for a, b in pairwise(heights)]


def test_values_cannot_inject_code():
    hostile = "<script>alert('x')</script>"
    pieces = (
        table([hostile], [[hostile]]),
        line_chart(hostile, {hostile: [(0, 1)]}),
        bar_chart(hostile, {hostile: 1.0}),
    )
    for piece in pieces:
        assert "<script" not in piece and "&lt;script&gt;" in piece
