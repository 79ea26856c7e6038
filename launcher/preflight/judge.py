"""Which nodes are unfit for the ranks, by what each has reported: pure functions.

A healthy node that is left out costs a wait in the queue. So a node is blamed only for what others
show to be its own; where all nodes tell the same it is the site's, and where nobody can tell whose
it is, it is a warning. Standard library only.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minimind.rundir.events import SILENT_SECONDS
from minimind.system.terminal import printable
from minimind.system.validators import is_finite, is_text, is_whole, is_word

LEAST_SHARED_BYTES = 16 << 20
"""Free in /dev/shm. Less is what crashed jobs have left; NCCL and loader workers need more."""
CLOCK_SECONDS = SILENT_SECONDS / 2
"""Between two clocks. Who is silent for twice as long counts as dead, by the time of a file."""

LONGEST = 200
"""Of another program's words."""
ANYWAY = "repair that, or start the ranks anyway with --no-preflight"
_FULL = ("ENOSPC", "EDQUOT")
"""No node's fault, though only some may meet it."""
_TO_STAY = ("EROFS", "EACCES", "EPERM", "ENOENT", "ENOTDIR")
"""Errors of a folder that another try meets again; any other may be an outage."""

Complaints = dict[str, str]
"""Node → what is wrong with it."""


@dataclass(frozen=True)
class Report:
    """What a node has said of itself; None, where it has not said.

    ``folder`` and ``reach``: why the run folder, and the batch host, cannot be used; "" where they
    can. ``folder_code``: the name of the error. ``shared_memory``: free bytes. ``gpus_given``: by
    Slurm. ``clock``: seconds ahead of the batch host's, give or take ``clock_within``. ``late``:
    checks that had no result in time. ``computes``: what is wrong with its GPUs, of which
    ``computing`` compute; ``reduces``: with a sum over all nodes.
    """

    node: str
    folder: str | None = None
    folder_code: str = ""
    reach: str | None = None
    shared_memory: int | None = None
    gpus: int | None = None
    gpus_said: str = ""
    gpus_given: int | None = None
    clock: float | None = None
    clock_within: float = 0.0
    computes: str | None = None
    computing: int = 0
    reduces: str | None = None
    late: tuple[str, ...] = ()


_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "node": is_word,
    "folder": is_text,
    "folder_code": is_word,
    "reach": is_text,
    "shared_memory": is_whole,
    "gpus": is_whole,
    "gpus_said": is_text,
    "gpus_given": is_whole,
    "clock": is_finite,
    "clock_within": is_finite,
    "computes": is_text,
    "computing": is_whole,
    "reduces": is_text,
}


