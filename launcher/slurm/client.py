"""What Slurm says: jobs, nodes, partitions, configuration. Standard library only."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from launcher.slurm import states
from launcher.slurm.environment import query_environment
from launcher.slurm.parse import (
    JobInfo,
    array_indices,
    count_devices,
    count_gres,
    is_down,
    leading_number,
    limit_seconds,
    parse_fields,
    unanswered,
)

PATIENCE = 60.0
"""How long one of Slurm's commands may take, in seconds."""
GUARD_STEP = "launcher-guard"
"""The name of the steps of a job that only watch over it."""
_NUMBERED_STEP = re.compile(
    rf"^StepId=(\S+\.[0-9]+)(?=\s|$)(?!.*\sName={GUARD_STEP}(?:\s|$))", re.MULTILINE
)
_UNKNOWN_JOB = re.compile("Invalid job id|Job [0-9_+]+ not found")


def available() -> bool:
    """True where jobs can be submitted to Slurm."""
    return shutil.which("sbatch") is not None and shutil.which("scontrol") is not None


def run(*command: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Runs one of Slurm's commands; a command that cannot run or hangs is a failed one."""
    # srun hands its environment on to the ranks, and is to end when it is told to.
    step = command[0] == "srun"
    environment = None if step else query_environment(os.environ)
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            errors="replace",
            env=environment,
            preexec_fn=None if step else _outlive_sigterm,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 255, "", str(error))


def _outlive_sigterm() -> None:
    """A requeue, too, ends all processes of a batch job, also the one that asks on its behalf."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def show_job(job_id: str, timeout: float = PATIENCE) -> JobInfo | None:
    """The controller's record of a job; None once it has forgotten it or does not answer."""
    return (job_states(job_id, timeout) or {}).get(job_id)


def job_states(job_id: str | None = None, timeout: float = PATIENCE) -> dict[str, JobInfo] | None:
    """The jobs that the controller knows, by id; array tasks as ``A_T``. None: no answer.

    ``job_id``: only this one. All of them are a large answer on a busy cluster.
    """
    one = () if job_id is None else (job_id,)
    words = ("scontrol", "show", "job", "--oneliner", "--all", *one)
    answer = run(*words, timeout=timeout)
    if answer.returncode != 0:
        forgotten = one and _UNKNOWN_JOB.search(answer.stdout + answer.stderr)
        return {} if forgotten else None
    jobs = {}
    for line in answer.stdout.splitlines():
        info = parse_fields(line)
        if "ArrayJobId" in info:
            for index in array_indices(info.get("ArrayTaskId", "")):
                jobs[f"{info['ArrayJobId']}_{index}"] = info
        if "JobId" in info:
            jobs[info["JobId"]] = info
    return jobs


def show_config() -> JobInfo:
    """``scontrol show config`` as a dict of raw strings; empty when there is no answer."""
    found = {}
    for line in run("scontrol", "show", "config").stdout.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            found[key.strip()] = value.strip()
    return found


def expedites(config: JobInfo) -> bool:
    """Whether the site of this configuration takes ``--requeue=expedite``."""
    return "enable_expedited_requeue" in config.get("SlurmctldParameters", "").split(",")


def never_hold(job_id: str) -> None:
    """Keeps Slurm from holding a job of ours that is over for good.

    It does so with one of ``--requeue=expedite`` whose batch script ends with an error.
    """
    if (show_job(job_id) or {}).get("ExpeditedRequeue") == "Yes":
        run("scontrol", "update", f"JobId={job_id}", "Requeue=0")


def node_address(node: str) -> str:
    """The address that other nodes reach ``node`` by; the name itself where Slurm has no other."""
    info = parse_fields(run("scontrol", "show", "node", "--oneliner", node).stdout)
    return info.get("NodeAddr") or node


@dataclass(frozen=True)
class Node:
    """A node as the controller has it.

    ``gres``: as :func:`count_gres` has it. ``reason``: why it is in its state, if anybody said.
    """

    name: str
    state: str = ""
    partitions: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()
    gres: Mapping[str, int] = field(default_factory=dict)
    cpus: int = 0
    memory: int = 0
    reason: str = ""

    @property
    def is_down(self) -> bool:
        """Down, failed or silent."""
        return is_down(self.state)

    def can_replace(self, other: Node) -> bool:
        """Whether this node has all that a job may have ``other`` for."""
        devices = all(self.gres.get(kind, -1) >= count for kind, count in other.gres.items())
        sizes = self.cpus >= other.cpus and self.memory >= other.memory
        return devices and sizes and self.features >= other.features


def show_nodes(nodelist: str | None = None) -> dict[str, Node]:
    """The nodes of ``nodelist`` by name, all without one; empty when there is no answer."""
    if nodelist == "":
        return {}
    which = ("--all",) if nodelist is None else (nodelist,)
    answer = run("scontrol", "show", "node", "--oneliner", *which)
    nodes = map(_node, answer.stdout.splitlines())
    return {node.name: node for node in nodes if node is not None}


def _node(line: str) -> Node | None:
    info = parse_fields(line)
    if "NodeName" not in info:
        return None
    return Node(
        name=info["NodeName"],
        state=info.get("State", ""),
        partitions=_words(info.get("Partitions", "")),
        features=_words(info.get("AvailableFeatures", "").replace("(null)", "")),
        gres=count_gres(info.get("Gres", "")),
        cpus=leading_number(info.get("CPUTot", "")),
        memory=leading_number(info.get("RealMemory", "")),
        # The last field, and one that holds spaces: "gpu xid 79 [root@2026-11-30T09:35:16]".
        reason=line.partition(" Reason=")[2].rpartition(" [")[0].strip(),
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in text.split(",") if word)


