"""A run that is interrupted equals one that is not, bit for bit."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.runs import Run, assert_same_run

MakeRun = Callable[..., Run]

TERM, USR1, USR2, KILL, INT = (
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGKILL,
    signal.SIGINT,
)

# Six documents, so six rows: the last update of an epoch is not full, either.
UNPACKED = {"pack": "none", "batch_size": 1, "accumulation_steps": 4, "epochs": 5}
VARIANTS: dict[str, dict[str, Any]] = {
    "dense": {},
    "moe": {"use_moe": 1, "recipe": "fast"},
    "unpacked": UNPACKED,
    "bfloat16": {"dtype": "bfloat16"},
    "fast": {"recipe": "fast"},
    "moe-bfloat16-unpacked": {
        **UNPACKED,
        "use_moe": 1,
        "dtype": "bfloat16",
    },
    "loader-process": {"num_workers": 1},
    "every-step": {"save_interval": 1, "accumulation_steps": 1},
}


def stop_three_times(run: Run, signals: list[signal.Signals], world_size: int, seed: int) -> None:
    """Interrupt three attempts at random steps, then let the fourth finish."""
    generator = random.Random(seed)
    for number in signals:
        codes = run.interrupt(number, generator.randint(1, 7 // world_size), world_size)
        if number is KILL:
            assert codes == [-KILL] * world_size, run.output
        else:
            assert codes == [75] * world_size, run.output
    run.complete(world_size)


@pytest.mark.parametrize("variant", VARIANTS)
def test_interrupted_equals_uninterrupted(make_run: MakeRun, variant: str) -> None:
    whole = make_run("whole", **VARIANTS[variant]).complete()
    pieces = make_run("pieces", **VARIANTS[variant])
    stop_three_times(pieces, [TERM, KILL, USR2], 1, seed=sorted(VARIANTS).index(variant))
    assert_same_run(whole, pieces)


@pytest.mark.parametrize("variant", ["moe", "moe-bfloat16-unpacked"])
def test_interrupted_equals_uninterrupted_on_two_ranks(make_run: MakeRun, variant: str) -> None:
    whole = make_run("whole", **VARIANTS[variant]).complete(2)
    pieces = make_run("pieces", **VARIANTS[variant])
    stop_three_times(pieces, [USR1, KILL, TERM], 2, seed=7)
    assert_same_run(whole, pieces)


def test_interrupted_equals_uninterrupted_on_three_ranks(make_run: MakeRun) -> None:
    """From three ranks on, the order of additions in an all-reduce depends on DDP's buckets."""
    whole = make_run("whole", batch_size=1).complete(3)
    pieces = make_run("pieces", batch_size=1)
    stop_three_times(pieces, [TERM, KILL], 3, seed=8)
    assert_same_run(whole, pieces)


def test_an_interrupt_over_an_epoch_border(make_run: MakeRun) -> None:
    whole = make_run("whole", log_interval=5).complete()
    iters = len({r["step"] for r in whole.records()})
    pieces = make_run("pieces", log_interval=5)
    pieces.interrupt(TERM, iters - 1)
    pieces.interrupt(TERM, 4)
    assert pieces.state()["epoch"] == 1
    pieces.complete()
    assert_same_run(whole, pieces)


def test_ranks_two_one_two_train_the_same_rows_in_the_same_order(make_run: MakeRun) -> None:
    whole = make_run("whole", accumulation_steps=2).complete(2)
    changing = make_run("changing", accumulation_steps=2)
    states = []
    for world_size, at_step in ((2, 3), (1, 5), (2, 2)):
        assert changing.interrupt(TERM, at_step, world_size) == [75] * world_size
        states.append(changing.state())
    changing.complete(1)
    states.append(changing.state())

    lines = [record for record in whole.records() if "loss" in record]
    assert {line["slowest_rank"] for line in lines} <= {0, 1}
    assert all(0 <= line["slowest_share"] < 1 for line in lines)

    assert [s["world_size"] for s in states] == [2, 1, 2, 1]
    assert [s["rows_per_update"] for s in states] == [8, 8, 8, 8]
    assert states[0]["global_step"] < states[1]["global_step"] < states[2]["global_step"]
    trained = changing.trained_rows()
    assert trained == whole.trained_rows()
    n_rows = len(trained) // 2
    assert sorted(trained) == [(epoch, row) for epoch in range(2) for row in range(n_rows)]
    assert states[-1]["global_step"] == whole.state()["global_step"]


@pytest.mark.parametrize("number", [TERM, USR1, USR2, INT])
def test_every_stop_signal_ends_in_75_after_a_durable_checkpoint(
    make_run: MakeRun, number: signal.Signals
) -> None:
    run = make_run("run", save_interval=10_000)
    assert run.interrupt(number, 7) == [75]
    state = run.state()
    assert state["global_step"] >= 2
    assert state["step"] == state["global_step"] * 3
    assert f"stopped by {number.name}" in run.output
    assert "--from_resume 1" in run.output
