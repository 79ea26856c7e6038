from __future__ import annotations

import math
from pathlib import Path

from minimind.report.tidy import read_flags, tidy
from minimind.system.jsonl import read_object


def test_what_has_not_the_type_of_its_key_is_left_out() -> None:
    record = {
        "loss": "low",
        "event": 3,
        "global_step": 2.5,
        "step": True,
        "epoch": -1,
        "tokens": 1 << 60,
        "time": math.nan,
        "nodes": "n1",
        "mfu": [1],
        "text": "kept",
        "grad_norm": 1.5,
    }
    assert tidy([record]) == [{"text": "kept", "grad_norm": 1.5}]


def test_numbers_beyond_all_measure_are_infinite_or_nothing() -> None:
    (found,) = tidy([{"loss": -(10**400), "grad_norm": 1e300, "mfu": 1e-300}])
    assert found == {"loss": -math.inf, "grad_norm": math.inf, "mfu": 0.0}
    (found,) = tidy([{"loss": math.nan}])
    assert math.isnan(found["loss"])


def test_files_that_cannot_be_read_hold_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert read_object(file) == read_flags(file) == {}
    for content in (b"[1]", b"\xff", b"{", b"[" * 100_000, b"x ="):
        file.write_bytes(content)
        assert read_object(file) == {}
        assert read_flags(tmp_path / "absent") == {}
    file.write_bytes(b"x =")
    assert read_flags(file) == {}
