"""Checkpoints that survive: atomic, verified, kept in generations, written in background.

``{stem}.pt`` is the newest complete checkpoint; ``{stem}.step{N}.pt`` are the ones before
it. The bytes of a new one are on the disk before it takes the name, so a kill at any
moment leaves the newest or the one before it. Torch's file format carries a CRC-32 of
every record, which is checked before anything in the file is used.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from minimind.checkpoint.state import TrainState, is_checkpoint, step_of
from minimind.distributed.device import finish_copies, page_locks
from minimind.errors import WeightsError
from minimind.rundir.layout import checkpoints_of, earlier_checkpoint, earlier_checkpoints
from minimind.system.durable import (
    refusal,
    remove_temporaries,
    sync_folder,
    temporary_name,
    write_durably,
)
from minimind.weights.origin import Origin, origin_of, with_origin
from minimind.weights.torch_file import content_digest, load_torch_file, load_verified, verify_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """What tells a checkpoint from every other, whatever its file is called."""

    step: int
    """Optimiser steps done."""
    digest: str
    """As :func:`minimind.weights.torch_file.content_digest`."""


class Checkpointer:
    """Saves and finds the checkpoints of one run. Used by rank 0 only.

    Args:
        checkpoint_file: ``CHECKPOINT_DIR/{stem}.pt``.
        weight_file: ``SAVE_DIR/{stem}.pth``, written beside each checkpoint.
        keep: how many checkpoints stay on the disk, the newest included.
        may_write: raises when another run has taken over the folder.
        each_block: called after each megabyte of a checkpoint that is read.
    """

    def __init__(
        self,
        checkpoint_file: Path,
        weight_file: Path,
        *,
        keep: int,
        may_write: Callable[[], None] = lambda: None,
        each_block: Callable[[], None] = lambda: None,
    ) -> None:
        self.checkpoint_file = checkpoint_file
        self.weight_file = weight_file
        self.keep = keep
        self.may_write = may_write
        self.each_block = each_block
        self.newest_step: int | None = None
        """Optimiser steps in the newest durable checkpoint."""
        self.written_step: int | None = None
        """Those of the last save that left both files. Not known at a start: a kill may have
        come between the two, or the weights' folder be another."""
        self._damaged: list[Path] = []
        """What did not verify and is newer than the checkpoint the run went on from."""
        self._found: dict[str, Any] | None = None
        self.found_identity: Identity | None = None
        """Of what :meth:`find_newest` found."""
        self._staging: dict[Any, torch.Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, state: TrainState, on_durable: Callable[[float], None]) -> float:
        """Copy ``state`` and write it in the background.

        Args:
            state: its ``model`` makes the weight file.
            on_durable: called in the background with the seconds from here to durable.

        Returns:
            Seconds for which the caller was held up: the copy, and the wait for the
            previous write if that was still under way.
        """
        start = time.perf_counter()
        with contextlib.suppress(OSError):
            self.wait()
        snapshot = self._stage(state)
        self._thread = threading.Thread(
            target=self._write, args=(snapshot, start, on_durable), name="checkpoint"
        )
        self._thread.start()
        return time.perf_counter() - start

    @property
    def writing(self) -> bool:
        """Whether the last save's write is still under way."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait until the last save is durable; raise what went wrong with it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def drain(self) -> None:
        """Let the write under way end, on a path where its error, already logged, is not news."""
        with contextlib.suppress(Exception):
            self.wait()

    def _stage(self, value: Any) -> Any:
        """A copy of all tensors in ``value`` on the CPU, which training cannot change.

        Tensors that are one (tied embeddings) stay one, so they are written once. The
        copies' memory is kept for the next save: fresh pages would cost more than the copy.
        """
        used: dict[Any, torch.Tensor] = {}
        staged = self._copy(value, used)
        self._staging = used
        if any(copy.is_pinned() for copy in used.values()):
            # Copies from a GPU are only under way; training may not go on before they are done.
            finish_copies()
        return staged

    def _copy(self, value: Any, used: dict[Any, torch.Tensor]) -> Any:
        if isinstance(value, torch.Tensor):
            key = (value.data_ptr() or id(value), value.shape, value.dtype)
            if key not in used:
                copy = self._staging.get(key)
                if copy is None:
                    copy = host_buffer(value)
                used[key] = copy.copy_(value.detach(), non_blocking=copy.is_pinned())
            return used[key]
        if isinstance(value, dict):
            return {k: self._copy(v, used) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._copy(v, used) for v in value]
        if is_dataclass(value) and not isinstance(value, type):
            parts = {f.name: self._copy(getattr(value, f.name), used) for f in fields(value)}
            return type(value)(**parts)
        return value

    def _write(self, state: TrainState, start: float, on_durable: Callable[[float], None]) -> None:
        step = state.progress.global_step
        try:
            self.may_write()
            if not self._stands(step) and not self._try_to_write(
                self.checkpoint_file,
                state.to_dict(),
                f"checkpoint of step {step}",
                self._keep_previous,
            ):
                return
            self.newest_step = step
            self._prune()
            origin = replace(Origin.from_dict(state.origin), step=step)
            weights = with_origin(half_precision(state.model), origin)
            if self._try_to_write(
                self.weight_file, weights, f"weights of step {step}", self.may_write
            ):
                self.written_step = step
            on_durable(time.perf_counter() - start)
        except BaseException as error:
            self._error = error

    def _stands(self, step: int) -> bool:
        """Whether the checkpoint of ``step`` has its place already, and only weights are wanted."""
        return step == self.newest_step and not self._damaged and self.checkpoint_file.exists()

    def _try_to_write(
        self,
        path: Path,
        value: Any,
        what: str,
        before_rename: Callable[[], None] | None = None,
    ) -> bool:
        """Write one file; what the disk says against it is logged, and raised by :meth:`wait`."""
        try:
            write_durably(path, partial(save_tensors, value), before_rename=before_rename)
        except OSError as error:
            # A newer owner of the folder has removed what this one was writing.
            self.may_write()
            log.error("%s not saved: %s: %s", what, path, error.strerror or error)
            self._error = error
            return False
        return True

    def _keep_previous(self) -> None:
        """Give the present newest its generation name before the new one takes its place."""
        self.may_write()
        self._put_damaged_aside()
        if self.keep < 2 or self.newest_step is None or not self.checkpoint_file.exists():
            return
        generation = earlier_checkpoint(self.checkpoint_file, self.newest_step)
        previous = temporary_name(self.checkpoint_file)
        try:
            os.link(self.checkpoint_file, previous)
        except OSError:
            # No hard links here. Between this rename and the next the generation is the
            # newest, and loading finds it.
            os.replace(self.checkpoint_file, generation)
        else:
            self._name_generation(previous, generation)
        sync_folder(generation.parent)

    def _name_generation(self, previous: Path, generation: Path) -> None:
        """Let ``previous``, a link to the newest checkpoint, take the name of a generation."""
        try:
            # What was linked may be a newer start's by now.
            self.may_write()
            os.replace(previous, generation)
        finally:
            # A rename between two names of one file leaves both.
            previous.unlink(missing_ok=True)

    def _put_damaged_aside(self) -> None:
        """Free the names of damaged checkpoints, which would be kept in a good one's stead.

        Until the next rename the generation that the run went on from is the newest.
        """
        aside = self.checkpoint_file.with_suffix(".damaged.pt")
        while self._damaged:
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._damaged[-1], aside)
            self._damaged.pop()

    def _prune(self) -> None:
        try:
            for path in earlier_checkpoints(self.checkpoint_file)[self.keep - 1 :]:
                path.unlink(missing_ok=True)
        except OSError as error:
            # Room is lost, no step; the next save tries again.
            log.warning("an old checkpoint cannot be deleted: %s", error)

    def find_newest(self) -> Path | None:
        """The newest checkpoint that verifies; each one that does not is named in the log.

        Raises:
            WeightsError: there are checkpoints and none of them can be used. Starting
                afresh instead would lose the run without a word.
        """
        candidates = checkpoints_of(self.checkpoint_file)
        problems = []
        self.found_identity = None
        for number, path in enumerate(candidates):
            try:
                found, identity = read_checkpoint(path, self.each_block)
            except WeightsError as error:
                log.error("%s; trying the one before it", error)
                problems.append(str(error))
                continue
            self.newest_step = identity.step
            self.found_identity = identity
            self._damaged = candidates[:number]
            self._found = found
            if problems:
                log.warning("going on from %s, step %d", path, self.newest_step)
            return path
        if problems:
            raise WeightsError(
                f"no checkpoint in {self.checkpoint_file.parent} can be used "
                f"({problems[0]}); restore one, or start afresh with --from_resume 0"
            )
        return None

    @property
    def fell_back(self) -> bool:
        """Whether :meth:`find_newest` found a newer one that does not verify."""
        return bool(self._damaged)

    def hand_over(self) -> dict[str, Any] | None:
        """The content of what :meth:`find_newest` found, once: it is large, and not kept."""
        found, self._found = self._found, None
        return found

    def set_aside(self) -> None:
        """Move an earlier run's checkpoint out of the way of a fresh run, but keep it.

        Of all that fresh starts have replaced two are kept: the latest, and the furthest where
        that is another. So starts by mistake cost no long run its only checkpoint. Weights that
        lie where this run will write its own are kept likewise.
        """
        keep_replaced_weights(self.weight_file)
        candidates = checkpoints_of(self.checkpoint_file)
        if not candidates:
            return
        kept = next((path for path in candidates if steps_in(path) >= 0), None)
        self._damaged = candidates[: candidates.index(kept)] if kept else candidates
        self._put_damaged_aside()
        if kept is not None:
            latest = self.checkpoint_file.with_suffix(".replaced.pt")
            furthest = self.checkpoint_file.with_suffix(".furthest.replaced.pt")
            if steps_in(latest) > max(steps_in(kept), steps_in(furthest)):
                os.replace(latest, furthest)
                log.warning("the furthest checkpoint that was replaced before is now %s", furthest)
            for older in candidates[candidates.index(kept) + 1 :]:
                older.unlink()
            os.replace(kept, latest)
            log.warning("an earlier run's checkpoint is now %s", latest)
        sync_folder(self.checkpoint_file.parent)

    def remove_leftovers(self) -> None:
        """Delete the half-written files of saves that were killed. Only under the lock.

        It is a fence, too: an owner of before that lives on, and had the lock when it last
        looked, finds nothing left to rename. So it must come before :meth:`find_newest`.
        """
        for target in (self.checkpoint_file, self.weight_file):
            remove_temporaries(target)


def host_buffer(tensor: torch.Tensor) -> torch.Tensor:
    """Memory on the CPU for a copy of ``tensor``: page-locked where that is far faster."""
    if page_locks(tensor.device):
        try:
            return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        except RuntimeError as error:
            log.debug("no page-locked memory for checkpoints: %s", error)
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def half_precision(model_state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights as float16, tied tensors still tied: what upstream's tools load."""
    halves: dict[int, torch.Tensor] = {}
    for tensor in model_state.values():
        if tensor.data_ptr() not in halves:
            halves[tensor.data_ptr()] = tensor.half()
    return {name: halves[tensor.data_ptr()] for name, tensor in model_state.items()}


