"""The supervisor: attempt after attempt of a run, until the run is over.

What an attempt goes through is here, once for all places. A :class:`Backend` knows one place: a
Slurm job, which Slurm may have to run again for the next attempt, or this machine. Standard
library only.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from launcher.preflight.judge import Verdict
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.supervise import attempt_log as attempt
from launcher.supervise.classify import Evidence, classify, failed_launch
from launcher.supervise.memory import described, killed_for_memory
from launcher.supervise.restart_policy import Decision
from launcher.supervise.resume import keep_going, lost_checkpoint
from launcher.supervise.suspects import Suspect, find_suspects
from launcher.supervise.watchdog import Progress, Ranks, watch
from minimind.errors import EXIT_RUN_ME_AGAIN, EXIT_USER_ERROR, MiniMindError
from minimind.rundir import causes
from minimind.rundir.events import Kind, of_attempt
from minimind.rundir.layout import OutputPaths
from minimind.system.tail import last_lines
from minimind.system.terminal import complain

LOG_LINES = 1000
"""Of a rank's log, from its end, that may say why it failed."""
LastWords = Callable[[], Mapping[int, str]]
"""Gives rank → the end of its log."""


class CannotStart(Exception):
    """The program of the ranks is missing or may not be run: another try would find as little."""


class Backend(Protocol):
    """Where the attempts of a run take place.

    ``where``: its name, for people. ``fence_seconds``: how long a new attempt waits for ranks
    that a lost one left behind. ``restarts_itself``: what follows a lost attempt starts without
    a person's asking.
    """

    where: str
    fence_seconds: float
    restarts_itself: bool

    def say(self, text: str) -> None:
        """A line for whoever reads the output of the supervisor."""

    def stopped(self, code: int) -> int | None:
        """This process's exit status once it has been told to stop, None while it has not.

        ``code``: the exit status that an attempt left; 75 between two of them.
        """

    def place(self) -> dict[str, Any]:
        """What ``attempt_started`` says of this place: ``job_id``, ``nodes``, …"""

    def sweep(self) -> None:
        """Removes the containers that an earlier attempt has left."""

    def look(self) -> Verdict | None:
        """What speaks against ranks on the nodes of the next attempt; None: nobody has looked."""

    def unfit(self, number: int, nodes: Mapping[str, str]) -> Evidence | None:
        """What is known of the end of attempt ``number``, which is spared these nodes of its own.

        None: there are no better ones, and it starts. ``nodes``: each with what is wrong with it.
        """

    def start(self, number: int) -> Ranks:
        """Starts the ranks of attempt ``number``; what is asked from now on is about that one.

        Raises:
            CannotStart: their program cannot be run.
        """

    def tick(self) -> None:
        """Twice a second while the ranks run."""

    def ranks_are_gone(self) -> None:
        """Right after the last rank has ended, however it did."""

    def evidence(self, exit_code: int | None, *, hung: bool = False) -> Evidence:
        """What is known of the attempt's end; ``exit_code`` None: its ranks still run."""

    def evidence_of_lost(self, number: int) -> Evidence:
        """What is known of an attempt that another supervisor began and nobody saw end."""

    def again(self, cause: str, exit_code: int, pause: float) -> int | None:
        """Has the next attempt run, in ``pause`` seconds unless the place has pauses of its own.

        Returns this process's exit status; None: it begins here.
        """


