"""Finding runs by their names, and reading many at once."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from launcher.inspect.run_state import Records, RunState, damaged, read_state
from launcher.slurm import client as slurm
from launcher.spec.checks import NAME, check_name
from launcher.spec.profile import load_profile
from launcher.spec.run_folder import RunFolder
from launcher.submit.resolve import runs_folder
from minimind.errors import ConfigError
from minimind.rundir.goodput import Account, account_for


def find_run(name: str, runs_dir: str | None) -> RunFolder:
    """The run called ``name``.

    Raises:
        ConfigError: there is none; the message names those that are there.
    """
    root = _root(runs_dir)
    for part in name.split("/"):
        check_name(part)
    run = RunFolder(root / name)
    if not run.exists():
        known = ", ".join(found.name for found in all_runs(runs_dir)) or "none"
        raise ConfigError(f"no run {name} in {root}; there are: {known}")
    return run


def all_runs(runs_dir: str | None) -> list[RunFolder]:
    """All runs, the oldest first; the points of a sweep as ``SWEEP/POINT``."""
    root = _root(runs_dir)
    found = []
    for path in [*root.glob("*/spec.json"), *root.glob("*/*/spec.json")]:
        # A folder of another name was not made by us, and one may vanish while we look.
        names = path.parent.relative_to(root).parts
        with contextlib.suppress(OSError):
            if all(NAME.fullmatch(name) for name in names):
                found.append((path.stat().st_mtime, RunFolder(path.parent)))
    return [run for _, run in sorted(found, key=lambda entry: entry[0])]


def _root(runs_dir: str | None) -> Path:
    return runs_folder(runs_dir, load_profile(None))


def read_runs(runs: list[RunFolder]) -> list[tuple[RunState, dict[str, Any]]]:
    """The state of each run, and its ledger, as JSON has it."""
    jobs = slurm.job_states() if slurm.available() else None
    rows = []
    for run in runs:
        try:
            records = Records.read(run)
            state = read_state(run, jobs, records)
        except ConfigError as error:
            rows.append((damaged(run, error), Account().to_dict()))
            continue
        books = account_for(records.events, records.points, time.time())
        rows.append((state, books.to_dict()))
    return rows
