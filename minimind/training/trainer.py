"""The training loop: epochs, micro-steps, and what is due after them."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from minimind.checkpoint.state import Progress
from minimind.config import TrainConfig
from minimind.data.mixture import Plan
from minimind.distributed.world import World
from minimind.rundir.events import EventLog
from minimind.telemetry.meters import StepTimer
from minimind.telemetry.reporter import Place, Reporter
from minimind.telemetry.slowest import SlowestRank
from minimind.telemetry.time_left import TimeLeft
from minimind.training.audit import RowRecord
from minimind.training.epoch import Epoch, Window
from minimind.training.profiler import StepProfiler
from minimind.training.saving import Saver
from minimind.training.schedule import Schedule, planned_rate
from minimind.training.step import TrainStep
from minimind.training.stop import Outcome, StopDecision

log = logging.getLogger(__name__)


@dataclass
class Trainer:
    """Everything one run is made of, and the loop over it."""

    config: TrainConfig
    world: World
    plan: Plan
    schedule: Schedule
    progress: Progress
    step: TrainStep
    saver: Saver
    stop: StopDecision
    reporter: Reporter
    events: EventLog
    row_record: RowRecord
    profiler: StepProfiler | None
    """Rank 0's, under --profile."""
    fixed_shape: bool
    """Whether short batches are filled up, for a compiled model."""
    on_micro_batch: Callable[[Trainer], None] | None
    """Called before each micro-batch, on every rank; what it raises ends the run."""

    timer: StepTimer = field(init=False)

    def __post_init__(self) -> None:
        self.timer = StepTimer(self.world.device)
        self._slowest = SlowestRank(self.world)
        if self.world.is_distributed:
            self.step.alone = self.timer.alone
        self._time_left = self._measure_time_left()
        self._micro_seconds: deque[float] = deque(maxlen=3)

    @property
    def finished(self) -> bool:
        return self.progress.global_step >= self.schedule.total_steps

    def train(self) -> Outcome:
        """All epochs that are left."""
        outcome = Outcome.DONE if self._make_up_for_records() else Outcome.STOPPED
        if self.finished:
            log.info("nothing left to train: the run was complete")
        elif outcome is Outcome.DONE:
            outcome = self._train_epochs()
        self.stop.drain()
        return outcome

    def _measure_time_left(self) -> TimeLeft:
        return TimeLeft(self.progress.global_step, self.schedule.total_steps, self.stop.deadline)

    def _train_epochs(self) -> Outcome:
        outcome = Outcome.DONE
        self._time_left = self._measure_time_left()
        first = self.progress.epoch
        for number in range(first, self.config.epochs):
            if number > first:
                self.progress.rows_done = self.progress.step = 0
            if self.progress.rows_done >= self.plan.n_rows:
                continue
            outcome = self.train_epoch(self._epoch(number))
            if outcome is not Outcome.DONE or self.finished:
                break
        return outcome

    def _epoch(self, number: int) -> Epoch:
        return Epoch(
            number,
            self.progress.rows_done,
            config=self.config,
            world=self.world,
            plan=self.plan,
            schedule=self.schedule,
            fixed_shape=self.fixed_shape,
        )

    def train_epoch(self, epoch: Epoch) -> Outcome:
        """Train the rest of one epoch."""
        epoch_clock = time.perf_counter()
        self.reporter.begin_epoch(epoch.start_step)
        window: Window | None = None
        batches = iter(epoch.loader)
        for step in range(epoch.start_step + 1, epoch.iters + 1):
            micro_clock = time.perf_counter()
            place = Place(epoch.number, step, epoch.iters)
            with self.timer.section("data"), self.timer.alone():
                batch = next(batches)
            if window is None:
                window = epoch.window(step)
                learning_rate = self._learning_rate_of(self.progress.global_step)
                self.step.optimizers.set_learning_rate(learning_rate)
            self._begin_micro_batch(place, batch.pop("row_ids"))
            is_last = step == window.last_step
            with self.timer.section("compute"):
                self.step.forward_backward(batch, scored=window.targets, exchange=is_last)
            if is_last:
                with self.timer.section("optimizer"):
                    self._update(window, place)
            seconds_left = self._seconds_left(window, step)
            self.reporter.count(
                window.tokens[step - window.first_step], self.progress, seconds_left
            )
            self._micro_seconds.append(time.perf_counter() - micro_clock)
            self.events.beat()
            self.world.beat()

            at_end = step == epoch.iters or (is_last and self.finished)
            minutes = (time.perf_counter() - epoch_clock) / 60
            epoch_minutes = minutes / (step - epoch.start_step) * epoch.iters
            if self.reporter.log_is_due(step, at_end):
                self._log(place, learning_rate, epoch_minutes, seconds_left)
            if is_last and self.saver.is_due(step, at_end, writing=self.stop.writing):
                self._save()
            # What takes long comes after the save that it would hold up.
            if self._evaluate(place, at_end) and self._sample(place, at_end):
                outcome = self.stop.poll(
                    window.last_step - step,
                    # One that compiled, or waited for a disk, says nothing of the next.
                    min(self._micro_seconds),
                    writing=self._writing,
                )
            else:
                # Not at the next boundary, which has other weights: this point would be lost.
                outcome = Outcome.STOPPED
            if outcome is not Outcome.DONE:
                boundary = step if is_last else self._give_up(window)
                if outcome is Outcome.TIME_IS_UP and boundary > epoch.start_step:
                    end = Place(epoch.number, boundary, epoch.iters)
                    if not self._report_the_end(end, epoch_minutes):
                        outcome = Outcome.STOPPED
                return outcome
            if self.profiler is not None and self.profiler.tracing:
                # torch notes the end of an exchange in the trace that saw it begin. A trace that is
                # closed by then is freed memory.
                self.stop.settle()
                self.profiler.step()
            if is_last:
                window = None
                if self.finished:
                    break
        return Outcome.DONE

    def _learning_rate_of(self, global_step: int) -> float:
        return planned_rate(self.config, global_step, self.schedule.total_steps)

    def _seconds_left(self, window: Window, step: int) -> float:
        """After micro-step ``step``, whose update is taken if it was the window's last."""
        micro_steps = window.last_step - window.first_step + 1
        under_way = 0 if step == window.last_step else step - window.first_step + 1
        return self._time_left.seconds(self.progress.global_step + under_way / micro_steps)

    def _begin_micro_batch(self, place: Place, rows: Any) -> None:
        self.row_record.write(
            epoch=place.epoch, step=place.step, global_step=self.progress.global_step, rows=rows
        )
        if self.on_micro_batch is not None:
            self.on_micro_batch(self)

    def _update(self, window: Window, place: Place) -> None:
        """Take the step, or leave it out; then this is a boundary."""
        if not self.step.update(self.progress.global_step):
            self._skip_or_stop(window, place)
        self.progress.epoch = place.epoch
        self.progress.step = place.step
        self.progress.rows_done += len(window.rows)
        self.progress.global_step += 1
        self.progress.tokens += sum(window.tokens)
        self.saver.mark_boundary()

    def _skip_or_stop(self, window: Window, place: Place) -> None:
        if self.progress.skipped_steps >= self.config.skip_nonfinite:
            where = f"epoch {place.epoch + 1}, step {place.step}"
            raise self.saver.nonfinite_error(where, window.rows)
        self.progress.skipped_steps += 1
        log.warning(
            "loss or gradient is not finite at epoch %d, step %d: step skipped (%d of %d); rows %s",
            place.epoch + 1,
            place.step,
            self.progress.skipped_steps,
            self.config.skip_nonfinite,
            window.rows.tolist(),
        )

    def _give_up(self, window: Window) -> int:
        """Go back to the boundary before an open window; returns its micro-step."""
        self.step.give_up(self.saver.boundary.rank.meter)
        return window.first_step - 1

    def _save(self) -> None:
        with self.timer.section("checkpoint"):
            self.row_record.sync()
            self.saver.save()

    def _log(
        self, place: Place, learning_rate: float, epoch_minutes: float, seconds_left: float
    ) -> None:
        """One point; the host waits for the device here."""
        self.saver.check_finite()
        losses = self.world.sum(self.step.meter.read())
        if place.step == self.progress.step:
            self.saver.mark_boundary()
        sections = self.timer.read()
        self.reporter.log(
            place,
            self.progress,
            losses=losses,
            grad_norm=self.step.grad_norm,
            learning_rate=learning_rate,
            epoch_minutes=epoch_minutes,
            seconds_left=seconds_left,
            sections=sections,
            slowest=self._slowest.read(self.timer.read_alone()),
        )

    @property
    def _writing(self) -> bool:
        return self.saver.checkpointer.writing

    def _evaluate(self, place: Place, at_end: bool) -> bool:
        """Score the held-out text if that is due; False: a stop cut it short, on all ranks."""

        def goes_on() -> bool:
            self.events.beat()
            self.world.beat()
            return not self.stop.is_asked(writing=self._writing)

        if not self.reporter.evaluation_is_due(place.step, at_end):
            return True
        return self.reporter.log_evaluation(place, self.progress, goes_on)

    def _sample(self, place: Place, at_end: bool) -> bool:
        """Write samples of text if that is due; False: all ranks are to stop at once."""
        if not self.reporter.sample_is_due(place.step, at_end):
            return True
        flag = self.stop.stop_flag
        self.reporter.write_samples(place, self.progress, lambda: not flag.signal_number)
        # Rank 0 alone knows whether there are any.
        return not self.stop.is_asked_by_now(writing=self._writing)

    def _make_up_for_records(self) -> bool:
        """Score and sample what a stop, or a kill, has kept the checkpoint's step from.

        Returns:
            False: another stop came in the middle of it.
        """
        progress, reporter = self.progress, self.reporter
        if not progress.step:
            return True
        epoch_is_over = progress.rows_done >= self.plan.n_rows
        at_end = epoch_is_over or self.finished
        iters = progress.step if epoch_is_over else self._epoch(progress.epoch).iters
        place = Place(progress.epoch, progress.step, iters)
        # Ranks other than 0 may not see its files.
        is_evaluated, is_sampled = self.world.on_main(
            lambda: (reporter.is_evaluated(place, progress), reporter.is_sampled(place, progress))
        )
        return (is_evaluated or self._evaluate(place, at_end)) and (
            is_sampled or self._sample(place, at_end)
        )

    def _report_the_end(self, place: Place, epoch_minutes: float) -> bool:
        """The last line, evaluation and samples of a run whose time is up.

        They are of the last optimiser step, ``place``, unless they have been made since.

        Returns:
            False: a stop came in the middle of it.
        """
        step, boundary = place.step, self.saver.boundary
        if step > self.reporter.logged_at:
            rate = self._learning_rate_of(self.progress.global_step - 1)
            self._log(place, rate, epoch_minutes, seconds_left=0.0)
        # The line is one more than an uninterrupted run has: the next of a resumed one counts
        # the losses in it, too.
        self.saver.boundary = boundary
        self._save()
        is_evaluated = step <= self.reporter.evaluated_at
        is_sampled = step <= self.reporter.sampled_at
        return (is_evaluated or self._evaluate(place, at_end=True)) and (
            is_sampled or self._sample(place, at_end=True)
        )