def reserved_nodes(reservation: str) -> set[str]:
    """The nodes of a reservation; empty when there is no answer."""
    answer = run("scontrol", "show", "reservation", "--oneliner", reservation)
    return set(expand_nodes(parse_fields(answer.stdout).get("Nodes", "")))


def exclude_nodes(job_id: str, nodes: Iterable[str]) -> str | None:
    """Keeps a job that waits from these nodes alone; returns Slurm's complaint, None when done.

    Slurm takes that of a job which waits, or has just been requeued, and of no other.
    """
    answer = run("scontrol", "update", f"JobId={job_id}", f"ExcNodeList={','.join(nodes)}")
    if answer.returncode == 0:
        return None
    return answer.stderr.strip() or f"scontrol update returned {answer.returncode}"


def expand_nodes(nodelist: str) -> list[str]:
    """``n[1-2]`` → ``["n1", "n2"]``; ``(null)`` is none."""
    if nodelist in ("", "(null)"):
        # Without a list, scontrol takes that of the job that it runs in.
        return []
    return run("scontrol", "show", "hostnames", nodelist).stdout.split()


def signal_step(job_id: str, step: str | None, number: signal.Signals) -> None:
    """Sends a signal to the ranks' step of a job, not to its batch script.

    ``scancel --signal=KILL JOB`` would end the whole job.

    Args:
        step: the number that the ranks have reported; None: all numbered steps that Slurm lists.
    """
    signalled = f"--signal={number.name[3:]}"
    if step is not None and run("scancel", signalled, f"{job_id}.{step}").returncode == 0:
        return
    if listed := numbered_steps(job_id):
        run("scancel", signalled, *listed)


def numbered_steps(job_id: str) -> list[str] | None:
    """The steps of a job that srun has started, as ``7.0`` or ``5_2.0``; None: no answer.

    Those of its guards are no work of the job's, and are left out.
    Where the site lets each job manage its own steps (``enable_stepmgr``) squeue lists none.
    """
    answer = run("scontrol", "show", "step", "--oneliner", job_id)
    if answer.returncode != 0 and unanswered(answer.stderr):
        return None
    return _NUMBERED_STEP.findall(answer.stdout)


def requeue(job_id: str) -> str | None:
    """Asks Slurm to run the job again. Returns None when it will, else Slurm's complaint.

    A job that is pending already, because Slurm itself was faster, is what was wanted.

    Args:
        job_id: of an array's task ``ARRAY_TASK``; an array's own id would stop all its tasks.
    """
    answer = run("scontrol", "requeue", job_id)
    if answer.returncode == 0 or "pending" in answer.stderr.lower():
        return None
    info = show_job(job_id) or {}
    if info.get("JobState") in states.QUEUED:
        return None
    return answer.stderr.strip() or f"scontrol requeue returned {answer.returncode}"


@dataclass(frozen=True)
class Partition:
    """One partition as sinfo shows it; ``max_minutes`` None is no limit.

    ``cpus`` are those of its largest node; None: sinfo does not tell. ``gres`` has the generic
    resources of each kind of node, in Slurm's words.
    """

    name: str
    is_default: bool
    max_minutes: int | None
    nodes: int
    cpus: int | None
    gres: tuple[str, ...] = ()
    preempt_mode: str = ""
    grace_time: int = 0

    def devices(self, gres: str) -> int:
        """How many of a generic resource the node with the most of them has."""
        return max((count_devices(text, gres) for text in self.gres), default=0)


@dataclass(frozen=True)
class Site:
    """What a submission has to respect here."""

    partitions: dict[str, Partition] = field(default_factory=dict)
    expedites: bool = False
    """Jobs may ask to be run again at once (``enable_expedited_requeue``, 25.11 and newer)."""

    def default(self) -> Partition | None:
        """The partition of a job that names none."""
        return next((p for p in self.partitions.values() if p.is_default), None)


def read_site() -> Site | None:
    """Asks sinfo and scontrol; None when the controller does not answer."""
    # --all: hidden partitions too. --exact: a line for each kind of node, instead of one for all
    # with the smallest number of CPUs and a "+".
    sinfo = ("sinfo", "--noheader", "--all", "--exact", "--format=%P|%l|%D|%G|%c")
    answer = run(*sinfo, timeout=30)
    if answer.returncode != 0:
        return None
    details = {}
    for line in run("scontrol", "show", "partition", "--oneliner", "--all").stdout.splitlines():
        info = parse_fields(line)
        details[info.get("PartitionName", "")] = info
    partitions: dict[str, Partition] = {}
    for line in answer.stdout.splitlines():
        parts = line.split("|")
        if len(parts) != 5:
            continue
        name = parts[0].rstrip("*")
        info = details.get(name, {})
        seen = partitions.get(name)
        nodes = leading_number(parts[2])
        cpus = None if parts[4].endswith("+") else leading_number(parts[4])
        if seen is not None:
            cpus = None if cpus is None or seen.cpus is None else max(cpus, seen.cpus)
        limit = limit_seconds(parts[1])
        partitions[name] = Partition(
            name=name,
            is_default=parts[0].endswith("*"),
            max_minutes=None if limit is None else limit // 60,
            nodes=nodes + (seen.nodes if seen else 0),
            cpus=cpus,
            gres=(*(seen.gres if seen else ()), parts[3]),
            preempt_mode=info.get("PreemptMode", ""),
            grace_time=leading_number(info.get("GraceTime", "0")),
        )
    return Site(partitions, expedites(show_config()))
