"""Where everything of a run is: the launcher's run folder, and the training's output folder.

Whoever reads or writes a file of a run asks here for its path. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minimind.system.jsonl import read_object

OUTPUT, CHECKPOINTS = "out", "checkpoints"
"""The training's folders in a run folder, unless its flags name others."""

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_RANK_LOG = re.compile(r"rank-([0-9]{1,9})\.log")
_CHECKPOINT = re.compile(r"(.+)_([0-9]+)(_moe)?(?:\.step[0-9]{10})?\.pt")


class RunPaths:
    """The folder that the launcher makes for a run."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.spec_file = self.root / "spec.json"
        self.events_file = self.root / "events.jsonl"
        self.secrets_file = self.root / "secrets.json"
        self.code = self.root / "code"
        self.submitit = self.root / "submitit"
        self.attempts = self.root / "attempts"
        self.current_file = self.attempts / "current"
        self.batch_log = self.root / "batch.log"
        self.supervisor_lock = self.root / "supervisor.lock"
        self.done_marker = self.root / "DONE"
        self.stopped_marker = self.root / "STOPPED"
        self.output = self.root / OUTPUT
        self.checkpoints = self.root / CHECKPOINTS
        self.probe = self.root / ".probe"
        """How the names of files begin that nodes write and remove, to see whether they can."""
        self.sweep_file = self.root / "sweep.json"
        """In a folder whose sub-folders are the points of a sweep."""

    @property
    def name(self) -> str:
        """The name that commands know the run by; a point of a sweep is ``SWEEP/INDEX``."""
        folder = self.root.parent
        is_point = RunPaths(folder).sweep_file.exists()
        return f"{folder.name}/{self.root.name}" if is_point else self.root.name

    def varied(self) -> dict[str, str]:
        """Flag → value, of those that set a point of a sweep apart; empty for any other run."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            points = json.loads(RunPaths(self.root.parent).sweep_file.read_text())
            (mine,) = (p for p in points if Path(p["run_dir"]).name == self.root.name)
            return {str(flag): str(value) for flag, value in mine["flags"].items()}
        return {}

    def attempt_numbers(self) -> list[int]:
        """The numbers of all attempts so far, ascending."""
        if not self.attempts.is_dir():
            return []
        return sorted(int(p.name) for p in self.attempts.iterdir() if _NUMBER.fullmatch(p.name))

    def attempt_dir(self, number: int) -> Path:
        """Where the logs of attempt ``number`` (from 1) lie."""
        return self.attempts / str(number)

    def rank_log(self, attempt: int, rank: int | str) -> Path:
        """The log of one rank; ``%t`` for Slurm, which puts the rank there."""
        return self.attempt_dir(attempt) / f"rank-{rank}.log"

    def rank_logs(self, attempt: int | None = None) -> dict[int, Path]:
        """Rank → its log, of one attempt, by default the newest; only of ranks that have one."""
        folder = self.attempt_dir(attempt or max(self.attempt_numbers(), default=0))
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        found = {int(m[1]): folder / m[0] for m in map(_RANK_LOG.fullmatch, names) if m}
        return dict(sorted(found.items()))

    def srun_log(self, attempt: int) -> Path:
        """What srun itself said of an attempt."""
        return self.attempt_dir(attempt) / "srun.log"

    def step_file(self, attempt: int) -> Path:
        """Where the ranks of an attempt report the number of their step in Slurm's job."""
        return self.attempt_dir(attempt) / "step"

    def start_logs(self) -> list[Path]:
        """The logs of all that started attempts: the batch script's, the local executor's."""
        logs = [self.batch_log, *self.submitit.glob("*_log.err")]
        return [log for log in logs if log.is_file()]


def label(name: str, varied: Mapping[str, str]) -> str:
    """A run's name and what sets it apart: ``grid/0 learning_rate=1e-3``."""
    return " ".join([name, *(f"{flag}={value}" for flag, value in varied.items())])


