"""The host-side half on Slurm: ``python -m launcher.supervise RUN WORDS…`` in the batch script.

The words are what srun and the container, which the run's spec says, have each rank's Python run.
Here scontrol exists, which a container does not have. One process is one attempt: it starts
the ranks, watches them, classifies their end, and asks Slurm to run the job again within the
budget of that cause. The batch shell ignores SIGTERM, so this process outlives the signals
that stop the ranks. Standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from launcher.containers import runtimes as container
from launcher.rank.fencing import FENCE_SECONDS
from launcher.slurm import client as slurm
from launcher.slurm.environment import PLACE_VARIABLES
from launcher.slurm.parse import leading_number, unanswered
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.spec.trust import check_trusted
from launcher.supervise import attempt_log as attempt
from launcher.supervise import classify as causes
from launcher.supervise.restart_policy import Decision
from launcher.supervise.watchdog import Progress, watch
from minimind.errors import EXIT_CRASHED, MiniMindError
from minimind.rundir.events import of_attempt
from minimind.system.process import free_port
from minimind.system.terminal import one_line

REQUEUE_PATIENCE = 300.0
"""How long a controller that does not answer is asked again to requeue the job, in seconds.

A restart takes less, and a backup takes over after SlurmctldTimeout, 120 s by default. Where Slurm
ends this job before that, the attempts cost nothing.
"""
REQUEUE_PAUSES = (1.0, 15.0)
"""The first and the longest pause between two of them."""

_TASK_ENDED = re.compile(
    r"srun: error: .*tasks? [\d,\- ]+: (?:Exited with exit code (?P<code>\d+)|(?P<signal>\S.*))"
)


class StepRanks:
    """The ranks as one Slurm step behind an srun process."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        # srun inherits the batch shell's ignored SIGTERM: it must outlive its tasks' last save.
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def poll(self) -> int | None:
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    def broken(self) -> bool:
        ended = _TASK_ENDED.finditer(self.said())
        return any(match["signal"] or int(match["code"]) != 0 for match in ended)

    def said(self) -> str:
        """What srun wrote so far."""
        return self._log.read_text(errors="replace")

    def dump_stacks(self) -> None:
        slurm.signal_steps(os.environ["SLURM_JOB_ID"], "QUIT")

    def kill(self) -> None:
        slurm.signal_steps(os.environ["SLURM_JOB_ID"], "KILL")


