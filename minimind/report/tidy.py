"""Files as a run leaves them, made safe to compute with.

A run that goes on has half a line at the end, a crash may leave worse, and somebody may have
edited what they found. Whatever has not the type that its key promises is left out here, so that
nothing further on has to ask.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minimind.errors import ConfigError
from minimind.system.toml import read_toml
from minimind.system.validators import is_whole

Record = dict[str, Any]

LARGEST = 1e30
"""Of a metric. What is beyond is as good as infinite, and its squares must still be numbers."""

_WHOLE = frozenset(
    {"attempt", "epoch", "global_step", "iters", "slowest_rank", "step", "tokens", "total_steps"}
)
_TEXTS = frozenset({"cause", "error", "event", "prompt", "slowest_node", "text"})


def tidy(records: Iterable[Record]) -> list[Record]:
    """The records with numbers and texts only, each of a size that can be drawn."""
    return [
        {key: fit for key, value in record.items() if (fit := _fitting(key, value)) is not None}
        for record in records
    ]


def _fitting(key: str, value: Any) -> Any:
    """``value``, or the number that it stands for; None where it does not fit its key."""
    if key in _TEXTS:
        return value if isinstance(value, str) else None
    if key == "nodes":
        return value if isinstance(value, list) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if key in _WHOLE:
        return value if is_whole(value) and value < 1 << 50 else None
    if key == "time":
        # Up to the year 5138, beyond which calendars give up.
        return float(value) if 0 <= value < 1e11 else None
    if abs(value) > LARGEST:
        return math.inf if value > 0 else -math.inf
    return value if value != value or abs(value) > 1 / LARGEST else 0.0


def read_flags(file: Path) -> Record:
    """A TOML file; {} where there is none that can be read."""
    try:
        return read_toml(file, "flags")
    except ConfigError:
        return {}
