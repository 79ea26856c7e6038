"""What Slurm says: jobs, nodes, partitions, configuration. Standard library only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

JobInfo = dict[str, str]
"""The fields of ``scontrol show job``, e.g. ``JobState``, ``Reason``, ``Restarts``."""

MOST_TASKS = 4_000_001
"""Slurm's own limit of an array (MaxArraySize)."""

SCRUBBED = ("SLURM", "SBATCH_", "SALLOC_", "SRUN_", "SUBMITIT_")
PLACE_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""torchrun's names for a rank's place. From the submitter's shell they would win over Slurm's."""

_UNKNOWN_JOB = re.compile("Invalid job id|Job [0-9_+]+ not found")
_SILENCE = re.compile(
    "contact|timed out|timeout|socket|connect|communication|transmitted|standby", re.IGNORECASE
)


def available() -> bool:
    """True where jobs can be submitted to Slurm."""
    return shutil.which("sbatch") is not None and shutil.which("scontrol") is not None


def query_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without what changes the form of Slurm's answers, or hides a part of them.

    A user's own SQUEUE_STATES or SINFO_PARTITION is a filter, SLURM_TIME_FORMAT another
    spelling of times. Array task ids are cut off after 64 characters unless told otherwise.
    """
    kept = {k: v for k, v in environment.items() if not k.startswith(("SQUEUE_", "SINFO_"))}
    return {**kept, "SLURM_TIME_FORMAT": "standard", "SLURM_BITSTR_LEN": "0"}


def run(*command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Runs one of Slurm's commands; a command that cannot run or hangs is a failed one."""
    # srun hands its environment on to the ranks.
    environment = None if command[0] == "srun" else query_environment(os.environ)
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            errors="replace",
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 255, "", str(error))


def outer_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without the variables of a surrounding job or of torchrun.

    A job submitted from inside a job would inherit its task counts, CPU binding and place.
    ``SLURM_CONF`` says which cluster is meant, so it stays.
    """
    return {
        key: value
        for key, value in environment.items()
        if key == "SLURM_CONF" or not (key.startswith(SCRUBBED) or key in PLACE_VARIABLES)
    }


@contextmanager
def submission_environment(hidden: tuple[str, ...] = ()) -> Iterator[None]:
    """``os.environ`` as sbatch may see it: no outer job, and none of the ``hidden`` secrets."""
    before = dict(os.environ)
    clean = {k: v for k, v in outer_environment(before).items() if k not in hidden}
    os.environ.clear()
    os.environ.update(clean)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def parse_fields(text: str) -> JobInfo:
    """``Key=value Key=value …`` of a one-line scontrol answer, as a dict.

    The first of two equal keys counts: a comment or a folder's name, further on in the line, may
    hold what looks like another ``JobState=``.
    """
    fields: JobInfo = {}
    for key, value in re.findall(r"(?:^|\s)([A-Za-z:/]+)=(\S*)", text):
        fields.setdefault(key, value)
    return fields


def show_job(job_id: str) -> JobInfo | None:
    """The controller's record of a job; None once it has forgotten it or does not answer."""
    answer = run("scontrol", "show", "job", "--oneliner", job_id)
    return parse_fields(answer.stdout) if answer.returncode == 0 and answer.stdout else None


def job_states(job_id: str | None = None) -> dict[str, JobInfo] | None:
    """The jobs that the controller knows, by id; array tasks as ``A_T``. None: no answer.

    ``job_id``: only this one. All of them are a large answer on a busy cluster.
    """
    one = () if job_id is None else (job_id,)
    answer = run("scontrol", "show", "job", "--oneliner", "--all", *one)
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


def array_indices(text: str) -> list[int]:
    """``0-2,5%4`` → ``[0, 1, 2, 5]``: tasks that wait have one record together."""
    found: list[int] = []
    for part in text.partition("%")[0].split(","):
        match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?(?::([0-9]+))?", part)
        if match is not None:
            first, last, step = match[1], match[2] or match[1], match[3] or "1"
            tasks = range(whole(first), whole(last) + 1, max(1, whole(step)))
            found += tasks[: MOST_TASKS - len(found)]
    return found


def whole(digits: str) -> int:
    """A number of Slurm's; one of more digits than any it prints is 0."""
    return int(digits) if len(digits) < 19 else 0


def show_config() -> JobInfo:
    """``scontrol show config`` as a dict of raw strings; empty when there is no answer."""
    found = {}
    for line in run("scontrol", "show", "config").stdout.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            found[key.strip()] = value.strip()
    return found


def seconds(value: str, default: int) -> int:
    """``"30 sec"`` → 30."""
    match = re.match(r"([0-9]+)", value)
    return whole(match[1]) if match else default


def node_address(node: str) -> str:
    """The address that other nodes reach ``node`` by; the name itself where Slurm has no other."""
    info = parse_fields(run("scontrol", "show", "node", "--oneliner", node).stdout)
    return info.get("NodeAddr") or node


