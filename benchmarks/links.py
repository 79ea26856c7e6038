"""How many ranks pay off on paper: one all-reduce an optimiser step over links of known speed.

A ring all-reduce of S bytes over N ranks moves 2·(N − 1)/N·S through every rank's link in
2·(N − 1) steps (Patarasuk and Yuan 2009, https://doi.org/10.1016/j.jpdc.2008.09.002; NCCL's
"bus bandwidth" is the same factor turned around,
https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md). DDP starts it bucket by
bucket while the backward pass still runs, so that only what outlasts the backward pass of the
last micro-step is waited for.
"""

from __future__ import annotations

from dataclasses import dataclass

BACKWARD_SHARE = 2 / 3
"""Of a micro-step's time: a backward pass costs twice a forward pass."""


@dataclass(frozen=True)
class Link:
    """The slowest link on a rank's way around the ring, one way, for this rank alone."""

    name: str
    bytes_per_second: float
    latency: float
    """Seconds a step of the ring."""


@dataclass(frozen=True)
class Step:
    """One rank's optimiser step without any other rank."""

    gradient_bytes: float
    micro_step_seconds: float
    accumulation_steps: int

    @property
    def seconds(self) -> float:
        return self.micro_step_seconds * self.accumulation_steps


def ring_seconds(n_bytes: float, ranks: int, link: Link) -> float:
    """Seconds of a ring all-reduce."""
    if ranks == 1:
        return 0.0
    return 2 * (ranks - 1) * (n_bytes / ranks / link.bytes_per_second + link.latency)


def exposed_seconds(step: Step, ranks: int, link: Link, bucket_bytes: float = 25 * 2**20) -> float:
    """What of the all-reduce is waited for, when it overlaps the last backward pass.

    The last bucket is full only when the backward pass is over, so that its exchange is
    never hidden.

    Args:
        bucket_bytes: DDP's bucket size (its default is 25 MiB).
    """
    total = ring_seconds(step.gradient_bytes, ranks, link)
    last = ring_seconds(min(bucket_bytes, step.gradient_bytes), ranks, link)
    hidden_by = BACKWARD_SHARE * step.micro_step_seconds
    return max(last, total - hidden_by)


def efficiency(step: Step, ranks: int, link: Link) -> float:
    """Share of the ranks' summed single-rank speed that is left."""
    return step.seconds / (step.seconds + exposed_seconds(step, ranks, link))
