"""``why``: the state of a run in plain words, and what to do about it."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.inspect import run_state as state
from launcher.slurm import client as slurm
from launcher.slurm.parse import JobInfo
from launcher.spec.run_folder import Final, RunFolder
from launcher.supervise import attempt_log as attempt
from launcher.supervise import exclusion
from launcher.supervise.memory import killed_for_memory
from launcher.supervise.restart_policy import SEE_WHY
from minimind.errors import EXIT_RUN_ME_AGAIN
from minimind.rundir import causes
from minimind.rundir.events import Event, Kind, has_begun, of_attempt, preparing
from minimind.rundir.goodput import account_for
from minimind.rundir.layout import OutputPaths
from minimind.rundir.slowness import slow_now
from minimind.system.tail import last_lines

PENDING_WORDS = {
    "Priority": "other jobs come first",
    "Resources": "it waits for nodes to become free",
    "BeginTime": "Slurm lets a requeued job wait a little before it starts again",
    "Dependency": "it waits for another job",
    "PartitionTimeLimit": "its --time is more than the partition allows",
    "PartitionNodeLimit": "it asks for more nodes than the partition gives one job",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
    "ReqNodeNotAvail": "a node it needs is down, drained or reserved",
    "NodeDown": "a node it needs is down",
    "BadConstraints": "no node that it may use has all that it asks for",
    "Reservation": "its reservation has not begun, or has ended",
    "JobHeldUser": "a user holds it",
    "JobHeldAdmin": "an administrator holds it",
    "JobHoldMaxRequeue": "Slurm has requeued it as often as MaxBatchRequeue allows, and holds it",
    "launch_failed_requeued_held": "it could not be launched, and Slurm holds it",
    "job_requeued_in_held_state": "somebody, or Slurm itself, has requeued it to be held",
}
_LIMIT = re.compile(r"(QOS|Assoc)(Grp|Max|Min)([A-Z][A-Za-z]*)")
_LIMITED = {
    "GRES": "GPUs",
    "Cpu": "CPUs",
    "CPU": "CPUs",
    "Mem": "memory",
    "Node": "nodes",
    "Jobs": "jobs",
    "SubmitJob": "jobs",
    "Wall": "time",
    "Billing": "billing units",
}
_SLURMS_WORD = re.compile(r"(?:[A-Z][a-z0-9]*){2,}|\w+_\w+")
_ONE_LINE = re.compile(r"[a-z][\w -]*: error: .+")
"""What our programs say of a person's mistake."""
_ONLY_THE_CODE = re.compile(r"srun: error: .*: Exited with exit code \d+|srun: (?!error: ).*|\s*")
"""srun's lines that tell no cause: exit codes, and notices such as that of a cluster which binds
no CPUs."""
ERROR_PREFIX = "launcher: error: "
TRACEBACK = "Traceback (most recent call last):"
_ERROR = re.compile(r"[A-Za-z_][\w.]*(?:: .*)?")
MAX_TRACEBACK_LINES = 1000
LINE_BYTES = 1 << 16
IN_PLACE = "; restarted in the same job"
LOG_TAIL_LINES = 15
CLOCK_SLACK_SECONDS = 60.0
"""A log may be as much older than a submission that it belongs to: sbatch takes a while to
answer, and a file server has a clock of its own."""


