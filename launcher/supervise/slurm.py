"""Attempts in a Slurm job: ``python -m launcher.supervise RUN WORDS…`` in the batch script.

The words are what srun and the container, which the run's spec says, have each rank's Python run.
Here scontrol exists, which a container does not have. After a crash or a hang the next attempt is
another step of the same job, while its nodes and its time last; after anything else Slurm is asked
to run the job again. The batch shell ignores SIGTERM, so this process outlives the signals that
stop the ranks. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from launcher.containers import runtimes as container
from launcher.preflight.judge import Verdict, judge
from launcher.preflight.look import compute, look
from launcher.rank.environment import attempt_environment
from launcher.rank.fencing import FENCE_SECONDS
from launcher.slurm import client as slurm
from launcher.slurm import states
from launcher.slurm.environment import own_job
from launcher.slurm.parse import leading_number, seconds_left, unanswered
from launcher.slurm.sbatch import warning_seconds
from launcher.spec.job_spec import JobSpec
from launcher.spec.options import TRAIN_MODULE
from launcher.spec.run_folder import RunFolder
from launcher.spec.trust import check_trusted
from launcher.supervise import attempt_log as attempt
from launcher.supervise import exclusion, host
from launcher.supervise.classify import (
    CANCEL_EVENTS,
    SIGNAL_SLACK,
    Evidence,
    asked_to_cancel,
    classify,
)
from launcher.supervise.guard import Guards
from launcher.supervise.held_nodes import HeldNodes, named, once_a_node
from launcher.supervise.restart_policy import (
    may_stay,
    pause_in_place,
    startup_seconds,
    worth_staying,
)
from launcher.supervise.supervisor import Supervisor, exit_status
from launcher.supervise.suspects import TASK_ENDED, of_lost
from launcher.supervise.watchdog import POLL_SECONDS
from minimind.errors import EXIT_CANCELLED, EXIT_RUN_ME_AGAIN, as_shell_code
from minimind.rundir import causes, env
from minimind.rundir.events import Event, Kind, of_attempt
from minimind.system.process import free_port
from minimind.system.signals import STACKS_SIGNAL
from minimind.system.tail import Tail

REQUEUE_PATIENCE = 300.0
"""How long a controller that does not answer is asked again to requeue the job, in seconds.

A restart takes less, and a backup takes over after SlurmctldTimeout, 120 s by default. Where Slurm
ends this job before that, the attempts cost nothing.
"""
REQUEUE_PAUSES = (1.0, 15.0)
"""The first and the longest pause between two of these questions."""
KILL_SECONDS = 30.0
"""How long ranks get to go once they are killed; then srun is, and the job's end takes them along.

What keeps them may be a file server, or a site where the signal reaches nobody.
"""
LOST_LOOK_SECONDS = 10.0
"""How often a job that outlives the loss of a node is looked at for one, while its ranks run."""
LOST_END_SECONDS = 5.0
"""How long Slurm gets to end the ranks' step once a node of theirs is lost.

