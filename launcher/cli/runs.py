"""Commands about runs that exist: status, list, logs, why, cancel, requeue."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.cli.options import AsJson, RunName, RunsDir
from minimind.errors import ConfigError
from minimind.system.terminal import note, print_json

if TYPE_CHECKING:
    from launcher.inspect.run_state import RunState
    from launcher.spec.run_folder import RunFolder

WATCH_SECONDS = 2.0


def find_run(name: str, runs_dir: str | None) -> RunFolder:
    """The run called ``name``.

    Raises:
        ConfigError: there is none; the message names those that are there.
    """
    from launcher.spec.checks import check_name
    from launcher.spec.run_folder import RunFolder

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
    from launcher.spec.checks import NAME
    from launcher.spec.run_folder import RunFolder

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
    from launcher.spec.profile import load_profile
    from launcher.submit.resolve import runs_folder

    return runs_folder(runs_dir, load_profile(None))


def _read(runs: list[RunFolder]) -> list[tuple[RunState, dict[str, Any]]]:
    from launcher.inspect.run_state import Records, damaged, read_state
    from launcher.slurm import client as slurm
    from minimind.rundir.ledger import Account, account_for

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


def status(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="One run only.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep the table live.")] = False,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> int:
    """Show runs: state, nodes, attempt, step, loss, tok/s, ETA, restarts by cause, goodput."""
    from launcher.cli.output import runs_table

    def rows() -> list[tuple[RunState, dict[str, Any]]]:
        return _read([find_run(run, runs_dir)] if run else all_runs(runs_dir))

    if as_json:
        found = [{**state.to_dict(), "ledger": books} for state, books in rows()]
        print_json(found[0] if run else found)
        return 0
    from rich.console import Console
    from rich.live import Live

    # A file or pipe has no width to fit into.
    console = Console() if sys.stdout.isatty() else Console(width=200)

    def table() -> Any:
        return runs_table([(state, books["goodput"]) for state, books in rows()])

    if not watch:
        console.print(table(), soft_wrap=True)
        return 0
    with Live(table(), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(WATCH_SECONDS)
                live.update(table(), refresh=True)
        except KeyboardInterrupt:
            return 0


def list_runs(runs_dir: RunsDir = None, as_json: AsJson = False) -> int:
    """List the runs, one line each."""
    rows = [state for state, _ in _read(all_runs(runs_dir))]
    if as_json:
        print_json(
            [
                {"run": s.name, "state": s.state, "job_id": s.job_id, "run_dir": s.run_dir}
                for s in rows
            ]
        )
        return 0
    for state in rows:
        print(f"{state.name}\t{state.state}\t{state.run_dir}")
    return 0


def logs(
    run: RunName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing.")] = False,
    rank: Annotated[int | None, typer.Option(help="One rank (0 unless it says nothing).")] = None,
    attempt: Annotated[int | None, typer.Option(help="One attempt (the newest).")] = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> int:
    """Print a rank's log."""
    from launcher.inspect.logs import log_files, print_log

    folder = find_run(run, runs_dir)
    files = log_files(folder, attempt)
    if as_json:
        print_json({"run": run, "logs": {str(number): str(path) for number, path in files.items()}})
        return 0
    if rank is not None and files and rank not in files:
        raise ConfigError(f"--rank {rank}: this attempt has ranks {min(files)} to {max(files)}")
    print_log(folder, rank or 0, attempt, follow=follow)
    return 0


def why(run: RunName, runs_dir: RunsDir = None, as_json: AsJson = False) -> int:
    """Say why a run is pending or held, why its attempts ended, and what to do."""
    from launcher.inspect.explain import explain

    found = explain(find_run(run, runs_dir))
    if as_json:
        print_json(found.to_dict())
        return 0
    print(f"{run}: {found.state}" + (f" — {found.summary}" if found.summary else ""))
    for line in found.attempts:
        print(f"  {line}")
    if found.traceback:
        print("The first error:")
        print(found.traceback.rstrip())
    for line in found.advice:
        print(f"→ {line}")
    return 0


def cancel(run: RunName, runs_dir: RunsDir = None, as_json: AsJson = False) -> int:
    """Stop a run for good. It saves a checkpoint first, and `requeue` can still continue it."""
    from launcher.inspect.control import cancel_run

    said = cancel_run(find_run(run, runs_dir))
    print_json({"run": run, "result": said}) if as_json else note(said)
    return 0


def requeue(run: RunName, runs_dir: RunsDir = None, as_json: AsJson = False) -> int:
    """Run it again from its newest checkpoint: a stopped, held or interrupted run."""
    from launcher.inspect.control import requeue_run

    job_id = requeue_run(find_run(run, runs_dir))
    if as_json:
        print_json({"run": run, "job_id": job_id})
    else:
        note(f"{run} continues as job {job_id}")
    return 0


def register(app: typer.Typer) -> None:
    """Adds this module's commands to the application."""
    app.command(epilog="Example: launcher status first --watch")(status)
    app.command("list", epilog="Example: launcher list --json")(list_runs)
    app.command(epilog="Example: launcher logs first -f --rank 1")(logs)
    app.command(epilog="Example: launcher why first")(why)
    app.command(epilog="Example: launcher cancel first")(cancel)
    app.command(epilog="Example: launcher requeue first")(requeue)
