"""``logs``: what a rank has written."""

from __future__ import annotations

from typing import Annotated

import typer

from launcher.cli.options import AsJson, RunName, RunsDir
from minimind.errors import ConfigError
from minimind.system.terminal import print_json


def logs(
    run: RunName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing.")] = False,
    rank: Annotated[int | None, typer.Option(help="One rank (0 unless it says nothing).")] = None,
    attempt: Annotated[int | None, typer.Option(help="One attempt (the newest).")] = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> int:
    """Print a rank's log."""
    from launcher.inspect.logs import print_log
    from launcher.inspect.runs import find_run

    folder = find_run(run, runs_dir)
    files = folder.rank_logs(attempt)
    if as_json:
        print_json({"run": run, "logs": {str(number): str(path) for number, path in files.items()}})
        return 0
    if rank is not None and files and rank not in files:
        raise ConfigError(f"--rank {rank}: this attempt has ranks {min(files)} to {max(files)}")
    print_log(folder, rank or 0, attempt, follow=follow)
    return 0
