"""Cancelling and continuing runs."""

from __future__ import annotations

import contextlib
import os
import signal

from launcher.inspect import run_state as state
from launcher.slurm import client as slurm
from launcher.slurm import states
from launcher.spec.run_folder import RunFolder
from launcher.spec.trust import check_trusted, make_private
from launcher.submit.submission import submit_prepared
from launcher.supervise import attempt_log as attempt
from launcher.supervise import host
from launcher.supervise.resume import keep_going
from minimind.errors import ConfigError, SubmissionError
from minimind.rundir import causes
from minimind.rundir.events import Kind, has_begun, of_attempt


def cancel_run(run: RunFolder) -> str:
    """Stops a run for good and says what was done.

    Raises:
        ConfigError: it runs on another machine than this one.
        SubmissionError: Slurm refused.
    """
    final = run.final()
    if final is not None:
        return f"{run.name} is over already: {final.reason}"
    stops = _cancel_here(run) if run.spec().cluster == "local" else _cancel_on_slurm(run)
    if not stops:
        return f"{run.name} is cancelled"
    newest = max(run.attempt_numbers(), default=0)
    if not has_begun(of_attempt(run.events(), newest)):
        return f"{run.name} stops; its training has not begun, so there is nothing new to save"
    return f"{run.name} saves a checkpoint and stops"


def _cancel_here(run: RunFolder) -> bool:
    """Returns True where ranks have to stop first."""
    events = run.events()
    elsewhere = host.supervisor_elsewhere(run, events)
    if elsewhere is not None and elsewhere[1]:
        raise ConfigError(f"{run.name} runs on {elsewhere[0]}: cancel it there")
    pid = host.supervisor_pid(events)
    run.append(Kind.CANCEL_REQUESTED)
    if pid is not None:
        _tell_to_stop(pid)
        return True
    # A supervisor that was killed leaves its ranks behind, who train on.
    ranks = host.living_ranks(run)
    host.unpause(run.spec())
    for rank in ranks:
        _tell_to_stop(rank)
    attempt.cancel(run)
    return bool(ranks)


def _cancel_on_slurm(run: RunFolder) -> bool:
    """Returns True where ranks have to stop first."""
    job_id = run.job_id() or ""
    jobs = slurm.job_states(job_id) if job_id else {}
    if jobs is None:
        raise SubmissionError("Slurm's controller does not answer; nothing was cancelled")
    job_state = jobs[job_id].get("JobState", "") if job_id in jobs else None
    if job_state is None or states.has_ended(job_state):
        run.append(Kind.CANCEL_REQUESTED)
        attempt.cancel(run)
        return False
    _scancel(run, job_id)
    # Ranks that are suspended save nothing: Slurm ends them as they are.
    if job_state in (*states.QUEUED, "SUSPENDED"):
        attempt.cancel(run)
        return False
    return True


def _tell_to_stop(pid: int) -> None:
    """One that is stopped goes on, to save and stop."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)


def _scancel(run: RunFolder, job_id: str) -> None:
    # On record first: the attempt may end before scancel returns. And taken back, or the next
    # preemption would count as this.
    run.append(Kind.CANCEL_REQUESTED)
    answer = slurm.run("scancel", job_id)
    if answer.returncode != 0:
        run.append(Kind.CANCEL_WITHDRAWN)
        raise SubmissionError(f"scancel: {answer.stderr.strip()}")


def requeue_run(run: RunFolder) -> str:
    """Lets a run go on from its newest checkpoint; returns the job id.

    Raises:
        ConfigError: it has finished, or it runs, or others can write to its folder.
        SubmissionError: Slurm refused.
    """
    final = run.final()
    if final is not None and final.cause == causes.DONE:
        raise ConfigError(f"{run.name} has finished; there is nothing left to train")
    spec = run.spec()
    jobs = slurm.job_states() if spec.cluster == "slurm" else {}
    now, reason, _ = state.job_state(run, jobs)
    if now == state.UNKNOWN:
        raise ConfigError(f"cannot tell whether {run.name} still runs: {reason}")
    if now == state.HELD:
        job_id = str(run.job_id())
        answer = slurm.run("scontrol", "release", job_id)
        if answer.returncode != 0:
            raise SubmissionError(f"scontrol release: {answer.stderr.strip()}")
        run.append(Kind.RELEASED, job_id=job_id)
        return job_id
    if now in state.ACTIVE:
        job = ", ".join(filter(None, [run.job_id(), reason]))
        raise ConfigError(f"{run.name} is {now} (job {job}); nothing to requeue")
    if not run.code.exists() and run.submitit.exists():
        raise ConfigError(
            f"{run.code} is not there, as when a submission is interrupted: "
            f"launcher submit --name {run.name} --resume makes it again"
        )
    if not run.code.exists():
        raise ConfigError(
            f"{run.name} was submitted by a script of yours: remove {run.stopped_marker}, if it "
            "is there, and sbatch the script again"
        )
    check_trusted(run)
    # Readers may have been let in meanwhile, and the umask may be a group's.
    make_private(run.submitit)
    run.reopen()
    return submit_prepared(run, keep_going(run, spec, None))
