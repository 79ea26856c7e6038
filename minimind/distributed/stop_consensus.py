"""All ranks act on the same wish at the same micro-step, without waiting for each other."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


class Agreement:
    """Lets all ranks see the same wishes at the same micro-step.

    Each poll returns the largest values that any rank gave to the poll *before*, whose
    reduction has been under way in the background since. So nothing waits, no GPU is
    synchronised, and all ranks act at the same poll.
    """

    def __init__(self, world_size: int) -> None:
        self._group: Any = dist.new_group(backend="gloo") if world_size > 1 else None
        self._pending: tuple[Any, torch.Tensor] | None = None

    def poll(self, *wishes: float) -> list[float]:
        """Give this rank's wishes; get the maxima over all ranks of the previous poll's.

        The first poll answers zeros. Alone, the answer is one's own wishes, at once.
        """
        if self._group is None:
            return list(wishes)
        agreed = self.drain() or [0.0] * len(wishes)
        values = torch.tensor(wishes, dtype=torch.float64)
        work = dist.all_reduce(values, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._pending = (work, values)
        return agreed

    def settle(self) -> None:
        """Wait for the reduction that is under way; the next poll gives what comes of it."""
        if self._pending is not None:
            self._pending[0].wait()

    def drain(self) -> list[float] | None:
        """Finish the reduction that is under way, so that no rank leaves it half done."""
        if self._pending is None:
            return None
        self.settle()
        _, values = self._pending
        self._pending = None
        return values.tolist()
