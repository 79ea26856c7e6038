"""A run's data, opened on every rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from minimind.config import TrainConfig
from minimind.data.mixture import Plan, open_plan
from minimind.data.token_store import TokenStore
from minimind.distributed.world import World
from minimind.rundir.events import EventLog
from minimind.telemetry.preparation import Preparation


def open_rows(
    config: TrainConfig, world: World, paths: Sequence[str], pack: Literal["bestfit", "none"]
) -> tuple[TokenStore, Plan]:
    """Open a corpus on every rank; the first rank of each node tokenises it if need be."""
    # Of every node: rank 0's may be done long before another's.
    report = Preparation(EventLog.from_environment())

    def work() -> tuple[TokenStore, Plan]:
        plan = open_plan(
            paths,
            config.tokenizer_path,
            max_seq_len=config.max_seq_len,
            pack=pack,
            text_field=config.text_field,
            cache_dir=config.cache_dir,
            max_bad_rows=config.max_bad_rows,
            progress=world.is_main,
            report=report,
        )
        return plan.store, plan

    return world.local_main_first(work)
