"""The records of one attempt: its start, its end, and the end of one that nobody saw end."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import Final, RunFolder
from launcher.supervise.restart_policy import Decision, decide
from minimind.errors import EXIT_CANCELLED, EXIT_USER_ERROR
from minimind.rundir import causes
from minimind.rundir.events import BEGUN, SAVED, Event, Kind, has_begun, of_attempt, stands_at


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


def end(
    run: RunFolder,
    spec: JobSpec,
    number: int,
    cause: str,
    exit_code: int | None,
    *,
    reason: str = "",
) -> Decision:
    """Records how attempt ``number`` ended and what follows from it.

    ``reason``: what there is to say besides its cause.

    The decision is on disk before anyone acts on it: a supervisor that dies in between leaves
    no doubt. What a full disk does not take, the next attempt records as a lost one's end.

    Raises:
        OSError: the run is over, and that cannot be marked.
    """
    events = run.events()
    mine = of_attempt(events, number)
    ended: Event = {
        "attempt": number,
        "cause": cause,
        "exit_code": exit_code,
        "step": stands_at(events) or 0,
        "progressed": _progressed(events, mine),
        "trained": has_begun(mine),
        "prepared": any(event["event"] == Kind.PREPARING for event in mine),
    }
    if reason:
        ended["reason"] = reason
    record(run, Kind.ATTEMPT_ENDED, **ended)
    decision = decide(spec, [*endings(events), {"event": Kind.ATTEMPT_ENDED, **ended}])
    if decision.final is not None:
        record(run, Kind.RUN_ENDED, attempt=number, **vars(decision.final))
        run.finish(decision.final)
    return decision


def _progressed(events: list[Event], mine: list[Event]) -> bool:
    """Whether the attempt of ``mine`` saved a step beyond the one at which it began to train.

    The furthest step of the run's life is no measure: a run may have begun anew on purpose.
    """
    began = [e["step"] for e in mine if e["event"] in BEGUN and "step" in e]
    saved = [e["step"] for e in mine if e["event"] in SAVED and "step" in e]
    if not saved:
        return False
    before = stands_at(events[: events.index(mine[0])]) or 0
    return bool(saved[-1] > max(began, default=before))


def furthest_step(run: RunFolder, number: int) -> int:
    """The last step that attempt ``number`` is known to have come to."""
    points = [point for point in run.points() if point.get("attempt", number) == number]
    steps = [point["global_step"] for point in points if "global_step" in point]
    mine = of_attempt(run.events(), number)
    return max([*steps, *(event["step"] for event in mine if "step" in event)], default=0)


def refuse(run: RunFolder, reason: str) -> Final:
    """Ends a run before its next attempt begins: a person has to change something first."""
    final = Final(causes.CONFIG, EXIT_USER_ERROR, reason)
    number = max(run.attempt_numbers(), default=0)
    record(run, Kind.RUN_ENDED, attempt=number, **vars(final))
    run.finish(final)
    say(f"launcher: error: {reason}")
    return final


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
