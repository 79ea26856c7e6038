"""A torch DataLoader over planned rows, whose workers outlive Slurm's signals, not their parent."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import torch
from torch.utils.data import DataLoader

from minimind.data.mixture import MicroBatches, Plan
from minimind.data.sampler import SkipBatchSampler
from minimind.errors import MiniMindError
from minimind.system.signals import IGNORED_BY_WORKERS, ignore


def make_loader(
    plan: Plan,
    sampler: SkipBatchSampler,
    *,
    num_workers: int,
    pin_memory: bool,
    fixed_shape: bool = True,
) -> DataLoader[Any]:
    """Return a loader that yields one dict of tensors for each micro-step of ``sampler``.

    The dicts hold what :meth:`RowPlan.build` makes, shape [batch_size, max_seq_len], and
    ``row_ids``, int64, as many as there are real rows. Iterating draws nothing from torch's
    global random state, so that a resumed run need not repeat it.

    Args:
        fixed_shape: fill the epoch's short last batches up with padding rows, for a compiled
            model, which would compile again for another shape.
    """
    batches = MicroBatches(plan, sampler.batch_size if fixed_shape else None)
    return _Loader(
        batches,  # type: ignore[arg-type] # anything with __getitem__ will do
        # DataLoader takes any iterable of indexes, here one array of row ids each, and makes
        # tensors of arrays.
        batch_size=None,
        sampler=sampler,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_guard_worker,
        generator=torch.Generator(),
    )


class _Loader(DataLoader[Any]):
    """Raises the errors that are handed over as batches."""

    def __iter__(self) -> Any:
        return map(_raise_error, super().__iter__())


def _raise_error(batch: Any) -> Any:
    if isinstance(batch, MiniMindError):
        raise batch
    return batch


def _guard_worker(worker_id: int) -> None:
    """Leave stop signals to the training process, which ends its workers itself.

    SIGTERM is how the parent ends a worker, but also what Slurm sends to every process of
    a job: it counts only when the parent sent it. A worker whose parent has died notices
    by itself (torch's own watchdog, within seconds).
    """
    ignore(number for number in IGNORED_BY_WORKERS if number != signal.SIGTERM)
    # Blocked, not ignored: only a blocked signal can be waited for and its sender known.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey_parent, args=(os.getppid(),), daemon=True).start()


def _obey_parent(parent: int) -> None:
    while True:
        info = signal.sigwaitinfo({signal.SIGTERM})
        if info.si_pid == parent:
            os._exit(0)
