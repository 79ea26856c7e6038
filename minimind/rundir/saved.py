"""What a run has on record as saved, to hold against what is there when it starts again.

A folder of checkpoints can vanish between two starts: a purged scratch, a disk that is not mounted,
a node's own disk, another path. A run that then began at step 0 would lose its training without a
word. So every save is on record elsewhere: in the event log of a launched run, and in ``save_dir``
as ``{stem}.saved.json``. Standard library only: the supervisor asks before it starts ranks.
"""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimind.errors import ConfigError
from minimind.rundir.events import read_events, stands_at
from minimind.rundir.layout import OutputPaths, checkpoints_of
from minimind.system.durable import write_text_durably
from minimind.system.jsonl import read_object
from minimind.system.validators import is_whole

ANEW = "--from_resume 0"
"""What begins anew on purpose, for a run without a launcher."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """A checkpoint that a run has on record.

    ``step``: optimiser steps in it; None where that is not known. ``source``: the file that has it
    on record. ``checkpoint``: its path at the time, ``digest``: of its content; "" where they are
    not known.
    """

    step: int | None
    source: Path
    checkpoint: str = ""
    digest: str = ""

    def __str__(self) -> str:
        step = "" if self.step is None else f" of optimiser step {self.step}"
        place = f", {self.checkpoint}" if self.checkpoint else ""
        return f"a checkpoint{step} is on record ({self.source}{place})"


def record_saved(out: OutputPaths, checkpoint: Path, step: int | None, *, digest: str = "") -> None:
    """Put on record, durably, that ``checkpoint`` holds ``step`` optimiser steps.

    A record that cannot be written is a warning: no bookkeeping stops a run.

    Args:
        step: None when a run begins and has saved nothing yet.
    """
    path = out.saved(checkpoint.stem)
    record = {
        "global_step": step,
        "checkpoint": os.path.abspath(checkpoint),
        "digest": digest,
        "time": time.time(),
    }
    try:
        write_text_durably(path, json.dumps(record) + "\n")
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error.strerror or error)


def saved_on_record(out: OutputPaths, checkpoint: Path, events: Path | None) -> Saved | None:
    """The checkpoint that a run should find when it starts; None: it has saved none.

    Args:
        out: of its ``--save_dir``.
        checkpoint: where it looks for the newest one.
        events: the event log of a launched run.
    """
    own = _own_record(out, checkpoint)
    if events is None:
        return own
    told = saved_by_events(events)
    if own is None or own.checkpoint != os.path.abspath(checkpoint):
        # Runs with checkpoints of their own may share a save_dir, one after the other.
        return told
    if told is None or told.step is None or own.step is None:
        return told or own
    return max(own, told, key=lambda saved: saved.step or 0)


def saved_by_events(events: Path) -> Saved | None:
    """What the event log of a launched run says that it has saved."""
    step = stands_at(read_events(events))
    return None if step is None else Saved(step, events)


def _own_record(out: OutputPaths, checkpoint: Path) -> Saved | None:
    """What ``save_dir`` says: the record, or what a version without it has left.

    Weights are written after a checkpoint only, so where a run has both logged and left weights,
    there was one. Somebody may have put weights there for other reasons, but a needless question
    costs a flag, and weights that are written over cost a training.
    """
    path = out.saved(checkpoint.stem)
    if not path.exists():
        weights = out.weight_file(checkpoint.stem)
        has_trained = out.metrics.exists() and out.metrics.stat().st_size > 0
        return Saved(None, weights) if has_trained and weights.exists() else None
    found = read_object(path)
    step = found.get("global_step", -1)
    if step is None:
        return None
    return Saved(
        step=step if is_whole(step) else None,
        source=path,
        checkpoint=_text(found.get("checkpoint")),
        digest=_text(found.get("digest")),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def check_still_there(saved: Saved | None, checkpoint: Path, *, anew: str = ANEW) -> None:
    """Refuse to begin anew where a checkpoint is on record and none is left.

    Args:
        anew: what begins anew on purpose.

    Raises:
        ConfigError: so it is; the message says how to go on, and how to begin anew on purpose.
        OSError: the folder cannot be read.
    """
    if saved is not None and not checkpoints_of(checkpoint):
        raise ConfigError(
            f"{saved}, but {checkpoint.parent} holds no {checkpoint.name}: bring it back or "
            f"correct --checkpoint_dir to go on, or begin anew with {anew}"
        )


def check_not_older(saved: Saved | None, found: int, checkpoint: Path) -> None:
    """Refuse to go on from an older checkpoint than the one on record.

    Raises:
        ConfigError: so it is; the message says how to go on all the same.
    """
    if is_older(saved, found):
        raise ConfigError(
            f"{saved}, but the newest in {checkpoint.parent} is of step {found}: bring the newer "
            f"one back, or go on from step {found} with --from_resume 1, or begin anew with {ANEW}"
        )


def is_another(saved: Saved | None, found: int, digest: str) -> bool:
    """Whether the checkpoint that was found has the step of the one on record, but not its content.

    ``digest``: of its content.
    """
    return saved is not None and saved.step == found and saved.digest not in ("", digest)


def is_older(saved: Saved | None, found: int) -> bool:
    """Whether step ``found`` comes before the one on record."""
    return saved is not None and saved.step is not None and found < saved.step