@dataclass
class Explanation:
    """What ``why`` prints."""

    run: str
    state: str
    varied: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    attempts: list[str] = field(default_factory=list)
    traceback: str = ""
    advice: list[str] = field(default_factory=list)
    estimated_start: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def explain(run: RunFolder) -> Explanation:
    """Looks at the run folder and asks Slurm about its job."""
    jobs = slurm.job_states() if run.spec().cluster == "slurm" and slurm.available() else None
    now, reason, _ = state.job_state(run, jobs)
    reason = reason.removesuffix(f"; {SEE_WHY}")
    found = Explanation(run.name, now, run.varied(), summary=pending_words(reason))
    waits = now in (state.PENDING, state.REQUEUED)
    admitted = exclusion.admit_expired(run, run.spec(), run.job_id() or "") if waits else []
    events = run.events()
    newest = max(run.attempt_numbers(), default=0)
    if now == state.RUNNING:
        who = state.suspension(run, jobs, events)
        found.summary = f"suspended: {who}" if who else found.summary
        found.summary = found.summary or preparing(of_attempt(events, newest))
    ended = [event for event in events if event["event"] == Kind.ATTEMPT_ENDED]
    found.attempts = [
        attempt_line(event) + aftermath(of_attempt(events, event["attempt"])) for event in ended
    ]
    found.attempts += doubts(of_attempt(events, newest))
    found.attempts += setbacks(events)
    # Points of an attempt before may be of nodes that the run has left.
    own = [point for point in run.points() if point.get("attempt", newest) == newest]
    if now == state.RUNNING and (slow := slow_now(own)):
        found.attempts.append(f"steadily slow: {slow}")
    found.attempts += failed_nodes(events, run.job_id(), run.spec().exclude_hours)
    found.attempts += map(exclusion.said_of_admitted, admitted)
    # What was mended before a person said "go on" is no answer any more.
    recent = attempt.endings(events)
    bad = [e for e in recent if e["cause"] in (causes.CRASH, causes.HANG, causes.CONFIG)]
    if bad and not refused_to_go_on(run.final(), recent):
        found.traceback = mistake(run, bad[-1]) or first_error(run, bad[-1]["attempt"])
    elif not recent and now == state.INTERRUPTED and not refusal(run):
        found.traceback = start_log(run, events)
    if now == state.RUNNING and reason.startswith(state.HELD_LATER):
        found.advice.append(f"keep it from being held: scontrol release {run.job_id()}")
    if waits:
        job_id = run.job_id() or ""
        if out := [event["node"] for event in exclusion.left_out(events, job_id)]:
            command = readmit(job_id, out, jobs)
            found.advice.append(f"to let it have {','.join(out)} again: {command}")
        found.estimated_start = estimated_start(job_id)
        if found.estimated_start:
            found.advice.append(f"Slurm expects to start it at {found.estimated_start}")
    found.advice += advice(run, now, events)
    return found


def never_in_its_container(run: RunFolder, events: list[Event]) -> list[str]:
    """What to look at where no rank began to train in its container.

    A runtime's own words need not name what is missing: podman's init only says "failed to exec".
    """
    spec = run.spec()
    if spec.container == "none" or has_begun(events):
        return []
    looked_at = ["--image", "--mount", f"--python (here {spec.python})"]
    return [f"no rank began to train: in its container, look at {', '.join(looked_at)}"]


def refused_to_go_on(final: Final | None, recent: list[Event]) -> bool:
    """Whether the supervisor ended the run before its next attempt: no attempt's error says why."""
    if final is None or final.cause != causes.CONFIG:
        return False
    return not recent or recent[-1]["cause"] != causes.CONFIG


def pending_words(reason: str) -> str:
    """Slurm's reason, in plain words where we have some."""
    key = reason.split(",")[0].strip("()")
    if words := PENDING_WORDS.get(key) or limit_words(key):
        return f"{words} ({key})"
    if _SLURMS_WORD.fullmatch(key):
        return f"Slurm's reason: {reason.replace('_', ' ')}"
    return "" if reason in ("None", "") else reason


def limit_words(key: str) -> str:
    """``QOSMaxGRESPerUser`` in plain words; "" for what names no limit.

    It may be more than the limit all by itself: nothing else need run.
    """
    match = _LIMIT.match(key)
    if match is None:
        return ""
    owner = {"QOS": "its QOS", "Assoc": "your account"}[match[1]]
    names = [name for start, name in _LIMITED.items() if match[3].startswith(start)]
    what = names[0] if names else "resources"
    if "Minutes" in key:
        what = f"time on {what}"
    if match[2] == "Min":
        return f"it asks for less than the minimum of {what} that {owner} sets"
    if "PerJob" in key:
        return f"it asks for more {what} than {owner} allows a job"
    return f"with it there would be more {what} than {owner} allows"


