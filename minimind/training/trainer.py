"""The training loop: micro-steps, optimiser steps, and what is due after them."""

from __future__ import annotations

import contextlib
import enum
import logging
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from minimind.checkpoint.state import Execution, Progress, RankState, TrainState
from minimind.checkpoint.store import Checkpointer
from minimind.config import TrainConfig
from minimind.data.mixture import Plan
from minimind.data.sampler import SkipBatchSampler
from minimind.distributed.stop_consensus import Agreement
from minimind.distributed.world import World
from minimind.errors import NonFiniteLossError
from minimind.rundir.events import EventLog, Kind
from minimind.system.signals import StopFlag
from minimind.telemetry.meters import LossMeter, StepTimer
from minimind.telemetry.reporter import Place, Reporter
from minimind.training.audit import RowRecord
from minimind.training.evaluate import to_device
from minimind.training.optimizer import Optimizers
from minimind.training.profiler import StepProfiler
from minimind.training.schedule import Schedule, learning_rate_at
from minimind.training.seed import rng_state

log = logging.getLogger(__name__)

STOP_PATIENCE_SECONDS = 5.0
"""A stop waits this long for the optimiser step under way; otherwise that step is given up.

A given-up step costs its micro-steps again after the resume and nothing else: weights and
optimiser have not changed since the boundary before it.
"""


class Outcome(enum.IntEnum):
    """How an epoch ended. Ranks agree on the largest."""

    DONE = 0
    TIME_IS_UP = 1
    STOPPED = 2


@dataclass(frozen=True)
class Window:
    """The micro-steps of one optimiser step."""

    last_step: int
    rows: np.ndarray
    """Ids of all rows in it, over all ranks."""
    targets: int
    """Scored tokens in it, over all ranks: what the gradient is a mean over."""
    tokens: list[int]
    """Real tokens of each micro-step, over all ranks."""
    learning_rate: float


@dataclass(frozen=True)
class Boundary:
    """What a checkpoint needs besides weights and optimiser, as of the last optimiser step."""

    progress: Progress
    rng: dict[str, Any]
    meter: torch.Tensor
    grad_norm: torch.Tensor