It does so at once, but with ``enable_stepmgr``: there after 75 to 110 s (24.11.5).
"""
LOST_ANSWER_SECONDS = 3.0
"""How long the look may take: a watch that is held up longer counts no time towards a hang."""
STEP_END_SECONDS = 5.0
"""How long Slurm may list a step whose srun has ended."""


class StepRanks:
    """The ranks as one Slurm step behind an srun process."""

    def __init__(
        self,
        run: RunFolder,
        number: int,
        command: list[str],
        environment: dict[str, str],
        held: HeldNodes | None = None,
    ) -> None:
        """Starts attempt ``number`` with ``command``: srun, and what each rank runs."""
        self._run, self._number, self._held = run, number, held
        self._killed_at: float | None = None
        self._look_at = time.monotonic() + LOST_LOOK_SECONDS
        self._lost = False
        with run.srun_log(number).open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_outlive_the_ranks,
            )

    def poll(self) -> int | None:
        code = self._process.poll()
        if code is None and self._killed_at is not None:
            self._escalate(time.monotonic() - self._killed_at)
        elif code is None and self._lacks_a_node():
            self.kill()
        return as_shell_code(code)

    def _lacks_a_node(self) -> bool:
        """Whether a node of the ranks is lost, and Slurm does not end the others' wait for it."""
        if self._held is None or time.monotonic() < self._look_at:
            return False
        before, self._lost = self._lost, bool(self._held.gone(LOST_ANSWER_SECONDS))
        pause = LOST_END_SECONDS if self._lost else LOST_LOOK_SECONDS
        self._look_at = time.monotonic() + pause
        return before and self._lost

    def broken(self) -> bool:
        log = self._run.srun_log(self._number).read_text(errors="replace")
        ended = TASK_ENDED.finditer(log)
        return any(match["signal"] or int(match["code"]) != 0 for match in ended)

    def suspended(self, *, on_all_nodes: bool) -> str:
        job = slurm.show_job(own_job(os.environ)) or {}
        if job.get("JobState") in states.SUSPENDED:
            return f"Slurm says that its job is {job['JobState']}"
        here = host.suspended(self._run.events_file)
        return here or (self._suspended_elsewhere() if on_all_nodes else "")

    def _suspended_elsewhere(self) -> str:
        """As every node of the job sees it, in a step beside that of the ranks."""
        nodes = os.environ.get("SLURM_JOB_NUM_NODES", "1")
        if self._held is not None:
            nodes = str(len(self._held.nodes))
        if nodes == "1":
            return ""
        look = (sys.executable, "-m", "launcher.supervise.host", str(self._run.events_file))
        beside = ("--overlap", "--mem=0", "--quiet")
        step = [*once_a_node(nodes), *named(self._held)]
        answer = slurm.run(*step, *beside, *look, timeout=60)
        return next((line for line in answer.stdout.splitlines() if line), "")

    def dump_stacks(self) -> None:
        self._signal(STACKS_SIGNAL)

    def kill(self) -> None:
        if self._killed_at is None:
            self._killed_at = time.monotonic()
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        step = self._run.reported_step(self._number)
        slurm.signal_step(own_job(os.environ), step, number)

    def _escalate(self, seconds: float) -> None:
        if seconds > KILL_SECONDS:
            attempt.say(
                f"launcher: the ranks live on {seconds:.0f} s after SIGKILL; srun is killed, and "
                "they end with the job"
            )
            self._process.kill()