def keep_replaced_weights(file: Path) -> None:
    """Keep the weights in ``file``, which a fresh run is about to write over, as ``.replaced.pth``.

    They keep their own name too until then: ``--from_weight`` may mean them, and has to find them
    again when the run is killed before its first save. Of those whose steps are known the latest
    and the furthest are kept, as of checkpoints; others, of unknown worth, all.
    """
    if not file.is_file():
        return
    latest = file.with_suffix(".replaced.pth")
    if latest.exists():
        if _same_content(file, latest):
            return
        _make_room(latest, at_least=steps_of_weights(file))
    try:
        os.link(file, latest)
    except OSError:
        # No hard links here.
        write_durably(latest, partial(_copy, file))
    sync_folder(file.parent)
    log.warning("the weights in %s will be written over; they are kept as %s", file, latest)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _same_content(file: Path, other: Path) -> bool:
    with contextlib.suppress(WeightsError):
        return os.path.samefile(file, other) or content_digest(file) == content_digest(other)
    return False


def _make_room(latest: Path, at_least: int | None) -> None:
    """Free the name of the latest replaced weights, whose place others take."""
    steps = steps_of_weights(latest)
    furthest = latest.with_name(latest.name.replace(".replaced.", ".furthest.replaced."))
    if steps is None:
        numbers = itertools.count(2)
        names = (latest.with_suffix(f".{number}.pth") for number in numbers)
        kept = next(name for name in names if not os.path.lexists(name))
    elif steps > max(at_least or 0, steps_of_weights(furthest) or 0):
        kept = furthest
    else:
        latest.unlink()
        return
    os.replace(latest, kept)
    log.warning("weights that were replaced before are now %s", kept)


