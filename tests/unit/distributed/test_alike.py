"""What all ranks must read alike, seen from one of three."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from minimind.distributed import alike
from minimind.distributed.alike import Reading, Report, difference, read_alike
from minimind.distributed.world import World
from minimind.errors import RanksDifferError
from tests.own_time import sleeps_by

HERE = {"step": "5", "content": "a" * 64}
OLD = {"step": "4", "content": "b" * 64}


def report(parts: dict[str, str], rank: int, waited: float = 0.0) -> Report:
    return Report(parts, f"/r{rank}/x.pt", f"host{rank}", waited)


class Ranks:
    """Ranks 0 and 2 read ``HERE``; this one, rank 1, reads what the test says, in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mine: list[dict[str, str]]) -> None:
        self.world = World(rank=1, world_size=3, local_rank=1, device=torch.device("cpu"))
        self.mine: Iterator[dict[str, str]] = iter(mine)
        self.paused: list[float] = []
        self.waited = 0.0
        monkeypatch.setattr(World, "gather", lambda _, mine: self.gather(mine))
        sleeps_by(monkeypatch, alike, self.sleep)

    def gather(self, mine: Report) -> list[Report]:
        return [report(HERE, 0, self.waited), mine, report(HERE, 2)]

    def sleep(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.waited += seconds

    def read(self, **options: Any) -> int:
        return read_alike(
            self.world,
            "files",
            lambda: Reading(next(self.mine), "/r1/x.pt", 7),
            remedy="mount one",
            **options,
        )


def test_who_reads_the_same_goes_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(monkeypatch, [HERE])
    assert ranks.read() == 7
    assert ranks.paused == []


def test_who_reads_something_else_looks_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ranks = Ranks(monkeypatch, [OLD, OLD, HERE])
    assert ranks.read() == 7
    assert ranks.paused == [0.5, 1.0]
    (line,) = caplog.messages
    assert line.startswith("ranks read different files: rank 1 on ")
    assert line.endswith("; looking again")


def test_it_looks_for_two_minutes_and_then_all_ranks_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(monkeypatch, [OLD] * 99)
    with pytest.raises(RanksDifferError, match=r"; mount one$") as raised:
        ranks.read()
    assert 120 <= sum(ranks.paused) < 135
    assert raised.value.exit_code == 2
    assert raised.value.reported_elsewhere, "rank 0 says it"


def test_what_no_waiting_can_mend_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(monkeypatch, [OLD])
    with pytest.raises(RanksDifferError):
        ranks.read(patient=False)
    assert ranks.paused == []


def test_the_message_names_rank_host_path_and_what_both_see() -> None:
    reports = [report(HERE, 0), report({**HERE, "step": "4"}, 1)]
    assert difference("files", reports, [1]) == (
        "ranks read different files: rank 1 on host1 sees step 4 (/r1/x.pt), "
        "rank 0 on host0 step 5 (/r0/x.pt)"
    )


def test_digests_are_shortened_and_what_is_missing_is_called_nothing() -> None:
    reports = [report({"content": "a" * 64}, 0), report({}, 1)]
    assert difference("files", reports, [1]) == (
        "ranks read different files: rank 1 on host1 sees nothing (/r1/x.pt), "
        f"rank 0 on host0 content {'a' * 12} (/r0/x.pt)"
    )


def test_an_error_is_a_part_without_a_name() -> None:
    reports = [report(HERE, 0), report({"": "cannot be read: Stale file handle"}, 1)]
    text = difference("files", reports, [1])
    assert "sees cannot be read: Stale file handle (/r1/x.pt), rank 0" in text


def test_of_many_ranks_the_first_few_are_named() -> None:
    reports = [report(HERE, 0), *(report(OLD, rank) for rank in range(1, 13))]
    text = difference("files", reports, list(range(1, 13)))
    assert text.endswith(
        "(ranks 2 on host2, 3 on host3, 4 on host4, 5 on host5, 6 on host6, 7 on host7, "
        "8 on host8, 4 more differ too)"
    )
