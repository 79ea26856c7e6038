"""The records of one attempt: its start, its end, and the end of one that nobody saw end."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import Final, RunFolder
from launcher.supervise.restart_policy import Decision, decide
from minimind.errors import EXIT_CANCELLED
from minimind.rundir import causes
from minimind.rundir.events import Event, Kind, last_step, of_attempt


def record_submission(run: RunFolder, spec: JobSpec, job_id: str, **values: Any) -> None:
    """Puts a person's wish that the run go on into its event log. Budgets begin anew."""
    size = {"cluster": spec.cluster, "nodes": spec.nodes, "gpus": spec.gpus}
    run.append(Kind.SUBMITTED, job_id=job_id, **size, **values)


def begin(run: RunFolder, **values: Any) -> int:
    """Opens the next attempt and returns its number."""
    number = run.new_attempt()
    run.append(Kind.ATTEMPT_STARTED, attempt=number, **values)
    for leftover in run.submitit.glob("*.save_tmp"):
        # A result that a killed attempt was writing would stop submitit from writing another.
        leftover.unlink(missing_ok=True)
    return number


def say(text: str) -> None:
    """A line into the batch log. It may lie on a full disk, which must not stop what is told of."""
    with contextlib.suppress(OSError):
        os.write(1, f"{text}\n".encode())


def record(run: RunFolder, event: str, **values: Any) -> None:
    """Appends an event of an attempt's end. What follows from it must happen on a full disk too."""
    try:
        run.append(event, **values)
    except OSError as error:
        number = values.get("attempt")
        say(f"launcher: {event} of attempt {number} is not on record: {error.strerror}")


def end(run: RunFolder, spec: JobSpec, number: int, cause: str, exit_code: int | None) -> Decision:
    """Records how attempt ``number`` ended and what follows from it.

    The decision is on disk before anyone acts on it: a supervisor that dies in between leaves
    no doubt. What a full disk does not take, the next attempt records as a lost one's end.

    Raises:
        OSError: the run is over, and that cannot be marked.
    """
    events = run.events()
    mine = of_attempt(events, number)
    step = last_step(mine)
    before = last_step(events[: events.index(mine[0])]) if mine else 0
    ended: Event = {
        "attempt": number,
        "cause": cause,
        "exit_code": exit_code,
        "step": max(step, before),
        "progressed": step > before,
        "trained": any(event["event"] in (Kind.STARTED, Kind.RESUMED) for event in mine),
    }
    record(run, Kind.ATTEMPT_ENDED, **ended)
    decision = decide(spec, [*endings(events), {"event": Kind.ATTEMPT_ENDED, **ended}])
    if decision.final is not None:
        record(run, Kind.RUN_ENDED, attempt=number, **vars(decision.final))
        run.finish(decision.final)
    return decision


def cancel(run: RunFolder) -> Final:
    """Ends a run that no attempt is under way of, because the user says so."""
    final = Final(causes.CANCELLED, EXIT_CANCELLED, causes.DESCRIPTIONS[causes.CANCELLED])
    run.finish(final)
    return final


def endings(events: list[Event]) -> list[Event]:
    """The ``attempt_ended`` events since the user last submitted, requeued or resumed the run.

    Budgets begin anew whenever a person says "go on".
    """
    newest = 0
    for index, event in enumerate(events):
        if event["event"] == Kind.SUBMITTED:
            newest = index
    return [event for event in events[newest:] if event["event"] == Kind.ATTEMPT_ENDED]


def unfinished(events: list[Event]) -> int | None:
    """The number of an attempt that began and has no end on record: its supervisor was killed."""
    open_attempt = None
    for event in events:
        if event["event"] == Kind.ATTEMPT_STARTED:
            open_attempt = event["attempt"]
        elif event["event"] == Kind.ATTEMPT_ENDED and event["attempt"] == open_attempt:
            open_attempt = None
    return open_attempt
