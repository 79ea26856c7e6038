"""The records in a save_dir: a run goes on in its own, and archives those of any other."""

from __future__ import annotations

import logging

from minimind.config import TrainConfig
from minimind.errors import ConfigError
from minimind.rundir.layout import OutputPaths
from minimind.rundir.metrics import archive_previous
from minimind.system.toml import read_toml
from minimind.training.audit import trim_row_records

MAKE_THE_STEM = ("save_weight", "hidden_size", "use_moe")
"""Runs that differ in one of these have checkpoints of their own, and share the records' names."""

log = logging.getLogger(__name__)


def prepare_records(config: TrainConfig, resumed_at: int | None) -> None:
    """Leave in save_dir no records but those that this run may append to.

    Args:
        resumed_at: optimiser step of the checkpoint that the run goes on from; None when fresh.
    """
    out = OutputPaths(config.save_dir)
    if resumed_at is not None:
        if not _are_anothers(out, config):
            reach = trim_row_records(out.folder, resumed_at)
            if config.record_rows and reach < resumed_at:
                log.warning(
                    "rows of optimiser steps %d to %d are not on record in %s: an audit of this "
                    "run has a hole",
                    reach,
                    resumed_at - 1,
                    out.folder,
                )
            return
        log.warning(
            "%s holds the records of another run: they are archived as NAME.N.jsonl, as are the "
            "ones of this run from before it",
            out.folder,
        )
    for path in (out.metrics, out.samples, *out.all_rows()):
        archive_previous(path)


def _are_anothers(out: OutputPaths, config: TrainConfig) -> bool:
    """Whether the run that wrote here last has another checkpoint; not when that is not known."""
    try:
        last = read_toml(out.config, "flags")
    except ConfigError:
        return False
    return any(last.get(name, mine) != mine for name, mine in _stem(config).items())


def _stem(config: TrainConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in MAKE_THE_STEM}
