"""A run's state: taken at optimiser-step boundaries, saved, found again, and put back."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minimind.checkpoint.resume import must_fit
from minimind.checkpoint.run_lock import FolderLock
from minimind.checkpoint.state import Execution, Progress, RankState, TrainState
from minimind.checkpoint.store import Checkpointer, Identity, read_checkpoint, steps_in
from minimind.config import TrainConfig
from minimind.distributed.alike import Reading, look_anew, read_alike
from minimind.distributed.world import World
from minimind.errors import NonFiniteLossError, WeightsError
from minimind.rundir.events import EventLog, Kind
from minimind.telemetry.trackers.tracker import Tracker
from minimind.training.precision import restore_scaler
from minimind.training.restart import find_newest, record_save
from minimind.training.schedule import Schedule
from minimind.training.seed import rng_state, set_rng_state, setup_seed
from minimind.training.step import TrainStep
from minimind.weights.origin import Origin
from minimind.weights.torch_file import content_digest

log = logging.getLogger(__name__)


def open_checkpointer(config: TrainConfig, world: World, lock: FolderLock) -> Checkpointer:
    """What writes and finds this run's checkpoints, while it holds ``lock``."""
    checkpointer = Checkpointer(
        config.checkpoint_file,
        config.weight_file,
        keep=config.keep_checkpoints,
        may_write=lock.ensure_mine,
        each_block=world.beat,
    )
    world.on_main(checkpointer.remove_leftovers)
    return checkpointer


def find_checkpoint(
    config: TrainConfig, world: World, checkpointer: Checkpointer
) -> TrainState | None:
    """Load the newest checkpoint that verifies, if there is one and it is wanted.

    Rank 0 decides which; the others load the very same, whatever its name is for them.

    Raises:
        RanksDifferError: a rank sees another one in its place.
    """
    if config.from_resume == "0":
        return None
    path, found = read_alike(
        world,
        "checkpoints",
        partial(_read_checkpoint, config, world, checkpointer),
        remedy="mount the same --checkpoint_dir on all hosts, then start again",
    )
    if path is None or found is None:
        if config.from_resume == "1":
            log.warning("no checkpoint %s: starting afresh", config.checkpoint_file)
        return None
    return TrainState.from_dict(found, path)


Loaded = tuple[Path | None, dict[str, Any] | None]


def _read_checkpoint(
    config: TrainConfig, world: World, checkpointer: Checkpointer
) -> Reading[Loaded]:
    """What rank 0 found, as this rank sees it."""
    look_anew(checkpointer.checkpoint_file)
    path = world.on_main(partial(find_newest, config, checkpointer))
    identity = world.on_main(lambda: checkpointer.found_identity)
    if path is None or identity is None:
        return Reading({}, str(checkpointer.checkpoint_file), (None, None))
    found: dict[str, Any] | None = None
    try:
        if world.is_main:
            # It has just been verified, and is in memory.
            found, mine = checkpointer.hand_over(), identity
        # Looked at once: the right one may take the name a moment after another was seen there.
        elif (seen := content_digest(path)) == identity.digest:
            found, mine = read_checkpoint(path, world.beat)
        else:
            mine = Identity(steps_in(path), seen)
        parts = {"optimiser step": str(mine.step), "content": mine.digest}
    except WeightsError as error:
        parts = {"": str(error).removeprefix(f"{path} ")}
    return Reading(parts, str(path.absolute()), (path, found))


@dataclass(frozen=True)
class Boundary:
    """What a checkpoint needs besides weights and optimiser, as of the last optimiser step."""

    progress: Progress
    rank: RankState