def _outlive_the_ranks() -> None:
    """srun must live until its ranks have saved; it would not inherit this process's handler."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class SlurmJob:
    """The job that this process belongs to: a :class:`Backend` of the attempts in it.

    ``job_id`` is what Slurm and the ranks write into logs and records; ``address`` is what
    Slurm's commands are given.
    """

    fence_seconds = FENCE_SECONDS
    restarts_itself = True

    def __init__(self, run: RunFolder, spec: JobSpec, command: list[str], output: Path) -> None:
        """``command``: srun and what each rank runs. ``output``: of the batch script."""
        self.run = run
        self.spec = spec
        self.command = command
        self.output = output
        self.job_id = os.environ["SLURM_JOB_ID"]
        self.address = own_job(os.environ)
        self.where = os.environ.get("SLURM_JOB_NODELIST", "")
        self.kill_wait = leading_number(slurm.show_config().get("KillWait", ""), 30)
        self.warned_at: float | None = None
        self.number = 0
        self._before = 0
        self._gone_at = 0.0
        self._log_offset = 0
        self._handed_over = False
        self._looked_at: frozenset[str] = frozenset()
        self.held = HeldNodes.of(spec, self.address, self.where)
        self._guards = Guards(run, self.address, self.held)

    def say(self, text: str) -> None:
        attempt.say(text)

    def stopped(self, code: int) -> int | None:
        """Never by a signal: it warns of the job's end, and what follows is this process's work."""
        return None

    def place(self) -> dict[str, Any]:
        self._log_offset = self.output.stat().st_size if self.output.is_file() else 0
        if self.held is not None:
            if not self.number:
                self.held.begin(self._failed())
            self.where = ",".join(self.held.nodes)
        self._guards.begin()
        return {
            "job_id": self.job_id,
            "nodes": slurm.expand_nodes(self.where),
            "restarts": self._restarts(),
            "log_offset": self._log_offset,
        }

    def sweep(self) -> None:
        sweep = container.sweep_command(self.spec)
        if sweep:
            silent = ("--output=none", "--error=none")
            nodes = len(self.held.nodes) if self.held is not None else self.spec.nodes
            step = [*once_a_node(str(nodes)), *named(self.held)]
            slurm.run(*step, *silent, *sweep, timeout=120)

    def look(self) -> Verdict | None:
        """Not twice in a job at the same nodes, unless one of them was to blame since."""
        nodes = self._own_first(slurm.expand_nodes(self.where))
        if not self.spec.preflight or not nodes or self._are_known(nodes):
            return None
        self._looked_at |= {*nodes}
        # No GPU, no memory and no processor that a step of the ranks would wait for.
        beside = ("--overlap", "--mem=0", "--quiet", "--kill-on-bad-exit=0", "--wait=0")
        step = [*once_a_node(str(len(nodes))), *named(self.held), *beside]
        devices = self.spec.devices if self.spec.request_gpus else None
        seen = look(self.run, nodes, step, slurm.node_address(nodes[0]), devices)
        verdict = judge(seen, on_gpus=self.spec.request_gpus)
        shown = all(node in seen.reports and seen.reports[node].gpus for node in nodes)
        if shown and not verdict.unfit and self._ranks_use_gpus():
            return verdict.followed_by(self._compute(step))
        return verdict

    def _ranks_use_gpus(self) -> bool:
        """Whether the ranks are known to have a torch that uses GPUs, and it is quickly started."""
        ours = self.spec.request_gpus and self.spec.module == TRAIN_MODULE
        return ours and container.starts_at_once(self.spec)

    def _compute(self, step: list[str]) -> Verdict:
        """What the GPUs and the network between them do, by the ranks' own torch."""
        environment = attempt_environment(self.run, self.spec, 0) | self._meeting_point()
        for name in (env.EVENTS, env.ATTEMPT, *env.PLACE):
            # It is no rank.
            environment.pop(name, None)
        inside = self.spec.container != "none" or self.run.code.is_dir()
        start = container.start_folder(self.spec) if inside else self.spec.workdir
        words = [*step, f"--chdir={start}", *container.in_container(self.spec)]
        seen = compute(slurm.expand_nodes(self.where), words, environment)
        return judge(seen, on_gpus=True)

    def _own_first(self, nodes: list[str]) -> list[str]:
        here = os.environ.get("SLURMD_NODENAME", "")
        return sorted(nodes, key=lambda node: node != here)

    def _are_known(self, nodes: list[str]) -> bool:
        newest = of_attempt(self.run.events(), self.number)
        blamed = any(e["event"] in (Kind.NODE_SUSPECTED, Kind.NODE_FAILED) for e in newest)
        return self._looked_at >= {*nodes} and not blamed

    def unfit(self, number: int, nodes: Mapping[str, str]) -> Evidence | None:
        self._take_up(number)
        failed = {*self._failed()} & nodes.keys()
        can_spare = bool(failed) and self.held is not None and self.held.can_spare(self._failed())
        if can_spare or self._must_move():
            return replace(self.evidence(EXIT_RUN_ME_AGAIN), unfit=nodes)
        attempt.say("launcher: warning: the job has no better nodes; the ranks start on these")
        return None

    def _take_up(self, number: int) -> None:
        """What is asked from now on is about attempt ``number``, of which no rank runs yet."""
        self._gone_at = time.monotonic()
        if number != self.number:
            self._before, self.number = self.number, number

    def start(self, number: int) -> StepRanks:
        self._take_up(number)
        # The user's --env PATH is for the ranks: srun itself is looked up on the host's.
        srun = shutil.which(self.command[0]) or self.command[0]
        size = self.held.srun_words() if self.held is not None else []
        command = [srun, *size, *self.command[1:]]
        signal.signal(signal.SIGTERM, self._on_warning)
        return StepRanks(self.run, number, command, self._environment(), self.held)

    def tick(self) -> None:
        """Asks for the next attempt while the ranks still save, if this process is about to die.

        A time limit is not requeued by Slurm itself. Once the job is on its way out, asking
        early does not shorten the ranks' time, but asking too late is asking never.
        """
        self._guards.keep()
        if self.warned_at is None or self._handed_over or self.run.superseded(self.number):
            return
        if time.monotonic() - self.warned_at < self.kill_wait * 0.6:
            return
        self._handed_over = True
        cause = classify(self.evidence(None))
        ends = cause in (causes.PREEMPTED, causes.TIME_LIMIT, causes.NODE_FAILURE)
        if ends and not self._outlives(cause):
            complaint = slurm.requeue(self.address)
            self._handed_over = complaint is None or not unanswered(complaint)

    def ranks_are_gone(self) -> None:
        """No sweep: the job may have few seconds left, and the next attempt sweeps."""
        self._gone_at = time.monotonic()

    def close(self) -> None:
        """Ends what has watched over the job, from its first attempt on."""
        self._guards.end()

    def evidence(self, exit_code: int | None, *, hung: bool = False) -> Evidence:
        found = self._evidence(exit_code, hung)
        ended = exit_code is not None and classify(found) in causes.FAILURES
        if self.held is None or not ended:
            return found
        # The others miss a silent node's ranks at once; Slurm takes minutes to find it lost.
        self._ranks_may_live()
        return self._evidence(exit_code, hung)

    def _evidence(self, exit_code: int | None, hung: bool) -> Evidence:
        return Evidence(
            exit_code=exit_code,
            log=self._slurm_log(self._log_offset, self.number),
            job_id=self.job_id,
            events=self._events(),
            job=slurm.show_job(self.address),
            **self._state_of_nodes(),
            killed_for_hang=hung,
            signal_lead=warning_seconds(self.spec),
            now=time.time(),
        )

    def _state_of_nodes(self) -> dict[str, Any]:
        """As :func:`_state_of`; what Slurm has taken out of the job is down, too."""
        state = _state_of(self.where)
        gone = self.held.gone() if self.held is not None else []
        down = tuple(dict.fromkeys([*state["down_nodes"], *gone]))
        return {**state, "down_nodes": down, "gone_nodes": tuple(gone)}

    def evidence_of_lost(self, number: int) -> Evidence:
        events = of_attempt(self.run.events(), number)
        began = events[0]
        return Evidence(
            exit_code=None,
            log=self._slurm_log(began.get("log_offset", 0), number),
            job_id=began.get("job_id", ""),
            events=tuple(events),
            **_state_of(",".join(began.get("nodes", []))),
            restarted=self._restarts() > 0,
            now=time.time(),
        )

    def again(self, cause: str, exit_code: int, pause: float) -> int | None:
        """In this job where that can work; else Slurm runs the job again, which has a queue."""
        ended = attempt.endings(self.run.events())
        pause = max(pause, pause_in_place(ended))
        if self._may_stay(ended, cause) and self._can_stay(pause):
            self._rest(pause)
            if self._cancelled_meanwhile():
                return EXIT_CANCELLED
            superseded = self.warned_at is not None or self.run.superseded(self.number)
            if not superseded and self._has_nodes(cause):
                self._record_restart(cause)
                return None
        # The signal that ended the pause, or kept it from beginning, may have been a cancel's.
        if self.warned_at is not None and self._outlives(cause) and self._cancelled_meanwhile():
            return EXIT_CANCELLED
        return self._hand_back(cause, exit_code)

    def _may_stay(self, ended: list[Event], cause: str) -> bool:
        """Whether what ended the newest attempt leaves hope in this job."""
        # A full disk may not have taken the newest one.
        if not ended or ended[-1]["attempt"] != self.number:
            return False
        if self.held is None:
            return may_stay(ended) and not self._must_move()
        return may_stay(ended) or cause == causes.NODE_FAILURE

    def _outlives(self, cause: str) -> bool:
        """Whether what ended the newest attempt is no end of the job: another signal is news."""
        return cause in causes.IN_PLACE or (self.held is not None and cause == causes.NODE_FAILURE)

    def _must_move(self) -> bool:
        """Whether a node of this job has failed that Slurm can leave out."""
        plan = exclusion.make_plan(self.run, self.spec, self.address)
        return exclusion.must_move(self.run, plan, self.number, self.address)

    def _has_nodes(self, cause: str) -> bool:
        """Whether the job has nodes for another attempt, which is given those.

        Nodes that the run has failed on come in only where Slurm has no others either.
        """
        if self.held is None:
            return True
        gone = self.held.gone()
        if gone and cause != causes.NODE_FAILURE:
            # Slurm takes minutes to find a node lost whose ranks the others have missed at once.
            attempt.record(self.run, Kind.NODE_FAILED, attempt=self.number, nodes=gone)
            for lost in map(of_lost, gone):
                attempt.record(self.run, Kind.NODE_SUSPECTED, attempt=self.number, **vars(lost))
        return self.held.choose(self._failed()) or (not self._must_move() and self.held.choose())

    def _failed(self) -> list[str]:
        return [*exclusion.failed_nodes(self.run.events(), time.time(), self.spec.exclude_hours)]

    def _record_restart(self, cause: str) -> None:
        """That the next attempt begins in this job, and where a node may be lost, on which ones."""
        nodes = {"nodes": self.held.nodes} if self.held is not None else {}
        attempt.record(self.run, Kind.RESTARTED, attempt=self.number, cause=cause, **nodes)

    def _can_stay(self, pause: float) -> bool:
        """Whether this job has nodes and time for another attempt after ``pause`` seconds."""
        if self.warned_at is not None:
            return False
        job = slurm.show_job(self.address) or {}
        if job.get("JobState") != "RUNNING" or self._ranks_may_live():
            return False
        warning = warning_seconds(self.spec)
        early = warning + SIGNAL_SLACK if warning else 0
        usable = seconds_left(job, time.time()) - pause - early
        return worth_staying(usable, startup_seconds(self.run.events()))

    def _ranks_may_live(self) -> bool:
        """Whether the ended attempt's step may still be there: its srun may have been killed."""
        patience = self.held.patience if self.held is not None else 0.0
        deadline = self._gone_at + STEP_END_SECONDS + patience
        while self._ranks_listed():
            if time.monotonic() > deadline or self.warned_at is not None:
                return True
            self._guards.keep()
            time.sleep(POLL_SECONDS)
        return False

    def _ranks_listed(self) -> bool:
        """Whether Slurm lists the step of the newest attempt, or may do so: nobody answers."""
        step = self.run.reported_step(self.number)
        listed = slurm.numbered_steps(self.address)
        if listed and step is not None:
            return f"{self.address}.{step}" in listed
        return listed != []

    def _rest(self, seconds: float) -> None:
        """Until the next attempt may begin, or this job is about to end."""
        until = time.monotonic() + seconds
        while self.warned_at is None and (left := until - time.monotonic()) > 0:
            self._guards.keep()
            time.sleep(min(left, POLL_SECONDS))

    def _hand_back(self, cause: str, exit_code: int) -> int:
        """Slurm lets a requeued job wait, two minutes on most sites, and gives its nodes away."""
        attempt.record(self.run, Kind.REQUEUED, attempt=self.number, by="launcher", cause=cause)
        complaint = self._requeue()
        if complaint is not None:
            attempt.record(self.run, Kind.REQUEUE_FAILED, attempt=self.number, reason=complaint)
            attempt.say(f"launcher: Slurm refuses to run the job again: {complaint}")
        elif not self.run.superseded(self.number) and self.run.final() is None:
            # Last: the job may have seconds, and must run again whatever there is to leave out.
            plan = exclusion.make_plan(self.run, self.spec, self.address)
            exclusion.carry_out(self.run, plan, self.number, self.address)
        final = self.run.final()
        return final.exit_code if final is not None else exit_code

    def _restarts(self) -> int:
        return int(os.environ.get("SLURM_RESTART_COUNT", "0"))

    def _on_warning(self, signum: int, frame: FrameType | None) -> None:
        self.warned_at = self.warned_at or time.monotonic()

    def _meeting_point(self) -> dict[str, str]:
        """Where ranks meet: this is the job's first node, where rank 0 runs."""
        here = os.environ.get("SLURMD_NODENAME", socket.gethostname())
        return {env.MASTER_ADDR: slurm.node_address(here), env.MASTER_PORT: str(free_port())}

    def _environment(self) -> dict[str, str]:
        environment = attempt_environment(self.run, self.spec, self.number)
        environment |= {
            **self._meeting_point(),
            # srun's way to say --output; "%t" is the rank.
            "SLURM_STDOUTMODE": str(self.run.rank_log(self.number, "%t")),
        }
        for name in ("SLURM_STDERRMODE", *env.PLACE):
            environment.pop(name, None)
        if self.spec.cpus_per_gpu:
            environment.setdefault("OMP_NUM_THREADS", str(self.spec.cpus_per_gpu))
        return environment

    def _events(self) -> tuple[Event, ...]:
        """The attempt's own; and a cancel between the one before in this job and it.

        Slurm may have put that down before the attempt's part of the log begins.
        """
        events = self.run.events()
        before = of_attempt(events, self._before)
        asked = (event for event in before if event["event"] in CANCEL_EVENTS)
        return (*asked, *of_attempt(events, self.number))

    def _slurm_log(self, offset: int, number: int) -> str:
        """What slurmstepd and srun wrote about an attempt."""
        return self._batch_output(offset) + Tail(self.run.srun_log(number)).read()

    def _batch_output(self, offset: int) -> str:
        return Tail(self.output, offset).read() if self.output.is_file() else ""

    def _requeue(self) -> str | None:
        """Asks until there is an answer; returns Slurm's complaint, None when the job will run."""
        pause, longest = REQUEUE_PAUSES
        deadline = time.monotonic() + REQUEUE_PATIENCE
        while (complaint := slurm.requeue(self.address)) is not None:
            if not unanswered(complaint) or time.monotonic() + pause > deadline:
                return complaint
            attempt.say(f"launcher: asking again in {pause:.0f} s: {complaint}")
            time.sleep(pause)
            pause = min(2 * pause, longest)
            # Slurm was faster, and this would stop the newer attempt; or the user was.
            if self.run.superseded(self.number) or self._cancelled_meanwhile():
                return None
        return None

    def _cancelled_meanwhile(self) -> bool:
        """True, and the run is over, when it was cancelled after its attempt had ended."""
        log = self._slurm_log(self._log_offset, self.number)
        evidence = Evidence(
            exit_code=None,
            # What srun says of a lost node is no end of a job that outlives it.
            log=log if self.held is None else self._batch_output(self._log_offset),
            job_id=self.job_id,
            events=self._events(),
            job=slurm.show_job(self.address),
        )
        if classify(evidence) != causes.CANCELLED:
            return False
        attempt.cancel(self.run)
        return True


