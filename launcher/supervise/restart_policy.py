"""Run again or stop? A pure function of the attempts so far and the budgets."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import takewhile

from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import Final
from launcher.supervise.classify import needs_another_start
from minimind.errors import EXIT_CANCELLED, EXIT_DONE, EXIT_RUN_ME_AGAIN, EXIT_USER_ERROR
from minimind.rundir import causes
from minimind.rundir.events import BEGUN, Event, Kind

LONGEST_PAUSE = 300.0
"""Between two attempts, in seconds."""
MOST_LAUNCHES = 6
"""Launches that fail in a row before the nodes go back to Slurm: about a minute of pauses."""
SECOND_PAUSE = 15.0
"""Before the second restart in a row in the same job, in seconds; later ones wait twice as long."""
SEE_WHY = "see `why`"
"""What a reason ends with that `why` has more to say about; it leaves that out itself."""
LEAST_STARTUP = 30.0
"""What an attempt is taken to need at least before it trains, in seconds."""


@dataclass(frozen=True)
class Decision:
    """``final`` None: run again, after ``pause`` seconds."""

    final: Final | None
    reason: str
    pause: float = 0.0


def decide(spec: JobSpec, ended: list[Event]) -> Decision:
    """What to do after the newest of ``ended``, the ``attempt_ended`` events, oldest first.

    Preemptions, time limits and requested stops are free. Crashes and hangs share
    ``max_restarts``, lost nodes have ``max_node_failures``. Launches that Slurm itself failed are
    free, too. Of the free causes, ``max_no_progress`` attempts in a row that began to train and
    saved no new step stop the run. So do ``max_false_starts`` in a row that did not even begin.
    They come after growing pauses: what ended one of them at once may end the next.
    """
    newest = ended[-1]
    cause, code = newest["cause"], newest.get("exit_code")
    words = causes.described(cause)
    failed = code if code not in (None, 0, EXIT_RUN_ME_AGAIN) else 1
    if cause == causes.DONE:
        return _stop(cause, EXIT_DONE, words)
    if cause == causes.CONFIG:
        reason = f"the training refused its flags or data; {SEE_WHY}"
        return _stop(cause, EXIT_USER_ERROR, reason)
    if cause == causes.CANCELLED:
        return _stop(cause, EXIT_CANCELLED, words)
    counts = Counter(event["cause"] for event in ended)
    failures = sum(counts[failure] for failure in causes.FAILURES)
    if cause in causes.FAILURES and failures > spec.max_restarts:
        plural = "" if failures == 1 else "s"
        reason = f"{failures} failed attempt{plural}; --max-restarts allows {spec.max_restarts}"
        return _stop(cause, failed, reason)
    lost = counts[causes.NODE_FAILURE] + counts[causes.LOST]
    if cause in (causes.NODE_FAILURE, causes.LOST) and lost > spec.max_node_failures:
        return _stop(cause, failed, f"{lost} node failures; {spec.max_node_failures} are allowed")
    stuck = 0
    for event in reversed(ended):
        if event.get("progressed"):
            break
        stuck += bool(event.get("trained")) and event["cause"] in causes.FREE
    if stuck >= spec.max_no_progress:
        reason = f"{stuck} attempts in a row saved no new step; the last one {words}"
        return _stop(causes.NO_PROGRESS, failed, reason)
    early = _false_starts(ended)
    if early >= spec.max_false_starts:
        reason = f"{early} attempts in a row ended before training began; the last one {words}"
        return _stop(causes.NO_PROGRESS, failed, reason)
    return Decision(None, words, _growing(1.0, early))


def pause_in_place(ended: list[Event]) -> float:
    """Seconds before a restart in the same job: none, unless the one before was in vain too.

    What ends attempt after attempt without a new step may be an outage, which a pause outlives.
    """
    failures = 0
    for event in reversed(ended):
        if event["cause"] not in causes.FAILURES or event.get("progressed"):
            break
        failures += 1
    return _growing(SECOND_PAUSE, failures - 1)


def may_stay(ended: list[Event]) -> bool:
    """Whether the newest end leaves hope in the same job: launches may fail there for ever."""
    if ended[-1]["cause"] != causes.LAUNCH_FAILED:
        return ended[-1]["cause"] in causes.IN_PLACE
    if needs_another_start(ended[-1].get("reason", "")):
        return False
    launches = takewhile(lambda event: event["cause"] == causes.LAUNCH_FAILED, reversed(ended))
    return len(list(launches)) % MOST_LAUNCHES > 0


def startup_seconds(events: list[Event]) -> float:
    """What an attempt of this run takes to begin to train: the shortest of those that did."""
    began, found = None, []
    for event in events:
        if event["event"] == Kind.ATTEMPT_STARTED:
            began = float(event["time"])
        elif event["event"] in BEGUN and began is not None:
            found.append(float(event["time"]) - began)
            began = None
    return max(min(found, default=LEAST_STARTUP), LEAST_STARTUP)


def worth_staying(seconds_left: float, startup: float) -> bool:
    """Whether another attempt fits into what is left of a job, with as much work as start-up."""
    return seconds_left >= 2 * startup


def _growing(first: float, count: int) -> float:
    """The ``count``-th pause of a row that begins with ``first`` and doubles; 0 before it."""
    return min(first * 2.0 ** min(count - 1, 30), LONGEST_PAUSE) if count > 0 else 0.0


def _false_starts(ended: list[Event]) -> int:
    """The newest attempts that came neither to train nor to prepare for long, free causes alone."""
    count = 0
    for event in reversed(ended):
        if event.get("trained") or event.get("prepared"):
            break
        count += event["cause"] in causes.FREE
    return count


def _stop(cause: str, exit_code: int, reason: str) -> Decision:
    return Decision(Final(cause, exit_code, reason), reason)
