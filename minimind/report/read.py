"""Reads what a run left, or is leaving, in its folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from minimind.errors import ConfigError
from minimind.report.tidy import Record, read_flags, tidy
from minimind.rundir import causes
from minimind.rundir.events import Kind, is_fresh, read_events
from minimind.rundir.goodput import Account, account_for, events_of_metrics
from minimind.rundir.layout import (
    CHECKPOINTS,
    OUTPUT,
    OutputPaths,
    RunPaths,
    find_output,
    label,
    stem_of_flags,
)
from minimind.rundir.metrics import each_step_once, read_lines
from minimind.system.jsonl import read_object
from minimind.system.terminal import long_duration

REMARKABLE_SECONDS = 600.0
"""A launched run that has shown no sign of life for so long is remarked upon."""

SUBMISSION = (
    "cluster",
    "partition",
    "nodes",
    "gpus",
    "time_minutes",
    "image",
    "container",
)
"""What of ``spec.json`` is shown: no variables, whose values may be private."""


@dataclass(frozen=True)
class RunRecord:
    """One run, as far as it has come.

    Attributes:
        state: running, waiting, done, stopped, failed or cancelled.
        reason: why it ended, in the launcher's words.
        now: Unix seconds up to which it is told.
        points: logged training points, each step once, in order.
        held_out: held-out evaluations; both kinds hold numbers under the keys of the trainer.
        resumed_at: optimiser steps that the run went on from.
        launched: there is a launcher's event log; else attempts are known from the metrics only.
        checkpoints: file, size in bytes, time of writing.
    """

    name: str
    folder: Path
    state: str
    reason: str
    now: float
    points: list[Record]
    held_out: list[Record]
    resumed_at: list[int]
    account: Account
    launched: bool
    samples: list[Record]
    config: Record
    environment: Record
    submission: Record
    checkpoints: list[tuple[str, int, float]]
    varied: dict[str, str] = field(default_factory=dict)
    """What sets a point of a sweep apart: flag → value."""

    @property
    def label(self) -> str:
        """The name, and what sets a point of a sweep apart."""
        return label(self.name, self.varied)

    @property
    def step(self) -> int:
        return int(self.points[-1]["global_step"]) if self.points else 0

    @property
    def total_steps(self) -> int | None:
        return self.points[-1].get("total_steps") if self.points else None

    def last(self, key: str) -> float | None:
        """The newest value of a metric, of either kind of record."""
        for record in reversed([*self.points, *self.held_out]):
            if key in record:
                return float(record[key])
        return None

    def typical(self, key: str) -> float | None:
        """The median of a metric over all points: a slow start or a busy moment hardly counts."""
        values = sorted(v for p in self.points if math.isfinite(v := float(p.get(key, math.nan))))
        return values[len(values) // 2] if values else None


def read_run(path: Path, clock: Callable[[], float] = time.time) -> RunRecord:
    """Read a launcher's run folder, or the output folder (``--save_dir``) of a run.

    Raises:
        ConfigError: it is no such folder.
    """
    paths, out = RunPaths(path), _output_folder(path)
    spec = read_object(paths.spec_file)
    config = read_flags(out.config)
    checkpoints = _checkpoint_folders(paths, out.folder, config)
    lines = tidy(read_lines(out.metrics))
    records = each_step_once(lines)
    points = [r for r in records if "loss" in r and "global_step" in r]
    events = tidy(read_events(paths.events_file))
    launched, now = bool(events), clock()
    newest = max((r["time"] for r in (*lines, *events) if "time" in r), default=now)
    if launched:
        state, reason = _launched_state(paths, events)
        if state == "running" and now - newest > REMARKABLE_SECONDS:
            silence = long_duration(now - newest)
            reason = f"no sign of life for {silence}: launcher status tells more"
    else:
        state, reason = _plain_state(points, checkpoints, now), ""
        if state != "running":
            now = newest
        events = events_of_metrics(lines, over=state != "running")
    return RunRecord(
        name=_name(path),
        folder=path,
        state=state,
        reason=reason,
        now=now,
        points=points,
        held_out=[r for r in records if "eval_loss" in r and "global_step" in r],
        resumed_at=[
            r["global_step"] for r in lines if r.get("event") == Kind.RESUMED and "global_step" in r
        ],
        account=account_for(events, lines, now),
        launched=launched,
        samples=[
            r
            for r in each_step_once(tidy(read_lines(out.samples)))
            if {"global_step", "prompt", "text"} <= r.keys()
        ],
        config=config,
        environment=read_object(out.environment),
        submission={key: spec[key] for key in SUBMISSION if spec.get(key) not in (None, "", [])},
        checkpoints=_checkpoint_files(checkpoints, config),
        varied=_paths(path).varied(),
    )


def log_of(path: Path) -> Path | None:
    """What the newest attempt of a run has written; None where nothing has.

    Of a launched run what its rank 0 printed: that has the end of a crash.
    """
    logs = RunPaths(path).rank_logs()
    if logs:
        return logs[min(logs)]
    log = _output_folder(path).log()
    return log if log.is_file() else None


def _name(path: Path) -> str:
    """As the launcher calls it; an output folder ``out`` is called after the folder it is in."""
    return _paths(path).name


def _paths(path: Path) -> RunPaths:
    path = path.resolve()
    return RunPaths(path.parent if path.name == OUTPUT else path)


def _output_folder(path: Path) -> OutputPaths:
    if not path.is_dir():
        raise ConfigError(f"{path} is no folder; name a run folder, or the --save_dir of a run")
    found = find_output(path)
    if found is not None:
        return found
    # One that failed, or waits, before its first step.
    run = RunPaths(path)
    if run.spec_file.is_file() or run.events_file.is_file():
        return OutputPaths(run.output)
    for out in (OutputPaths(path), OutputPaths(run.output)):
        if out.log().is_file():
            return out
    if any(path.glob("*.pt")):
        raise ConfigError(
            f"{path} holds checkpoints only; name the run folder, or the run's --save_dir, "
            "where its metrics.jsonl is"
        )
    raise ConfigError(
        f"{path} is no run folder: it has neither metrics.jsonl nor events.jsonl; name a folder "
        "of the launcher's, or the --save_dir of a run"
    )


def _checkpoint_folders(run: RunPaths, out: Path, config: Record) -> list[Path]:
    return [run.checkpoints, out, out.parent / CHECKPOINTS, *named_checkpoints(config)]


def named_checkpoints(config: Record) -> list[Path]:
    """The folder of ``--checkpoint_dir``; none where it says nothing without its working folder."""
    named = Path(str(config.get("checkpoint_dir", "")))
    return [named] * named.is_absolute()


def _launched_state(run: RunPaths, events: list[Record]) -> tuple[str, str]:
    for marker in (run.done_marker, run.stopped_marker):
        if marker.is_file():
            final = read_object(marker)
            cause = str(final.get("cause", marker.name.lower()))
            reason = "" if cause == causes.DONE else str(final.get("reason", ""))
            return causes.state_after(cause), reason
    names = [e["event"] for e in events if e["event"] in (Kind.ATTEMPT_STARTED, Kind.ATTEMPT_ENDED)]
    return ("running" if names and names[-1] == Kind.ATTEMPT_STARTED else "waiting"), ""


def _plain_state(points: list[Record], checkpoints: Iterable[Path], now: float) -> str:
    """The state of a run without a launcher, whose lock in the checkpoint folder is its pulse."""
    if points and points[-1]["global_step"] >= points[-1].get("total_steps", math.inf):
        return "done"
    pulses = [written for _, _, written in _files(checkpoints, "*.lock")]
    return "running" if any(is_fresh(now - pulse) for pulse in pulses) else "stopped"


def _checkpoint_files(folders: Iterable[Path], config: Record) -> list[tuple[str, int, float]]:
    """Checkpoints and weights, newest first: of this run alone where its flags are known."""
    stem = f"{stem_of_flags(config)}." if config else ""
    found = [file for file in _files(folders, "*.pt*") if file[0].startswith(stem)]
    return sorted(found, key=lambda file: -file[2])


def _files(folders: Iterable[Path], pattern: str) -> list[tuple[str, int, float]]:
    """Name, size and time of writing, each file once though its folder be named twice."""
    found = {}
    for file in (file for folder in folders for file in folder.glob(pattern)):
        try:
            status = file.stat()
        except OSError:  # a run that goes on removes its oldest
            continue
        found[file.resolve()] = (file.name, status.st_size, status.st_mtime)
    return list(found.values())
