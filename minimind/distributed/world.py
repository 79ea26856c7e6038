"""All ranks of a run: joining them, agreeing with them, failing together, leaving them."""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from minimind.distributed.device import pick_device, process_group_backend, use_device
from minimind.distributed.pulse import Pulse, Watch, raise_of_leavers
from minimind.distributed.rendezvous import find_rendezvous
from minimind.errors import LostRankError, MiniMindError
from minimind.rundir import env

T = TypeVar("T")

COLLECTIVE_TIMEOUT = timedelta(minutes=15)
"""A rank that stays away longer than this is taken for dead, unless the launcher watches."""

WATCHED_TIMEOUT = timedelta(days=7)
"""The same under the launcher: its watchdog finds a hang long before, and knows a suspension from
one. The timeouts of gloo and NCCL count the time in which a rank is suspended."""

PREPARATION_TIMEOUT = timedelta(days=365)
"""Ranks wait for one that tokenises a corpus as long as it gets on: see ``Pulse``."""

MOMENT = timedelta(seconds=0.2)


@dataclass(frozen=True)
class World:
    """All ranks of this run, seen from one of them."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    slow_group: Any = None
    """A gloo group with a long timeout, for waiting on preparation."""
    pulse: Pulse | None = None
    """By which ranks that wait see whether the others get on."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        return self.world_size > 1

    def beat(self) -> None:
        """Let the others see that this rank gets on."""
        if self.pulse is not None:
            self.pulse.beat()

    def doing(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Tell the others what this rank does inside, and beats at: "reading the checkpoint"."""
        return self.pulse.doing(what) if self.pulse is not None else contextlib.nullcontext()

    def busy(self, what: str) -> contextlib.AbstractContextManager[None]:
        """The same for what is long and shows no progress of its own: "compiling"."""
        if self.pulse is None:
            return contextlib.nullcontext()
        return self.pulse.doing(what, quietly=True)

    def begin_training(self) -> None:
        """Wait from now on for a rank that shows no progress as long as any exchange does."""
        if self.pulse is not None:
            self.pulse.patience = collective_timeout(os.environ).total_seconds()

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in rank order, on every rank.

        Raises:
            LostRankError: another rank has ended, or shows no progress.
            StopRequested: another rank was asked to stop, and has left.
        """
        if not self.is_distributed:
            return [value]
        mine = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        sizes = self._all_gather(torch.tensor([len(mine)]))
        longest = max(int(size) for size in sizes)
        padded = torch.cat((mine, torch.zeros(longest - len(mine), dtype=torch.uint8)))
        return [
            pickle.loads(found[: int(size)].numpy().tobytes())  # noqa: S301 (of this run's ranks)
            for found, size in zip(self._all_gather(padded), sizes, strict=True)
        ]

    def _all_gather(self, mine: torch.Tensor) -> list[torch.Tensor]:
        all_ranks = [torch.empty_like(mine) for _ in range(self.world_size)]
        self._wait(dist.all_gather(all_ranks, mine, group=self.slow_group, async_op=True))
        return all_ranks

    def gather_number(self, value: float) -> list[float]:
        """Every rank's number, in rank order, in one small exchange."""
        if not self.is_distributed:
            return [value]
        return [float(n) for n in self._all_gather(torch.tensor([value], dtype=torch.float64))]

    def barrier(self) -> None:
        self.gather(None)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a small CPU tensor over all ranks."""
        if self.is_distributed:
            self._wait(dist.all_reduce(values, group=self.slow_group, async_op=True))
        return values

    def _wait(self, exchange: Any) -> None:
        """Wait until an exchange is done, as long as the other ranks get on."""
        if self.pulse is None:
            exchange.wait()
            return
        with self.pulse.waiting():
            watch: Watch | None = None
            try:
                while not _is_done(exchange):
                    watch = watch or Watch(self.pulse)
                    watch.check()
            except RuntimeError as error:
                self.pulse.look()
                raise_of_leavers(self.pulse.seen)
                raise LostRankError(
                    "another rank has ended while this one waited for it; its own log says why"
                ) from error

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
    exchange = process_group_backend(device)
    timeout = collective_timeout(os.environ)
    store, _, _ = next(rendezvous(place.init_method, place.rank, place.world_size, timeout=timeout))
    dist.init_process_group(
        exchange,
        store=dist.PrefixStore("default_pg", store),
        rank=place.rank,
        world_size=place.world_size,
        timeout=timeout,
    )
    pulse = Pulse(
        dist.PrefixStore("pulse", store.clone()),
        (place.master_addr, place.master_port),
        place.rank,
        place.world_size,
    )
    try:
        yield World(
            rank=place.rank,
            world_size=place.world_size,
            local_rank=local_rank,
            device=device,
            slow_group=dist.new_group(backend="gloo", timeout=PREPARATION_TIMEOUT),
            pulse=pulse,
        )
    except BaseException as error:
        pulse.leave(error)
        # With NCCL, destroying the group waits for exchanges under way, and so for peers that
        # wait for this rank, before anybody has been told of the error. They are given up when
        # the process exits: left to itself, NCCL would complain then.
        atexit.register(_abort)
        raise
    pulse.end()
    dist.destroy_process_group()


def _is_done(exchange: Any) -> bool:
    """Whether an exchange ends within a moment; a signal's handler runs after it."""
    try:
        exchange.wait(MOMENT)
    except RuntimeError:
        if not exchange.is_completed():
            return False
        # It failed, and says so once more; or it was done just now.
        exchange.wait()
    return True


def _abort() -> None:
    if dist.group.WORLD is not None:
        dist.group.WORLD.abort()
