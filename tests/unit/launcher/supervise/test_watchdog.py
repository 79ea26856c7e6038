from __future__ import annotations

from pathlib import Path

from launcher.supervise.watchdog import STRAGGLER_SECONDS, Progress, watch


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
        self.calls: list[tuple[str, float]] = []

    def poll(self) -> int | None:
        return self.code if self.clock.now >= self.ends else None

    def broken(self) -> bool:
        return self.clock.now >= self.leaves

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
