"""Which node an attempt's end is to be blamed on, from what Slurm and the ranks wrote.

Nobody is blamed where that is in doubt: a healthy node that is left out costs a wait in the queue.
Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from launcher.supervise.classify import Evidence
from launcher.supervise.memory import killed_for_memory
from minimind.rundir import causes

TASK_ENDED = re.compile(
    r"srun: error: (?P<node>\S+): tasks? [\d,\- ]+: "
    r"(?:Exited with exit code (?P<code>\d+)|(?P<signal>\S.*))"
)
"""What srun says of ranks that failed, in the order in which they ended."""

_LOST = re.compile(r"srun: error: Node failure on ([^\s,]+)")

_XID = re.compile(
    r"\bxid\b[^0-9\n]{0,60}(?:\([^)\n]*\)[^0-9\n]{0,20})?([0-9]{1,3})\b", re.IGNORECASE
)
_PROGRAMS_OWN_XIDS = frozenset((13, 31, 43, 45, 68, 69))
"""Errors that NVIDIA's driver reports of a program's mistakes, on a healthy GPU."""
_HARDWARE = re.compile(
    r"\bECC error|uncorrectable ECC|double[ -]bit ECC|fallen off the bus", re.IGNORECASE
)
_ECC = re.compile(r"\becc\b", re.IGNORECASE)
"""Enough in an administrator's reason; in a log it may be anything."""

_ERROR_LINE = re.compile(
    r"^(?:[\w.]*(?:Error|Exception|Exit)\b.*|[\w .-]+: error: .*)$", re.MULTILINE
)
_REPEATED = re.compile(r"^.*\brank \d+ on \S+ has ended: .*$", re.MULTILINE)
"""How a rank gives the last words of another one, which say nothing of its own node."""
_OF_ANOTHER_RANK = re.compile(
    r"\brank \d+ on \S+ has |another rank|by peer|broken pipe|connection (?:closed|reset|refused)"
    r"|remote process|timed? ?out",
    re.IGNORECASE,
)
"""What a rank says that another one has left alone."""
_THREAD = re.compile(r"^(?:Current thread|Thread) 0x", re.MULTILINE)
_WAITS = re.compile(r"torch/distributed/|minimind/distributed/|_engine_run_backward")
"""Where a rank stands that waits for the others."""


@dataclass(frozen=True)
class Suspect:
    """A node to be blamed. ``certain``: once is enough; else it may have been the program."""

    node: str
    reason: str
    certain: bool


def of_lost(node: str) -> Suspect:
    """What a node that Slurm has lost is blamed for."""
    return Suspect(node, "it was lost", certain=True)


def find_suspects(
    cause: str,
    evidence: Evidence,
    nodes: Sequence[str],
    gpus: int,
    logs: Callable[[], Mapping[int, str]],
) -> list[Suspect]:
    """The nodes to be blamed for an attempt's end, each once.

    Args:
        nodes: of the attempt, in Slurm's order.
        gpus: ranks on each of them.
        logs: gives rank → the end of its log; not asked for where there is no need.
    """
    if cause not in (*causes.FAILURES, causes.NODE_FAILURE):
        return []
    lost = [*evidence.down_nodes, *(n for n in _LOST.findall(evidence.log) if n in nodes)]
    found = [of_lost(node) for node in lost]
    if cause == causes.NODE_FAILURE and not found and evidence.restarted and nodes:
        found.append(Suspect(nodes[0], "it ran the batch script, which was lost", False))
    # With a lost node the job may have five seconds left: too few for the logs of all ranks.
    read = {} if cause == causes.NODE_FAILURE and found else logs()
    words = _by_node(read, nodes, gpus, evidence.distribution)
    for node in nodes:
        own = _REPEATED.sub("", "\n".join(words.get(node, ())))
        if said := hardware_error(evidence.reasons.get(node, ""), own):
            found.append(Suspect(node, said, True))
    alone = {causes.CRASH: _crashed_alone, causes.HANG: _hung_alone}.get(cause)
    if killed_for_memory([evidence.log, *read.values()]):
        # What was too much there is too much on another node like it.
        alone = None
    if alone and len(nodes) > 1 and not found and (node := alone(evidence.log, words)):
        found.append(Suspect(node, f"ranks {_ENDED[cause]} there alone", False))
    return list({suspect.node: suspect for suspect in reversed(found)}.values())


_ENDED = {causes.CRASH: "crashed", causes.HANG: "hung"}


def hardware_error(reason: str, log: str) -> str:
    """The words by which a driver, or an administrator, says that a GPU is broken; else ""."""
    for text in (reason, log):
        for match in _XID.finditer(text):
            if int(match[1]) not in _PROGRAMS_OWN_XIDS:
                return f"its GPU reported Xid {match[1]}"
        if _HARDWARE.search(text):
            return "its GPU reported a hardware error"
    return "Slurm's reason for its state names ECC" if _ECC.search(reason) else ""


def _by_node(
    logs: Mapping[int, str], nodes: Sequence[str], gpus: int, distribution: str
) -> dict[str, list[str]]:
    """Node → the logs of its ranks; empty where nobody knows which rank is where.

    srun fills one node after the other, unless it is asked to go round.
    """
    way = re.split("[:,]", distribution)[0]
    found: dict[str, list[str]] = {}
    if way not in ("", "*", "block", "cyclic") or max(logs, default=0) >= len(nodes) * gpus:
        return found
    for rank, text in logs.items():
        node = nodes[rank % len(nodes) if way == "cyclic" else rank // gpus]
        found.setdefault(node, []).append(text)
    return found


def _crashed_alone(slurm_log: str, words: Mapping[str, Sequence[str]]) -> str:
    """The node of the rank that fell first; "" where several may have.

    A rank that is killed has nothing to say; srun then names it first, since the others notice it
    later. One that fails says why in its log, as the others say that it was not they.
    """
    first = TASK_ENDED.search(slurm_log)
    if first and first["signal"]:
        others = (text for node, texts in words.items() if node != first["node"] for text in texts)
        return first["node"] if any(map(_OF_ANOTHER_RANK.search, others)) else ""
    own = [node for node, texts in words.items() if any(map(_failed_itself, texts))]
    return own[0] if len(own) == 1 else ""


def _failed_itself(log: str) -> bool:
    errors = _ERROR_LINE.findall(log)
    return bool(errors) and not any(map(_OF_ANOTHER_RANK.search, errors))


def _hung_alone(slurm_log: str, words: Mapping[str, Sequence[str]]) -> str:
    """The node that all others wait for, by the stacks that the ranks have written."""
    awaited = [node for node, texts in words.items() if not all(map(_waits_for_others, texts))]
    return awaited[0] if len(awaited) == 1 and len(words) > 1 else ""


def _waits_for_others(log: str) -> bool:
    """Whether the main thread, the last in the newest stacks, stands in an exchange.

    A rank that wrote no stacks at all does not even answer signals.
    """
    threads = _THREAD.split(log)
    return len(threads) > 1 and _WAITS.search(threads[-1]) is not None
