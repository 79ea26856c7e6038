"""``--wait``: follows a run through all its attempts."""

from __future__ import annotations

import time

from launcher import causes, slurm, state
from launcher.output import cause_text, note, print_json
from launcher.runs import RunFolder

POLL_SECONDS = 1.0
CONFIRMATIONS = 5
"""A job can be between two states while Slurm requeues it: look again before giving up."""


def follow(run_dir: str, *, as_json: bool = False) -> int:
    """Waits for the run's end and returns its exit status.

    A held or interrupted run waits for a person: 75, run me again.
    """
    run = RunFolder(run_dir)
    seen, doubtful = 0, 0
    while True:
        events = run.events()
        for event in events[seen:]:
            _tell(event)
        seen = len(events)
        jobs = slurm.job_states() if run.spec().cluster == "slurm" else {}
        now, reason, code = state.job_state(run, jobs)
        if now in (state.DONE, state.FAILED):
            break
        stuck = now in (state.HELD, state.INTERRUPTED, state.CANCELLED)
        doubtful = doubtful + 1 if stuck else 0
        if doubtful >= CONFIRMATIONS:
            break
        time.sleep(POLL_SECONDS)
    for event in run.events()[seen:]:
        _tell(event)
    exit_code = causes.EXIT_RUN_ME_AGAIN if code is None else code
    if as_json:
        result = {"run": run.name, "state": now, "reason": reason, "exit_code": exit_code}
        print_json({**result, "run_dir": run_dir, "job_id": run.job_id()})
    else:
        note(f"{run.name}: {now}" + (f" ({reason})" if reason else ""))
        if exit_code:
            note(f"launcher why {run.name} says more")
    return exit_code


def _tell(event: dict[str, object]) -> None:
    name = event.get("event")
    if name == "attempt_started":
        nodes = event.get("nodes")
        where = ", ".join(str(node) for node in nodes) if isinstance(nodes, list) else ""
        note(f"attempt {event.get('attempt')} starts on {where}")
    elif name == "attempt_ended":
        note(
            f"attempt {event.get('attempt')} {cause_text(str(event.get('cause')))} "
            f"at step {event.get('step')}"
        )