@dataclass
class Saver:
    """Saves what a run needs to go on exactly, and restores it. All ranks call it alike."""

    config: TrainConfig
    world: World
    step: TrainStep
    schedule: Schedule
    progress: Progress
    execution: Execution
    data: str
    """Fingerprint of the rows."""
    origin: Origin
    """What the weights say of themselves; needed on rank 0."""
    tracker: Tracker
    checkpointer: Checkpointer
    events: EventLog
    boundary: Boundary = field(init=False)
    _saved_at: int = field(init=False, default=-1)
    _put_off: bool = field(init=False, default=False)

    def restore_model(self, saved: TrainState) -> None:
        """Put weights, optimiser and scaler back.

        Raises:
            WeightsError: they are another model's.
        """
        with must_fit(self.config.checkpoint_file):
            self.step.model.load_state_dict(saved.model)
            self.step.optimizers.load_state_dict(saved.optimizer)
            restore_scaler(self.step.scaler, saved.scaler)

    def restore_rank(self, saved: TrainState | None) -> None:
        """Give this rank its random numbers, and what the next log line needs from before.

        Last of all before training, since other preparations may draw random numbers. On another
        number of ranks, and in a fresh run, the random numbers are seeded anew.
        """
        world, step = self.world, self.step
        if saved is not None and saved.world_size == world.world_size:
            mine = saved.ranks[world.rank]
            with must_fit(self.config.checkpoint_file):
                set_rng_state(mine.rng, world.device)
            step.meter.restore(mine.meter)
        else:
            setup_seed(self.config.seed + world.rank + self.progress.global_step * world.world_size)
            if saved is not None and world.is_main:
                step.meter.restore(torch.stack([rank.meter for rank in saved.ranks]).sum(0))
        if saved is not None:
            step.grad_norm = saved.ranks[0].grad_norm.to(world.device)
        self.mark_boundary()

    def mark_boundary(self) -> None:
        """From here on, until the next boundary, this moment is what is saved."""
        self.boundary = Boundary(
            replace(self.progress),
            RankState(
                rng=rng_state(self.world.device),
                meter=self.step.meter.snapshot(),
                grad_norm=self.step.grad_norm,
            ),
        )

    def is_due(self, micro_step: int, at_end: bool, *, writing: bool) -> bool:
        """The first boundary at or after each multiple of --save_interval, and an epoch's end.

        Training does not wait for a slow disk: while the write before is under way a save is
        put off, though not beyond the next multiple.

        Args:
            writing: whether it is under way, as all ranks know alike.
        """
        interval = self.config.save_interval
        previous = micro_step - self.schedule.accumulation_steps
        is_multiple = micro_step // interval > max(0, previous) // interval
        if at_end or (is_multiple and self._put_off):
            return True
        if not (is_multiple or self._put_off):
            return False
        self._put_off = writing
        return not writing

    def save(self) -> None:
        """Save as of the last boundary; the write goes on in the background.

        A write that fails is named in the log, and training goes on: the last good
        checkpoint stands, and the next write may succeed.

        Raises:
            NonFiniteLossError: a step was taken that was not finite.
        """
        self._put_off = False
        number = self.boundary.progress.global_step
        if self._saved_at == number:
            return
        self.check_finite()
        rank = self.boundary.rank
        ranks = self.world.gather(
            replace(rank, meter=rank.meter.cpu(), grad_norm=rank.grad_norm.cpu())
        )
        self._saved_at = number
        if not self.world.is_main:
            return
        stall = self.checkpointer.save(
            self._state(ranks), on_durable=lambda seconds: self._saved(number, seconds)
        )
        log.debug("checkpoint of step %d copied in %.3f s", number, stall)

    def _state(self, ranks: list[RankState]) -> TrainState:
        step = self.step
        return TrainState(
            model=step.model.state_dict(),
            optimizer=step.optimizers.state_dict(),
            scaler=step.scaler.state_dict(),
            progress=self.boundary.progress,
            wandb_id=self.tracker.run_id,
            world_size=self.world.world_size,
            rows_per_update=self.schedule.rows_per_update,
            ranks=ranks,
            config=self.config.to_dict(),
            execution=self.execution,
            model_config=step.model.config.architecture_dict(),  # type: ignore[union-attr, operator]
            data=self.data,
            origin=replace(self.origin, step=self.boundary.progress.global_step).to_dict(),
        )

    def _saved(self, number: int, seconds: float) -> None:
        log.debug("checkpoint of step %d durable after %.3f s", number, seconds)
        record_save(self.config, number)
        self.events.append(Kind.CHECKPOINTED, step=number, seconds=round(seconds, 3))

    def save_and_wait(self) -> None:
        """Save as of the last boundary, and return when it is on the disk.

        Raises:
            OSError: it could not be written; on every rank.
            LockLostError: another run has taken over the checkpoint folder.
        """
        with self.world.busy("writing the checkpoint"):
            if not self.world.on_main(self._boundary_is_durable):
                self._saved_at = -1
                self.save()
                self.world.on_main(self.checkpointer.wait)

    def _boundary_is_durable(self) -> bool:
        with contextlib.suppress(OSError):
            self.checkpointer.wait()
        return self.checkpointer.written_step == self.boundary.progress.global_step

    def check_finite(self) -> None:
        """See that every step so far was finite; the host waits for the device here.

        Raises:
            NonFiniteLossError: one was not.
        """
        number = self.step.first_nonfinite()
        if number is not None:
            raise self.nonfinite_error(f"optimiser step {number + 1}")

    def nonfinite_error(self, where: str, rows: np.ndarray | None = None) -> NonFiniteLossError:
        """What to tell of a step that was not finite, with the checkpoint that is left."""
        newest = self.world.on_main(self._newest_durable_step)
        last_good = (
            f"last good checkpoint: {self.checkpointer.checkpoint_file} (optimiser step {newest})"
            if newest is not None
            else "there is no checkpoint before it"
        )
        which = ""
        if rows is not None:
            log.error("rows of the step that is not finite: %s", rows.tolist())
            shown = ", ".join(map(str, rows[:8].tolist()))
            which = f", rows {shown}{', …' if len(rows) > 8 else ''}"
        error = NonFiniteLossError(
            f"loss or gradient is not finite at {where}{which}; {last_good}; lower "
            "--learning_rate, or go on over such steps with --skip_nonfinite N"
        )
        error.reported_elsewhere = not self.world.is_main
        return error

    def _newest_durable_step(self) -> int | None:
        self.checkpointer.drain()
        return self.checkpointer.newest_step
