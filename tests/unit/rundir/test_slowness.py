from __future__ import annotations

from typing import Any

import pytest

from minimind.rundir.slowness import slow_now, slowest


def line(rank: int, share: float = 0.3, node: str = "", **values: Any) -> dict[str, Any]:
    where = {"slowest_node": node} if node else {}
    return {"loss": 1.0, "slowest_rank": rank, "slowest_share": share, **where, **values}


def test_a_rank_that_is_slow_is_named_with_its_node() -> None:
    lines = [line(3, 0.4, "n2")] * 9 + [line(0, 0.01, "n1")]
    assert str(slow_now(lines)) == (
        "rank 3 on n2 was the slowest in 9 of 10 log lines; "
        "the others waited 40% of the time for it"
    )


def test_a_node_whose_ranks_take_turns_is_named_alone() -> None:
    found = slow_now([line(index % 4, 0.2, "n2") for index in range(10)])
    assert found is not None
    assert (found.who, found.times) == ("n2", 10)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{"loss": 1.0}] * 10,
        [line(1)] * 4,  # too few
        [line(1, 0.05)] * 10,  # no matter
        [line(index % 2, node=f"n{index % 2}") for index in range(10)],  # now this, now that
        [line(1, attempt=1)] * 10 + [line(1, attempt=2)] * 2,  # of an attempt that has ended
        [line(1)] * 20 + [line(0)] * 5 + [line(1)] * 5,  # long ago
    ],
)
def test_nobody_is_named_without_need(lines: list[dict[str, Any]]) -> None:
    assert slow_now(lines) is None


def test_a_whole_run_has_a_slowest_rank_also_when_it_is_none_to_speak_of() -> None:
    found = slowest([line(0, 0.01)] * 2 + [line(1, 0.03)] * 3 + [{"loss": 1.0}])
    assert found is not None
    assert (found.who, found.times, found.lines, found.share) == ("rank 1", 3, 5, 0.03)
    assert not found.steadily
