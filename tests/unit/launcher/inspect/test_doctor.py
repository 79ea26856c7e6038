"""What ``doctor`` makes of a site's settings."""

from __future__ import annotations

import pytest

from launcher.inspect import doctor
from launcher.inspect.doctor import examine_config, preemption_words
from launcher.slurm import client as slurm
from launcher.spec.run_folder import RunFolder

BY_PARTITION = {"PreemptType": "preempt/partition_prio", "PreemptMode": "REQUEUE"}
BY_QOS = {"PreemptType": "preempt/qos", "PreemptMode": "REQUEUE"}


@pytest.mark.parametrize(
    ("mode", "config", "said"),
    [
        ("OFF", BY_PARTITION, "not preempted"),
        ("REQUEUE", BY_PARTITION, "preemptible (REQUEUE;"),
        ("PRIORITY,REQUEUE", BY_PARTITION, "preemptible (PRIORITY,REQUEUE;"),
        ("GANG,CANCEL", BY_PARTITION, "preemptible (GANG,CANCEL;"),
        ("WITHIN,SUSPEND,GANG", BY_PARTITION, "ranks stand still"),
        ("TELEPORT", BY_PARTITION, "preemptible (TELEPORT;"),
        ("OFF", BY_QOS, "preemptible by jobs of another QOS (REQUEUE;"),
        ("REQUEUE", {"PreemptType": "preempt/none"}, "not preempted"),
        ("REQUEUE", {"PreemptType": "(null)"}, "not preempted"),
    ],
)
def test_every_way_to_be_preempted_is_named(mode: str, config: dict[str, str], said: str) -> None:
    assert said in preemption_words(mode, config)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "about 121 s"),
        ({"AuthInfo": "socket=/s,cred_expire=5"}, "about 6 s"),
        (
            {"AuthInfo": "cred_expire=5", "SchedulerParameters": "a=1,requeue_delay=30"},
            "about 30 s",
        ),
        ({"SlurmctldParameters": "enable_stepmgr,enable_expedited_requeue"}, "at once"),
    ],
)
def test_the_delay_of_a_requeue(config: dict[str, str], said: str) -> None:
    found = {finding.subject: finding.text for finding in examine_config(config)}
    assert said in found["requeue delay"]


@pytest.mark.parametrize("kind", ["(null)", "accounting_storage/none"])
def test_no_accounting_is_said(kind: str) -> None:
    found = {f.subject: f.text for f in examine_config({"AccountingStorageType": kind})}
    assert found["accounting"].startswith("no accounting")


@pytest.mark.parametrize(
    ("jobs", "removed"),
    [
        ({}, True),
        ({"5": {"JobState": "COMPLETED"}}, True),
        ({"5": {"JobState": "COMPLETING"}}, False),
        (None, False),
    ],
)
def test_a_measurement_stays_while_its_job_may_write(
    submitted: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    jobs: dict[str, dict[str, str]] | None,
    removed: bool,
) -> None:
    monkeypatch.setattr(slurm, "job_states", lambda job_id: jobs)
    doctor._remove(submitted, timeout=0.0)
    assert submitted.root.exists() != removed
