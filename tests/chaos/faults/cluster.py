"""Slurm itself: daemons, nodes, the network between them, preemption, steps, the batch script."""

from __future__ import annotations

import signal
import subprocess
import time
from random import Random
from typing import Any

from tests.chaos.faults.moments import send, some_moment
from tests.chaos.faults.registry import fault
from tests.chaos.faults.signals import NOBODY, STOPS

NODE_LOST = ("node_failure", "lost", "crash", "preempted")
"""A node that is lost is recorded as such, or by what was seen of its ranks first."""


@fault("slurm", causes=NODE_LOST, ends=True)
def node_set_down(run: Any, rng: Random) -> str:
    """By an administrator, who resumes it a while later."""
    moment = some_moment(run, rng)
    node = ("scontrol", "update", f"nodename={rng.choice(run.layer.nodes)}")
    run.lab.command(*node, "state=down", "reason=chaos")
    time.sleep(rng.uniform(0, 4))
    run.lab.command(*node, "state=resume")
    return moment


@fault("slurm", causes=NODE_LOST)
def slurmd_killed(run: Any, rng: Random) -> str:
    """Its ranks live on; it comes back before or after Slurm has noticed."""
    moment = some_moment(run, rng)
    node = rng.choice(run.layer.nodes)
    send(run.layer.daemon(f"slurmd-{node}"), signal.SIGKILL)
    time.sleep(rng.choice((1, 20)))
    run.lab.devcluster("up")
    return moment


@fault("slurm", causes=NODE_LOST)
def slurmctld_killed(run: Any, rng: Random) -> str:
    """The controller is away for some seconds; no run ends because of it alone."""
    moment = some_moment(run, rng)
    send(run.layer.daemon("slurmctld"), signal.SIGKILL)
    time.sleep(rng.uniform(0, 8))
    run.lab.devcluster("up")
    return moment


@fault("slurm", causes=("preempted", "crash", "cancelled"), ends=True, weight=2)
def preempted(run: Any, rng: Random) -> str:
    """A job of a better partition takes all nodes."""
    moment = some_moment(run, rng)
    run.lab.preempt(run.name, len(run.endings) + 1)
    return moment


@fault("slurm", causes=("crash", "preempted"), ends=True, weight=2)
def step_killed(run: Any, rng: Random) -> str:
    """SIGKILL to everything that Slurm started for the ranks."""
    moment = some_moment(run, rng)
    job = run.launched.job_id()
    listed = run.lab.command("squeue", "--noheader", "--steps", f"--jobs={job}", "--format=%i")
    steps = [step for step in listed.stdout.split() if step.rpartition(".")[2].isdigit()]
    if steps:
        run.lab.command("scancel", "--signal=KILL", *steps)
    else:
        for pid in run.ranks():
            send(pid, signal.SIGKILL)
    return moment


@fault("slurm", causes=("crash", "lost", "preempted", "cancelled"), weight=2)
def signal_supervisor_in_job(run: Any, rng: Random) -> str:
    """The process of the batch script that watches the ranks gets a stop signal or dies."""
    moment = some_moment(run, rng)
    pid = run.supervisor()
    if pid is None:
        return NOBODY
    number = rng.choice((*STOPS, signal.SIGKILL))
    send(pid, number)
    return f"{number.name} {moment}"


@fault("slurm", causes=("crash", "lost", "preempted", "cancelled", "time_limit"))
def signal_batch_script(run: Any, rng: Random) -> str:
    """What ``--signal=B:`` of a site, or a person with ``scancel --batch``, sends."""
    moment = some_moment(run, rng)
    number = rng.choice((signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT))
    job = run.launched.job_id()
    run.lab.command("scancel", "--batch", f"--signal={number.name[3:]}", str(job))
    return f"{number.name} {moment}"


@fault(
    "slurm",
    causes=(*NODE_LOST, "hang"),
    needs=lambda run: run.layer.has_namespaces,
    weight=1.5,
)
def network_partition(run: Any, rng: Random) -> str:
    """A node's link is down for some seconds: to Slurm, and to the other node's ranks."""
    moment = some_moment(run, rng)
    link = ("ip", "link", "set", f"dc-{rng.choice(run.layer.nodes)}")
    subprocess.run([*link, "down"], check=True)
    time.sleep(rng.choice((1, 3, 15)))
    subprocess.run([*link, "up"], check=True)
    return moment