def _state_of(nodelist: str) -> dict[str, Any]:
    """What :class:`Evidence` has of the nodes that an attempt ran on."""
    nodes = slurm.show_nodes(nodelist).values()
    return {
        "down_nodes": tuple(node.name for node in nodes if node.is_down),
        "reasons": {node.name: node.reason for node in nodes if node.reason},
        "distribution": os.environ.get("SLURM_DISTRIBUTION", ""),
    }


def supervise_job(run: RunFolder, spec: JobSpec, job: SlurmJob) -> int:
    """The attempts of a run in this job. What ends the run for good is no error to Slurm."""
    if run.final() is None and _cancelled_since(run.events(), job.job_id):
        attempt.cancel(run)
    try:
        code = Supervisor(run, spec, job).main()
    finally:
        job.close()
    if code and run.final() is not None:
        slurm.never_hold(job.address)
    return code


def _cancelled_since(events: list[Event], job_id: str) -> bool:
    """Whether a person has cancelled the run since the newest attempt of this same job ended.

    The request for another start may have come to Slurm after the cancel, and undone it. Who takes
    the end of a run back that was marked by its cancel, by hand, may start it again.
    """
    newest = next((e for e in reversed(events) if e["event"] == Kind.ATTEMPT_STARTED), None)
    if newest is None or newest.get("job_id") != job_id or attempt.unfinished(events) is not None:
        return False
    mine = of_attempt(events, newest["attempt"])
    return asked_to_cancel(mine) and mine[-1]["event"] != Kind.RUN_ENDED


def main(argv: list[str]) -> int:
    """``RUN_DIR WORDS…``; in an array ``RUN_DIR`` holds one run a task, named by index."""
    if len(argv) < 2:
        raise SystemExit("usage: python -m launcher.supervise RUN_DIR -m MODULE …")
    folder, *words = argv
    index = os.environ.get("SLURM_ARRAY_TASK_ID")
    run = RunFolder(Path(folder) / index if index else folder)

    def supervise() -> int:
        # A sweep's pickles and code lie in its own folder, its points' specs in theirs.
        for part in {run.root: run, Path(folder): RunFolder(folder)}.values():
            check_trusted(part)
        spec = run.spec()
        # From the same spec as what removes its containers: in an array every task has its own.
        command = [*container.srun_command(spec), *words]
        return supervise_job(run, spec, SlurmJob(run, spec, command, run.batch_log))

    return exit_status(run, supervise)
