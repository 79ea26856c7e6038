from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minimind.checkpoint.state import Progress
from minimind.config import TrainConfig
from minimind.distributed.world import World
from minimind.telemetry import reporter as module
from minimind.telemetry.meters import SECTIONS
from minimind.telemetry.reporter import Place, Reporter, tracker_place
from minimind.telemetry.trackers.tracker import NullTracker
from tests.unit.export.helpers import make_model

Make = Callable[..., Reporter]


class Clock:
    """Stands for ``time``; only tests move it."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now

    time = perf_counter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Reporter]]:
    """Makes reporters of a run on two ranks that write to ``tmp_path``."""
    monkeypatch.setattr(module, "peak_flops", lambda *of: (60.0, "a data sheet"))
    monkeypatch.setattr(module, "flops_per_token", lambda *of: 3.0)
    with contextlib.ExitStack() as stack:

        def made(rank: int = 0, **changes: Any) -> Reporter:
            config = TrainConfig(save_dir=str(tmp_path), log_interval=10, eval_interval=4)
            given: dict[str, Any] = {
                "dtype": "float32",
                "total_steps": 9,
                "progress": Progress(),
                "run_id": None,
                "prompts": [],
                "evaluate": None,
                **changes,
            }
            world = World(rank, world_size=2, local_rank=rank, device=torch.device("cpu"))
            model: Any = SimpleNamespace(config=None, parameters=list)
            reporter = stack.enter_context(Reporter(config, world, model, **given))
            reporter.open()
            return reporter

        yield made


def log(
    reporter: Reporter, step: int, losses: tuple[float, float, float] = (8.0, 2.0, 4.0)
) -> None:
    reporter.log(
        Place(0, step, 20),
        Progress(global_step=step),
        losses=torch.tensor(losses, dtype=torch.float64),
        grad_norm=torch.tensor(0.5),
        learning_rate=1e-3,
        epoch_minutes=1.0,
        seconds_left=90.0,
        sections=dict.fromkeys(SECTIONS, 0.0),
        slowest={"slowest_rank": 1, "slowest_node": "n2", "slowest_share": 0.25},
    )


def points(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_speed_is_of_the_tokens_since_the_line_before(
    tmp_path: Path, clock: Clock, make: Make
) -> None:
    reporter = make()
    for tokens in (30, 50):
        reporter.count(tokens, Progress(), 0.0)
    clock.now += 4
    log(reporter, 10)
    reporter.count(50, Progress(), 0.0)
    clock.now += 10
    log(reporter, 20)
    first, second = points(tmp_path / "metrics.jsonl")
    assert (first["tokens_per_second"], second["tokens_per_second"]) == (20, 5)
    assert first["seconds_left"] == 90.0
    assert (first["slowest_rank"], first["slowest_node"], first["slowest_share"]) == (1, "n2", 0.25)
    assert first["mfu"] == 20 * 3 / (60 * 2)
    assert (first["logits_loss"], first["aux_loss"], first["loss"]) == (2.0, 0.5, 2.5)


def test_an_evaluation_is_no_training_time(tmp_path: Path, clock: Clock, make: Make) -> None:
    def evaluate(goes_on: Callable[[], bool]) -> dict[str, float]:
        clock.now += 1000
        return {"eval_loss": 3.0, "bits_per_byte": 1.0}

    reporter = make(evaluate=evaluate)
    reporter.count(80, Progress(), 0.0)
    clock.now += 1
    assert reporter.log_evaluation(Place(0, 4, 20), Progress(), lambda: True)
    clock.now += 3
    log(reporter, 10)
    scored, point = points(tmp_path / "metrics.jsonl")
    assert scored["eval_loss"] == 3.0
    assert point["tokens_per_second"] == 20


def test_a_line_without_scored_tokens_has_a_loss(tmp_path: Path, clock: Clock, make: Make) -> None:
    reporter = make()
    clock.now += 1
    log(reporter, 10, losses=(0.0, 0.0, 0.0))
    (point,) = points(tmp_path / "metrics.jsonl")
    assert point["loss"] == 0.0


def test_what_is_due(make: Make) -> None:
    reporter = make(evaluate=dict)
    assert [s for s in range(1, 21) if reporter.log_is_due(s, at_end=False)] == [10, 20]
    assert [s for s in range(1, 13) if reporter.evaluation_is_due(s, at_end=False)] == [4, 8, 12]
    assert reporter.log_is_due(7, at_end=True)
    assert reporter.evaluation_is_due(7, at_end=True)
    nothing = make()
    assert not nothing.evaluation_is_due(4, at_end=True)
    assert not nothing.sample_is_due(4, at_end=True)


def test_other_ranks_take_part_in_an_evaluation_and_write_nothing(
    tmp_path: Path, clock: Clock, make: Make
) -> None:
    scored = []

    def evaluate(goes_on: Callable[[], bool]) -> dict[str, float]:
        scored.append(1)
        return {"eval_loss": 3.0, "bits_per_byte": 1.0}

    told: list[Any] = []
    tracker = NullTracker()
    tracker.log = lambda *given, **more: told.append(given)  # type: ignore[method-assign]
    reporter = make(rank=1, evaluate=evaluate)
    reporter.tracker = tracker
    clock.now += 1
    log(reporter, 10)
    assert reporter.log_evaluation(Place(0, 10, 20), Progress(), lambda: True)
    reporter.mark_resumed(Progress())
    assert scored == [1]
    assert told == []
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_that_is_left_early_is_not_told(tmp_path: Path, make: Make) -> None:
    place, progress = Place(0, 4, 20), Progress(global_step=2)
    scores = {"eval_loss": 3.0, "bits_per_byte": 1.0}
    reporter = make(evaluate=lambda goes_on: scores if goes_on() else None)
    assert not reporter.log_evaluation(place, progress, lambda: False)
    assert points(tmp_path / "metrics.jsonl") == []
    assert not reporter.is_evaluated(place, progress)
    assert reporter.log_evaluation(place, progress, lambda: True)
    assert reporter.is_evaluated(place, progress)
    assert not reporter.is_evaluated(Place(0, 5, 20), progress)
    assert not reporter.is_evaluated(place, Progress(global_step=3))
    reporter.mark_resumed(Progress(global_step=1))
    assert not reporter.is_evaluated(place, progress), "it is trained, and scored, again"


def test_it_opens_what_an_attempt_writes_and_closes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str | None] = []

    class Noted(NullTracker):
        def finish(self, error: str | None = None, *, stopping: bool = False) -> None:
            ended.append(error)

    monkeypatch.setattr(module, "start_tracker", lambda *of, **more: Noted())
    world = World(0, world_size=1, local_rank=0, device=torch.device("cpu"))
    config = TrainConfig(save_dir=str(tmp_path))
    reporter = Reporter(
        config,
        world,
        make_model(),
        dtype="float32",
        total_steps=1,
        progress=Progress(),
        run_id=None,
        prompts=[],
        evaluate=None,
    )

    def fail() -> None:
        with reporter:
            assert list(tmp_path.iterdir()) == []
            reporter.open()
            raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        fail()
    assert reporter.flops_per_token > 0
    assert reporter.peak_flops > 0
    assert ended == ["RuntimeError: no such kernel"]
    assert {p.name for p in tmp_path.iterdir()} == {
        "metrics.jsonl",
        "config.toml",
        "environment.json",
    }


def test_trackers_count_micro_steps_over_epochs_and_updates_from_one() -> None:
    progress = Progress(epoch=1, step=8, global_step=7)
    assert tracker_place(Place(1, 8, 20), progress) == {"micro_step": 28, "update": 7}
    assert tracker_place(Place(1, 9, 20), progress) == {"micro_step": 29, "update": 8}
