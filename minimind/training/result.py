"""How a run ended, and what it left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minimind.config import TrainConfig
from minimind.rundir.layout import OutputPaths


@dataclass(frozen=True)
class RunResult:
    """How a run ended, and what it left."""

    stopped: bool
    """Asked to stop before its end: run it again with ``from_resume="1"`` to go on."""
    global_step: int
    """Optimiser steps done in all."""
    weight_file: Path
    checkpoint_file: Path
    metrics_file: Path
    loss_curve: Path

    @classmethod
    def of(cls, config: TrainConfig, *, stopped: bool, global_step: int) -> RunResult:
        """The result of a run with these flags, whose files have the names that they say."""
        out = OutputPaths(config.save_dir)
        return cls(
            stopped=stopped,
            global_step=global_step,
            weight_file=config.weight_file,
            checkpoint_file=config.checkpoint_file,
            metrics_file=out.metrics,
            loss_curve=out.loss_curve,
        )
