"""``cancel``: stop a run for good."""

from __future__ import annotations

from launcher.cli.options import AsJson, RunName, RunsDir
from minimind.system.terminal import note, print_json


def cancel(run: RunName, runs_dir: RunsDir = None, as_json: AsJson = False) -> int:
    """Stop a run for good. It saves a checkpoint first, and `requeue` can still continue it."""
    from launcher.inspect.control import cancel_run
    from launcher.inspect.runs import find_run

    said = cancel_run(find_run(run, runs_dir))
    print_json({"run": run, "result": said}) if as_json else note(said)
    return 0
