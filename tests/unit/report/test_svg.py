from __future__ import annotations

import math

import pytest

from minimind.report.svg import draw, path_data
from tests.unit.charts.helpers import NO_VALUES, chart


@pytest.mark.parametrize("y", NO_VALUES)
@pytest.mark.parametrize("log", [False, True])
def test_no_values_put_a_nan_into_a_drawing(y: list[float], log: bool) -> None:
    drawn = chart(y, log=log)
    assert "nan" not in path_data(drawn, drawn.curves[0])


def test_a_gap_is_a_gap_and_a_lone_point_a_dot() -> None:
    drawn = chart([1.0, 2.0, math.nan, 2.0, math.inf, 1.0, 2.0])
    words = path_data(drawn, drawn.curves[0])
    assert [words.count(letter) for letter in "MLh"] == [3, 2, 1]
    assert words.split("M")[2].endswith("h0")


def test_a_run_of_one_step_is_seen() -> None:
    young = chart([8.0], x=[1.0])
    assert 'class="curve line c0 lone"' in draw(young)
    assert young.x_ticks() == [0, 1]
    assert "lone" not in draw(chart([8.0, 7.0]))
