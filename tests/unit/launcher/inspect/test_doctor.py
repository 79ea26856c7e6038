"""What ``doctor`` makes of a site's settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.inspect import doctor
from launcher.inspect.doctor import Finding, examine_config, preemption_words
from launcher.slurm import client as slurm
from launcher.spec.job_spec import JobSpec
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


def test_a_machine_without_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "makers_here", list)
    monkeypatch.setattr(doctor, "ask_torch", lambda: pytest.fail("loaded torch for nothing"))
    assert doctor.examine_devices() == [
        Finding("ok", "devices", "no accelerator on this machine"),
    ]


@pytest.mark.parametrize(
    ("makers", "count", "answer", "found"),
    [
        (
            ["nvidia"],
            2,
            {"torch": "2.13.0", "gpus": ["H100", "H100"]},
            Finding("ok", "devices", "2 × NVIDIA GPU; torch 2.13.0 uses 2"),
        ),
        (
            ["amd"],
            0,
            {"torch": "2.13.0", "gpus": []},
            Finding(
                "warn",
                "devices",
                "AMD GPU; torch 2.13.0 cannot use it: install torch's ROCm build "
                "(https://pytorch.org/get-started/locally)",
            ),
        ),
        (
            ["ascend"],
            16,
            {"torch": None, "gpus": []},
            Finding("ok", "devices", "16 × Ascend NPU; no torch in this Python"),
        ),
    ],
)
def test_a_machines_accelerators_and_what_torch_makes_of_them(
    monkeypatch: pytest.MonkeyPatch,
    makers: list[str],
    count: int,
    answer: dict[str, Any],
    found: Finding,
) -> None:
    monkeypatch.setattr(doctor, "makers_here", lambda: makers)
    monkeypatch.setattr(doctor, "count_devices", lambda devices: count)
    monkeypatch.setattr(doctor, "ask_torch", lambda: answer)
    assert doctor.examine_devices() == [found]


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ('print(\'noise\')\nprint(\'{"torch": "9.9", "gpus": []}\')', {"torch": "9.9", "gpus": []}),
        ("raise SystemExit(1)", {"torch": None, "gpus": []}),
        ("print('no answer')", {"torch": None, "gpus": []}),
    ],
)
def test_torch_is_asked_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, answer: dict[str, Any]
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert doctor.ask_torch() == answer


@pytest.mark.parametrize(
    ("maker", "told", "level", "said"),
    [
        ("nvidia", {"makers": ["nvidia"], "gpus": ["H100"]}, "ok", ", GPUs H100"),
        ("nvidia", {"gpus": []}, "ok", ", GPUs none"),
        ("nvidia", {"makers": [], "gpus": []}, "ok", ", GPUs none"),
        (
            "ascend",
            {"makers": ["ascend"], "gpus": []},
            "warn",
            ", NPUs none, but it has an Ascend NPU: torch 2.13.0 cannot use it: install torch-npu "
            "of torch's version (pip install torch-npu)",
        ),
    ],
)
def test_a_node_says_whether_torch_can_use_its_devices(
    submitted: RunFolder,
    make_spec: Callable[..., JobSpec],
    maker: str,
    told: dict[str, Any],
    level: str,
    said: str,
) -> None:
    folder = submitted.root / "out"
    submitted.write_spec(make_spec(save_dir=str(folder), nodes=1, gpus=1, device=maker))
    folder.mkdir()
    probe = {"host": "n1", "disk_write_mb_s": 100.0, "shared_memory_bytes": 8e9, "torch": "2.13.0"}
    (folder / "probe-0.json").write_text(json.dumps({**probe, **told}))
    node = doctor.examine_nodes(submitted, 0.0)[-1]
    assert (node.level, node.subject) == (level, "n1")
    assert node.text.endswith(said)
