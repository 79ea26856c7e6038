"""Which nodes a job is kept from when Slurm runs it again: those that a run has failed on.

Policy is a pure function of the event log and of Slurm's records. Slurm takes the list of a job
that waits, and of no other, so it can only change when the job is handed back. Standard library
only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from launcher.slurm import client as slurm
from launcher.slurm import states
from launcher.slurm.client import Node
from launcher.slurm.parse import JobInfo, leading_number, unanswered
from launcher.spec.elastic import allocated_nodes
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.supervise import attempt_log as attempt
from minimind.rundir.events import Event, Kind, of_attempt

PERSON = "person"
"""Who has let a node in again that the run had left out, where its time was not up."""
SILENCE = "Slurm does not say which nodes there are"
STRIKES = 2
"""How many attempts a node is suspected of before it is left out, where it may have been chance."""
RANKS_DIFFER = 1
"""Steps by which the first rank, whose steps are on record, may be ahead of one that has failed."""

_STARTS_JOBS = frozenset(
    (
        *("IDLE", "ALLOCATED", "MIXED", "COMPLETING", "PLANNED", "BLOCKED", "CLOUD"),
        *("DYNAMIC_NORM", "RESUME", "REBOOT_REQUESTED", "POWER_UP", "POWERING_UP", "POWER_DOWN"),
        *("POWERING_DOWN", "POWERED_DOWN"),
    )
)
"""All that the state of a node may say on which a job can start, sooner or later."""
_RESERVED = frozenset(("RESERVED", "MAINT", "MAINTENANCE"))
"""And in the reservation of the job itself."""


@dataclass(frozen=True)
class Failed:
    """A node that a run is better off without. ``until``: Unix seconds."""

    reason: str
    until: float


def failed_nodes(events: list[Event], now: float, hours: int) -> dict[str, Failed]:
    """The nodes that failed in the last ``hours``, the newest first.

    Those that are to blame for certain come before those that fell :data:`STRIKES` times. What a
    node did before a person has let it in again is forgotten.
    """
    since = now - 3600 * hours
    suspected: list[Event] = []
    for event in events:
        if event["event"] == Kind.NODE_SUSPECTED and event["time"] > since:
            suspected.append(event)
        elif event["event"] == Kind.NODE_ADMITTED and event.get("by") == PERSON:
            suspected = [other for other in suspected if other["node"] != event["node"]]
    suspected.sort(key=lambda event: -float(event["time"]))
    found: dict[str, Failed] = {}
    for event in (e for e in suspected if e["certain"]):
        until = float(event["time"]) + 3600 * hours
        found.setdefault(event["node"], Failed(event["reason"], until))
    for node, strikes in _strikes(suspected).items():
        if len(strikes) >= STRIKES:
            # Once that one is forgotten, the others are too few.
            until = float(strikes[STRIKES - 1]["time"]) + 3600 * hours
            found.setdefault(node, Failed(strikes[0]["reason"], until))
    return found


def _strikes(suspected: list[Event]) -> dict[str, list[Event]]:
    """What each node may have done by chance, the newest first, an attempt once.

    An end that comes back at the same step is that of the program, by its data or its code.
    """
    found: dict[str, dict[int, Event]] = {}
    for event in suspected:
        if not any(_came_back(event, other) for other in suspected):
            # An attempt whose supervisor is killed while it puts down the end is closed twice.
            found.setdefault(event["node"], {}).setdefault(event.get("attempt", 0), event)
    return {node: list(strikes.values()) for node, strikes in found.items()}


def _came_back(event: Event, other: Event) -> bool:
    """Whether two attempts have ended at one step, as far as the first rank came."""
    if "step" not in event or "step" not in other:
        return False
    apart = abs(event["step"] - other["step"])
    return bool(event.get("attempt", 0) != other.get("attempt", 0) and apart <= RANKS_DIFFER)


@dataclass(frozen=True)
class Plan:
    """What is to become of a job's list of excluded nodes.

    ``before`` is the list as it is. ``excluded``: ours, old and new. ``kept``: node that failed →
    why it can't be left out. ``admitted``: ours that have served their time. ``forgiven``: ours
    that a person has taken off the list.
    """

    before: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()
    excluded: Mapping[str, Failed] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    admitted: tuple[str, ...] = ()
    forgiven: tuple[str, ...] = ()
    requeues: bool = False
    """Whether Slurm would run the job again."""

    @property
    def new(self) -> list[str]:
        """The nodes that the job is kept from by this plan, and was not before."""
        return [node for node in self.excluded if node not in self.before]


def plan(
    failed: Mapping[str, Failed],
    listed: Collection[str],
    ours: Collection[str],
    spares: Mapping[str, Collection[str]],
    nodes: int,
    required: Collection[str] = (),
) -> Plan:
    """Leaves out what has failed, as long as the job can start without.

    Args:
        listed: the job's list now. ``ours``: what of it earlier plans have put there.
        spares: failed node → the nodes on which the job could run without it.
        nodes: how many the job needs.
        required: what the job has asked for by name.
    """
    theirs = frozenset(listed) - frozenset(ours)
    forgiven = tuple(node for node in ours if node not in listed)
    chosen: dict[str, Failed] = {}
    kept: dict[str, str] = {}
    for node, why in failed.items():
        trial = {*chosen, node}
        left = min(len(set(spares.get(n, ())) - theirs - trial) for n in trial)
        if node in theirs or node in forgiven:
            continue
        if node in required:
            kept[node] = "the job asks for it by name"
        elif left < nodes:
            kept[node] = f"the job needs {nodes} nodes like it, and {left} would be left"
        else:
            chosen[node] = why
    after = theirs | chosen.keys()
    gone = tuple(node for node in ours if node in listed and node not in after)
    return Plan(frozenset(listed), after, chosen, kept, gone, forgiven)


def find_spares(
    failed: str, job: JobInfo, known: Mapping[str, Node], reserved: set[str] | None
) -> set[str]:
    """The nodes on which the job could run without ``failed``, whether or not they are free.

    Of the partition of the job's that has the most, since all of its nodes are of one.

    Args:
        reserved: the nodes of the job's reservation, None where it has none.
    """
    lost = known.get(failed)
    if lost is None:
        return set()
    usable = [n for n in known.values() if n != lost and n.can_replace(lost)]
    usable = [node for node in usable if _is_usable(node, reserved)]
    groups = (
        {node.name for node in usable if partition in node.partitions}
        for partition in job.get("Partition", "").split(",")
    )
    return max(groups, key=len)


def _is_usable(node: Node, reserved: set[str] | None) -> bool:
    words = {*re.findall("[A-Z_]+", node.state)}
    if reserved is None:
        return not node.is_down and bool(words) and words <= _STARTS_JOBS
    return not node.is_down and words <= _STARTS_JOBS | _RESERVED and node.name in reserved


def left_out(events: list[Event], job_id: str | None) -> list[Event]:
    """The ``node_excluded`` events that are in force for a job."""
    newest: dict[str, Event] = {}
    for event in events:
        decides = event["event"] in (Kind.NODE_EXCLUDED, Kind.NODE_ADMITTED)
        if decides and event["job_id"] == job_id:
            newest[event["node"]] = event
    return [event for event in newest.values() if event["event"] == Kind.NODE_EXCLUDED]


def make_plan(run: RunFolder, spec: JobSpec, job_id: str) -> Plan:
    """The plan for a job of ``run``, as Slurm has it now; in an array ``job_id`` names the task.

    Where Slurm does not answer, the list stays as it is: it may hold what a person has put there.
    """
    events = run.events()
    ours = [event["node"] for event in left_out(events, job_id)]
    failed = failed_nodes(events, time.time(), spec.exclude_hours)
    if not (failed or ours):
        return Plan()
    job = slurm.show_job(job_id) or {}
    known = slurm.show_nodes()
    listed, required = (_nodes_of(job, name) for name in ("ExcNodeList", "ReqNodeList"))
    reservation = job.get("Reservation", "(null)").replace("(null)", "")
    reserved = slurm.reserved_nodes(reservation) if reservation else None
    if not (job and known) or listed is None or required is None or reserved == set():
        return Plan(kept={node: SILENCE for node in failed if node not in ours})
    found = plan(
        failed,
        listed,
        ours,
        {node: find_spares(node, job, known, reserved) for node in failed},
        max(allocated_nodes(spec), leading_number(job.get("NumNodes", ""))),
        required,
    )
    return replace(found, requeues=job.get("Requeue") == "1")


def admit_expired(run: RunFolder, spec: JobSpec, job_id: str) -> list[str]:
    """Lets the nodes whose hours have passed into a job that waits; returns their names.

    No supervisor lives while a job waits, so this is for those who look at it. Nothing else of the
    list changes, and a job of somebody else's keeps it.
    """
    now = time.time()
    if all(event["until"] > now for event in left_out(run.events(), job_id)):
        return []
    if (slurm.show_job(job_id) or {}).get("JobState") not in states.QUEUED:
        return []
    found = make_plan(run, spec, job_id)
    after = found.before - {*found.admitted}
    number = max(run.attempt_numbers(), default=0)
    carry_out(run, Plan(found.before, after, admitted=found.admitted), number, job_id)
    still = {event["node"] for event in left_out(run.events(), job_id)}
    return [node for node in found.admitted if node not in still]


def said_of_admitted(node: str) -> str:
    """What people are told of a node that :func:`admit_expired` has let in."""
    return f"{node} may be used again: its hours have passed"


def _nodes_of(job: JobInfo, field: str) -> list[str] | None:
    """The nodes that a job's record lists; None where Slurm does not say which they are."""
    text = job.get(field, "")
    nodes = slurm.expand_nodes(text)
    return nodes if nodes or text in ("", "(null)") else None


