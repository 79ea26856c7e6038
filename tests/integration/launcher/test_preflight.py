"""The trial of the GPUs, as two processes of torch that meet; on CPUs, which every machine has."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from launcher.preflight.judge import judge
from launcher.preflight.look import compute
from minimind.system.process import free_port

SRUN = """#!/bin/sh
# Runs a program as a step of one task on n1 and on n2 would: on this machine, by its CPU.
while [ "${1#-}" != "$1" ]; do shift; done
SLURM_PROCID=0 SLURMD_NODENAME=n1 "$@" cpu &
SLURM_PROCID=1 "$@" cpu &
wait
"""


def test_nodes_compute_and_add_up_a_number_together(tmp_path: Path) -> None:
    srun = tmp_path / "srun"
    srun.write_text(SRUN)
    srun.chmod(0o755)
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **meet}
    environment.pop("SLURMD_NODENAME", None)
    seen = compute(["n1", "n2"], [str(srun), "--nodes=2", sys.executable], environment)
    assert seen.problem == ""
    for report in seen.reports.values():
        assert (report.computes, report.computing, report.reduces) == ("", 1, "")
    assert {*seen.reports} == {"n1", "n2"}
    assert judge(seen, on_gpus=True).warnings == ()


def test_a_node_writes_each_line_whole() -> None:
    """Though its output is not buffered, as in the image: a datagram holds what one write has."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    environment = {**os.environ, "SLURM_PROCID": "0", "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, "-m", "launcher.preflight.compute", "n1", "cpu"]
    with ours, theirs:
        subprocess.run(words, env=environment, stdout=theirs, check=True)
        first, second = (ours.recv(4096).decode() for _ in range(2))
    assert first.endswith("\n")
    assert json.loads(first)["computing"] == 1
    assert second.endswith("\n")
    assert json.loads(second)["reduces"] == ""
