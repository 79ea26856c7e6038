"""Evidence as a real Slurm 22.05 left it, and what it means."""

from __future__ import annotations

from datetime import datetime

import pytest

from launcher.supervise.classify import Evidence, classify, slurm_causes

NOW = datetime(2026, 1, 1, 12, 0, 0).timestamp()
BATCH = "slurmstepd-n1: error: *** JOB 3 ON n1 CANCELLED AT 2026-01-01T12:00:00{} ***\n"
STEP = "slurmstepd-n1: error: *** STEP 3.0 ON n1 CANCELLED AT 2026-01-01T12:00:00{} ***\n"
RUNNING = {"JobState": "RUNNING", "PreemptTime": "None", "TimeLimit": "01:00:00"}


def saw(*names: str) -> tuple[dict[str, object], ...]:
    return tuple({"event": name} for name in names)


RECONFIGURED = """srun: error: Task launch for StepId=1.50 failed on node n2: Unspecified error
srun: error: Application launch failed: Unspecified error
srun: Job step aborted: Waiting up to 32 seconds for job step to finish.
slurmstepd-n1: error: *** STEP 1.50 ON n1 CANCELLED AT 2026-01-01T12:00:00 ***
"""
NO_STEP = "srun: error: Unable to create step for job 3: {}\n"
UNCONFIRMED = "srun: error: Unable to confirm allocation for job 3: {}\n"

