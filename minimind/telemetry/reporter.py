"""What a run tells while it trains: log lines, held-out losses, sample texts."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from minimind.checkpoint.state import Progress
from minimind.config import TrainConfig, write_config_file
from minimind.distributed.world import World
from minimind.planning.flops import flops_per_token
from minimind.rundir import env
from minimind.rundir.events import Kind
from minimind.rundir.layout import OutputPaths
from minimind.rundir.metrics import points_at
from minimind.system.jsonl import JsonLog
from minimind.telemetry.console import ProgressBar, step_line
from minimind.telemetry.environment import count_parameters, write_environment
from minimind.telemetry.flops import peak_flops
from minimind.telemetry.monitor import Monitor
from minimind.telemetry.samples import SampleWriter
from minimind.telemetry.trackers.swanlab import start_tracker
from minimind.telemetry.trackers.tracker import NullTracker, Tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """A micro-step of an epoch.

    Attributes:
        epoch: 0-based.
        step: 1-based within the epoch.
        iters: micro-steps of the whole epoch.
    """

    epoch: int
    step: int
    iters: int


class Reporter:
    """Writes rank 0's records; on the other ranks it only takes part in what all compute.

    Within its context the experiment is tracked, and :meth:`open` begins the records of this
    attempt. At the end all are closed, the experiment as crashed if an exception ends the run.

    Args:
        dtype: what the model computes in.
        total_steps: optimiser steps of the whole run.
        progress: where the run is.
        run_id: the id that the experiment had before.
        prompts: what --sample_interval samples texts from.
        evaluate: scores the held-out documents, under --eval_data_path; see
            :func:`minimind.training.evaluate.evaluate`.
    """

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        model: nn.Module,
        *,
        dtype: str,
        total_steps: int,
        progress: Progress,
        run_id: str | None,
        prompts: Sequence[str],
        evaluate: Callable[..., dict[str, float] | None] | None,
    ) -> None:
        self.config = config
        self.world = world
        self.model = model
        self.dtype = dtype
        self.total_steps = total_steps
        self.evaluate = evaluate
        self.metrics: JsonLog | None = None
        """Rank 0's; None elsewhere."""
        self.samples: SampleWriter | None = None
        """Rank 0's, under --sample_interval."""
        self.stopping = False
        """Whether the run was asked to stop: what is closed then must not take long."""
        self.monitor = Monitor(world.device)
        self.bar = ProgressBar(total_steps, progress.global_step, visible=world.is_main)
        self.flops_per_token = flops_per_token(model.config, config.max_seq_len)
        self.tracker: Tracker = NullTracker(run_id)
        self._start, self._prompts = progress.global_step, prompts
        self._closing = contextlib.ExitStack()
        self._tokens = 0
        self.begin_epoch(0)

    def __enter__(self) -> Reporter:
        config, run_id = self.config, self.tracker.run_id
        self.tracker = start_tracker(
            config, run_id, config.to_dict(), self.world.is_main, done=self._start
        )
        self._closing.push(self._finish_tracking)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._closing.__exit__(*exception)

    def _finish_tracking(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        reason = f"{type(error).__name__}: {error}" if error else None
        self.tracker.finish(reason, stopping=self.stopping)

    def open(self) -> None:
        """Begin this attempt's records: those in save_dir are its own by now.

        Raises:
            OSError: one of them cannot be written.
        """
        if self.world.is_main:
            self._open_files(OutputPaths(self.config.save_dir))
        # Measured last, when nothing else runs.
        self.peak_flops, self.peak_source = peak_flops(self.world.device, self.dtype)
        self._closing.enter_context(self.bar)
        self._clock = time.perf_counter()

    def _open_files(self, out: OutputPaths) -> None:
        metrics = JsonLog(out.metrics, {"attempt": env.attempt()})
        self.metrics = self._closing.enter_context(contextlib.closing(metrics))
        write_config_file(self.config, out.config)
        parameters = count_parameters(self.model)
        write_environment(out.environment, self.world, parameters=parameters)
        if self._prompts:
            self.samples = self._closing.enter_context(
                contextlib.closing(
                    SampleWriter(self.config, self._prompts, self.model, self.tracker)
                )
            )

    def mark_resumed(self, progress: Progress) -> None:
        """Put a mark into the metrics file where the run went on."""
        if self.metrics is not None:
            self.metrics.write(
                {
                    "event": Kind.RESUMED,
                    "time": time.time(),
                    "epoch": progress.epoch,
                    "step": progress.step,
                    "global_step": progress.global_step,
                }
            )

    def begin_epoch(self, start_step: int) -> None:
        """Nothing of this epoch, from ``start_step`` on, has been told yet."""
        self.logged_at = self.evaluated_at = self.sampled_at = start_step

    def count(self, tokens: int, progress: Progress, seconds_left: float) -> None:
        """A micro-step with so many real tokens, over all ranks, is done."""
        self._tokens += tokens
        self.bar.update(progress.global_step, seconds_left)

    def log_is_due(self, step: int, at_end: bool) -> bool:
        return at_end or step % self.config.log_interval == 0

    def evaluation_is_due(self, step: int, at_end: bool) -> bool:
        if self.evaluate is None:
            return False
        return at_end or step % self.config.eval_interval == 0

    def sample_is_due(self, step: int, at_end: bool) -> bool:
        """Whether rank 0 samples; all ranks know it alike."""
        if not self._prompts:
            return False
        return at_end or step % self.config.sample_interval == 0

    def is_evaluated(self, place: Place, progress: Progress) -> bool:
        """Whether the held-out loss of ``place`` is on record, or not wanted; rank 0 knows."""
        if self.evaluate is None:
            return True
        path = OutputPaths(self.config.save_dir).metrics
        return bool(points_at(path, "eval_loss", **_place_of(place, progress)))

    def is_sampled(self, place: Place, progress: Progress) -> bool:
        """The same of its samples of text: of all, since a kill may come between two."""
        if not self._prompts:
            return True
        path = OutputPaths(self.config.save_dir).samples
        points = points_at(path, "prompt", **_place_of(place, progress))
        return {point["prompt"] for point in points} >= set(self._prompts)

    def log(
        self,
        place: Place,
        progress: Progress,
        *,
        losses: torch.Tensor,
        grad_norm: torch.Tensor,
        learning_rate: float,
        epoch_minutes: float,
        seconds_left: float,
        sections: Mapping[str, float],
        slowest: Mapping[str, Any],
    ) -> None:
        """One point for console, metrics file and tracker.

        Args:
            losses: as of :meth:`LossMeter.read`, over all ranks.
            grad_norm: of the newest optimiser step, a scalar.
            learning_rate: of the optimiser step that ``place`` is in.
            epoch_minutes: what the whole epoch takes at the speed so far.
            seconds_left: to the end of training, ``--max_steps`` and ``--max_minutes`` considered.
            sections: as of :meth:`StepTimer.read`.
            slowest: as of :meth:`SlowestRank.read`.
        """
        self.logged_at = place.step
        now = time.perf_counter()
        elapsed, self._clock = now - self._clock, now
        tokens, self._tokens = self._tokens, 0
        if self.metrics is None:
            return
        speed = tokens / elapsed
        nats, aux, scored = losses.tolist()
        logits_loss, aux_loss = nats / max(1.0, scored), aux / max(1.0, scored)
        point = {
            "time": time.time(),
            "epoch": place.epoch,
            "step": place.step,
            "iters": place.iters,
            "global_step": progress.global_step,
            "total_steps": self.total_steps,
            "loss": logits_loss + aux_loss,
            "logits_loss": logits_loss,
            "aux_loss": aux_loss,
            "learning_rate": learning_rate,
            "grad_norm": float(grad_norm),
            "epoch_minutes": epoch_minutes,
            "seconds_left": seconds_left,
            "tokens": progress.tokens,
            "tokens_per_second": speed,
            "mfu": speed * self.flops_per_token / (self.peak_flops * self.world.world_size),
            "skipped_steps": progress.skipped_steps,
            "elapsed_seconds": elapsed,
            **{f"{name}_seconds": seconds for name, seconds in sections.items()},
            **slowest,
            **self.monitor.sample(),
        }
        log.info("%s", step_line(point, self.config.epochs))
        self.metrics.write(point)
        hidden = ("time", "epoch", "step", "iters", "total_steps", "seconds_left", "slowest_node")
        self.tracker.log(
            {name: value for name, value in point.items() if name not in hidden},
            **tracker_place(place, progress),
        )
        self.bar.update(progress.global_step, seconds_left, f"loss {point['loss']:.3f}")

    def log_evaluation(self, place: Place, progress: Progress, goes_on: Callable[[], bool]) -> bool:
        """Score the held-out documents, all ranks together, and tell the result.

        Args:
            goes_on: as :func:`minimind.training.evaluate.evaluate` takes it.

        Returns:
            False: it was left early, and nothing is told.
        """
        assert self.evaluate is not None
        start = time.perf_counter()
        with self.bar.phase("scoring held-out text"):
            result = self.evaluate(goes_on=goes_on)
        # The next log line's speed is that of training.
        self._clock += time.perf_counter() - start
        if result is None:
            return False
        self.evaluated_at = place.step
        if self.metrics is None:
            return True
        log.info(
            "held-out loss: %.4f, bits_per_byte: %.4f", result["eval_loss"], result["bits_per_byte"]
        )
        self.metrics.write({"time": time.time(), **_place_of(place, progress), **result})
        self.tracker.log(result, **tracker_place(place, progress))
        return True

    def write_samples(self, place: Place, progress: Progress, goes_on: Callable[[], bool]) -> None:
        """Write what the model would go on with, on rank 0 alone, unless ``goes_on`` says no."""
        self.sampled_at = place.step
        if self.samples is None:
            return
        start = time.perf_counter()
        with self.bar.phase("sampling texts"):
            self.samples.write(
                goes_on=goes_on,
                **tracker_place(place, progress),
                **_place_of(place, progress),
                tokens=progress.tokens,
            )
        self._clock += time.perf_counter() - start


def _place_of(place: Place, progress: Progress) -> dict[str, int]:
    """Where the run is, as records have it."""
    return {"epoch": place.epoch, "step": place.step, "global_step": progress.global_step}


def tracker_place(place: Place, progress: Progress) -> dict[str, int]:
    """Where the run is, as trackers count: see ``NullTracker.log``."""
    under_way = place.step != progress.step
    return {
        "micro_step": place.epoch * place.iters + place.step,
        "update": progress.global_step + under_way,
    }
