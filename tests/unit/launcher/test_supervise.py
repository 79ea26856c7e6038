"""The supervisor of a Slurm job: what it reads from srun, and what it has srun start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.spec import JobSpec
from launcher.supervise import StepRanks
from launcher.sweep import submit_sweep
from tests.e2e.lab import poll


@pytest.mark.parametrize(
    ("said", "broken"),
    [
        ("srun: job 7 queued and waiting for resources", False),
        ("srun: error: n2: task 1: Exited with exit code 1", True),
        ("srun: error: n1: tasks 0-3: Killed", True),
        ("srun: error: n2: task 1: Exited with exit code 75", True),
    ],
)
def test_a_rank_that_has_left_is_seen(tmp_path: Path, said: str, broken: bool) -> None:
    log = tmp_path / "srun.log"
    ranks = StepRanks(["echo", said], {"PATH": "/usr/bin:/bin"}, log)
    poll(lambda: ranks.poll() is not None, "the end of echo")
    assert ranks.broken() is broken


SLURM = {
    "sbatch": "echo Submitted batch job 7",
    "scontrol": "exit 1",
    "sinfo": "exit 1",
    "squeue": "exit 1",
    # One call a line, its words separated by a character that no word holds.
    "srun": 'for word; do printf "%s\\037" "$word"; done >> "$0.calls"; echo >> "$0.calls"',
}


@pytest.fixture
def srun_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list[str]]]:
    """A Slurm that takes every job and starts nothing; what its srun was called with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in SLURM.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def calls() -> list[list[str]]:
        lines = (folder / "srun.calls").read_text().splitlines()
        return [line.split("\037")[:-1] for line in lines]

    return calls


@pytest.mark.parametrize("container", ["docker", "podman"])
def test_point_of_a_sweep_removes_the_containers_that_it_starts(
    container: str,
    tmp_path: Path,
    make_spec: Callable[..., JobSpec],
    srun_calls: Callable[[], list[list[str]]],
) -> None:
    spec = make_spec(
        run_dir=str(tmp_path / "sw"), host_python=sys.executable, container=container, image="mm"
    )
    submit_sweep(spec, ["--epochs", "1"], {"learning_rate": ["1e-3", "5e-4"]}, {})
    script = next((tmp_path / "sw" / "submitit").glob("*_submission.sh"))
    job = {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    code = tmp_path / "sw" / "code"
    done = subprocess.run(["bash", str(script)], cwd=code, env={**os.environ, **job})
    assert done.returncode == 0
    removal, ranks = srun_calls()
    point = tmp_path / "sw" / "1"
    assert removal[-2:] == [container, f"minimind.run={point}"]
    assert ranks[ranks.index("--label") + 1] == f"minimind.run={point}"
    assert ranks[-4:] == ["-u", "-m", "submitit.core._submit", str(tmp_path / "sw" / "submitit")]
    # The array's pickles lie in the sweep's folder: the container must see it.
    assert f"{tmp_path / 'sw'}:{tmp_path / 'sw'}" in ranks
    assert f"--chdir={point}/submitit" in ranks
