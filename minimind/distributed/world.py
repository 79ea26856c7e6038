"""All ranks of a run: joining them, agreeing with them, failing together, leaving them."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from minimind.distributed.device import pick_device, process_group_backend, use_device
from minimind.distributed.rendezvous import find_rendezvous
from minimind.errors import MiniMindError
from minimind.rundir import env

T = TypeVar("T")

COLLECTIVE_TIMEOUT = timedelta(minutes=15)
"""A rank that stays away longer than this is taken for dead, unless the launcher watches."""

WATCHED_TIMEOUT = timedelta(days=7)
"""The same under the launcher: its watchdog finds a hang long before, and knows a suspension from
one. The timeouts of gloo and NCCL count the time in which a rank is suspended."""

PREPARATION_TIMEOUT = timedelta(hours=24)
"""How long the other ranks wait while one tokenises a corpus."""


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

    @contextlib.contextmanager
    def local_main_first(self) -> Iterator[None]:
        """The body runs on every rank, on the first rank of each node before the others.

        What the first one prepares on disk, the others find. An error of any rank is
        raised on all.
        """
        is_first = self.local_rank == 0
        if not is_first:
            self._raise_errors(None)
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        self._raise_errors(error)
        if is_first:
            self._raise_errors(None)

    def _raise_errors(self, error: Exception | None) -> None:
        """Raise what any rank has to tell, on all ranks."""
        for owner, found in enumerate(self.gather(error)):
            if found is not None:
                raise self._as_seen_here(found, owner)


def collective_timeout(environ: Mapping[str, str]) -> timedelta:
    """How long a rank waits for the others in an exchange."""
    return WATCHED_TIMEOUT if env.ATTEMPT in environ else COLLECTIVE_TIMEOUT


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
    use_device(device)
    if place is None or not distributed:
        yield World(rank=0, world_size=1, local_rank=0, device=device)
        return
    dist.init_process_group(
        process_group_backend(device),
        init_method=place.init_method,
        rank=place.rank,
        world_size=place.world_size,
        timeout=collective_timeout(os.environ),
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
