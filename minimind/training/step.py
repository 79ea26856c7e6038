"""One optimiser step: forward and backward over its micro-batches, the finite check, the update.

Nothing here knows of epochs, log lines or checkpoints.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from minimind.config import TrainConfig
from minimind.distributed.world import World
from minimind.telemetry.meters import LossMeter
from minimind.training.evaluate import to_device
from minimind.training.optimizer import Optimizers


class TrainStep:
    """A model and what changes it.

    Attributes:
        model: the bare model: what is saved.
        replica: the model, or its DDP wrapper: what is called in training.
        meter: the losses since the last log line.
        grad_norm: of the newest step, a scalar on the device.
        alone: times what this rank does without the others.
    """

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        model: nn.Module,
        optimizers: Optimizers,
        scaler: torch.amp.GradScaler,
        autocast: AbstractContextManager[Any],
    ) -> None:
        self.model = self.replica = model
        self.optimizers = optimizers
        self.scaler = scaler
        self.meter = LossMeter(world.device)
        self.grad_norm = torch.zeros((), device=world.device)
        self.alone: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
        self._world = world
        self._autocast = autocast
        self._grad_clip = config.grad_clip
        # Reading a tensor back waits for a GPU, so there it is left to the log lines, unless
        # a step must be judged before it is taken.
        self._judges_each = world.device.type == "cpu" or config.skip_nonfinite > 0
        self._loss = torch.zeros((), device=world.device)
        self._first_nonfinite = torch.full((), -1, dtype=torch.int64, device=world.device)

    def forward_backward(self, batch: dict[str, Any], *, scored: int, exchange: bool) -> None:
        """Add one micro-batch's gradients.

        Args:
            batch: arrays or tensors [rows, tokens] that the model takes, and ``targets``.
            scored: tokens that the whole step scores, over all ranks: the gradient is the mean
                over them.
            exchange: whether this is the step's last micro-batch, with which the ranks add up
                their gradients: once a step.
        """
        batch = to_device(batch, self._world.device)
        targets = batch.pop("targets")
        local_only = not exchange and self.replica is not self.model
        quiet = self.replica.no_sync() if local_only else contextlib.nullcontext()  # type: ignore[operator]
        with quiet:
            with self.alone(), self._autocast:
                out = self.replica(**batch, shift_labels=targets, num_items_in_batch=1)
            scored_here = (targets >= 0).sum()
            # DDP averages over ranks; the mean wanted is over all scored tokens of the
            # step, wherever they are, so that a short last step weighs right too.
            share = self._world.world_size / scored
            loss = (out.loss + out.aux_loss * scored_here) * share
            # The exchange of gradients, in which ranks wait for the slowest, is a part of it.
            with self.alone() if local_only else contextlib.nullcontext():
                self.scaler.scale(loss).backward()
        self.meter.add(out.loss.detach(), out.aux_loss.detach(), scored_here)
        self._loss += loss.detach()

    def update(self, number: int) -> bool:
        """Clip the gradients and take optimiser step ``number``, unless it is found not finite.

        Returns:
            Whether it was taken. Where finding out would hold up the GPU it always is, and
            :meth:`first_nonfinite` tells of it later.
        """
        self.optimizers.unscale(self.scaler)
        parameters = self.optimizers.parameters
        gradients = [p.grad for p in parameters if p.grad is not None]
        self.grad_norm = nn.utils.get_total_norm(gradients)
        if self._grad_clip:
            nn.utils.clip_grads_with_norm_(parameters, self._grad_clip, self.grad_norm)
        taken = self._is_finite(number)
        if taken:
            self.optimizers.step(self.scaler)
        elif self.scaler.is_enabled():
            self.scaler.update()
        self.meter.close_window(taken=taken)
        self.optimizers.zero_grad()
        self._loss = torch.zeros_like(self._loss)
        return taken

    def _is_finite(self, number: int) -> bool:
        # An infinite float16 gradient is the scaler's everyday business; its loss is not.
        judged = self._loss if self.scaler.is_enabled() else self.grad_norm
        if not self._judges_each:
            first = (self._first_nonfinite < 0) & ~torch.isfinite(judged)
            self._first_nonfinite = torch.where(first, number, self._first_nonfinite)
            return True
        finite = bool(torch.isfinite(judged))
        if self.scaler.is_enabled():
            # The ranks' gradients are equal after DDP; their losses are not.
            finite = all(self._world.gather(finite))
        return finite

    def first_nonfinite(self) -> int | None:
        """The first step that was taken though it was not finite, on any rank.

        The host waits for the device here, and the ranks for each other.
        """
        if self._judges_each:
            return None
        first = max(self._world.gather(int(self._first_nonfinite)))
        return first if first >= 0 else None

    def give_up(self, meter: torch.Tensor) -> None:
        """Forget the micro-batches of a step that is not taken, and go back to ``meter``."""
        self.optimizers.zero_grad()
        self.meter.restore(meter)
