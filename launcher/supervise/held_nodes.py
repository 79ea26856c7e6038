"""The nodes of a job that outlives the loss of one: those that the ranks run on, and the others.

Slurm takes a lost node out of such a job, and ends the step that was on it. What the job still has
is in Slurm's record alone: the variables in the batch script are those of its start.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from launcher.slurm import client as slurm
from launcher.slurm.parse import leading_number
from launcher.spec.elastic import choose_nodes, keeps_nodes
from launcher.spec.job_spec import JobSpec

LONGEST_PATIENCE = 600.0
"""How long Slurm is waited for to find a silent node lost, at most, in seconds."""


def once_a_node(nodes: str) -> list[str]:
    """srun's words for a step that runs one process on each of the job's ``nodes`` nodes."""
    return ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]


class HeldNodes:
    """Which of the job's nodes the newest attempt runs on: ``nodes``, the batch host first."""

    def __init__(self, spec: JobSpec, address: str, allocated: list[str]) -> None:
        """``address``: what Slurm's commands call the job. ``allocated``: its nodes at first."""
        self.spec = spec
        self.address = address
        self._allocated = allocated
        self.nodes = allocated[: spec.nodes]
        self.batch_host = os.environ.get("SLURMD_NODENAME", self.nodes[0] if self.nodes else "")

    @classmethod
    def of(cls, spec: JobSpec, address: str, nodelist: str) -> HeldNodes | None:
        """None for a job that a lost node ends: it has all its nodes, or none."""
        return cls(spec, address, slurm.expand_nodes(nodelist)) if keeps_nodes(spec) else None

    @property
    def patience(self) -> float:
        """Seconds until Slurm calls a silent node lost; until then it lists the step on it."""
        timeout = leading_number(slurm.show_config().get("SlurmdTimeout", ""))
        return min(float(timeout), LONGEST_PATIENCE)

    def others(self) -> list[str]:
        """The job's nodes but the batch host, spare ones too."""
        return [node for node in self._left() or self._allocated if node != self.batch_host]

    def gone(self, timeout: float = slurm.PATIENCE) -> list[str]:
        """Nodes of the newest attempt that Slurm has taken out of the job.

        Empty, too, where it takes longer than ``timeout`` seconds to say so.
        """
        left = self._left(timeout)
        return [node for node in self.nodes if node not in left] if left else []

    def choose(self, failed: Collection[str] = ()) -> bool:
        """Gives the next attempt its nodes, without ``failed`` ones; False: they are too few."""
        left = self._left()
        known = slurm.show_nodes(",".join(left)).values()
        bad = {node.name for node in known if node.is_down} | {*failed}
        left = [node for node in left if node not in bad]
        chosen = choose_nodes(self.spec, left, self.batch_host)
        self.nodes = chosen or self.nodes
        return bool(chosen)

    def can_spare(self, failed: Collection[str]) -> bool:
        """Whether the job has nodes for an attempt without ``failed`` ones."""
        before = self.nodes
        try:
            return self.choose(failed)
        finally:
            self.nodes = before

    def begin(self, failed: Collection[str]) -> None:
        """Gives the first attempt in this job spare nodes in place of ``failed`` ones."""
        before = self.nodes
        if failed and not (self.choose(failed) and len(self.nodes) == len(before)):
            self.nodes = before

    def srun_words(self) -> list[str]:
        """The size and the place of the ranks' step, in srun's words."""
        ranks = len(self.nodes) * self.spec.gpus
        size = [f"--nodes={len(self.nodes)}", f"--ntasks={ranks}"]
        return [*size, f"--ntasks-per-node={self.spec.gpus}", *named(self)]

    def _left(self, timeout: float = slurm.PATIENCE) -> list[str]:
        """The nodes that the job still has; empty: it does not run, or nobody answers."""
        job = slurm.show_job(self.address, timeout) or {}
        if job.get("JobState") != "RUNNING":
            return []
        return slurm.expand_nodes(job.get("NodeList", ""))


def named(held: HeldNodes | None) -> list[str]:
    """srun's word for the nodes of the ranks, where a job has others besides."""
    return [f"--nodelist={','.join(held.nodes)}"] if held is not None else []
