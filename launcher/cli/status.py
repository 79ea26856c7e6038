"""``status``: what runs do now."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from launcher.cli.options import AsJson, RunsDir
from minimind.system.terminal import print_json

WATCH_SECONDS = 2.0


def status(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="One run only.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep the table live.")] = False,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> int:
    """Show runs: state, nodes, attempt, step, loss, tok/s, ETA, restarts by cause, goodput."""
    from launcher.cli.output import runs_table
    from launcher.inspect.runs import all_runs, find_run, read_runs

    def rows() -> list[tuple[Any, dict[str, Any]]]:
        return read_runs([find_run(run, runs_dir)] if run else all_runs(runs_dir))

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
