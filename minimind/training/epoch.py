"""An epoch's micro-batches, from where the run is, and the optimiser steps that they make up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minimind.config import TrainConfig
from minimind.data.dataloader import make_loader
from minimind.data.mixture import Plan
from minimind.data.sampler import SkipBatchSampler
from minimind.distributed.device import page_locks
from minimind.distributed.processors import bounded_workers
from minimind.distributed.world import World
from minimind.training.schedule import Schedule


@dataclass(frozen=True)
class Window:
    """The micro-steps of one optimiser step."""

    first_step: int
    last_step: int
    rows: np.ndarray
    """Ids of all rows in it, over all ranks."""
    targets: int
    """Scored tokens in it, over all ranks: what the gradient is a mean over."""
    tokens: list[int]
    """Real tokens of each micro-step, over all ranks."""


class Epoch:
    """The rest of an epoch.

    Attributes:
        number: 0-based.
        start_step: micro-steps done before; an optimiser-step boundary.
        iters: micro-steps of the whole epoch.
        loader: this rank's micro-batches, from ``start_step`` on.
    """

    def __init__(
        self,
        number: int,
        rows_done: int,
        *,
        config: TrainConfig,
        world: World,
        plan: Plan,
        schedule: Schedule,
        fixed_shape: bool,
    ) -> None:
        self._plan = plan
        self._schedule = schedule
        self._sampler = SkipBatchSampler(
            plan.n_rows,
            batch_size=config.batch_size,
            rank=world.rank,
            world_size=world.world_size,
            seed=config.seed,
            epoch=number,
            start_row=rows_done,
            mix=plan.mix,
        )
        self.number = number
        self.start_step = rows_done // schedule.rows_per_micro_step
        self.iters = self.start_step + len(self._sampler)
        self.loader = make_loader(
            plan,
            self._sampler,
            num_workers=bounded_workers(config.num_workers),
            pin_memory=page_locks(world.device),
            fixed_shape=fixed_shape,
        )

    def window(self, step: int) -> Window:
        """Look ahead over the micro-steps of the optimiser step that begins at ``step``."""
        size = min(self._schedule.accumulation_steps, self.iters - step + 1)
        rows = self._sampler.global_rows(step - 1 - self.start_step, size)
        per_step = self._schedule.rows_per_micro_step
        tokens = self._plan.tokens_per_row[rows]
        return Window(
            first_step=step,
            last_step=step + size - 1,
            rows=rows,
            targets=max(1, int(self._plan.targets_per_row[rows].sum())),
            tokens=[
                int(tokens[start : start + per_step].sum())
                for start in range(0, len(rows), per_step)
            ],
        )
