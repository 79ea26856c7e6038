"""Which rows each rank reads at each micro-step: a function of seed, epoch and position alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def epoch_order(n_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits the rows, a permutation of ``range(n_rows)``.

    It comes from numpy's RandomState, whose stream is frozen: an order that a checkpoint
    counts positions in must not change with numpy's version.
    """
    return np.random.RandomState([seed, epoch]).permutation(n_rows)


@dataclass(frozen=True)
class SourceRows:
    """A source of a mix: the rows that it has, and those that it gives to an epoch."""

    n_rows: int
    per_epoch: int


def mixed_epoch_order(sources: Sequence[SourceRows], seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits the rows of a mix.

    A source is an endless stream, one permutation of its rows after the other, and each
    epoch takes the next ``per_epoch`` of them: where that is, is a product, so that an epoch
    depends on none before it. Then the epoch's rows are shuffled. A source's rows are
    numbered after those of the sources before it.
    """
    rows = []
    first_row = 0
    for number, source in enumerate(sources):
        first = epoch * source.per_epoch
        before, skip = divmod(first, source.n_rows)
        n_passes = -(-(skip + source.per_epoch) // source.n_rows)
        stream = [
            np.random.RandomState([seed, number, before + i]).permutation(source.n_rows)
            for i in range(n_passes)
        ]
        rows.append(first_row + np.concatenate(stream)[skip : skip + source.per_epoch])
        first_row += source.n_rows
    together = np.concatenate(rows)
    return together[epoch_order(len(together), seed, epoch)]


class SkipBatchSampler:
    """Yields this rank's row ids, one array for each micro-step.

    Micro-step ``m`` covers the positions from ``start_row + m * batch_size * world_size`` of
    the epoch's global order, and rank ``r`` takes the ``r``-th slice of ``batch_size`` of
    them. At the end of the epoch arrays are short or empty, but every rank gets equally
    many. Starting anywhere costs nothing, and the global order does not depend on
    ``world_size`` or ``batch_size``.

    Args:
        n_rows: rows of the whole data set.
        batch_size: rows for each rank and micro-step.
        start_row: how many rows of this epoch have been read, by all ranks together.
        mix: the sources, when rows come from several by weight; each epoch has ``n_rows``.
    """

    def __init__(
        self,
        n_rows: int,
        *,
        batch_size: int,
        rank: int,
        world_size: int,
        seed: int,
        epoch: int,
        start_row: int = 0,
        mix: Sequence[SourceRows] = (),
    ) -> None:
        if n_rows < 0 or batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"{n_rows=} {batch_size=} {rank=} {world_size=}")
        if not 0 <= start_row <= n_rows:
            raise ValueError(f"start_row {start_row} is not within 0..{n_rows}")
        if mix:
            self._order = mixed_epoch_order(mix, seed, epoch)
        else:
            self._order = epoch_order(n_rows, seed, epoch)
        self._start_row = start_row
        self.batch_size = batch_size
        self._rank = rank
        self._rows_per_step = batch_size * world_size

    def __len__(self) -> int:
        """Micro-steps that are left in this epoch."""
        return -(-(len(self._order) - self._start_row) // self._rows_per_step)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        for micro_step in range(len(self)):
            first = self._start_row + micro_step * self._rows_per_step
            first += self._rank * self.batch_size
            yield self._order[first : first + self.batch_size]

    def global_rows(self, micro_step: int, count: int = 1) -> NDArray[np.int64]:
        """Return the ids that all ranks together read in ``count`` micro-steps from ``micro_step``.

        Micro-steps count from ``start_row``, as iteration does.
        """
        first = self._start_row + micro_step * self._rows_per_step
        return self._order[first : first + count * self._rows_per_step]
