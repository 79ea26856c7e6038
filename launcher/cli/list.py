"""``list``: which runs there are."""

from __future__ import annotations

from launcher.cli.options import AsJson, RunsDir
from minimind.system.terminal import print_json


def list_runs(runs_dir: RunsDir = None, as_json: AsJson = False) -> int:
    """List the runs, one line each."""
    from launcher.inspect.runs import all_runs, read_runs

    rows = [state for state, _ in read_runs(all_runs(runs_dir))]
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
