"""``--batch_size auto``: the micro-batch that this machine trains best with, found in seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn

from minimind.checkpoint.state import TrainState
from minimind.config import AUTO, DEFAULT_BATCH_SIZE, TrainConfig
from minimind.data.mixture import Plan
from minimind.distributed.device import measures_peaks, memory_left, peak_memory_of, synchronize
from minimind.distributed.world import World
from minimind.errors import OutOfMemoryError
from minimind.planning.memory import optimizer_bytes
from minimind.planning.parameters import count_parameters
from minimind.training.evaluate import to_device

log = logging.getLogger(__name__)

SEARCH_SECONDS = 10.0
"""A CPU tries no larger micro-batch that would take the search beyond this."""

CLEARLY_FASTER = 1.03
"""A larger micro-batch must be faster by this factor to be worth its memory."""

PASSES = 3
"""Forward and backward passes over each candidate."""

SHARE_OF_MEMORY = 0.9
"""Of the memory that is free at the start; the rest is for the allocator's gaps."""


def keep_batch_size(config: TrainConfig, saved: TrainState) -> TrainConfig:
    """Let a resumed run with ``--batch_size auto`` go on with what its checkpoint's run found."""
    if config.batch_size != AUTO:
        return config
    rows, size = DEFAULT_BATCH_SIZE * config.accumulation_steps, saved.config["batch_size"]
    steps = rows // size if rows % size == 0 else saved.config["accumulation_steps"]
    return replace(config, batch_size=size, accumulation_steps=steps)


def settle_batch_size(
    config: TrainConfig,
    model: nn.Module,
    plan: Plan,
    world: World,
    autocast: AbstractContextManager[Any],
) -> TrainConfig:
    """Put numbers in the place of ``--batch_size auto``; the rows of an update stay as asked.

    ``auto`` asks for the default batch size times ``--accumulation_steps``.

    Raises:
        OutOfMemoryError: not even one row fits.
    """
    if config.batch_size != AUTO:
        return config
    rows = DEFAULT_BATCH_SIZE * config.accumulation_steps
    start = time.perf_counter()
    sizes = candidates(rows)

    def step(size: int) -> float:
        return seconds_of_step(model, plan, size, world.device, autocast)

    if measures_peaks(world.device):
        # No trial has allocated it yet.
        optimizer = optimizer_bytes(count_parameters(model.config), config.optimizer)
        free, _, held = memory_left(world.device) or (0, 0, 0)
        room = min(world.gather(SHARE_OF_MEMORY * (free + held) - optimizer))
        size, why = (
            largest(sizes, lambda n: max(world.gather(peak_memory(step, world.device, n))), room),
            "the largest that fits",
        )
    else:
        size = fastest(
            sizes,
            lambda n: max(world.gather(step(n))),
            lambda: all(world.gather(memory_is_ample())),
        )
        why = "the fastest"
    model.zero_grad(set_to_none=True)
    found = replace(config, batch_size=size, accumulation_steps=rows // size)
    log.info(
        "--batch_size auto: %d, %s; --accumulation_steps %d keeps %d rows an update and rank "
        "(found in %.1f s)",
        size,
        why,
        found.accumulation_steps,
        rows,
        time.perf_counter() - start,
    )
    return found


def candidates(rows: int) -> list[int]:
    """Powers of two that divide the rows of an update, smallest first."""
    return [1 << power for power in range(rows.bit_length()) if rows % (1 << power) == 0]


def fastest(
    sizes: Sequence[int], seconds: Callable[[int], float], goes_on: Callable[[], bool]
) -> int:
    """The size with the least time a row; of nearly equal ones the smallest.

    Args:
        seconds: runs a micro-step of so many rows, alike on all ranks.
        goes_on: whether there is memory for the next size.
    """
    best, best_rate, spent = sizes[0], 0.0, 0.0
    for size in sizes:
        took = seconds(size)
        spent += PASSES * took
        if size / took > best_rate * CLEARLY_FASTER:
            best, best_rate = size, size / took
        elif size >= 4 * best:
            break
        # The next takes twice as long.
        if spent + 2 * PASSES * took > SEARCH_SECONDS or not goes_on():
            break
    return best


def largest(sizes: Sequence[int], peak_bytes: Callable[[int], float], room: float) -> int:
    """The largest size whose micro-step stays within ``room`` bytes.

    Args:
        peak_bytes: runs a micro-step of so many rows; infinite if it ran out of memory.

    Raises:
        OutOfMemoryError: the smallest does not fit.
    """
    fitting = 0
    before = 0.0
    for size in sizes:
        peak = peak_bytes(size)
        if peak > room:
            break
        fitting = size
        # Memory grows with the rows: the next size adds twice what this one added.
        if peak + 2 * (peak - before) > room and before:
            break
        before = peak
    if not fitting:
        raise OutOfMemoryError(
            "--batch_size auto: not even one row fits; lower --max_seq_len or the model's size, "
            "or use --gradient_checkpointing"
        )
    return fitting


def seconds_of_step(
    model: nn.Module,
    plan: Plan,
    rows: int,
    device: torch.device,
    autocast: AbstractContextManager[Any],
) -> float:
    """The fastest forward and backward pass over ``rows`` rows, after one that does not count."""
    ids = np.arange(rows, dtype=np.int64) % plan.n_rows
    batch = to_device(plan.build(ids, rows), device)
    targets = batch.pop("targets")
    times = []
    for _ in range(PASSES):
        start = time.perf_counter()
        with autocast:
            out = model(**batch, shift_labels=targets, num_items_in_batch=1)
        (out.loss + out.aux_loss).backward()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def peak_memory(step: Callable[[int], float], device: torch.device, rows: int) -> float:
    """Bytes of GPU memory at the peak of a micro-step; infinite if it ran out of memory."""
    try:
        return float(peak_memory_of(lambda: step(rows), device))
    except torch.OutOfMemoryError:
        return float("inf")


def memory_is_ample() -> bool:
    """Whether this process could grow to three times its size and leave some to others."""
    return psutil.Process().memory_info().rss * 2 < psutil.virtual_memory().available
