"""Ranks: who am I, how do we meet, how do we fail together."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from minimind.errors import ConfigError, MiniMindError

T = TypeVar("T")

COLLECTIVE_TIMEOUT = timedelta(minutes=15)
"""A rank that stays away longer than this is taken for dead."""

PREPARATION_TIMEOUT = timedelta(hours=24)
"""How long the other ranks wait while one tokenises a corpus."""

FIRST_PORT, PORT_COUNT = 20000, 20000


@dataclass(frozen=True)
class Rendezvous:
    """Where this process stands among all, and where rank 0 listens."""

    rank: int
    world_size: int
    local_rank: int
    master_addr: str
    master_port: int


def find_rendezvous(environ: Mapping[str, str]) -> Rendezvous | None:
    """Read the place of this process from torchrun's, Slurm's or submitit's variables.

    Slurm's are used only inside a step (``srun``): in a batch script, which also has
    ``SLURM_NTASKS``, a lone process would wait for ranks that nobody starts.

    Returns:
        None when this process runs alone.

    Raises:
        ConfigError: variables contradict each other.
    """
    if "RANK" in environ and "WORLD_SIZE" in environ:
        found = Rendezvous(
            rank=_whole(environ, "RANK"),
            world_size=_whole(environ, "WORLD_SIZE"),
            local_rank=_whole(environ, "LOCAL_RANK", default=environ["RANK"]),
            master_addr=environ.get("MASTER_ADDR", "127.0.0.1"),
            master_port=_whole(environ, "MASTER_PORT", default="29500"),
        )
    elif "SLURM_PROCID" in environ and "SLURM_STEP_ID" in environ:
        job_id = _whole(environ, "SLURM_JOB_ID", default="0")
        found = Rendezvous(
            rank=_whole(environ, "SLURM_PROCID"),
            world_size=_whole(environ, "SLURM_STEP_NUM_TASKS", default=environ.get("SLURM_NTASKS")),
            local_rank=_whole(environ, "SLURM_LOCALID"),
            master_addr=environ.get("MASTER_ADDR") or first_host(environ["SLURM_JOB_NODELIST"]),
            master_port=_whole(environ, "MASTER_PORT", default=str(_port_of_job(job_id))),
        )
    elif "SUBMITIT_LOCAL_GLOBALID" in environ:
        job_id = _whole(environ, "SUBMITIT_LOCAL_JOB_ID", default="0")
        found = Rendezvous(
            rank=_whole(environ, "SUBMITIT_LOCAL_GLOBALID"),
            world_size=_whole(environ, "SUBMITIT_LOCAL_NTASKS"),
            local_rank=_whole(environ, "SUBMITIT_LOCAL_LOCALID"),
            master_addr=environ.get("MASTER_ADDR", "127.0.0.1"),
            master_port=_whole(environ, "MASTER_PORT", default=str(_port_of_job(job_id))),
        )
    else:
        return None
    if not 0 <= found.rank < found.world_size:
        raise ConfigError(f"rank {found.rank} is outside of a world of {found.world_size}")
    return found


def _whole(environ: Mapping[str, str], name: str, default: str | None = None) -> int:
    text = environ.get(name, default)
    if text is None:
        raise ConfigError(f"environment variable {name} is missing; start the ranks with srun")
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"environment variable {name} must be a number: {text!r}") from None


def _port_of_job(job_id: int) -> int:
    return FIRST_PORT + job_id % PORT_COUNT


def first_host(nodelist: str) -> str:
    """The first host of a Slurm node list: ``gpu[03-04,7],x1`` → ``gpu03``."""
    match = re.match(r"^([^,\[]+)(?:\[([^\],-]+)[^\]]*\])?([^,]*)", nodelist.strip())
    if match is None:
        raise ConfigError(f"cannot read the node list {nodelist!r}; set MASTER_ADDR")
    prefix, number, suffix = match.groups()
    return f"{prefix}{number or ''}{suffix}"


@dataclass(frozen=True)
class World:
    """All ranks of this run, seen from one of them."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    slow_group: Any = None
    """A gloo group with a long timeout, for waiting on preparation."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        return self.world_size > 1

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in rank order, on every rank."""
        if not self.is_distributed:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.slow_group)
        return values

    def barrier(self) -> None:
        self.gather(None)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a small CPU tensor over all ranks."""
        if self.is_distributed:
            dist.all_reduce(values, group=self.slow_group)
        return values

    def on_main(self, work: Callable[[], T]) -> T:
        """Run ``work`` on rank 0; every rank gets its result, or raises its error."""
        outcome: tuple[Any, Exception | None] = (None, None)
        if self.is_main:
            try:
                outcome = (work(), None)
            except Exception as raised:
                outcome = (None, raised)
        result, error = self.gather(outcome)[0]
        if error is not None:
            raise self._as_seen_here(error, owner=0)
        return result

    def _as_seen_here(self, error: Exception, owner: int) -> Exception:
        if isinstance(error, MiniMindError):
            error.reported_elsewhere = owner != self.rank
        return error

    def local_main_first(self, work: Callable[[], T]) -> T:
        """Run ``work`` on every rank, on the first rank of each node before the others.

        What the first one prepares on disk, the others find. An error of any rank is
        raised on all.
        """
        result: Any = None
        for turn in (True, False):
            error: Exception | None = None
            if (self.local_rank == 0) is turn:
                try:
                    result = work()
                except Exception as raised:
                    error = raised
            for owner, found in enumerate(self.gather(error)):
                if found is not None:
                    raise self._as_seen_here(found, owner)
        return result


def pick_device(wanted: str, local_rank: int, distributed: bool) -> torch.device:
    """Resolve ``--device``: CUDA when there is one, this rank's own when there are several.

    Raises:
        ConfigError: CUDA was asked for and is not there.
    """
    if wanted in ("", "cuda") or wanted.startswith("cuda:"):
        if torch.cuda.is_available():
            index = int(wanted[5:]) if wanted.startswith("cuda:") else 0
            if distributed:
                index = local_rank % torch.cuda.device_count()
            if index >= torch.cuda.device_count():
                raise ConfigError(
                    f"--device {wanted}: this machine has {torch.cuda.device_count()} GPU(s)"
                )
            return torch.device("cuda", index)
        if wanted:
            raise ConfigError(f"--device {wanted}: torch sees no GPU here; use --device cpu")
    return torch.device("cpu")


@contextlib.contextmanager
def init_distributed_mode(wanted_device: str) -> Iterator[World]:
    """Join the other ranks; leave them in good order, or at once when an error ends this one.

    Yields:
        The world: alone when no launcher's variables are set.
    """
    place = find_rendezvous(os.environ)
    distributed = place is not None and place.world_size > 1
    local_rank = place.local_rank if place else 0
    device = pick_device(wanted_device, local_rank, distributed)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if place is None or not distributed:
        yield World(rank=0, world_size=1, local_rank=0, device=device)
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        init_method=f"tcp://{_bracketed(place.master_addr)}:{place.master_port}",
        rank=place.rank,
        world_size=place.world_size,
        timeout=COLLECTIVE_TIMEOUT,
    )
    try:
        yield World(
            rank=place.rank,
            world_size=place.world_size,
            local_rank=local_rank,
            device=device,
            slow_group=dist.new_group(backend="gloo", timeout=PREPARATION_TIMEOUT),
        )
    except BaseException:
        # With NCCL, destroying the group waits for exchanges under way, and so for peers that
        # wait for this rank, before anybody has been told of the error. They are given up when
        # the process exits: left to itself, NCCL would complain then.
        atexit.register(_abort)
        raise
    dist.destroy_process_group()


def _abort() -> None:
    if dist.group.WORLD is not None:
        dist.group.WORLD.abort()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