class OutputPaths:
    """The folder of ``--save_dir``: weights and records of a run."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.metrics = self.folder / "metrics.jsonl"
        self.samples = self.folder / "samples.jsonl"
        self.config = self.folder / "config.toml"
        self.environment = self.folder / "environment.json"
        self.loss_curve = self.folder / "loss.png"
        self.profile = self.folder / "profile"
        self.swanlog = self.folder / "swanlog"
        self.tensorboard = self.folder / "tensorboard"
        self.records_lock = self.folder / "records.lock"

    def log(self, rank: int = 0) -> Path:
        """What a rank's loggers say."""
        return self.folder / ("train.log" if rank == 0 else f"train.rank{rank}.log")

    def logs(self) -> list[Path]:
        """The logs of all ranks that have one."""
        return sorted(self.folder.glob("train*.log"))

    def rows(self, rank: int) -> Path:
        """What ``--record_rows`` keeps of a rank."""
        return self.folder / f"rows.rank{rank}.jsonl"

    def all_rows(self) -> list[Path]:
        """Those of all ranks that are in use; archives have a number more in their names."""
        return [path for path in self.folder.glob("rows.rank*.jsonl") if path.name.count(".") == 2]

    def weight_file(self, stem: str) -> Path:
        """The weights of a run whose :func:`stem_of` this is."""
        return self.folder / f"{stem}.pth"

    def saved(self, stem: str) -> Path:
        """What a run has on record as saved (:mod:`minimind.rundir.saved`)."""
        return self.folder / f"{stem}.saved.json"


def stem_of(save_weight: object, hidden_size: object, use_moe: object) -> str:
    """What the names of a run's weights and checkpoints begin with."""
    return f"{save_weight}_{hidden_size}{'_moe' if use_moe else ''}"


def stem_of_flags(flags: Mapping[str, Any]) -> str:
    """The :func:`stem_of` a run with these flags."""
    return stem_of(flags.get("save_weight"), flags.get("hidden_size"), flags.get("use_moe"))


def flags_of_checkpoint(name: str) -> dict[str, Any] | None:
    """The flags that a checkpoint is named after (:func:`stem_of`); None: it is another file."""
    match = _CHECKPOINT.fullmatch(name)
    if match is None:
        return None
    return {"save_weight": match[1], "hidden_size": int(match[2]), "use_moe": int(bool(match[3]))}


def checkpoint_file(folder: Path | str, stem: str) -> Path:
    """The newest checkpoint of a run."""
    return Path(folder) / f"{stem}.pt"


def earlier_checkpoint(newest: Path, step: int) -> Path:
    """The checkpoint of optimiser step ``step`` that is kept beside the newest one."""
    return newest.with_name(f"{newest.stem}.step{step:010d}.pt")


def earlier_step(newest: Path, path: Path) -> int | None:
    """The step in the name of an :func:`earlier_checkpoint`; None: it is another file."""
    match = re.fullmatch(re.escape(newest.stem) + r"\.step(\d{10})\.pt", path.name)
    return int(match[1]) if match else None


def earlier_checkpoints(newest: Path) -> list[Path]:
    """All :func:`earlier_checkpoint` files beside the newest one, newest first.

    Raises:
        OSError: their folder cannot be read; one that is not there holds none.
    """
    try:
        names = os.listdir(newest.parent)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [newest.with_name(name) for name in names]
    return sorted((path for path in found if earlier_step(newest, path) is not None), reverse=True)


def checkpoints_of(newest: Path) -> list[Path]:
    """All checkpoints that a run can go on from, newest first, unverified.

    Raises:
        OSError: their folder cannot be read; one that is not there holds none.
    """
    # The folder is read first: over NFS only that asks the server for names it did not have.
    earlier = earlier_checkpoints(newest)
    return [path for path in (newest, *earlier) if path.exists()]


def lock_of(checkpoint: Path) -> Path:
    """The lock of the run that writes a checkpoint."""
    return checkpoint.with_suffix(".lock")


def find_output(folder: Path) -> OutputPaths | None:
    """The output folder of a run, by its run folder, or by itself; None: it has no metrics yet.

    A launched run may have a ``--save_dir`` of its own, which its spec names.
    """
    named = read_object(RunPaths(folder).spec_file).get("save_dir")
    folders = [folder, folder / OUTPUT, *([Path(named)] if isinstance(named, str) else [])]
    for paths in map(OutputPaths, folders):
        if paths.metrics.is_file():
            return paths
    return None
