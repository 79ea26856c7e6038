"""A torch DataLoader over planned rows, whose workers outlive Slurm's signals, not their parent."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from minimind.data.mixture import Plan
from minimind.data.sampler import SkipBatchSampler
from minimind.system.process import available_cores
from minimind.system.signals import IGNORED_BY_WORKERS, ignore

log = logging.getLogger(__name__)


class RowBatches(Dataset[dict[str, torch.Tensor]]):
    """Builds one micro-batch for an array of row ids.

    Args:
        batch_size: fill short batches up to this many rows; None: leave them short.
    """

    def __init__(self, plan: Plan, batch_size: int | None) -> None:
        self._plan = plan
        self._batch_size = batch_size

    def __getitem__(self, row_ids: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        arrays = self._plan.build(row_ids, self._batch_size or max(1, len(row_ids)))
        arrays["row_ids"] = np.array(row_ids, np.int64)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


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
    return DataLoader(
        RowBatches(plan, sampler.batch_size if fixed_shape else None),
        batch_size=None,
        # DataLoader takes any iterable of indexes, here one array of row ids each.
        sampler=sampler,
        num_workers=bounded_workers(num_workers),
        pin_memory=pin_memory,
        worker_init_fn=_guard_worker,
        generator=torch.Generator(),
    )


def bounded_workers(num_workers: int) -> int:
    """Lower ``--num_workers`` to this rank's share of the cores, and say so."""
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    most = max(1, available_cores() // ranks_here)
    if num_workers > most:
        log.warning("--num_workers %d lowered to %d: that many cores a rank", num_workers, most)
    return min(num_workers, most)


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
