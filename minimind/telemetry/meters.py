"""What happened since the last log line: losses on the device, times on the clock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.profiler import record_function

from minimind.distributed.device import sum_dtype, synchronize, timing_events

SECTIONS = ("data", "compute", "optimizer", "checkpoint")
ALONE = "alone"


class LossMeter:
    """Sums losses on the device, so that reading them is the only host sync.

    Each sum has three values, in float64 (float32 where a device has no other), of this rank:
    cross-entropy (nats), aux loss weighted with scored tokens, and the number of scored tokens.
    The micro-steps of the optimiser step under way are kept apart, so that they can be dropped
    with it.
    """

    def __init__(self, device: torch.device) -> None:
        self.complete = torch.zeros(3, dtype=sum_dtype(device), device=device)
        self.window = torch.zeros_like(self.complete)

    def add(self, loss_sum: torch.Tensor, aux_loss: torch.Tensor, targets: torch.Tensor) -> None:
        """Add one micro-step: scalars, still on the device."""
        dtype = self.window.dtype
        self.window += torch.stack(
            (loss_sum.to(dtype), aux_loss.to(dtype) * targets, targets.to(dtype))
        )

    def close_window(self, *, taken: bool) -> None:
        """The optimiser step was taken, or was not and its losses do not count."""
        if taken:
            self.complete += self.window
        self.window = torch.zeros_like(self.window)

    def read(self) -> torch.Tensor:
        """The sums since the last read, on the CPU, and start again: waits for the device."""
        total = (self.complete + self.window).cpu().double()
        self.complete = torch.zeros_like(self.complete)
        self.window = torch.zeros_like(self.window)
        return total

    def snapshot(self) -> torch.Tensor:
        """What a checkpoint keeps at an optimiser-step boundary: [3]."""
        return self.complete.clone()

    def restore(self, complete: torch.Tensor) -> None:
        """Go back to a :meth:`snapshot`."""
        self.complete = complete.to(self.complete.dtype).to(self.complete.device).clone()
        self.window = torch.zeros_like(self.window)


@dataclass
class StepTimer:
    """Where the seconds of a step go, by section.

    On an accelerator the sections that queue kernels are timed with its events, which are read
    only at a log line, when it is synchronised anyway. A profiler sees the sections by name.
    """

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SECTIONS, 0.0))
    _alone: float = 0.0
    _events: list[tuple[str, Any, Any]] = field(default_factory=list)

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        with record_function(name):
            yield from self._timed(name)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """A part of a step in which this rank waits for no other; may lie within a section."""
        yield from self._timed(ALONE)

    def read_alone(self) -> float:
        """Seconds of such parts up to the newest :meth:`read`, and start again."""
        seconds, self._alone = self._alone, 0.0
        return seconds

    def _add(self, name: str, seconds: float) -> None:
        if name == ALONE:
            self._alone += seconds
        else:
            self.seconds[name] += seconds

    def _timed(self, name: str) -> Iterator[None]:
        queues = name in ("compute", "optimizer", ALONE)
        if queues and (events := timing_events(self.device)) is not None:
            begin, end = events
            begin.record()
            yield
            end.record()
            self._events.append((name, begin, end))
            return
        start = time.perf_counter()
        yield
        self._add(name, time.perf_counter() - start)

    def read(self) -> dict[str, float]:
        """Seconds per section since the last read, and start again."""
        if self._events:
            synchronize(self.device)
            for name, begin, end in self._events:
                self._add(name, begin.elapsed_time(end) / 1000)
            self._events.clear()
        result, self.seconds = self.seconds, dict.fromkeys(SECTIONS, 0.0)
        return result