def attempt_line(event: Event) -> str:
    """One line about how an attempt ended."""
    code, reason = event.get("exit_code"), event.get("reason", "")
    status = f", exit status {code}" if code not in (None, 0, EXIT_RUN_ME_AGAIN) else ""
    return (
        f"attempt {event['attempt']} {causes.described(event['cause'])} "
        f"at step {event.get('step', 0)}{status}{f' ({reason})' if reason else ''}"
    )


def aftermath(mine: list[Event]) -> str:
    """The nodes that an attempt has lost, and that the job was kept, by its own events."""
    lost = [node for e in mine if e["event"] == Kind.NODE_FAILED for node in e.get("nodes", ())]
    text = f" ({','.join(lost)})" if lost else ""
    for event in mine:
        if event["event"] == Kind.RESTARTED:
            text += IN_PLACE + (f" on {','.join(event['nodes'])}" if "nodes" in event else "")
    return text


def doubts(mine: list[Event]) -> list[str]:
    """A line about what was seen on the nodes before an attempt, if that is not as it should be."""
    seen = [e for e in mine if e["event"] == Kind.PREFLIGHT and e.get("reason")]
    return [f"before attempt {event.get('attempt', 0)}: {event['reason']}" for event in seen]


def setbacks(events: list[Event]) -> list[str]:
    """A line about each attempt that went on from less than was saved before it."""
    attempts = account_for(events, [], time.time()).attempts
    return [
        f"attempt {a.number} went back from step {a.went_back_from} to step {a.first_step}"
        for a in attempts
        if a.went_back_from
    ]


def failed_nodes(events: list[Event], job_id: str | None, hours: int) -> list[str]:
    """A line about each node that failed in the last ``hours``, left out for it or not."""
    out = exclusion.left_out(events, job_id)
    found = [
        f"{event['node']} is left out until {moment(event['until'])}: {event['reason']} "
        f"(attempt {event.get('attempt', 0)})"
        for event in out
    ]
    excluded = {event["node"] for event in out}
    failed = exclusion.failed_nodes(events, time.time(), hours).keys() - excluded
    kept = {e["node"]: e["reason"] for e in events if e["event"] == Kind.NODE_KEPT}
    return found + [
        f"{node} failed and is not left out: {reason}"
        for node, reason in kept.items()
        if node in failed
    ]


def readmit(job_id: str, excluded: list[str], jobs: dict[str, JobInfo] | None) -> str:
    """The command by which a job that waits may have nodes again that the run has left out."""
    listed = slurm.expand_nodes((jobs or {}).get(job_id, {}).get("ExcNodeList", ""))
    rest = ",".join(node for node in listed if node not in excluded)
    return f"scontrol update JobId={job_id} ExcNodeList={rest}"


def moment(seconds: float) -> str:
    """A point in time as this machine's clock shows it."""
    return datetime.fromtimestamp(seconds).isoformat(" ", timespec="minutes")


def estimated_start(job_id: str) -> str | None:
    """Slurm's guess when a pending job starts."""
    answer = slurm.run("squeue", "--noheader", "--start", "--format=%S", f"--jobs={job_id}")
    text = answer.stdout.partition("\n")[0].strip()
    return text if answer.returncode == 0 and text and text != "N/A" else None


def mistake(run: RunFolder, ended: Event) -> str:
    """The line that a rank refused its flags or data with, if that is what ended the attempt."""
    if ended["cause"] != causes.CONFIG:
        return ""
    for path in run.rank_logs(ended["attempt"]).values():
        for line in last_lines(path, MAX_TRACEBACK_LINES).splitlines():
            if _ONE_LINE.fullmatch(line):
                return f"[{path}]\n{line}\n"
    return ""