class Supervisor:
    """One attempt of one run inside the job that this process belongs to."""

    def __init__(self, run: RunFolder, words: list[str]) -> None:
        self.run = run
        self.spec: JobSpec = run.spec()
        # From the same spec as what removes its containers: in an array every task has its own.
        self.command = [*container.srun_command(self.spec), *words]
        self.job_id = os.environ["SLURM_JOB_ID"]
        self.kill_wait = leading_number(slurm.show_config().get("KillWait", ""), 30)
        self.warned_at: float | None = None
        self.number = 0
        self._log_offset = 0
        self._handed_over = False

    def main(self) -> int:
        """Runs the attempt and returns the batch script's exit status."""
        final = self.run.final()
        if final is not None:
            attempt.say(f"launcher: this run is over ({final.reason}); nothing to do")
            return final.exit_code
        decision = self._close_lost_attempt()
        if decision is not None and decision.final is not None:
            return decision.final.exit_code
        self._begin()
        if decision is not None:
            # The lost attempt's ranks may still live where Slurm cannot reach them. They stop on
            # seeing a newer attempt, and get the time for it before this one writes anything.
            time.sleep(FENCE_SECONDS)
        environment = self._environment()
        self._sweep()
        folder = self.run.attempt_dir(self.number)
        ranks = StepRanks(self._resolved(self.command), environment, folder / "srun.log")
        # Only now: a handler set before would give srun the default action, death, to inherit.
        signal.signal(signal.SIGTERM, self._on_warning)
        outcome = watch(
            ranks,
            Progress([self.run.events_file, Path(self.spec.save_dir) / "metrics.jsonl"]),
            hang_timeout=self.spec.hang_timeout,
            each_tick=self._requeue_before_the_kill,
        )
        return self._end(outcome.exit_code, outcome.hung, ranks.said())

    def _on_warning(self, signum: int, frame: FrameType | None) -> None:
        self.warned_at = self.warned_at or time.monotonic()

    def _begin(self) -> None:
        nodelist = os.environ.get("SLURM_JOB_NODELIST", "")
        self._log_offset = self._log_size()
        self.number = attempt.begin(
            self.run,
            job_id=self.job_id,
            nodes=slurm.expand_nodes(nodelist),
            restarts=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            log_offset=self._log_offset,
        )
        attempt.say(f"launcher: attempt {self.number} on {nodelist}")

    def _close_lost_attempt(self) -> Decision | None:
        events = self.run.events()
        number = attempt.unfinished(events)
        if number is None:
            return None
        began = of_attempt(events, number)[0]
        log = self._slurm_log(began.get("log_offset", 0), number)
        down = tuple(slurm.down_nodes(",".join(began.get("nodes", []))))
        cause = attempt.cause_of_lost(self.run, number, log, down)
        if cause == causes.LOST and int(os.environ.get("SLURM_RESTART_COUNT", "0")):
            # Slurm ran the job again and nothing warned us before: the batch node was gone.
            cause = causes.NODE_FAILURE
        if cause == causes.NODE_FAILURE:
            self.run.append("node_failed", attempt=number, nodes=list(down))
        decision = attempt.end(self.run, self.spec, number, cause, None)
        if decision.final is None:
            self.run.append("requeued", attempt=number, by="slurm", cause=cause)
        return decision

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        environment.pop("PYTHONSAFEPATH", None)
        environment.update(self.spec.env)
        environment.update(
            MASTER_ADDR=slurm.node_address(os.environ.get("SLURMD_NODENAME", socket.gethostname())),
            # This is the job's first node, where rank 0 runs.
            MASTER_PORT=str(free_port()),
            MINIMIND_EVENTS=str(self.run.events_file),
            LAUNCHER_ATTEMPT=str(self.number),
            # srun's way to say --output; "%t" is the rank.
            SLURM_STDOUTMODE=str(self.run.attempt_dir(self.number) / "rank-%t.log"),
        )
        for name in ("SLURM_STDERRMODE", *PLACE_VARIABLES):
            environment.pop(name, None)
        if self.spec.cpus_per_gpu:
            environment.setdefault("OMP_NUM_THREADS", str(self.spec.cpus_per_gpu))
        return environment

    def _resolved(self, command: list[str]) -> list[str]:
        # The user's --env PATH is for the ranks: srun itself is looked up on the host's.
        return [shutil.which(command[0]) or command[0], *command[1:]]

    def _sweep(self) -> None:
        sweep = container.sweep_command(self.spec)
        if sweep:
            nodes = str(self.spec.nodes)
            srun = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
            slurm.run(*srun, "--output=none", "--error=none", *sweep, timeout=120)

    def _log_size(self) -> int:
        return self.run.batch_log.stat().st_size if self.run.batch_log.exists() else 0

    def _slurm_log(self, offset: int, number: int) -> str:
        """What slurmstepd and srun wrote about an attempt."""
        text = ""
        if self.run.batch_log.exists():
            with self.run.batch_log.open("rb") as file:
                file.seek(offset)
                text = file.read().decode(errors="replace")
        srun_log = self.run.attempt_dir(number) / "srun.log"
        return text + (srun_log.read_text(errors="replace") if srun_log.exists() else "")

    def _evidence(self, exit_code: int | None, hung: bool) -> causes.Evidence:
        return causes.Evidence(
            exit_code=exit_code,
            log=self._slurm_log(self._log_offset, self.number),
            events=tuple(of_attempt(self.run.events(), self.number)),
            job=slurm.show_job(self.job_id),
            down_nodes=tuple(slurm.down_nodes(os.environ.get("SLURM_JOB_NODELIST", ""))),
            killed_for_hang=hung,
            signal_lead=self.spec.signal_lead,
            now=time.time(),
        )

    def _superseded(self) -> bool:
        """True when Slurm thought this node dead and another attempt runs elsewhere."""
        return self.run.superseded(self.number)

    def _requeue_before_the_kill(self) -> None:
        """Asks for the next attempt while the ranks still save, if this process is about to die.

        A time limit is not requeued by Slurm itself. Once the job is on its way out, asking
        early does not shorten the ranks' time, but asking too late is asking never.
        """
        if self.warned_at is None or self._handed_over or self._superseded():
            return
        if time.monotonic() - self.warned_at < self.kill_wait * 0.6:
            return
        self._handed_over = True
        cause = causes.classify(self._evidence(None, False))
        if cause in (causes.PREEMPTED, causes.TIME_LIMIT, causes.NODE_FAILURE):
            complaint = slurm.requeue(self.job_id)
            self._handed_over = complaint is None or not unanswered(complaint)

    def _end(self, exit_code: int, hung: bool, srun_said: str) -> int:
        if self._superseded():
            attempt.say("launcher: a newer attempt has begun elsewhere; this one stands back")
            return causes.EXIT_RUN_ME_AGAIN
        evidence = self._evidence(exit_code, hung)
        cause = causes.classify(evidence)
        if cause == causes.NODE_FAILURE:
            nodes = list(evidence.down_nodes)
            attempt.record(self.run, "node_failed", attempt=self.number, nodes=nodes)
        decision = attempt.end(self.run, self.spec, self.number, cause, exit_code)
        attempt.say(f"launcher: attempt {self.number} ended: {decision.reason}")
        if decision.final is not None:
            return decision.final.exit_code
        attempt.record(self.run, "requeued", attempt=self.number, by="launcher", cause=cause)
        complaint = self._requeue()
        if complaint is not None:
            attempt.record(self.run, "requeue_failed", attempt=self.number, reason=complaint)
            attempt.say(f"launcher: Slurm refuses to run the job again: {complaint}")
        return exit_code

    def _requeue(self) -> str | None:
        """Asks until there is an answer; returns Slurm's complaint, None when the job will run."""
        pause, longest = REQUEUE_PAUSES
        deadline = time.monotonic() + REQUEUE_PATIENCE
        while (complaint := slurm.requeue(self.job_id)) is not None:
            if not unanswered(complaint) or time.monotonic() + pause > deadline:
                return complaint
            attempt.say(f"launcher: asking again in {pause:.0f} s: {complaint}")
            time.sleep(pause)
            pause = min(2 * pause, longest)
            # Slurm was faster, and this would stop the newer attempt; or the user was.
            if self._superseded() or self._cancelled_meanwhile():
                return None
        return None

    def _cancelled_meanwhile(self) -> bool:
        """True, and the run is over, when it was cancelled after its attempt had ended."""
        log = self._slurm_log(self._log_offset, self.number)
        events = tuple(of_attempt(self.run.events(), self.number))
        if causes.classify(causes.Evidence(None, log, events)) != causes.CANCELLED:
            return False
        attempt.cancel(self.run)
        return True


def main(argv: list[str]) -> int:
    """``RUN_DIR WORDS…``; in an array ``RUN_DIR`` holds one run a task, named by index."""
    if len(argv) < 2:
        raise SystemExit("usage: python -m launcher.supervise RUN_DIR -m MODULE …")
    folder, *words = argv
    index = os.environ.get("SLURM_ARRAY_TASK_ID")
    run = RunFolder(Path(folder) / index if index else folder)
    try:
        # A sweep's pickles and code lie in its own folder, its points' specs in theirs.
        for part in {run.root: run, Path(folder): RunFolder(folder)}.values():
            check_trusted(part)
        return Supervisor(run, words).main()
    except MiniMindError as error:
        print(f"launcher: error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        where = error.filename or run.root
        print(f"launcher: error: {where}: {error.strerror}", file=sys.stderr)
        return EXIT_CRASHED
