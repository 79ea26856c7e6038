"""TensorBoard event files, for clusters without a way out: one curve over all interruptions.

The horizontal axis counts optimiser steps, as a checkpoint does. Every start first declares the
steps after its checkpoint void, in the event file itself, so that TensorBoard drops what a killed
attempt had written about steps that are now trained again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minimind.rundir.layout import OutputPaths
from minimind.telemetry.trackers.tracker import NullTracker

log = logging.getLogger(__name__)


def event_folder(save_dir: str | Path) -> Path:
    """Where a run's event files are: what ``tensorboard --logdir`` takes."""
    return OutputPaths(save_dir).tensorboard


class TensorBoardTracker(NullTracker):
    """Appends to the event files of a run.

    Of several log lines within one optimiser step the first is recorded.

    Args:
        run_id: kept, for another tracker's sake.
        done: optimiser steps that the checkpoint holds; what is recorded after them is void.
    """

    def __init__(self, save_dir: str | Path, run_id: str | None, done: int) -> None:
        super().__init__(run_id)
        from torch.utils.tensorboard import SummaryWriter

        folder = event_folder(save_dir)
        self._writer: Any = SummaryWriter(log_dir=str(folder), purge_step=done + 1)
        self._newest: dict[str, int] = {}
        # The declaration must be on the disk before a later attempt can be killed.
        self._writer.flush()

    def log(self, metrics: Mapping[str, Any], micro_step: int, update: int) -> None:
        numbers = {
            name: value
            for name, value in metrics.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        self._write("add_scalar", numbers, update)

    def log_text(self, texts: Mapping[str, str], micro_step: int, update: int) -> None:
        # Indented text is shown as it is; otherwise it would be read as Markdown.
        shown = {name: "    " + text.replace("\n", "\n    ") for name, text in texts.items()}
        self._write("add_text", shown, update)

    def _write(self, method: str, values: Mapping[str, Any], update: int) -> None:
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                if update > self._newest.get(name, 0):
                    self._newest[name] = update
                    getattr(self._writer, method)(name, value, global_step=update)
            # A killed process takes along what is not in the file; a checkpoint may be newer.
            self._writer.flush()
        except Exception as error:
            log.warning("TensorBoard stopped recording: %s: %s", type(error).__name__, error)
            self._writer = None

    def finish(self, error: str | None = None, *, stopping: bool = False) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        except Exception as failure:
            log.warning("TensorBoard did not finish in good order: %s", failure)