def first_error(run: RunFolder, number: int) -> str:
    """The first traceback of an attempt; where none was written, the end of what was.

    Of many ranks the one that fell first stopped writing first: the others waited for it.
    """
    srun = run.srun_log(number)
    said = last_lines(srun, LOG_TAIL_LINES) if srun.exists() else ""
    # The others' tracebacks only say that a rank has left.
    if killed := killed_for_memory([said]):
        return f"[{srun}]\n{killed[0]}\n"
    logs = [path for path in run.rank_logs(number).values() if path.stat().st_size]
    by_age = sorted(logs, key=lambda path: path.stat().st_mtime_ns)
    trained = OutputPaths(run.spec().save_dir).logs()
    for path in [*by_age, *trained]:
        if found := first_traceback(path):
            return f"[{path}]\n{found}"
    # Where srun knows only an exit code, the rank's own last words say more.
    plain = all(_ONLY_THE_CODE.fullmatch(line) for line in said.splitlines())
    for path in [*by_age, srun] if plain else [srun, *by_age]:
        if text := last_lines(path, LOG_TAIL_LINES):
            return f"[{path}]\n{text}"
    return ""


def first_traceback(path: Path) -> str:
    """The first traceback in a log of any size, up to the line that names the error; else ""."""
    found: list[str] = []
    with path.open("rb") as file:
        while line := file.readline(LINE_BYTES):
            text = line.decode(errors="replace").rstrip("\n")
            if text.endswith(TRACEBACK):
                # A new one begins: the one before had no end.
                found = [TRACEBACK]
            elif found:
                found.append(text)
                if _ERROR.fullmatch(text):
                    return "\n".join(found) + "\n"
                if len(found) > MAX_TRACEBACK_LINES:
                    found = []
    return ""


def start_log(run: RunFolder, events: list[Event]) -> str:
    """The end of what the newest job wrote that ended before an attempt of its own did.

    Its batch script may have met a node without the module or the Python that it names.
    """
    newest = newest_start_log(run)
    submitted = max((e["time"] for e in events if e["event"] == Kind.SUBMITTED), default=0.0)
    if newest is None or newest.stat().st_mtime < submitted - CLOCK_SLACK_SECONDS:
        return ""
    text = last_lines(newest, LOG_TAIL_LINES)
    return f"[{newest}]\n{text}" if text else ""


def newest_start_log(run: RunFolder) -> Path | None:
    """The log of the process that started, or was to start, the newest attempt."""
    return max(run.start_logs(), key=_modified, default=None)


def refusal(run: RunFolder) -> str:
    """Why the newest supervisor did not begin an attempt; "" where one did begin."""
    newest = newest_start_log(run)
    last = last_lines(newest, 1) if newest else ""
    return last.removeprefix(ERROR_PREFIX) if last.startswith(ERROR_PREFIX) else ""


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns


def advice(run: RunFolder, now: str, events: list[Event]) -> list[str]:
    """What a person can do next."""
    name = run.name
    if now == state.HELD:
        return [f"release it: launcher requeue {name}"]
    if now == state.INTERRUPTED:
        failed = [e for e in events if e["event"] == Kind.REQUEUE_FAILED]
        said = [f"Slurm refused to requeue it: {failed[-1]['reason']}"] if failed else []
        if refused := refusal(run):
            said.append(f"its last start was refused: {refused}")
        return [*said, f"continue it from its newest checkpoint: launcher requeue {name}"]
    if now == state.FAILED:
        final = run.final()
        assert final is not None
        if final.cause == causes.CONFIG:
            return [
                f"correct the flags: launcher submit --name {name} --resume … -- FLAGS",
                f"or, once what it names is in its place: launcher requeue {name}",
            ]
        return [
            *never_in_its_container(run, events),
            f"the logs: launcher logs {name}",
            f"when the cause is removed, continue: launcher requeue {name}",
        ]
    if now == state.CANCELLED:
        return [f"continue it from its newest checkpoint: launcher requeue {name}"]
    if now == state.UNKNOWN:
        return [f"ask Slurm itself: scontrol ping, scontrol show job {run.job_id()}"]
    return []
