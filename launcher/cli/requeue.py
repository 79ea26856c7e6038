"""``requeue``: let a run go on."""

from __future__ import annotations

from launcher.cli.options import AsJson, RunName, RunsDir
from minimind.system.terminal import note, print_json


def requeue(run: RunName, runs_dir: RunsDir = None, as_json: AsJson = False) -> int:
    """Run it again from its newest checkpoint: a stopped, held or interrupted run."""
    from launcher.cli.output import warn_of_lost_checkpoint
    from launcher.inspect.control import requeue_run
    from launcher.inspect.runs import find_run

    found = find_run(run, runs_dir)
    warn_of_lost_checkpoint(found, found.spec(), new_code=False)
    job_id = requeue_run(found)
    if as_json:
        print_json({"run": run, "job_id": job_id})
    else:
        note(f"{run} continues as job {job_id}")
    return 0
