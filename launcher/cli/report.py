"""``report``: runs as one page, or as one that follows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.cli.options import AsJson, RunsDir


def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names of runs.")],
    serve: Annotated[
        bool, typer.Option("--serve", help="Show a page that follows the runs, until Ctrl-C.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(help="Of --serve, on this machine (a free one).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The page (report.html in the run's folder).")
    ] = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> int:
    """Write one HTML page about runs: curves, attempts, lost time, samples of text."""
    from launcher.inspect.runs import find_run
    from minimind.cli.report import main as minimind_report

    words = [str(find_run(run, runs_dir).root) for run in runs]
    if serve or port is not None:
        words += ["--serve", str(port or 0)]
    if out is not None:
        words += ["--out", str(out)]
    return minimind_report([*words, *["--json"] * as_json])
