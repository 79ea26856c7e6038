"""What a run tells while it trains: log lines, held-out losses, sample texts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from minimind.checkpoint.state import Progress
from minimind.config import TrainConfig
from minimind.rundir.events import Kind
from minimind.system.jsonl import JsonLog
from minimind.telemetry.console import ProgressBar, step_line
from minimind.telemetry.monitor import Monitor
from minimind.telemetry.samples import SampleWriter
from minimind.telemetry.trackers.tracker import Tracker

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


@dataclass
class Reporter:
    """Writes rank 0's records; on the other ranks it only takes part in what all compute."""

    config: TrainConfig
    total_steps: int
    """Optimiser steps of the whole run."""
    world_size: int
    metrics: JsonLog | None
    """Rank 0's; None elsewhere."""
    tracker: Tracker
    monitor: Monitor
    bar: ProgressBar
    evaluate: Callable[[], dict[str, float]] | None
    samples: SampleWriter | None
    """Rank 0's, under --sample_interval."""
    flops_per_token: float
    peak_flops: float
    """Of one rank."""

    def __post_init__(self) -> None:
        self._tokens = 0
        self._clock = time.perf_counter()
        self.begin_epoch(0)

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

    def count(self, tokens: int, progress: Progress) -> None:
        """A micro-step with so many real tokens, over all ranks, is done."""
        self._tokens += tokens
        self.bar.update(progress.global_step)

    def log_is_due(self, step: int, at_end: bool) -> bool:
        return at_end or step % self.config.log_interval == 0

    def evaluation_is_due(self, step: int, at_end: bool) -> bool:
        if self.evaluate is None:
            return False
        return at_end or step % self.config.eval_interval == 0

    def sample_is_due(self, step: int, at_end: bool) -> bool:
        if self.samples is None:
            return False
        return at_end or step % self.config.sample_interval == 0

    def log(
        self,
        place: Place,
        progress: Progress,
        *,
        losses: torch.Tensor,
        grad_norm: torch.Tensor,
        learning_rate: float,
        epoch_minutes: float,
        sections: Mapping[str, float],
    ) -> None:
        """One point for console, metrics file and tracker.

        Args:
            losses: as of :meth:`LossMeter.read`, over all ranks.
            grad_norm: of the newest optimiser step, a scalar.
            learning_rate: of the optimiser step that ``place`` is in.
            epoch_minutes: what the whole epoch takes at the speed so far.
            sections: as of :meth:`StepTimer.read`.
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
            "tokens": progress.tokens,
            "tokens_per_second": speed,
            "mfu": speed * self.flops_per_token / (self.peak_flops * self.world_size),
            "skipped_steps": progress.skipped_steps,
            "elapsed_seconds": elapsed,
            **{f"{name}_seconds": seconds for name, seconds in sections.items()},
            **self.monitor.sample(),
        }
        log.info("%s", step_line(point, self.config.epochs))
        self.metrics.write(point)
        hidden = ("time", "epoch", "step", "iters", "total_steps")
        self.tracker.log(
            {name: value for name, value in point.items() if name not in hidden},
            **tracker_place(place, progress),
        )
        self.bar.update(progress.global_step, f"loss {point['loss']:.3f}")

    def log_evaluation(self, place: Place, progress: Progress) -> None:
        """Score the held-out documents, all ranks together, and tell the result."""
        assert self.evaluate is not None
        self.evaluated_at = place.step
        start = time.perf_counter()
        result = self.evaluate()
        # The next log line's speed is that of training.
        self._clock += time.perf_counter() - start
        if self.metrics is None:
            return
        log.info(
            "held-out loss: %.4f, bits_per_byte: %.4f", result["eval_loss"], result["bits_per_byte"]
        )
        where = {"epoch": place.epoch, "step": place.step, "global_step": progress.global_step}
        self.metrics.write({"time": time.time(), **where, **result})
        self.tracker.log(result, **tracker_place(place, progress))

    def write_samples(self, place: Place, progress: Progress) -> None:
        """Write what the model would go on with, on rank 0 alone."""
        assert self.samples is not None
        self.sampled_at = place.step
        start = time.perf_counter()
        self.samples.write(
            **tracker_place(place, progress),
            epoch=place.epoch,
            step=place.step,
            global_step=progress.global_step,
            tokens=progress.tokens,
        )
        self._clock += time.perf_counter() - start


def tracker_place(place: Place, progress: Progress) -> dict[str, int]:
    """Where the run is, as trackers count: see ``NullTracker.log``."""
    under_way = place.step != progress.step
    return {
        "micro_step": place.epoch * place.iters + place.step,
        "update": progress.global_step + under_way,
    }