def read_report(line: str) -> Report | None:
    """The report in a line of a node's output; None: it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not is_word(found.get("node")):
        return None
    values = {name: found[name] for name, check in _FIELDS.items() if check(found.get(name))}
    late = found.get("late")
    values["late"] = tuple(filter(is_word, late)) if isinstance(late, list) else ()
    return Report(**values)


@dataclass(frozen=True)
class Seen:
    """What there was to see. ``nodes``: that were looked at, the batch host first.

    ``silent``: nodes that did not answer in time. ``problem``: why there is less to see than there
    should be. ``seconds``: how long it took.
    """

    nodes: Sequence[str] = ()
    reports: Mapping[str, Report] = field(default_factory=dict)
    silent: Collection[str] = ()
    problem: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """What follows. ``unfit``: nodes that the ranks must not run on, and why.

    ``everywhere``: what only a person can change, since no node is better. ``warnings``: what may
    do harm, and is no single node's.
    """

    unfit: Mapping[str, str] = field(default_factory=dict)
    everywhere: str = ""
    warnings: tuple[str, ...] = ()
    seen: Mapping[str, float] = field(default_factory=dict)
    """For the event log, see :func:`summary`."""

    def followed_by(self, other: Verdict) -> Verdict:
        """This one and that of a second look, at what the nodes compute."""
        took = {"compute_seconds": other.seen["seconds"]}
        warnings = (*self.warnings, *other.warnings)
        return Verdict(other.unfit, self.everywhere, warnings, {**self.seen, **took})


def judge(seen: Seen, *, on_gpus: bool) -> Verdict:
    """Which nodes are to blame for what ``seen`` shows.

    Args:
        on_gpus: whether the ranks are to run on GPUs, as far as the flags say.
    """
    unfit: dict[str, list[str]] = {}
    warnings = [seen.problem] if seen.problem else []
    everywhere = ""
    folder, gpus = _folder(seen), _gpus(seen) if on_gpus else {}
    if len(folder) == len(seen.nodes) and _to_stay(seen):
        everywhere = f"{_said_of_all(folder)}; {ANYWAY}"
    elif 1 < len(gpus) == len(seen.nodes) and not any(r.gpus for r in seen.reports.values()):
        everywhere = f"{_said_of_all(gpus)}; {ANYWAY}"
    # The only node of a job may be the only one that is bad: GPUs are what Slurm has given there,
    # and where one of them computes, the program is right.
    alone = len(seen.nodes) == 1
    some = alone and any(report.computing for report in seen.reports.values())
    blame_all = ((folder, False), (gpus, alone), (_shared_memory(seen), False))
    for bad, to_blame in (*blame_all, (_computes(seen), some)):
        if bad and len(bad) == len(seen.nodes) and not to_blame:
            warnings.append(_said_of_all(bad))
        else:
            _add(unfit, bad)
    for bad, doubt in (
        _silent(seen),
        _reach(seen),
        _clock(seen),
        ({}, _full(seen)),
        ({}, _reduces(seen)),
    ):
        _add(unfit, bad)
        warnings += [doubt] if doubt else []
    reasons = {node: "; ".join(unfit[node]) for node in seen.nodes if node in unfit}
    return Verdict(reasons, everywhere, tuple(warnings), summary(seen))


def summary(seen: Seen) -> dict[str, float]:
    """What was seen, in short: of each thing the worst that a node has reported.

    ``looked_at``: how many nodes have. ``gpus``: the fewest. ``shared_memory``: the least free, in
    bytes. ``clocks_apart`` and ``seconds``, which it took, in seconds.
    """
    reports = seen.reports.values()
    gpus = [report.gpus for report in reports if report.gpus is not None]
    memory = [report.shared_memory for report in reports if report.shared_memory is not None]
    clocks = [report.clock for report in reports if report.clock is not None]
    found: dict[str, float] = {"looked_at": len(seen.reports), "seconds": round(seen.seconds, 3)}
    found |= {"gpus": min(gpus)} if gpus else {}
    found |= {"shared_memory": min(memory)} if memory else {}
    return found | ({"clocks_apart": round(max(clocks) - min(clocks), 3)} if clocks else {})


def _add(unfit: dict[str, list[str]], bad: Complaints) -> None:
    for node, reason in bad.items():
        unfit.setdefault(node, []).append(reason)


def _said_of_all(bad: Complaints) -> str:
    """A complaint that every node has, in the words of the first one."""
    node, reason = next(iter(bad.items()))
    return f"{node}: {reason}" + ("; the same on all other nodes" if len(bad) > 1 else "")


def _short(text: str) -> str:
    return printable(text)[:LONGEST]


def _folder(seen: Seen) -> Complaints:
    found = {}
    for node, report in seen.reports.items():
        if report.folder and report.folder_code not in _FULL:
            found[node] = f"it cannot write to the run folder ({_short(report.folder)})"
        elif "folder" in report.late:
            found[node] = "the run folder does not answer there"
    return found


def _to_stay(seen: Seen) -> bool:
    return all(report.folder_code in _TO_STAY for report in seen.reports.values())


def _full(seen: Seen) -> str:
    full = [node for node, report in seen.reports.items() if report.folder_code in _FULL]
    return f"the run folder is full, as {full[0]} sees it" if full else ""


def _shared_memory(seen: Seen) -> Complaints:
    found = {}
    for node, report in seen.reports.items():
        free = report.shared_memory
        if free is not None and free < LEAST_SHARED_BYTES:
            found[node] = f"/dev/shm has {free >> 20} MiB left"
    return found


def _gpus(seen: Seen) -> Complaints:
    """Nodes that show fewer GPUs than Slurm has given the job there, or none, and others do.

    A node without a driver is one of a cluster without GPUs, unless another one shows some.
    """
    any_here = any(report.gpus for report in seen.reports.values())
    found = {}
    for node, report in seen.reports.items():
        given, here = report.gpus_given or 0, report.gpus
        if here is None and any_here and "gpus" not in report.late:
            found[node] = "it shows no GPU, and other nodes do"
        elif here is not None and here < given:
            said = f" ({_short(report.gpus_said)})" if report.gpus_said else ""
            found[node] = f"it shows {here} of the {given} GPUs that Slurm has given{said}"
    return found


def _no_gpu(seen: Seen) -> bool:
    return not any(report.gpus for report in seen.reports.values())


def _computes(seen: Seen) -> Complaints:
    reports = seen.reports.items()
    return {node: _short(report.computes) for node, report in reports if report.computes}


def _reduces(seen: Seen) -> str:
    """What is wrong with the sum over all nodes: each of them only knows that it is not there."""
    computed = {n: r for n, r in seen.reports.items() if r.computes == ""}
    bad = [f"{n}: {_short(r.reduces)}" for n, r in computed.items() if r.reduces]
    late = [node for node, report in computed.items() if report.reduces is None]
    if len(computed) < len(seen.nodes) or not (bad or late):
        return ""
    what = "the nodes do not compute together: an all-reduce between them"
    return f"{what} fails ({bad[0]})" if bad else f"{what} comes to no end"


def _silent(seen: Seen) -> tuple[Complaints, str]:
    """Where most have not answered either, the look has failed, and not they."""
    if not seen.silent:
        return {}, ""
    if 2 * len(seen.silent) < len(seen.nodes):
        return dict.fromkeys(seen.silent, "it does not answer"), ""
    return {}, f"no answer from {', '.join(seen.silent)}"


def _reach(seen: Seen) -> tuple[Complaints, str]:
    """Nodes that cannot reach the batch host: with no other one to compare, it may be that one."""
    others = [node for node in seen.nodes[1:] if node in seen.reports]
    bad = {node: seen.reports[node].reach for node in others if seen.reports[node].reach}
    found = {node: f"it cannot reach {reason}" for node, reason in bad.items()}
    if not found or len(found) < len(others):
        return found, ""
    return {}, _said_of_all(found)


def _clock(seen: Seen) -> tuple[Complaints, str]:
    """Nodes whose clock differs from most others'; of two nobody knows which one is wrong."""
    clocks = {n: r.clock for n, r in seen.reports.items() if r.clock is not None}
    middle = statistics.median(clocks.values()) if clocks else 0.0
    found = {}
    for node, clock in clocks.items():
        ahead = clock - middle
        if abs(ahead) - seen.reports[node].clock_within > CLOCK_SECONDS:
            found[node] = f"its clock is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
    if not found or 2 * len(found) < len(clocks):
        return found, ""
    apart = max(clocks.values()) - min(clocks.values())
    return {}, f"the clocks of {', '.join(found)} differ by up to {apart:.0f} s"
