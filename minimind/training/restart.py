"""What a run finds when it starts is held against what is on record as saved. Rank 0 only.

No run begins at step 0, or goes on from an older checkpoint, without a word.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import torch

from minimind.checkpoint.resume import check_near_misses
from minimind.checkpoint.state import TrainState
from minimind.checkpoint.store import (
    Checkpointer,
    Identity,
    half_precision,
    keep_replaced_weights,
    steps_of_weights,
)
from minimind.config import TrainConfig
from minimind.errors import WeightsError
from minimind.rundir.events import EventLog
from minimind.rundir.layout import OutputPaths, earlier_checkpoint
from minimind.rundir.saved import (
    Saved,
    check_not_older,
    check_still_there,
    is_another,
    is_older,
    record_saved,
    saved_on_record,
)
from minimind.system.durable import remove_temporaries
from minimind.weights.torch_file import content_digest, load_torch_file

log = logging.getLogger(__name__)


def refuse_silent_restart(config: TrainConfig) -> None:
    """Refuse to begin anew where a checkpoint is on record, or nearly the one that is asked for.

    Before anything on the disk is touched: folders too, which may be those of a disk that is not
    mounted.

    Raises:
        ConfigError: so it is.
    """
    if config.from_resume == "0":
        return
    # A folder that cannot be read is refused, by its flag, when it is made ready.
    with contextlib.suppress(OSError):
        saved = on_record(config)
        if saved is None or saved.step is None:
            # Weights without a record may be another program's, whose own files say more.
            check_near_misses(config)
        check_still_there(saved, config.checkpoint_file)


def find_newest(config: TrainConfig, checkpointer: Checkpointer) -> Path | None:
    """The checkpoint to go on from: the newest that verifies, unless a newer one is on record.

    Where the newer one is there and does not verify, going back is what generations are for; and
    ``--from_resume 1`` says that what is there is meant. Both are told.

    Raises:
        ConfigError: the newer one is gone.
        WeightsError: there are checkpoints, and none can be used.
    """
    saved = on_record(config)
    path, identity = checkpointer.find_newest(), checkpointer.found_identity
    if path is None or identity is None:
        check_still_there(saved, config.checkpoint_file)
        return path
    found = identity.step
    if is_another(saved, found, identity.digest):
        log.warning("%s; %s has other content: is it another run's?", saved, path)
    if not is_older(saved, found):
        return path
    if not checkpointer.fell_back and config.from_resume != "1":
        check_not_older(saved, found, config.checkpoint_file)
    log.warning("%s; going on from step %d all the same: what came after is lost", saved, found)
    return path


def on_record(config: TrainConfig) -> Saved | None:
    """The checkpoint that this run should find."""
    out = OutputPaths(config.save_dir)
    return saved_on_record(out, config.checkpoint_file, EventLog.from_environment().path)


def keep_others_weights(config: TrainConfig, saved: TrainState) -> None:
    """Keep weights where a run that goes on will write its own, unless they are its own.

    Before :func:`record_start`, which makes the record in ``save_dir`` this run's.
    """
    file = config.weight_file
    if file.is_file() and not (_are_of(saved, file) or _are_of_save_before(config)):
        keep_replaced_weights(file)


def _are_of(saved: TrainState, file: Path) -> bool:
    try:
        theirs = load_torch_file(file, mmap=True)
        mine = half_precision(saved.model)
        return theirs.keys() == mine.keys() and all(
            torch.equal(theirs[name], mine[name]) for name in mine
        )
    except (WeightsError, AttributeError, TypeError, RuntimeError):
        return False  # damaged, or no state dict


def _are_of_save_before(config: TrainConfig) -> bool:
    """Whether a kill between a checkpoint and its weights has left the weights before them."""
    record = saved_on_record(OutputPaths(config.save_dir), config.checkpoint_file, None)
    if record is None or record.step is None or not record.digest:
        return False
    before = earlier_checkpoint(config.checkpoint_file, record.step)
    with contextlib.suppress(WeightsError, OSError):
        is_mine = content_digest(before) == record.digest
        return is_mine and steps_of_weights(config.weight_file) == record.step
    return False


def record_start(config: TrainConfig, found: Identity | None) -> None:
    """Put on record where the run stands as it begins to train; ``found`` None: anew."""
    out = OutputPaths(config.save_dir)
    # What killed writes have left, and a picture that was given up. This run holds the folder.
    for path in (out.saved(config.run_stem), out.config, out.environment, out.loss_curve):
        remove_temporaries(path)
    step, digest = (found.step, found.digest) if found else (None, "")
    record_saved(out, config.checkpoint_file, step, digest=digest)


def record_save(config: TrainConfig, step: int) -> None:
    """Put on record the checkpoint that has just become durable."""
    digest = ""
    # Whoever takes a file away that was written a moment ago is found out at the next start.
    with contextlib.suppress(WeightsError):
        digest = content_digest(config.checkpoint_file)
    record_saved(OutputPaths(config.save_dir), config.checkpoint_file, step, digest=digest)
