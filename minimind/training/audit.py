"""An audit of what was trained: the row ids of every micro-step, by rank.

``rows.rank{R}.jsonl`` holds, when a run is complete, exactly the rows that are in its
weights: what was trained after the checkpoint that an attempt goes on from is dropped when
the attempt starts, since it is trained again. An audit with holes would be none, so a run whose
record cannot be written stops.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from minimind.config import TrainConfig
from minimind.errors import MiniMindError
from minimind.rundir.layout import OutputPaths
from minimind.system.durable import remove_temporaries, write_text_durably


class RowRecord:
    """Appends one line a micro-step; does nothing without a path."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file = path.open("a", encoding="utf-8") if path else None

    @classmethod
    def open(cls, config: TrainConfig, rank: int) -> RowRecord:
        """The record of a rank, under --record_rows."""
        return cls(OutputPaths(config.save_dir).rows(rank) if config.record_rows else None)

    def write(self, *, epoch: int, step: int, global_step: int, rows: Iterable[int]) -> None:
        """Record a micro-step that begins; ``global_step`` counts complete optimiser steps.

        Raises:
            MiniMindError: the disk refuses it.
        """
        if self._file is not None:
            record = {
                "epoch": epoch,
                "step": step,
                "global_step": global_step,
                "pid": os.getpid(),
                "rows": [int(row) for row in rows],
            }
            with self._writing():
                self._file.write(json.dumps(record) + "\n")
                self._file.flush()

    def sync(self) -> None:
        """Force what is recorded to the disk, before a checkpoint of these rows gets there.

        A network file system may refuse only now what it has taken before.

        Raises:
            MiniMindError: the disk refuses it.
        """
        if self._file is not None:
            with self._writing():
                os.fsync(self._file.fileno())

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MiniMindError(
                f"{self._path} cannot be written: {error.strerror or error}; an audit may have "
                "no holes: free some space, or go on without --record_rows"
            ) from error

    def close(self) -> None:
        # Every line has been flushed, but one that was refused, which a resume drops.
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def trim_row_records(folder: Path, global_step: int) -> int:
    """Drop what all ranks recorded from optimiser step ``global_step`` on, and torn lines.

    Returns:
        The optimiser step up to which rows are on record; less than ``global_step`` is a hole.
    """
    reach = 0
    for path in OutputPaths(folder).all_rows():
        remove_temporaries(path)
        found = path.read_text(encoding="utf-8")
        kept = []
        for line in found.splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                step = json.loads(line)["global_step"]
                if step < global_step:
                    kept.append(line + "\n")
                    reach = max(reach, step + 1)
        text = "".join(kept)
        if text != found:
            write_text_durably(path, text)
    return reach
