"""What asks about a cluster, and other ways to use it: doctor, drill, sweep, the plain script."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import base_port, slurm_or_skip
from tests.e2e.lab import FAKE, REPOSITORY, SITE, Lab, make_lab, poll
from tests.needs import lacks

pytestmark = pytest.mark.timeout(600)


def findings(answer: str) -> dict[str, dict[str, str]]:
    return {finding["subject"]: finding for finding in json.loads(answer)}


def test_doctor_reads_the_site(slurm: Lab) -> None:
    slurm.devcluster("up", "--grace-time", "60", "--send-user-signal")
    found = findings(slurm.launcher("doctor", "--json").stdout)
    assert "60 s from warning to SIGKILL" in found["partition low"]["text"]
    assert "REQUEUE" in found["partition low"]["text"]
    assert "not preempted" in found["partition high"]["text"]
    assert "USR2" in found["send_user_signal"]["text"]
    # Newer releases have a setting of their own for it, and none where jobs are expedited.
    assert SITE or "about 6 s" in found["requeue delay"]["text"]


def test_doctor_measures_between_nodes(slurm: Lab) -> None:
    found = findings(slurm.ok("doctor", "--nodes", "2", "--gpus", "1", "--cpu", "--json"))
    assert "gloo over 2 ranks" in found["all-reduce"]["text"]
    assert found["all-reduce"]["level"] == "ok"


def test_drill_passes_bit_for_bit(slurm: Lab) -> None:
    slurm.devcluster("up", "--grace-time", "0", "--kill-wait", "30")
    size = ("--nodes", "2", "--gpus", "1", "--cpu", "--partition", "low")
    parts = ("term", "usr2", "kill", "node")
    only = [word for part in parts for word in ("--only", part)]
    found = json.loads(slurm.ok("drill", *size, *only, "--json"))
    assert {result["part"]: result["verdict"] for result in found} == dict.fromkeys(parts, "PASS")


def test_sweep_is_an_array_of_runs_that_survive_alone(slurm: Lab) -> None:
    """The last point has the array's own id: what is asked for it must reach it alone."""
    options = ("--nodes", "1", "--gpus", "1", *FAKE, "--vary", "crash_at=-1,-2", "--json")
    train = ("--max_steps", "150", "--step_seconds", "0.1")
    points = json.loads(slurm.ok("sweep", "--name", "grid", *options, "--", *train))
    array = points[0]["job_id"].split("_")[0]
    assert [point["job_id"] for point in points] == [f"{array}_0", f"{array}_1"]
    slurm.wait_for_step("grid/1", 3)
    slurm.command("scancel", "--signal=USR1", f"{array}_1.0")
    slurm.wait("grid/0")
    slurm.wait("grid/1")
    assert slurm.causes("grid/0") == ["done"]
    assert slurm.causes("grid/1") == ["stop_requested", "done"]
    assert (slurm.runs / "grid" / "1" / "batch.log").exists()


def start_plain_script(lab: Lab, run: Path, flags: dict[str, Any], log: Path) -> str:
    """Submits the script that needs no launcher; returns its job id once it trains."""
    run.mkdir(parents=True)
    flags = {**flags, "epochs": 1000, "save_interval": 100000}
    words = [w for k, v in flags.items() if v is not True and v is not False for w in (f"--{k}", v)]
    environment = {"RUN_DIR": str(run), "PYTHON": str(REPOSITORY / ".venv/bin/python")}
    lab.environment |= environment
    try:
        done = lab.command(
            *("sbatch", "--parsable", "--nodes=2", f"--output={log}"),
            *(str(REPOSITORY / "slurm" / "pretrain.sbatch"), *map(str, words)),
            cwd=REPOSITORY,
        )
    finally:
        for name in environment:
            del lab.environment[name]
    assert done.returncode == 0, done.stderr
    metrics = run / "out" / "metrics.jsonl"
    poll(lambda: metrics.exists() and metrics.read_text().count("\n") > 20, "the first steps")
    return done.stdout.strip()


def saw(run: Path, event: str) -> bool:
    path = run / "events.jsonl"
    return path.exists() and f'"event": "{event}"' in path.read_text()


def test_plain_script_survives_preemption_without_the_launcher(
    slurm: Lab, tiny_flags: dict[str, Any], tmp_path: Path
) -> None:
    run = slurm.folder / "runs" / "plain script"
    flags = {**tiny_flags, "max_steps": 1500, "accumulation_steps": 1}
    start_plain_script(slurm, run, flags, tmp_path / "log")
    high = ("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null")
    assert slurm.command(*high, "--wrap=sleep 1").returncode == 0
    poll(lambda: saw(run, "preempted"), "the preemption")
    poll(lambda: (run / "DONE").exists(), "the end", 500)
    assert saw(run, "resumed")
    assert saw(run, "finished")


def test_plain_script_is_saved_and_stopped_by_scancel(
    slurm: Lab, tiny_flags: dict[str, Any], tmp_path: Path
) -> None:
    run = slurm.folder / "runs" / "plain cancelled"
    flags = {**tiny_flags, "max_steps": 100000}
    job = start_plain_script(slurm, run, flags, tmp_path / "log")
    assert slurm.command("scancel", job).returncode == 0
    stopped = run / "STOPPED"
    assert "cancelled" in poll(lambda: stopped.exists() and stopped.read_text(), "the end")
    assert saw(run, "preempted"), "no checkpoint was saved"
    poll(
        lambda: "JobState=CANCELLED" in slurm.command("scontrol", "show", "job", job).stdout,
        "Slurm to be done with the job",
    )


@pytest.fixture
def netns_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if os.getuid() != 0:
        lacks("network namespaces need root")
    slurm_or_skip(netns=True)
    folder = tmp_path_factory.mktemp("netns")
    for parent in (folder, folder.parent, folder.parent.parent):
        parent.chmod(0o755)
    lab = make_lab(folder, "--netns", "--base-port", str(int(base_port()) + 10))
    yield lab
    lab.devcluster("down")
    assert not list(Path("/run/netns").glob("devcluster-*"))
    shutil.rmtree(folder, ignore_errors=True)


def test_hosts_with_their_own_addresses_meet(netns_lab: Lab, tiny_flags: dict[str, Any]) -> None:
    """Two hosts, two addresses: the rendezvous and the all-reduce go over the network."""
    (netns_lab.folder / "p.toml").write_text('network_interface = "eth0"\n')
    profile = ("--profile", "p.toml")
    found = findings(
        netns_lab.ok("doctor", "--nodes", "2", "--gpus", "1", "--cpu", "--json", *profile)
    )
    assert "n1, n2" in found["ranks"]["text"]
    assert found["all-reduce"]["level"] == "ok"
    options = ("--name", "far", "--nodes", "2", "--gpus", "1", *profile, "--wait", "--")
    flags = {**tiny_flags, "max_steps": 5}
    words = [
        str(w)
        for k, v in flags.items()
        if v not in (True, False) or k == "num_workers"
        for w in (f"--{k}", v)
    ]
    done = netns_lab.launcher("submit", *options, *words)
    assert done.returncode == 0, done.stderr
    assert netns_lab.events("far", "started")[0]["world_size"] == 2
    assert netns_lab.events("far", "attempt_started")[0]["nodes"] == ["n1", "n2"]
