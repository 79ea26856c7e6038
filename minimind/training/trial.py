"""A few micro-batches of a run that is only planned, for their time and memory.

It runs in a process of its own, on made-up text, and writes nothing but compiled code.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from minimind.distributed.device import CPU, memory_used, pick_device, synchronize, use_device
from minimind.distributed.world import World
from minimind.planning.memory import CONTEXT
from minimind.planning.run_plan import RunPlan
from minimind.planning.updates import micro_batch
from minimind.training.allocator import keep_freed_memory
from minimind.training.build_model import init_model, make_replica
from minimind.training.execution import choose_execution
from minimind.training.failure import explain
from minimind.training.optimizer import Optimizers
from minimind.training.precision import autocast_context, make_scaler
from minimind.training.step import TrainStep

LEAST_SECONDS, LEAST_BATCHES, MOST_BATCHES = 5.0, 3, 50
"""How long micro-batches are timed, after one that is not."""

DOCUMENT = 128
"""Tokens of each made-up document."""


class MadeUpRows:
    """Full rows of random tokens, as a ``RowPlan`` builds them."""

    n_rows = 1 << 30

    def __init__(self, vocab_size: int, tokens: int, *, packed: bool) -> None:
        self._vocab_size, self._tokens, self._packed = vocab_size, tokens, packed
        self._random = np.random.default_rng(0)

    def build(self, row_ids: Any, batch_size: int) -> dict[str, Any]:
        shape = (batch_size, self._tokens)
        ids = self._random.integers(0, self._vocab_size, shape)
        places = np.broadcast_to(np.arange(self._tokens), shape)
        batch = {
            "input_ids": ids,
            "targets": np.roll(ids, -1, axis=1),
            "position_ids": places % DOCUMENT if self._packed else places.copy(),
            "token_mask": np.ones(shape, np.bool_),
        }
        if self._packed:
            batch["document_ids"] = (places // DOCUMENT).astype(np.int32)
        return batch


def measure(plan: RunPlan) -> tuple[float, int]:
    """Seconds of an update of a planned run, and a rank's bytes at the peak.

    Ranks that share a CPU are taken to share its speed.

    Raises:
        OutOfMemoryError: the device, or what others leave of it, is too small.
    """
    # Alone, also where a launcher's variables would have a run wait for others.
    device = pick_device(plan.config.device, local_rank=0, distributed=False)
    use_device(device)
    try:
        return _measure_on(plan, World(rank=0, world_size=1, local_rank=0, device=device))
    except Exception as error:
        failure = explain(error, plan.config, device)
        if failure is error:
            raise
        raise failure from error


def _measure_on(plan: RunPlan, world: World) -> tuple[float, int]:
    if world.device.type == CPU:
        keep_freed_memory()
    step, rows = _prepare(plan, world)
    micro = _time_micro_batches(plan, step, rows, world.device)
    update = _time_update(plan, step, rows, world.device)
    sharing = plan.machine.ranks if world.device.type == CPU else 1
    seconds = sharing * (plan.config.accumulation_steps * micro + update)
    return seconds, _peak_bytes(plan, world.device)


def _prepare(plan: RunPlan, world: World) -> tuple[TrainStep, MadeUpRows]:
    config = replace(plan.config, batch_size=micro_batch(plan.config))
    rows = MadeUpRows(plan.vocab_size, config.max_seq_len, packed=config.pack != "none")
    autocast = autocast_context(world.device, plan.dtype)
    store = SimpleNamespace(vocab_size=plan.vocab_size, bos_id=None, eos_id=None, pad_id=None)
    model = init_model(config, cast("Any", store), world.device, None)
    scaler = make_scaler(world.device, plan.dtype)
    step = TrainStep(config, world, model, Optimizers(model, config), scaler, autocast)
    execution = choose_execution(
        config,
        world,
        dtype=plan.dtype,
        planned_flops=plan.flops_per_update * plan.updates / plan.ranks,
        saved=None,
    )
    step.replica = make_replica(model, cast("Any", rows), config, world, autocast, execution)
    return step, rows


def _time_micro_batches(
    plan: RunPlan, step: TrainStep, rows: MadeUpRows, device: torch.device
) -> float:
    times: list[float] = []
    while len(times) <= LEAST_BATCHES or (
        sum(times[1:]) < LEAST_SECONDS and len(times) <= MOST_BATCHES
    ):
        start = time.perf_counter()
        _micro_batch(plan, step, rows)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.fmean(times[1:])


def _time_update(plan: RunPlan, step: TrainStep, rows: MadeUpRows, device: torch.device) -> float:
    """The second one: the first makes the optimizer's state."""
    step.optimizers.set_learning_rate(0.0)
    seconds = 0.0
    for number in range(2):
        _micro_batch(plan, step, rows)
        synchronize(device)
        start = time.perf_counter()
        step.update(number)
        synchronize(device)
        seconds = time.perf_counter() - start
    _micro_batch(plan, step, rows)
    return seconds


def _micro_batch(plan: RunPlan, step: TrainStep, rows: MadeUpRows) -> None:
    size = micro_batch(plan.config)
    scored = size * plan.config.max_seq_len * plan.config.accumulation_steps
    step.forward_backward(rows.build(None, size), scored=scored, exchange=True)


def _peak_bytes(plan: RunPlan, device: torch.device) -> int:
    """At the peak, and what a run adds: the copy that a checkpoint is written from."""
    if device.type != CPU:
        used = memory_used(device)
        return used[1] + CONTEXT if used else plan.memory.total(device.type)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return peak + plan.memory.checkpoint
