from __future__ import annotations

import pytest
import torch

from minimind.telemetry import meters
from minimind.telemetry.meters import LossMeter, StepTimer

CPU = torch.device("cpu")


def add(meter: LossMeter, nats: float, aux: float, targets: int) -> None:
    meter.add(torch.tensor(nats), torch.tensor(aux), torch.tensor(targets))


def test_read_sums_and_starts_again() -> None:
    meter = LossMeter(CPU)
    add(meter, 10.0, 0.5, 4)
    meter.close_window(taken=True)
    add(meter, 6.0, 0.25, 2)
    assert meter.read().tolist() == [16.0, 2.5, 6.0]
    assert meter.read().tolist() == [0.0, 0.0, 0.0]


def test_a_window_that_was_not_taken_does_not_count() -> None:
    meter = LossMeter(CPU)
    add(meter, 10.0, 0.0, 4)
    meter.close_window(taken=True)
    add(meter, float("nan"), 0.0, 4)
    meter.close_window(taken=False)
    assert meter.read().tolist() == [10.0, 0.0, 4.0]


def test_restore_goes_back_to_the_boundary() -> None:
    meter = LossMeter(CPU)
    add(meter, 10.0, 0.0, 4)
    meter.close_window(taken=True)
    boundary = meter.snapshot()
    add(meter, 3.0, 0.0, 1)
    meter.restore(boundary)
    assert meter.read().tolist() == [10.0, 0.0, 4.0]
    assert boundary.tolist() == [10.0, 0.0, 4.0]


def test_sections_are_timed_apart() -> None:
    timer = StepTimer(CPU)
    with timer.section("data"):
        torch.zeros(1000)
    seconds = timer.read()
    assert seconds["data"] > 0
    assert seconds["compute"] == 0
    assert timer.read()["data"] == 0


def test_a_device_without_float64_sums_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    on_others = LossMeter(CPU)
    add(on_others, 10.0, 0.5, 4)
    on_others.close_window(taken=True)
    monkeypatch.setattr(meters, "sum_dtype", lambda device: torch.float32)
    meter = LossMeter(CPU)
    meter.restore(on_others.snapshot())
    add(meter, 6.0, 0.25, 2)
    meter.close_window(taken=True)
    assert meter.snapshot().dtype == torch.float32
    total = meter.read()
    assert (total.dtype, total.tolist()) == (torch.float64, [16.0, 2.5, 6.0])


def test_own_time_lies_within_a_section_and_is_no_section() -> None:
    timer = StepTimer(CPU)
    with timer.section("compute"), timer.alone():
        torch.zeros(1000)
    seconds = timer.read()
    assert seconds.keys() == {"data", "compute", "optimizer", "checkpoint"}
    assert 0 < timer.read_alone() <= seconds["compute"]
    assert timer.read_alone() == 0
