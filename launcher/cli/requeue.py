"""``requeue``: let a run go on."""

from __future__ import annotations

from launcher.cli.options import AsJson, RunName, RunsDir
from minimind.system.terminal import note, print_json


def requeue(run: RunName, runs_dir: RunsDir = None, as_json: AsJson = False) -> int:
    """Run it again from its newest checkpoint: a stopped, held or interrupted run."""
    from launcher.inspect.control import requeue_run
    from launcher.inspect.runs import find_run

    job_id = requeue_run(find_run(run, runs_dir))
    if as_json:
        print_json({"run": run, "job_id": job_id})
    else:
        note(f"{run} continues as job {job_id}")
    return 0
