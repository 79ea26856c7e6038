"""What a person sees: log records, the line of a step, a progress bar on a terminal."""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from minimind.rundir.layout import OutputPaths
from minimind.system.terminal import let_go, short_duration
from minimind.telemetry.meters import SECTIONS

PACKAGE_LOGGER = "minimind"


class _ConsoleHandler(logging.StreamHandler):
    """Writes to whatever ``sys.stdout`` is now, so that lines pass above a progress bar."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stdout

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and error.errno in (errno.EIO, errno.EPIPE):
            # A lost terminal or reader; the bar, and Python's own end, would fail on it too.
            let_go(sys.stdout)
        else:
            super().handleError(record)


class _ConsoleFormatter(logging.Formatter):
    """The bare message; its level in front when something is wrong. Tracebacks go to the file."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.prefix = f"[rank {rank}] " if rank else ""

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        return f"{self.prefix}{level}{record.getMessage()}"


class _FileHandler(logging.FileHandler):
    """A log that may have gaps: a disk that refuses it is one line on the console."""

    _refused = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            # The file is opened with the first record.
            self.handleError(record)

    def flush(self) -> None:
        super().flush()
        self._refused = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._refused:
            self._refused = True
            with contextlib.suppress(OSError):
                print(
                    f"WARNING: {self.baseFilename} cannot be written: {error.strerror or error}",
                    flush=True,
                )


@contextlib.contextmanager
def logging_to_console(level: str, rank: int) -> Iterator[None]:
    """Rank 0 speaks on the console; the others only when something is wrong."""
    logger = logging.getLogger(PACKAGE_LOGGER)
    handler = _ConsoleHandler()
    handler.setFormatter(_ConsoleFormatter(rank))
    handler.setLevel(level.upper() if rank == 0 else logging.WARNING)
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextlib.contextmanager
def logging_to_file(folder: Path, rank: int) -> Iterator[Path]:
    """Everything of rank 0 goes to ``train.log``; what goes wrong elsewhere to its own file."""
    logger = logging.getLogger(PACKAGE_LOGGER)
    path = OutputPaths(folder).log(rank)
    handler = _FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s [rank {rank}] %(levelname)s %(name)s: %(message)s")
    )
    handler.setLevel(logging.DEBUG if rank == 0 else logging.WARNING)
    logger.addHandler(handler)
    try:
        yield path
    finally:
        logger.removeHandler(handler)
        # What the disk refuses to the end is no reason to lose a run's exit code.
        with contextlib.suppress(OSError):
            handler.close()


def step_line(point: dict[str, Any], epochs: int) -> str:
    """The console line of one logged point; the first six fields are a contract.

    ``epoch_time`` is the whole epoch's estimated duration at the speed so far; ``time_left`` is
    to the end of the run.
    """
    fields = [
        f"Epoch:[{point['epoch'] + 1}/{epochs}]({point['step']}/{point['iters']})",
        f"loss: {point['loss']:.4f}",
        f"logits_loss: {point['logits_loss']:.4f}",
        f"aux_loss: {point['aux_loss']:.4f}",
        f"learning_rate: {point['learning_rate']:.8f}",
        f"epoch_time: {point['epoch_minutes']:.3f}min",
        f"tok/s: {point['tokens_per_second']:,.0f}",
        f"MFU: {point['mfu']:.1%}",
        _time_split(point),
    ]
    memory = point.get("gpu_memory_peak_gb", point.get("host_memory_gb"))
    if memory is not None:
        fields.append(f"memory: {memory:.1f}GB")
    if point.get("gpu_utilization") is not None:
        fields.append(
            f"GPU: {point['gpu_utilization']:.0f}% {point.get('gpu_temperature', 0):.0f}°C"
        )
    fields.append(f"time_left: {short_duration(point['seconds_left'])}")
    return ", ".join(fields)


def _time_split(point: dict[str, Any]) -> str:
    """What shares of the time since the last line the parts of a step took, in percent."""
    seconds = [point[f"{name}_seconds"] for name in SECTIONS]
    total = max(point["elapsed_seconds"], sum(seconds), 1e-9)
    shares = "/".join(f"{100 * value / total:.0f}" for value in seconds)
    return f"{'/'.join(SECTIONS)}: {shares}%"


TRAINING = "training"
"""The phase in which a bar moves."""


class ProgressBar:
    """A bar over the optimiser steps of the run, on a terminal; nothing in a file or a pipe."""

    def __init__(self, total_steps: int, done: int, *, visible: bool) -> None:
        self._progress: Any = None
        if not (visible and sys.stdout.isatty()):
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[note]}"),
            transient=True,
        )
        self._task = self._progress.add_task(
            TRAINING, total=total_steps, completed=done, note="", left=""
        )

    def __enter__(self) -> ProgressBar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, done: int, seconds_left: float, note: str | None = None) -> None:
        """Show ``done`` optimiser steps and the time left; ``note`` stays until the next one."""
        if self._progress is not None:
            fields = {"left": f"{short_duration(seconds_left)} left"}
            fields |= {} if note is None else {"note": note}
            self._progress.update(self._task, completed=done, **fields)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Say that the run does something else than training: no step is done meanwhile."""
        if self._progress is None:
            yield
            return
        self._progress.update(self._task, description=name)
        try:
            yield
        finally:
            self._progress.update(self._task, description=TRAINING)
