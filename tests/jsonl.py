"""Records of a run as files of JSON lines have them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minimind.system.jsonl import JsonLog


def point(global_step: int, **fields: Any) -> dict[str, Any]:
    """A line of metrics."""
    return {"epoch": 1, "step": global_step * 8, "global_step": global_step, **fields}


def write_all(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append records as a run does."""
    log = JsonLog(path)
    for record in records:
        log.write(record)
    log.close()


def strict(line: str) -> Any:
    """What a parser reads that knows no NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(line, parse_constant=refuse)
