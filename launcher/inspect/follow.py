"""``--wait``: follows a run through all its attempts."""

from __future__ import annotations

import time

from launcher.inspect import run_state as state
from launcher.slurm import client as slurm
from launcher.slurm.parse import JobInfo
from launcher.spec.run_folder import RunFolder
from launcher.submit.resolve import runs_dir_flag
from launcher.supervise import exclusion
from minimind.errors import EXIT_RUN_ME_AGAIN
from minimind.rundir import causes
from minimind.rundir.events import Kind
from minimind.system.terminal import note, print_json

POLL_SECONDS = 1.0
ASK_SECONDS = 10.0
"""How long an answer of Slurm's counts. Its controller serves a whole cluster, and many wait."""
ADMIT_SECONDS = 300.0
"""How often a job that waits is let have nodes that were left out of it for long enough."""
CONFIRMATIONS = 5
"""A job can be between two states while Slurm requeues it: look again before giving up."""


class StateWatch:
    """The state of a run for those who look again and again: its folder each time, Slurm seldom."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._on_slurm = run.spec().cluster == "slurm"
        self._jobs: dict[str, JobInfo] | None = {}
        self._asked_at = float("-inf")
        self._asked_after = 0

    def look(self, *, fresh: bool = False) -> tuple[str, str, int | None]:
        """``(state, reason, exit code)``; Slurm's answer is new when ``fresh``."""
        events = self._run.events()
        if self._on_slurm and self._run.final() is None:
            # What ends or begins changes what Slurm says: then an answer from before is none.
            turns = sum(event["event"] in (Kind.SUBMITTED, Kind.ATTEMPT_ENDED) for event in events)
            old = time.monotonic() - self._asked_at >= ASK_SECONDS
            if fresh or old or turns != self._asked_after:
                job_id = self._run.job_id()
                self._jobs = slurm.job_states(job_id) if job_id else {}
                self._asked_at, self._asked_after = time.monotonic(), turns
        return state.job_state(self._run, self._jobs, events)


def follow(run_dir: str, *, as_json: bool = False) -> int:
    """Waits for the run's end and returns its exit status.

    A held or interrupted run waits for a person: 75, run me again.
    """
    run = RunFolder(run_dir)
    watch = StateWatch(run)
    seen, doubtful, admitted_at = 0, 0, float("-inf")
    while True:
        events = run.events()
        for event in events[seen:]:
            _tell(event)
        seen = len(events)
        now, reason, code = watch.look(fresh=doubtful > 0)
        if now in (state.DONE, state.FAILED):
            break
        stuck = now in (state.HELD, state.INTERRUPTED, state.CANCELLED)
        doubtful = doubtful + 1 if stuck else 0
        if doubtful >= CONFIRMATIONS:
            break
        waits = now in (state.PENDING, state.REQUEUED)
        if waits and time.monotonic() - admitted_at >= ADMIT_SECONDS:
            for node in exclusion.admit_expired(run, run.spec(), run.job_id() or ""):
                note(exclusion.said_of_admitted(node))
            admitted_at = time.monotonic()
        time.sleep(POLL_SECONDS)
    for event in run.events()[seen:]:
        _tell(event)
    exit_code = EXIT_RUN_ME_AGAIN if code is None else code
    if as_json:
        result = {"run": run.name, "state": now, "reason": reason, "exit_code": exit_code}
        print_json({**result, "run_dir": run_dir, "job_id": run.job_id()})
    else:
        note(f"{run.name}: {now}" + (f" ({reason})" if reason else ""))
        if exit_code:
            note(f"launcher why {run.name}{runs_dir_flag(run)} says more")
    return exit_code


def _tell(event: dict[str, object]) -> None:
    name = event.get("event")
    if name == Kind.ATTEMPT_STARTED:
        nodes = event.get("nodes")
        where = ", ".join(str(node) for node in nodes) if isinstance(nodes, list) else ""
        note(f"attempt {event.get('attempt')} starts on {where}")
    elif name == Kind.ATTEMPT_ENDED:
        note(
            f"attempt {event.get('attempt')} {causes.described(str(event.get('cause')))} "
            f"at step {event.get('step')}"
        )
