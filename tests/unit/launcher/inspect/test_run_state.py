from __future__ import annotations

from typing import Any

import pytest

from launcher.inspect.run_state import _eta
from minimind.rundir.events import Kind

BEGAN: dict[str, Any] = {"event": Kind.STARTED, "time": 100.0, "step": 0}


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ({"time": 110.0, "global_step": 5, "seconds_left": 30.0}, 30.0),
        ({"time": 110.0, "global_step": 5}, 190.0),
        ({"time": 90.0, "global_step": 5, "seconds_left": 30.0}, None),
    ],
    ids=["the run's own word", "a run of an older version", "an attempt before said it"],
)
def test_time_to_the_end(point: dict[str, Any], left: float | None) -> None:
    """``--max_minutes`` may end a run long before its steps do, and only the run knows."""
    assert _eta([BEGAN], [point], total=100) == left
