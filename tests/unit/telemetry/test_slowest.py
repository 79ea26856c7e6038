from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from minimind.telemetry.slowest import SlowestRank


def read(seconds: list[float], nodes: list[str]) -> dict[str, Any]:
    """What rank 0 makes of the ranks' own ``seconds``."""
    world: Any = SimpleNamespace(
        is_distributed=len(seconds) > 1,
        gather=lambda mine: nodes,
        gather_number=lambda mine: seconds,
    )
    return SlowestRank(world).read(seconds[0])


def test_the_others_wait_for_what_the_slowest_takes_longer() -> None:
    found = read([2.0, 1.0, 4.0, 3.0], ["n1", "n1", "n2", "n2"])
    assert found == {"slowest_rank": 2, "slowest_node": "n2", "slowest_share": 0.5}
    assert read([1.0, 4.0], ["n1", "n2"])["slowest_share"] == 0.75


def test_a_node_is_named_only_where_there_are_several() -> None:
    assert read([2.0, 1.0], ["n1", "n1"]) == {"slowest_rank": 0, "slowest_share": 0.5}
    assert read([2.0], ["n1"]) == {}


def test_ranks_that_did_nothing_are_alike() -> None:
    assert read([0.0, 0.0], ["n1", "n1"])["slowest_share"] == 0.0


def test_slurms_name_of_a_node_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    asked: list[str] = []
    world: Any = SimpleNamespace(
        is_distributed=True,
        gather=lambda mine: asked.append(mine) or ["n7", "n8"],
        gather_number=lambda mine: [1.0, 1.0],
    )
    slowest = SlowestRank(world)
    slowest.read(1.0)
    slowest.read(1.0)
    assert asked == ["n7"], "asked once"
