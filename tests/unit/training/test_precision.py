"""Gradient scaling across a change of --dtype: a real scaler, which needs no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minimind.checkpoint.resume import must_fit
from minimind.errors import ConfigError, WeightsError
from minimind.training import precision
from minimind.training.precision import autocast_context, make_scaler, restore_scaler

CPU = torch.device("cpu")


def test_a_scale_travels() -> None:
    before = make_scaler(CPU, "float16")
    before.scale(torch.ones(()))
    before.update(128.0)
    now = make_scaler(CPU, "float16")
    restore_scaler(now, before.state_dict())
    assert now.state_dict() == before.state_dict()
    assert now.get_scale() == 128


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_float16_after_a_dtype_that_needs_no_scale_starts_with_a_fresh_one(dtype: str) -> None:
    now = make_scaler(CPU, "float16")
    restore_scaler(now, make_scaler(CPU, dtype).state_dict())
    assert now.state_dict() == make_scaler(CPU, "float16").state_dict()


def test_a_scale_is_of_no_use_to_a_dtype_that_needs_none() -> None:
    now = make_scaler(CPU, "bfloat16")
    restore_scaler(now, make_scaler(CPU, "float16").state_dict())
    assert not now.is_enabled()


def test_half_a_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError), must_fit(tmp_path):
        restore_scaler(make_scaler(CPU, "float16"), {"scale": 1.0})


def test_what_a_plug_in_has_no_autocast_for_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "autocast_takes", lambda device, dtype: False)
    with pytest.raises(ConfigError) as raised:
        autocast_context(torch.device("xpu"), "float16")
    assert str(raised.value) == (
        "--dtype float16: torch has no such mixed precision on xpu devices; use --dtype float32"
    )
    autocast_context(torch.device("xpu"), "float32")