def down_nodes(nodelist: str) -> list[str]:
    """The nodes of ``nodelist`` that are down, failed or silent."""
    if not nodelist:
        return []
    bad = []
    answer = run("scontrol", "show", "node", "--oneliner", nodelist)
    for line in answer.stdout.splitlines():
        info = parse_fields(line)
        if is_down(info.get("State", "")):
            bad.append(info.get("NodeName", "?"))
    return bad


def is_down(state: str) -> bool:
    """True for a node that is lost: ``DOWN*+DRAIN``, ``MIXED*``, ``IDLE+NOT_RESPONDING``.

    A node that is only switched off or about to be (``IDLE+POWERED_DOWN``, ``MIXED+DRAIN``) is
    not: the site does that with nodes that are free again.
    """
    words = re.split(r"[^A-Z_*]+", state)
    lost = ("DOWN", "FAIL", "FAILING", "ERROR", "NOT_RESPONDING")
    return any(word.endswith("*") or word in lost for word in words)


def expand_nodes(nodelist: str) -> list[str]:
    """``n[1-2]`` → ``["n1", "n2"]``."""
    return run("scontrol", "show", "hostnames", nodelist).stdout.split()


def signal_steps(job_id: str, name: str) -> None:
    """Sends a signal to the job's steps, not to its batch script.

    ``scancel --signal=KILL JOB`` would end the whole job, so each step is named.
    """
    listed = run("squeue", "--noheader", "--steps", f"--jobs={job_id}", "--format=%i")
    steps = [step for step in listed.stdout.split() if step.rpartition(".")[2].isdigit()]
    if steps:
        run("scancel", f"--signal={name}", *steps)


def requeue(job_id: str) -> str | None:
    """Asks Slurm to run the job again. Returns None when it will, else Slurm's complaint.

    A job that is pending already, because Slurm itself was faster, is what was wanted.
    """
    answer = run("scontrol", "requeue", job_id)
    if answer.returncode == 0 or "pending" in answer.stderr.lower():
        return None
    info = show_job(job_id) or {}
    if info.get("JobState") in ("PENDING", "REQUEUED"):
        return None
    return answer.stderr.strip() or f"scontrol requeue returned {answer.returncode}"


def unanswered(complaint: str) -> bool:
    """True for a complaint of a command that the controller gave no answer to: ask again."""
    return _SILENCE.search(complaint) is not None


def parse_stamp(text: str | None) -> float | None:
    """``2026-11-24T03:29:12`` → Unix seconds; ``None``, ``Unknown`` → None."""
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except (ValueError, OverflowError, OSError):
        return None


@dataclass(frozen=True)
class Partition:
    """One partition as sinfo shows it; ``max_minutes`` None is no limit.

    ``gpus`` and ``cpus`` are those of its largest node; ``cpus`` None: sinfo does not tell.
    """

    name: str
    is_default: bool
    max_minutes: int | None
    nodes: int
    gpus: int
    cpus: int | None
    preempt_mode: str = ""
    grace_time: int = 0


@dataclass(frozen=True)
class Site:
    """What a submission has to respect here."""

    partitions: dict[str, Partition] = field(default_factory=dict)

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
        gpus, nodes = count_gpus(parts[3]), _leading(parts[2])
        cpus = None if parts[4].endswith("+") else _leading(parts[4])
        if seen is not None:
            cpus = None if cpus is None or seen.cpus is None else max(cpus, seen.cpus)
        limit = limit_seconds(parts[1])
        partitions[name] = Partition(
            name=name,
            is_default=parts[0].endswith("*"),
            max_minutes=None if limit is None else limit // 60,
            nodes=nodes + (seen.nodes if seen else 0),
            gpus=max(gpus, seen.gpus if seen else 0),
            cpus=cpus,
            preempt_mode=info.get("PreemptMode", ""),
            grace_time=_leading(info.get("GraceTime", "0")),
        )
    return Site(partitions)


def count_gpus(gres: str) -> int:
    """``gpu:a100:4(S:0-1),gpu:2`` → 6; other resources count nothing."""
    total = 0
    for entry in re.sub(r"\([^)]*\)", "", gres).split(","):
        parts = entry.split(":")
        if parts[0] == "gpu" and parts[-1].isdecimal():
            total += whole(parts[-1])
    return total


def limit_seconds(text: str) -> int | None:
    """A time limit (``D-HH:MM:SS``, ``MM:SS``) → seconds; None for no limit."""
    match = re.fullmatch(r"(?:([0-9]+)-)?(?:([0-9]+):)?([0-9]+):([0-9]+)", text)
    if match is None:
        return None
    days, hours, minutes, secs = (whole(part or "0") for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + secs


def _leading(text: str) -> int:
    match = re.match(r"[0-9]+", text)
    return whole(match[0]) if match else 0
