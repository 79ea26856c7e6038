from __future__ import annotations

from pathlib import Path

import pytest

from launcher.supervise.watchdog import (
    LOOK_SECONDS,
    STRAGGLER_SECONDS,
    Outcome,
    Progress,
    watch,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class ScriptedRanks:
    """Ranks that end by themselves, leave the others, or hang, on the clock of the test."""

    def __init__(self, clock: Clock, ends: float = 1e9, leaves: float = 1e9, code: int = 0) -> None:
        self.clock, self.ends, self.leaves, self.code = clock, ends, leaves, code
        self.stops, self.continues = 1e9, 0.0
        self.elsewhere = False
        self.calls: list[tuple[str, float]] = []

    def poll(self) -> int | None:
        return self.code if self.clock.now >= self.ends else None

    def broken(self) -> bool:
        return self.clock.now >= self.leaves

    def suspended(self, *, on_all_nodes: bool) -> str:
        if self.elsewhere and not on_all_nodes:
            return ""
        return "stopped" if self.stops <= self.clock.now < self.continues else ""

    def dump_stacks(self) -> None:
        self.calls.append(("dump", self.clock.now))

    def kill(self) -> None:
        self.calls.append(("kill", self.clock.now))
        self.ends, self.code = self.clock.now, 137


def run(
    clock: Clock, ranks: ScriptedRanks, progress: Progress, hang: float = 100
) -> tuple[int, bool]:
    outcome = watch(
        ranks, progress, hang_timeout=hang, each_tick=lambda: None, clock=clock, sleep=clock.sleep
    )
    return outcome.exit_code, outcome.hung


def test_ranks_that_end_by_themselves(tmp_path: Path) -> None:
    clock = Clock()
    ranks = ScriptedRanks(clock, ends=50, code=75)
    assert run(clock, ranks, Progress([tmp_path / "m"], clock)) == (75, False)
    assert ranks.calls == []


def test_hang_dumps_stacks_and_then_kills(tmp_path: Path) -> None:
    clock = Clock()
    ranks = ScriptedRanks(clock)
    assert run(clock, ranks, Progress([tmp_path / "m"], clock)) == (137, True)
    assert [name for name, _ in ranks.calls] == ["dump", "kill"]
    assert 100 < ranks.calls[0][1] < 102


def test_progress_in_a_file_is_no_hang(tmp_path: Path) -> None:
    clock = Clock()
    file = tmp_path / "metrics.jsonl"

    def tick() -> None:
        if clock.now % 60 == 0:
            file.write_text("x" * int(clock.now))

    ranks = ScriptedRanks(clock, ends=400)
    outcome = watch(
        ranks,
        Progress([file], clock),
        hang_timeout=100,
        each_tick=tick,
        clock=clock,
        sleep=clock.sleep,
    )
    assert (outcome.exit_code, outcome.hung) == (0, False)


def test_ranks_that_one_has_left_are_killed(tmp_path: Path) -> None:
    clock = Clock()
    ranks = ScriptedRanks(clock, leaves=10)
    assert run(clock, ranks, Progress([tmp_path / "m"], clock), hang=1000) == (137, False)
    (name, time), *_ = ranks.calls
    assert name == "kill"
    assert 10 + STRAGGLER_SECONDS < time < 12 + STRAGGLER_SECONDS


class Run:
    """What a watch with a hang timeout of 1,000 s says and does, on the clock of the test."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.ranks = ScriptedRanks(self.clock)
        self.progress = Progress([folder / "m"], self.clock)
        self.said: list[tuple[str, float]] = []
        self.held_up: dict[float, float] = {}
        """When the supervisor is suspended itself, and for how long."""

    def watch(self) -> Outcome:
        return watch(
            self.ranks,
            self.progress,
            hang_timeout=1000,
            each_tick=lambda: None,
            on_suspension=lambda reason: self.said.append((reason, self.clock.now)),
            clock=self.clock,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.clock.now += seconds + self.held_up.pop(self.clock.now, 0)


@pytest.fixture
def watched(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.mark.parametrize("stops", [0, 500, 999])
def test_suspended_ranks_are_no_hang_and_a_hang_after_them_is_one(
    watched: Run, stops: float
) -> None:
    watched.ranks.stops, watched.ranks.continues = stops, 50_000
    assert watched.watch().hung
    (suspended, since), (continued, until) = watched.said
    assert (suspended, continued) == ("stopped", "")
    assert stops <= since <= stops + LOOK_SECONDS + 1
    assert 50_000 <= until <= 50_000 + LOOK_SECONDS + 1
    (_, dumped), *_ = watched.ranks.calls
    assert 1000 <= dumped - until <= 1001, "the clock starts anew"


def test_other_nodes_are_looked_at_before_a_hang_ends_the_ranks(watched: Run) -> None:
    watched.ranks.stops, watched.ranks.continues, watched.ranks.elsewhere = 10, 50_000, True
    assert watched.watch().hung
    (suspended, since), (continued, until) = watched.said
    assert (suspended, continued) == ("stopped", "")
    assert 1000 <= since <= 1001
    assert 50_000 <= until <= 50_000 + LOOK_SECONDS + 1


def test_ranks_that_go_on_after_a_suspension_end_by_themselves(watched: Run) -> None:
    watched.ranks.stops, watched.ranks.continues, watched.ranks.ends = 10, 5000, 5900
    assert watched.watch() == Outcome(0, hung=False)
    assert watched.ranks.calls == []


def test_time_in_which_the_supervisor_is_suspended_counts_for_nothing(watched: Run) -> None:
    watched.held_up = {990.0: 7200.0}
    watched.ranks.ends = 990 + 7200 + 990
    assert watched.watch() == Outcome(0, hung=False)
    assert watched.ranks.calls == []


def test_ranks_that_one_has_left_get_their_time_after_a_suspension(watched: Run) -> None:
    watched.ranks.leaves, watched.held_up = 10, {20.0: 7200.0}
    watched.watch()
    (name, time), *_ = watched.ranks.calls
    assert name == "kill"
    assert time > 20 + 7200 + STRAGGLER_SECONDS


def test_a_controller_that_is_slow_to_answer_hides_no_hang(watched: Run) -> None:
    def asks_a_dead_controller(*, on_all_nodes: bool) -> str:
        watched.clock.now += 60
        return ""

    watched.ranks.suspended = asks_a_dead_controller  # type: ignore[method-assign]
    assert watched.watch().hung
    (_, dumped), *_ = watched.ranks.calls
    assert dumped < 1000 + 2 * LOOK_SECONDS + 2
