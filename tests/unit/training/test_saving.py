"""When a save is due, and what a boundary keeps."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minimind.checkpoint.state import Execution, Progress
from minimind.checkpoint.store import Identity
from minimind.config import TrainConfig
from minimind.distributed.world import World
from minimind.telemetry.trackers.tracker import NullTracker
from minimind.training import saving
from minimind.training.optimizer import Optimizers
from minimind.training.precision import autocast_context, make_scaler
from minimind.training.saving import Saver
from minimind.training.schedule import Schedule
from minimind.training.step import TrainStep
from minimind.weights.origin import UNKNOWN
from minimind.weights.torch_file import content_digest
from tests.checkpoints import train_state
from tests.unit.export.helpers import make_model

CPU = torch.device("cpu")


def make(**flags: Any) -> Saver:
    nothing: Any = None
    config = TrainConfig(**flags)
    world = World(rank=0, world_size=1, local_rank=0, device=CPU)
    model = make_model()
    autocast = autocast_context(CPU, "float32")
    scaler = make_scaler(CPU, "float32")
    return Saver(
        config=config,
        world=world,
        step=TrainStep(config, world, model, Optimizers(model, config), scaler, autocast),
        schedule=Schedule(rows_per_micro_step=2, accumulation_steps=2, total_steps=9),
        progress=Progress(),
        execution=Execution("cpu", "float32", compile=False, attention="sdpa"),
        data="fingerprint",
        origin=UNKNOWN,
        tracker=NullTracker(),
        checkpointer=nothing,
        events=nothing,
    )


def due(saver: Saver, boundaries: range, *, writing: bool) -> list[int]:
    return [step for step in boundaries if saver.is_due(step, at_end=False, writing=writing)]


def test_saves_are_due_at_the_first_boundary_after_each_multiple() -> None:
    assert due(make(save_interval=5), range(2, 21, 2), writing=False) == [6, 10, 16, 20]


def test_a_slow_disk_puts_a_save_off_but_not_beyond_the_next_multiple() -> None:
    saver = make(save_interval=5)
    assert due(saver, range(2, 10, 2), writing=True) == []
    assert due(saver, range(10, 12, 2), writing=True) == [10]


def test_a_save_that_was_put_off_is_made_up_for_when_the_disk_is_ready() -> None:
    saver = make(save_interval=5)
    assert due(saver, range(2, 8, 2), writing=True) == []
    assert due(saver, range(8, 10, 2), writing=False) == [8]


def test_an_end_is_always_saved() -> None:
    assert make(save_interval=5).is_due(2, at_end=True, writing=True)


def test_a_boundary_does_not_move_with_the_run() -> None:
    saver = make()
    saver.mark_boundary()
    torch.rand(1)
    saver.progress.global_step = 7
    saver.step.meter.add(torch.ones(()), torch.ones(()), torch.ones(()))
    saver.step.meter.close_window(taken=True)
    boundary = saver.boundary
    assert boundary.progress.global_step == 0
    assert boundary.rank.meter.tolist() == [0.0, 0.0, 0.0]
    assert not torch.equal(boundary.rank.rng["torch"], torch.get_rng_state())


def test_losses_of_ranks_that_are_gone_are_counted_by_rank_zero() -> None:
    saver = make()
    two = [train_state().ranks[0] for _ in range(2)]
    for rank, state in enumerate(two, start=1):
        state.meter.fill_(rank)
    saver.restore_rank(train_state(world_size=2, ranks=two))
    assert saver.step.meter.read().tolist() == [3.0, 3.0, 3.0]


def test_a_rank_that_has_seen_another_checkpoint_reads_the_right_one_before_it_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system may show the new file between two looks at its name."""
    path, right = tmp_path / "pretrain.pt", tmp_path / "right"
    torch.save(train_state(1).to_dict(), path)
    torch.save(train_state(2).to_dict(), right)
    wanted = Identity(2, content_digest(right))

    def look(file: Path) -> str:
        digest = content_digest(file)
        if right.exists():
            os.replace(right, file)
        return digest

    answers = iter([path, wanted])
    monkeypatch.setattr(saving, "content_digest", look)
    monkeypatch.setattr(World, "on_main", lambda world, work: next(answers))
    world = World(rank=1, world_size=2, local_rank=1, device=CPU)
    checkpointer: Any = SimpleNamespace(checkpoint_file=path)
    reading = saving._read_checkpoint(TrainConfig(), world, checkpointer)
    assert reading.value[1] is not None or reading.parts["content"] != wanted.digest