def must_move(run: RunFolder, plan: Plan, number: int, job_id: str) -> bool:
    """Whether attempt ``number`` of a job ran on a failed node that can be left out.

    Not where Slurm would not run the job again, nor where it has refused that before.
    """
    if not (plan.requeues and plan.new):
        return False
    events = run.events()
    refusals = [e for e in events if e["event"] == Kind.NODE_KEPT and e.get("job_id") == job_id]
    refused = {event["node"] for event in refusals if event.get("refused")}
    own = of_attempt(events, number)[0].get("nodes", [])
    return any(node in own and node not in refused for node in plan.new)


def carry_out(run: RunFolder, plan: Plan, number: int, job_id: str) -> None:
    """Gives Slurm the list of a job that has just been requeued, and records what it took.

    What cannot be done is said in a line: the next attempt runs on nodes as Slurm chooses.
    """
    for node, why in plan.kept.items():
        _keep(run, number, node, why)
    for node in plan.forgiven:
        values = {"attempt": number, "node": node, "job_id": job_id}
        attempt.record(run, Kind.NODE_ADMITTED, **values, by=PERSON)
    if plan.before == plan.after:
        return
    complaint = slurm.exclude_nodes(job_id, sorted(plan.after))
    if complaint is not None:
        refused = not unanswered(complaint)
        why = f"Slurm {'refuses' if refused else 'does not answer'}: {complaint}"
        for node in plan.new:
            _keep(run, number, node, why, refused=refused, job_id=job_id)
        return
    for node in plan.admitted:
        attempt.record(run, Kind.NODE_ADMITTED, attempt=number, node=node, job_id=job_id)
    for node in plan.new:
        attempt.record(
            run,
            Kind.NODE_EXCLUDED,
            attempt=number,
            node=node,
            job_id=job_id,
            **vars(plan.excluded[node]),
        )
        attempt.say(f"launcher: {node} is left out from now on: {plan.excluded[node].reason}")


def _keep(run: RunFolder, number: int, node: str, why: str, **values: Any) -> None:
    attempt.record(run, Kind.NODE_KEPT, attempt=number, node=node, reason=why, **values)
    attempt.say(f"launcher: warning: {node} failed and is not left out: {why}")