CASES = [
    # Seen on 22.05 while nodes read a new configuration.
    ("launch_failed", Evidence(255, log=RECONFIGURED, job=RUNNING)),
    # A rank of the other node got as far as to be told to stop.
    ("launch_failed", Evidence(75, log=RECONFIGURED, job=RUNNING, events=saw("preparing"))),
    ("node_failure", Evidence(255, log=RECONFIGURED, down_nodes=("n2",))),
    ("cancelled", Evidence(255, log=RECONFIGURED + BATCH.format(""), job=RUNNING)),
    ("crash", Evidence(255, log=RECONFIGURED, events=saw("started"))),
    ("launch_failed", Evidence(1, log=NO_STEP.format("Unable to contact slurm controller"))),
    ("crash", Evidence(1, log=NO_STEP.format("More processors requested than permitted"))),
    # Seen on 24.11 with enable_stepmgr, where the batch host has no step manager.
    ("launch_failed", Evidence(1, log=UNCONFIRMED.format("Unspecified error"), job=RUNNING)),
    ("node_failure", Evidence(1, log=UNCONFIRMED.format("Unspecified error"), down_nodes=("n2",))),
    ("done", Evidence(0, events=saw("started", "finished"))),
    ("done", Evidence(0)),
    ("unfit_node", Evidence(75, job=RUNNING, unfit={"n2": "it does not answer"})),
    # Somebody else was faster.
    ("cancelled", Evidence(75, job={"JobState": "CANCELLED"}, unfit={"n2": "it is late"})),
    ("node_failure", Evidence(75, down_nodes=("n2",), unfit={"n2": "it does not answer"})),
    # Killed on its way out, after the last save.
    ("done", Evidence(143, log=BATCH.format(" DUE TO PREEMPTION"), events=saw("finished"))),
    # GraceTime: only the step is told, the controller knows why.
    (
        "preempted",
        Evidence(75, log=STEP.format(""), job=RUNNING | {"PreemptTime": "2026-01-01T11:59:58"}),
    ),
    ("preempted", Evidence(75, log=STEP.format("") + BATCH.format(" DUE TO PREEMPTION"))),
    ("preempted", Evidence(137, log=STEP.format(" DUE TO PREEMPTION"))),
    ("preempted", Evidence(None, log=BATCH.format(" DUE TO PREEMPTION"))),
    ("time_limit", Evidence(75, log=BATCH.format(" DUE TO TIME LIMIT"))),
    ("time_limit", Evidence(143, log=STEP.format(" DUE TO TIME LIMIT"))),
    # --signal came a minute early and says nothing about why.
    ("time_limit", Evidence(75, job=RUNNING | {"StartTime": "2026-01-01T11:01:00"}, now=NOW)),
    (
        "time_limit",
        Evidence(75, job=RUNNING | {"StartTime": "2026-01-01T11:04:00"}, now=NOW, signal_lead=200),
    ),
    ("stop_requested", Evidence(75, job=RUNNING | {"StartTime": "2026-01-01T11:58:00"}, now=NOW)),
    ("stop_requested", Evidence(75, job=RUNNING | {"TimeLimit": "UNLIMITED"}, now=NOW)),
    ("stop_requested", Evidence(137, events=saw("started", "preempted"))),
    (
        "node_failure",
        Evidence(75, log=BATCH.format(" DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS")),
    ),
    ("node_failure", Evidence(143, log="srun: error: Node failure on n2\n")),
    ("node_failure", Evidence(0, log="srun: error: Node failure on n2\n")),
    # In words of a later Slurm's, or on a full disk.
    ("node_failure", Evidence(0, down_nodes=("n2",), gone_nodes=("n2",))),
    ("done", Evidence(0, down_nodes=("n2",))),
    (
        "done",
        Evidence(0, log="srun: error: Node failure on n2\n", events=saw("started", "finished")),
    ),
    ("node_failure", Evidence(1, down_nodes=("n2",))),
    ("cancelled", Evidence(75, log=BATCH.format(""), job=RUNNING | {"JobState": "COMPLETING"})),
    # The notice went into a file of the user's own.
    ("cancelled", Evidence(143, job=RUNNING | {"JobState": "CANCELLED"})),
    # Another job that writes into the same file.
    ("stop_requested", Evidence(75, log=BATCH.format(""), job_id="33")),
    ("cancelled", Evidence(75, log=BATCH.format(""), job_id="3")),
    # Slurm 25.05 and newer name the signal, and with GraceTime so does a preempted step.
    ("cancelled", Evidence(75, log=BATCH.format(" DUE to SIGNAL Terminated"), job=RUNNING)),
    (
        "preempted",
        Evidence(
            75,
            log=STEP.format(" DUE to SIGNAL Terminated"),
            job=RUNNING | {"PreemptTime": "2026-01-01T11:59:58"},
        ),
    ),
    ("stop_requested", Evidence(75, log=STEP.format(" DUE to SIGNAL Terminated"), job=RUNNING)),
    ("cancelled", Evidence(75, events=saw("started", "cancel_requested", "preempted"))),
    (
        "preempted",
        Evidence(
            75,
            log=BATCH.format(" DUE TO PREEMPTION"),
            events=saw("started", "cancel_requested", "cancel_withdrawn", "preempted"),
        ),
    ),
    (
        "cancelled",
        Evidence(75, events=saw("cancel_requested", "cancel_withdrawn", "cancel_requested")),
    ),
    ("hang", Evidence(137, killed_for_hang=True, log=STEP.format(""))),
    (
        "node_failure",
        Evidence(137, killed_for_hang=True, down_nodes=("n2",), gone_nodes=("n2",)),
    ),
    ("config", Evidence(2)),
    ("crash", Evidence(2, events=saw("started"))),
    ("crash", Evidence(1, events=saw("started"))),
    ("crash", Evidence(137, events=saw("started"), job=RUNNING)),
    ("lost", Evidence(None, events=saw("started"))),
    ("node_failure", Evidence(None, events=saw("started"), restarted=True)),
    # A person has submitted it again since.
    ("lost", Evidence(None, events=saw("started", "cancel_requested", "submitted"))),
    (
        "lost",
        Evidence(
            None,
            log=BATCH.format(""),
            events=saw("started", "cancel_requested", "submitted"),
        ),
    ),
    ("time_limit", Evidence(75, events=saw("started", "preempted"), time_up=True)),
]


@pytest.mark.parametrize("cause, evidence", CASES)
def test_cause(cause: str, evidence: Evidence) -> None:
    assert classify(evidence) == cause


def test_notices_are_read_with_their_reason() -> None:
    log = STEP.format("") + BATCH.format(" DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS")
    assert slurm_causes(log) == [("STEP", ""), ("JOB", "NODE FAILURE")]