def steps_of_weights(file: Path) -> int | None:
    """Optimiser steps behind the weights in a file; None where it does not say, or is damaged."""
    try:
        return origin_of(load_torch_file(file, mmap=True)).step
    except WeightsError:
        return None


def save_tensors(value: Any, path: Path) -> None:
    """``torch.save``, with the reason when the operating system refuses.

    Raises:
        OSError: torch's writer says only that its position in the file is unexpected.
    """
    try:
        torch.save(value, path)
    except RuntimeError as error:
        refused = refusal(path) or OSError(errno.EIO, os.strerror(errno.EIO))
        raise OSError(refused.errno, refused.strerror, str(path)) from error


def read_checkpoint(
    path: Path, each_block: Callable[[], None] = lambda: None
) -> tuple[dict[str, Any], Identity]:
    """Verify and load one checkpoint, and tell which it is.

    Args:
        each_block: called after each megabyte that is read.

    Raises:
        WeightsError: damaged, foreign, or carrying code.
    """
    found, digest = load_verified(path, each_block)
    _must_be_checkpoint(found, path)
    return found, Identity(step_of(found), digest)


def load_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Verify and load one checkpoint.

    Raises:
        WeightsError: as :func:`read_checkpoint`.
    """
    if not mmap:
        return read_checkpoint(path)[0]
    verify_file(path)
    found = load_torch_file(path, mmap=True)
    _must_be_checkpoint(found, path)
    return found


def _must_be_checkpoint(found: Any, path: Path) -> None:
    if not is_checkpoint(found):
        raise WeightsError(f"{path} is not a checkpoint of this program")


def steps_in(path: Path) -> int:
    """Optimiser steps in a checkpoint; -1 when it does not verify, or is not there."""
    try:
        return step_of(load_checkpoint(path, mmap=True))
    except WeightsError:
        return -1
