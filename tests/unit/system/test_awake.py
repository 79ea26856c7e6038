"""A clock that leaves out the time when its process could not run."""

from __future__ import annotations

from minimind.system.awake import AwakeClock


def test_a_gap_counts_as_one_reading_at_most() -> None:
    now = iter([0.0, 1.0, 3.0, 3600.0, 3601.0])
    clock = AwakeClock(longest_gap=5.0, now=lambda: next(now))
    assert [clock.read() for _ in range(4)] == [1.0, 3.0, 8.0, 9.0]
