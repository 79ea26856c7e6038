"""``cancel`` on Slurm: what is promised is what is done; scontrol and scancel are stand-ins."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.inspect import run_state as state
from launcher.inspect.control import cancel_run, requeue_run
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.supervise.classify import Evidence, classify
from minimind.errors import ConfigError, SubmissionError
from minimind.rundir import causes

AT = "CANCELLED AT 2026-01-01T12:00:00"


@pytest.fixture
def run(tmp_path: Path, submitted: RunFolder, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    submitted.append("attempt_started", attempt=submitted.new_attempt(), nodes=["n1"])
    submitted.append("started", step=0)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return submitted


def fake(run: RunFolder, name: str, script: str) -> None:
    path = run.root.parent / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def cause_of_a_preemption(run: RunFolder) -> str:
    log = f"slurmstepd-n1: error: *** JOB 5 ON n1 {AT} DUE TO PREEMPTION ***\n"
    return classify(Evidence(75, log=log, events=tuple(run.events())))


def test_cancel_that_reaches_no_controller_cancels_nothing_later(run: RunFolder) -> None:
    fake(run, "scontrol", 'echo "Unable to contact slurm controller" >&2; exit 1')
    fake(run, "scancel", "exit 1")
    with pytest.raises(SubmissionError, match="nothing was cancelled"):
        cancel_run(run)
    assert run.final() is None
    assert cause_of_a_preemption(run) == causes.PREEMPTED


@pytest.mark.parametrize("job", ["RUNNING", "PENDING"])
def test_cancel_that_slurm_refuses_is_taken_back(run: RunFolder, job: str) -> None:
    fake(run, "scontrol", f"echo JobId=5 JobState={job}")
    fake(run, "scancel", 'echo "Access/permission denied" >&2; exit 1')
    with pytest.raises(SubmissionError, match="permission denied"):
        cancel_run(run)
    assert run.final() is None
    assert cause_of_a_preemption(run) == causes.PREEMPTED
    fake(run, "scancel", "exit 0")
    cancel_run(run)
    assert cause_of_a_preemption(run) == causes.CANCELLED, "the second one counts"


def test_cancel_is_on_record_before_slurm_acts(run: RunFolder) -> None:
    """The attempt may have ended by the time that scancel returns."""
    fake(run, "scontrol", "echo JobId=5 JobState=RUNNING")
    fake(run, "scancel", f"grep -q cancel_requested '{run.events_file}'")
    assert cancel_run(run) == "demo saves a checkpoint and stops"


@pytest.mark.parametrize(
    "job", ["SIGNALING", "STAGE_OUT", "STOPPED", "RESIZING", "COMPLETING", "TELEPORTING"]
)
def test_whatever_a_job_does_that_may_have_nodes_it_is_stopped(run: RunFolder, job: str) -> None:
    fake(run, "scontrol", f"echo JobId=5 JobState={job}")
    fake(run, "scancel", f"echo \"$@\" > '{run.root}/asked'")
    assert cancel_run(run) == "demo saves a checkpoint and stops"
    assert (run.root / "asked").read_text() == "5\n"
    assert run.final() is None, "its own supervisor says how it ended"


@pytest.mark.parametrize("job", ["PENDING", "CONFIGURING", "REQUEUED", "SUSPENDED"])
def test_a_run_that_waits_is_over_at_once(run: RunFolder, job: str) -> None:
    fake(run, "scontrol", f"echo JobId=5 JobState={job}")
    fake(run, "scancel", f"echo \"$@\" > '{run.root}/asked'")
    assert cancel_run(run) == "demo is cancelled"
    assert (run.root / "asked").read_text() == "5\n"
    final = run.final()
    assert final is not None
    assert final.cause == causes.CANCELLED


def test_a_run_that_slurm_has_forgotten_is_over_without_it(run: RunFolder) -> None:
    fake(run, "scontrol", 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1')
    fake(run, "scancel", "exit 1")
    assert cancel_run(run) == "demo is cancelled"
    assert run.final() is not None


def test_a_run_whose_submission_was_interrupted_is_submitted_again(
    submitted: RunFolder, make_spec: Callable[..., JobSpec]
) -> None:
    submitted.write_spec(make_spec(cluster="local"))
    submitted.submitit.mkdir()
    with pytest.raises(ConfigError, match="--name demo --resume makes it again"):
        requeue_run(submitted)


def test_a_run_that_has_not_begun_to_train_promises_no_checkpoint(submitted: RunFolder) -> None:
    bin_folder = submitted.root.parent
    submitted.append("attempt_started", attempt=submitted.new_attempt(), nodes=["n1"])
    fake(submitted, "scontrol", "echo JobId=5 JobState=RUNNING")
    fake(submitted, "scancel", "exit 0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
        assert "nothing new to save" in cancel_run(submitted)


@pytest.mark.parametrize("job", [None, {"JobState": "NODE_FAIL"}, {"JobState": "FAILED"}])
def test_a_cancelled_run_whose_batch_script_died_is_cancelled(
    run: RunFolder, job: dict[str, str] | None
) -> None:
    jobs = {} if job is None else {"5": job}
    assert state.job_state(run, jobs)[0] == state.INTERRUPTED
    run.append("cancel_requested")
    assert state.job_state(run, jobs)[0] == state.CANCELLED
    assert state.job_state(run, {"5": {"JobState": "COMPLETING"}})[0] == state.RUNNING
    run.append("submitted", job_id="5", cluster="slurm")
    assert state.job_state(run, jobs)[0] == state.INTERRUPTED