@dataclass
class Trainer:
    """Everything one run is made of, and the loop over it."""

    config: TrainConfig
    world: World
    model: nn.Module
    """The bare model: what is saved."""
    replica: nn.Module
    """The model, or its DDP wrapper: what is called in training."""
    optimizers: Optimizers
    scaler: torch.amp.GradScaler
    autocast: AbstractContextManager[Any]
    execution: Execution
    plan: Plan
    schedule: Schedule
    progress: Progress
    checkpointer: Checkpointer
    reporter: Reporter
    events: EventLog
    stop_flag: StopFlag
    agreement: Agreement
    profiler: StepProfiler | None
    """Rank 0's, under --profile."""
    deadline: float
    """``time.monotonic()`` at which --max_minutes is over."""
    row_record: RowRecord

    meter: LossMeter = field(init=False)
    timer: StepTimer = field(init=False)

    def __post_init__(self) -> None:
        self.meter = LossMeter(self.world.device)
        self.timer = StepTimer(self.world.device)
        self.grad_norm = torch.zeros((), device=self.world.device)
        self._nonfinite_step = torch.full((), -1, dtype=torch.int64, device=self.world.device)
        # Reading a tensor back waits for a GPU, so there it is left to the log lines, unless
        # a step must be judged before it is taken.
        self._judge_each_step = self.world.device.type == "cpu" or self.config.skip_nonfinite > 0
        self._window_loss = torch.zeros((), device=self.world.device)
        self._micro_seconds = 0.0
        self._saved_at = -1
        self._writing = False
        self._save_put_off = False
        self.mark_boundary()

    def mark_boundary(self) -> None:
        self.boundary = Boundary(
            replace(self.progress),
            rng_state(self.world.device),
            self.meter.snapshot(),
            self.grad_norm,
        )

    @property
    def finished(self) -> bool:
        return self.progress.global_step >= self.schedule.total_steps

    def train_epoch(
        self,
        epoch: int,
        loader: DataLoader[Any],
        sampler: SkipBatchSampler,
        iters: int,
        start_step: int = 0,
    ) -> Outcome:
        """Train the rest of one epoch.

        Args:
            epoch: 0-based.
            loader: this rank's micro-batches, from ``start_step`` on.
            sampler: what the loader follows.
            iters: micro-steps of the whole epoch.
            start_step: micro-steps done before; an optimiser-step boundary.
        """
        epoch_clock = time.perf_counter()
        self.reporter.begin_epoch(start_step)
        window: Window | None = None
        batches = iter(loader)
        for step in range(start_step + 1, iters + 1):
            micro_clock = time.perf_counter()
            with self.timer.section("data"):
                batch = next(batches)
            if window is None:
                window = self._open_window(sampler, step, start_step, iters)
                self.optimizers.set_learning_rate(window.learning_rate)
            self.row_record.write(
                epoch=epoch,
                step=step,
                global_step=self.progress.global_step,
                rows=batch.pop("row_ids"),
            )
            place = Place(epoch, step, iters)
            is_last = step == window.last_step
            with self.timer.section("compute"):
                self._forward_backward(batch, window, is_last=is_last)
            if is_last:
                with self.timer.section("optimizer"):
                    self._update(window, place)
            self.reporter.count(window.tokens[step - window.last_step - 1], self.progress)
            self._micro_seconds = time.perf_counter() - micro_clock
            self.events.beat()

            at_end = step == iters or (is_last and self.finished)
            minutes = (time.perf_counter() - epoch_clock) / 60
            epoch_minutes = minutes / (step - start_step) * iters
            if self.reporter.log_is_due(step, at_end):
                self._log(place, window.learning_rate, epoch_minutes)
            if self.reporter.evaluation_is_due(step, at_end):
                self.reporter.log_evaluation(place, self.progress)
            if self._sample_is_due(step, at_end):
                self.reporter.write_samples(place, self.progress)
            if is_last and self._save_is_due(step, at_end):
                self.save()

            if self.profiler is not None:
                self.profiler.step()

            outcome = self._agree_on_stop(window.last_step - step)
            if outcome is not Outcome.DONE:
                if not is_last:
                    self.optimizers.zero_grad()
                    self.meter.restore(self.boundary.meter)
                boundary = step if is_last else window.last_step - len(window.tokens)
                if outcome is Outcome.TIME_IS_UP and boundary > start_step:
                    self._report_the_end(Place(epoch, boundary, iters), epoch_minutes)
                return outcome
            if is_last:
                window = None
                if self.finished:
                    break
        return Outcome.DONE

    def _open_window(
        self, sampler: SkipBatchSampler, step: int, start_step: int, iters: int
    ) -> Window:
        """Look ahead over the micro-steps of the optimiser step that begins at ``step``."""
        size = min(self.schedule.accumulation_steps, iters - step + 1)
        rows = sampler.global_rows(step - 1 - start_step, size)
        per_step = self.schedule.rows_per_micro_step
        return Window(
            last_step=step + size - 1,
            rows=rows,
            targets=max(1, int(self.plan.targets_per_row[rows].sum())),
            tokens=[
                int(self.plan.tokens_per_row[rows[start : start + per_step]].sum())
                for start in range(0, len(rows), per_step)
            ],
            learning_rate=self._learning_rate_of(self.progress.global_step),
        )

    def _learning_rate_of(self, global_step: int) -> float:
        return learning_rate_at(
            global_step,
            self.schedule.total_steps,
            self.config.learning_rate,
            warmup_ratio=self.config.warmup_ratio,
            min_ratio=self.config.min_lr_ratio,
        )

    def _forward_backward(self, batch: dict[str, Any], window: Window, *, is_last: bool) -> None:
        batch = to_device(batch, self.world.device)
        targets = batch.pop("targets")
        # Only the last micro-step exchanges gradients: once per optimiser step.
        local_only = not is_last and self.replica is not self.model
        quiet = self.replica.no_sync() if local_only else contextlib.nullcontext()  # type: ignore[operator]
        with quiet:
            with self.autocast:
                out = self.replica(**batch, shift_labels=targets, num_items_in_batch=1)
            scored = (targets >= 0).sum()
            # DDP averages over ranks; the mean wanted is over all scored tokens of the
            # window, wherever they are, so that a short last window weighs right too.
            share = self.world.world_size / window.targets
            loss = (out.loss + out.aux_loss * scored) * share
            self.scaler.scale(loss).backward()
        self.meter.add(out.loss.detach(), out.aux_loss.detach(), scored)
        self._window_loss += loss.detach()

    def _update(self, window: Window, place: Place) -> None:
        """Clip, judge, step; then this is a boundary."""
        self.optimizers.unscale(self.scaler)
        gradients = [p.grad for p in self.optimizers.parameters if p.grad is not None]
        self.grad_norm = nn.utils.get_total_norm(gradients)
        if self.config.grad_clip:
            nn.utils.clip_grads_with_norm_(
                self.optimizers.parameters, self.config.grad_clip, self.grad_norm
            )
        # An infinite float16 gradient is the scaler's everyday business; its loss is not.
        judged = self._window_loss if self.scaler.is_enabled() else self.grad_norm
        take_step = True
        if self._judge_each_step:
            take_step = self._is_finite_everywhere(judged)
        else:
            number = self.progress.global_step
            first = (self._nonfinite_step < 0) & ~torch.isfinite(judged)
            self._nonfinite_step = torch.where(first, number, self._nonfinite_step)
        if take_step:
            self.optimizers.step(self.scaler)
        else:
            self._skip_or_stop(window, place)
        self.meter.close_window(taken=take_step)
        self.optimizers.zero_grad()
        self._window_loss = torch.zeros_like(self._window_loss)
        self.progress.epoch = place.epoch
        self.progress.step = place.step
        self.progress.rows_done += len(window.rows)
        self.progress.global_step += 1
        self.progress.tokens += sum(window.tokens)
        self.mark_boundary()

    def _is_finite_everywhere(self, value: torch.Tensor) -> bool:
        finite = bool(torch.isfinite(value))
        if self.scaler.is_enabled():
            # The ranks' gradients are equal after DDP; their losses are not.
            finite = all(self.world.gather(finite))
        return finite

    def _skip_or_stop(self, window: Window, place: Place) -> None:
        if self.progress.skipped_steps >= self.config.skip_nonfinite:
            where = f"epoch {place.epoch + 1}, step {place.step}"
            raise self._nonfinite_error(where, window.rows)
        self.progress.skipped_steps += 1
        if self.scaler.is_enabled():
            self.scaler.update()
        log.warning(
            "loss or gradient is not finite at epoch %d, step %d: step skipped (%d of %d); rows %s",
            place.epoch + 1,
            place.step,
            self.progress.skipped_steps,
            self.config.skip_nonfinite,
            window.rows.tolist(),
        )

    def _nonfinite_error(self, where: str, rows: np.ndarray | None) -> NonFiniteLossError:
        newest = self.world.on_main(self._newest_durable_step)
        last_good = (
            f"last good checkpoint: {self.checkpointer.checkpoint_file} (optimiser step {newest})"
            if newest is not None
            else "there is no checkpoint before it"
        )
        which = ""
        if rows is not None:
            log.error("rows of the step that is not finite: %s", rows.tolist())
            shown = ", ".join(map(str, rows[:8].tolist()))
            which = f", rows {shown}{', …' if len(rows) > 8 else ''}"
        error = NonFiniteLossError(
            f"loss or gradient is not finite at {where}{which}; {last_good}; lower "
            "--learning_rate, or go on over such steps with --skip_nonfinite N"
        )
        error.reported_elsewhere = not self.world.is_main
        return error

    def _newest_durable_step(self) -> int | None:
        self.checkpointer.drain()
        return self.checkpointer.newest_step

    def _assert_finite_so_far(self) -> None:
        """Read the device's note of the first bad step; the host waits for the device here."""
        if self._judge_each_step:
            return
        bad = max(self.world.gather(int(self._nonfinite_step)))
        if bad >= 0:
            raise self._nonfinite_error(f"optimiser step {bad + 1}", None)

    def _agree_on_stop(self, micro_steps_to_boundary: int) -> Outcome:
        """Ask all ranks; a stop between boundaries waits for the next if it is near."""
        wish = Outcome.DONE
        if self.stop_flag.signal_number:
            wish = Outcome.STOPPED
        elif time.monotonic() > self.deadline:
            wish = Outcome.TIME_IS_UP
        wait = micro_steps_to_boundary * self._micro_seconds
        agreed_wish, agreed_wait, writing = self.agreement.poll(
            float(wish), wait, float(self.checkpointer.writing)
        )
        self._writing = writing > 0
        if micro_steps_to_boundary > 0 and agreed_wait <= STOP_PATIENCE_SECONDS:
            return Outcome.DONE
        return Outcome(int(agreed_wish))

    def _save_is_due(self, step: int, at_end: bool) -> bool:
        """The first boundary at or after each multiple of --save_interval, and an epoch's end.

        Training does not wait for a slow disk: while the write before is under way a save is
        put off, though not beyond the next multiple. All ranks decide alike.
        """
        interval = self.config.save_interval
        previous = step - self.schedule.accumulation_steps
        is_multiple = step // interval > max(0, previous) // interval
        if at_end or (is_multiple and self._save_put_off):
            return True
        if not (is_multiple or self._save_put_off):
            return False
        self._save_put_off = self._writing
        return not self._writing

    def save(self) -> None:
        """Save as of the last boundary; the write goes on in the background.

        A write that fails is named in the log, and training goes on: the last good
        checkpoint stands, and the next write may succeed.
        """
        self._save_put_off = False
        if self._saved_at == self.boundary.progress.global_step:
            return
        with self.timer.section("checkpoint"):
            self._assert_finite_so_far()
            ranks = self.world.gather(
                RankState(
                    rng=self.boundary.rng,
                    meter=self.boundary.meter.cpu(),
                    grad_norm=self.boundary.grad_norm.cpu(),
                )
            )
            self._saved_at = self.boundary.progress.global_step
            if not self.world.is_main:
                return
            step = self.boundary.progress.global_step
            stall = self.checkpointer.save(
                self.state(ranks), on_durable=lambda seconds: self._saved(step, seconds)
            )
            log.debug("checkpoint of step %d copied in %.3f s", step, stall)

    def save_and_wait(self) -> None:
        """Save as of the last boundary, and return when it is on the disk.

        Raises:
            OSError: it could not be written; on every rank.
            LockLostError: another run has taken over the checkpoint folder.
        """
        if not self.world.on_main(self._boundary_is_durable):
            self._saved_at = -1
            self.save()
            self.world.on_main(self.checkpointer.wait)

    def _boundary_is_durable(self) -> bool:
        with contextlib.suppress(OSError):
            self.checkpointer.wait()
        return self.checkpointer.written_step == self.boundary.progress.global_step

    def _saved(self, step: int, seconds: float) -> None:
        log.debug("checkpoint of step %d durable after %.3f s", step, seconds)
        self.events.append(Kind.CHECKPOINTED, step=step, seconds=round(seconds, 3))

    def state(self, ranks: list[RankState]) -> TrainState:
        """The checkpoint: all that exact resume needs."""
        return TrainState(
            model=self.model.state_dict(),
            optimizer=self.optimizers.state_dict(),
            scaler=self.scaler.state_dict(),
            progress=self.boundary.progress,
            wandb_id=self.reporter.tracker.run_id,
            world_size=self.world.world_size,
            rows_per_update=self.schedule.rows_per_update,
            ranks=ranks,
            config=self.config.to_dict(),
            execution=self.execution,
            model_config=self.model.config.to_dict(),  # type: ignore[union-attr, operator]
            data=self.plan.fingerprint,
        )

    def _log(self, place: Place, learning_rate: float, epoch_minutes: float) -> None:
        """One point; the host waits for the device here."""
        self._assert_finite_so_far()
        losses = self.world.sum(self.meter.read())
        if place.step == self.progress.step:
            self.mark_boundary()
        self.reporter.log(
            place,
            self.progress,
            losses=losses,
            grad_norm=self.grad_norm,
            learning_rate=learning_rate,
            epoch_minutes=epoch_minutes,
            sections=self.timer.read(),
        )

    def _sample_is_due(self, step: int, at_end: bool) -> bool:
        # A stop is not kept waiting for texts.
        return self.reporter.sample_is_due(step, at_end) and not self.stop_flag.signal_number

    def _report_the_end(self, place: Place, epoch_minutes: float) -> None:
        """The last line, evaluation and samples of a run whose time is up.

        They are of the last optimiser step, ``place``, unless they have been made since.
        """
        step, boundary = place.step, self.boundary
        if step > self.reporter.logged_at:
            self._log(place, self._learning_rate_of(self.progress.global_step - 1), epoch_minutes)
        # The line is one more than an uninterrupted run has: the next of a resumed one counts
        # the losses in it, too.
        self.boundary = boundary
        self.save()
        if step > self.reporter.evaluated_at and self.reporter.evaluation_is_due(step, at_end=True):
            self.reporter.log_evaluation(place, self.progress)
        if step > self.reporter.sampled_at and self._sample_is_due(step, at_end=True):
            self.reporter.write_samples(place, self.progress)
