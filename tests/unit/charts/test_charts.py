from __future__ import annotations

import math
from pathlib import Path

import pytest

from minimind.charts.charts import (
    build_charts,
    log_ticks,
    loss_chart,
    moving_mean,
    thin,
    ticks,
)
from minimind.report.read import read_run
from tests.unit.charts.helpers import NO_VALUES, chart
from tests.unit.report.folders import METRICS, point, write_output


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 300, [0, 100, 200, 300]),
        (3.05, 8.3, [4, 6, 8]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-1e-4, 4.9e-3, [0, 0.001, 0.002, 0.003, 0.004]),
        (1.7, 2.7, [1.8, 2.0, 2.2, 2.4, 2.6]),
    ],
)
def test_ticks_are_round_and_few(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 5) == pytest.approx(expected)


def test_logarithmic_ticks() -> None:
    assert log_ticks(0.5, 2000) == pytest.approx([1, 10, 100, 1000])
    assert len(log_ticks(1e-20, 1e20)) <= 7
    assert log_ticks(2, 9) == pytest.approx([2, 4, 6, 8])


def test_an_axis_from_zero_begins_there_and_another_leaves_room() -> None:
    low, high = chart([2.0, 4.0], from_zero=True).y_range
    assert low == 0
    assert 4 < high < 4.5
    low, high = chart([2.0, 4.0]).y_range
    assert 1.5 < low < 2
    assert chart([2.0, 4.0], x=[5.0, 9.0]).x_range == (0, 9)


@pytest.mark.parametrize("y", NO_VALUES)
def test_no_values_make_an_axis_fail(y: list[float]) -> None:
    for log in (False, True):
        drawn = chart(y, log=log)
        assert drawn.y_range[0] < drawn.y_range[1]
        assert all(math.isfinite(t) for t in (*drawn.y_ticks(), *drawn.x_ticks()))


def test_the_moving_mean_keeps_ends_and_gaps() -> None:
    assert moving_mean([1, 2, 3, 4], 1) == [1, 2, 3, 4]
    assert moving_mean([0, 3, 0], 1) == [0, 1, 0]
    smooth = moving_mean([0, math.nan, 6], 1)
    assert (smooth[0], smooth[2]) == (0, 6)
    assert math.isnan(smooth[1])


def test_thinning_keeps_the_outline() -> None:
    x = [float(n) for n in range(10_000)]
    y = [math.sin(n / 50) for n in x]
    y[4321], y[5000] = 99.0, math.nan
    kept_x, kept_y = thin(x, y, limit=400)
    assert len(kept_x) <= 402
    assert (kept_x[0], kept_x[-1]) == (0, 9999)
    assert 99.0 in kept_y
    assert any(map(math.isnan, kept_y))
    assert kept_x == sorted(kept_x)
    assert thin(x[:300], y[:300], limit=400) == (x[:300], y[:300])


def test_resumes_are_marked_on_a_run_alone(tmp_path: Path) -> None:
    run = read_run(write_output(tmp_path / "a" / "out", METRICS))
    assert loss_chart([run]).marks == [40]
    assert loss_chart([run, run]).marks == []


def test_one_spike_of_the_gradient_norm_does_not_press_the_rest_flat(tmp_path: Path) -> None:
    calm = [point(step, grad_norm=1.0 + step / 100) for step in range(1, 50)]
    spike = point(50, grad_norm=5000.0)
    calm_run = read_run(write_output(tmp_path / "calm", calm))
    spiky_run = read_run(write_output(tmp_path / "spiky", [*calm, spike]))
    by_key = [{c.key: c for c in build_charts([run])} for run in (calm_run, spiky_run)]
    assert [charts["grad_norm"].log for charts in by_key] == [False, True]


def test_charts_without_a_point_are_left_out(tmp_path: Path) -> None:
    run = read_run(write_output(tmp_path, [point(1, aux_loss=0.0)]))
    keys = [c.key for c in build_charts([run])]
    assert keys[0] == "loss"
    assert not {"bits_per_byte", "aux_loss", "gpu_utilization"} & set(keys)
    experts = read_run(write_output(tmp_path / "moe", [point(1, aux_loss=0.1)]))
    assert "aux_loss" in [c.key for c in build_charts([experts])]