class Supervisor:
    """Runs the attempts of ``run`` on ``backend``."""

    def __init__(self, run: RunFolder, spec: JobSpec, backend: Backend) -> None:
        self.run = run
        self.spec = spec
        self.backend = backend

    def main(self) -> int:
        """Goes on until the run is over, a stop, or the next attempt is another process's.

        Returns this process's exit status.
        """
        self.run.remove_leftovers()
        fence_seconds = 0.0
        if self.run.final() is None and self._close_lost_attempt():
            fence_seconds = self.backend.fence_seconds
        while (final := self.run.final()) is None:
            status = self.backend.stopped(EXIT_RUN_ME_AGAIN)
            if status is None:
                status = self._attempt(fence_seconds)
            if status is not None:
                return status
            fence_seconds = self.backend.fence_seconds if self._nodes_lost() else 0.0
        attempt.say(f"launcher: this run is over ({final.reason}); nothing to do")
        return final.exit_code

    def _nodes_lost(self) -> bool:
        """Whether ranks of the newest attempt may live on where nobody can reach them."""
        mine = of_attempt(self.run.events(), max(self.run.attempt_numbers(), default=0))
        return any(event["event"] == Kind.NODE_FAILED for event in mine)

    def _close_lost_attempt(self) -> bool:
        """Records the end of an attempt whose supervisor was killed. False: there is none."""
        number = attempt.unfinished(self.run.events())
        if number is None:
            return False
        cause, decision = self._close(number, self.backend.evidence_of_lost(number))
        if decision.final is None and self.backend.restarts_itself:
            attempt.record(self.run, Kind.REQUEUED, attempt=number, by="slurm", cause=cause)
        return True

    def _attempt(self, fence_seconds: float) -> int | None:
        """One attempt. Returns this process's exit status; None: the next one begins here."""
        place = self.backend.place()
        self.spec = keep_going(self.run, self.spec, place["job_id"])
        if lost := lost_checkpoint(self.run, self.spec):
            return attempt.refuse(self.run, lost).exit_code
        verdict = self.backend.look()
        if verdict is not None and verdict.everywhere:
            return attempt.refuse(self.run, verdict.everywhere).exit_code
        number = attempt.begin(self.run, **place)
        self.backend.say(f"launcher: attempt {number} on {self.backend.where}")
        # A lost attempt's ranks may still live where nobody can reach them. They stop on seeing a
        # newer attempt, and get the time for it before this one writes anything.
        time.sleep(fence_seconds)
        self.backend.sweep()
        evidence = self._heed(number, verdict) or self._train(number)
        if evidence is None:
            # Somebody thought this place dead, and the run has gone on.
            attempt.say("launcher: a newer attempt has begun elsewhere; this one stands back")
            return EXIT_RUN_ME_AGAIN
        cause, decision = self._close(number, evidence)
        self.backend.say(f"launcher: attempt {number} ended: {decision.reason}")
        if decision.final is not None:
            # Not looked up again: a person may reopen the run for another supervisor now.
            return decision.final.exit_code
        assert evidence.exit_code is not None, "its ranks were watched to their end"
        return self.backend.again(cause, evidence.exit_code, decision.pause)

    def _heed(self, number: int, verdict: Verdict | None) -> Evidence | None:
        """Records what was seen before attempt ``number``; its end, if it must not start here."""
        if verdict is None:
            return None
        doubts = {"reason": "; ".join(verdict.warnings)} if verdict.warnings else {}
        attempt.record(self.run, Kind.PREFLIGHT, attempt=number, **verdict.seen, **doubts)
        for warning in verdict.warnings:
            attempt.say(f"launcher: warning: {warning}")
        for node, reason in verdict.unfit.items():
            values = vars(Suspect(node, reason, certain=True))
            attempt.record(self.run, Kind.NODE_SUSPECTED, attempt=number, **values)
            attempt.say(f"launcher: {node} is unfit: {reason}")
        return self.backend.unfit(number, verdict.unfit) if verdict.unfit else None

    def _train(self, number: int) -> Evidence | None:
        """The ranks of an attempt, from start to end; None: a newer one has begun elsewhere."""
        try:
            ranks = self.backend.start(number)
        except CannotStart:
            return Evidence(EXIT_USER_ERROR)
        outcome = watch(
            ranks,
            Progress([self.run.events_file, OutputPaths(self.spec.save_dir).metrics]),
            hang_timeout=self.spec.hang_timeout,
            each_tick=self.backend.tick,
            on_suspension=lambda reason: self._suspension(number, reason),
        )
        self.backend.ranks_are_gone()
        if self.run.superseded(number):
            return None
        return self.backend.evidence(outcome.exit_code, hung=outcome.hung)

    def _suspension(self, number: int, reason: str) -> None:
        """Records that somebody suspends the ranks, or, without a ``reason``, that they go on."""
        if reason:
            attempt.record(self.run, Kind.SUSPENDED, attempt=number, reason=reason)
        else:
            attempt.record(self.run, Kind.CONTINUED, attempt=number)

    def _close(self, number: int, evidence: Evidence) -> tuple[str, Decision]:
        """Records how an attempt ended; returns the cause, and what follows from it."""
        cause = classify(evidence)
        if cause == causes.NODE_FAILURE:
            nodes = list(evidence.down_nodes)
            attempt.record(self.run, Kind.NODE_FAILED, attempt=number, nodes=nodes)
        words = functools.cache(lambda: self._last_words(number))
        for suspect in self._suspects(number, cause, evidence, words):
            values = self._where_it_failed(number, cause, suspect) | vars(suspect)
            attempt.record(self.run, Kind.NODE_SUSPECTED, attempt=number, **values)
        reason = self._details(cause, evidence, words)
        return cause, attempt.end(
            self.run, self.spec, number, cause, evidence.exit_code, reason=reason
        )

    def _details(self, cause: str, evidence: Evidence, words: LastWords) -> str:
        """What there is to say of an attempt's end besides its cause."""
        if cause == causes.LAUNCH_FAILED:
            return failed_launch(evidence.log)
        if cause == causes.UNFIT_NODE:
            return "; ".join(f"{node}: {why}" for node, why in evidence.unfit.items())
        if cause == causes.CRASH and self.spec.cluster == "slurm":
            said = killed_for_memory([evidence.log, *words().values()])
            return described(said) if said else ""
        return ""

    def _last_words(self, number: int) -> dict[int, str]:
        logs = self.run.rank_logs(number)
        return {rank: last_lines(log, LOG_LINES) for rank, log in logs.items()}

    def _where_it_failed(self, number: int, cause: str, suspect: Suspect) -> dict[str, int]:
        """The step of an end that may be the program's own: there it would come back."""
        if suspect.certain or cause not in causes.FAILURES:
            return {}
        return {"step": attempt.furthest_step(self.run, number)}

    def _suspects(
        self, number: int, cause: str, evidence: Evidence, words: LastWords
    ) -> list[Suspect]:
        if self.spec.cluster != "slurm":
            return []
        begun = of_attempt(self.run.events(), number)[:1]
        nodes = begun[0].get("nodes", []) if begun else []
        return find_suspects(cause, evidence, nodes, self.spec.gpus, words)


def exit_status(run: RunFolder, supervise: Callable[[], int]) -> int:
    """What ``supervise`` returns; what keeps it from its work is one line on standard error."""
    try:
        return supervise()
    except (MiniMindError, OSError) as error:
        if isinstance(error, OSError):
            error.filename = error.filename or str(run.root)
        return complain("launcher", error)
