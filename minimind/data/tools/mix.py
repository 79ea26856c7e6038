"""What a weighted ``--data_path`` makes of an epoch."""

from __future__ import annotations

from typing import Any

from minimind.config import TrainConfig
from minimind.errors import ConfigError


def describe_mix(config: TrainConfig) -> dict[str, Any]:
    """Tell what each source has, and what of it an epoch shows.

    Raises:
        ConfigError, DataError: there are no weights, or the data cannot be used.
    """
    from minimind.data.mixture import MixedPlan
    from minimind.data.tools.preview import plan_of

    plan = plan_of(config)
    if not isinstance(plan, MixedPlan):
        raise ConfigError("--data_path has no weights; write FILE:WEIGHT for each source")
    return {
        "sources": [
            {
                "path": name,
                "documents": part.store.n_docs,
                "tokens": part.store.n_tokens,
                "rows": part.n_rows,
                "rows_per_epoch": rows,
                "share": rows / plan.n_rows,
                "passes_per_epoch": rows / part.n_rows,
            }
            for name, part, rows in zip(plan.names, plan.parts, plan.rows_per_epoch, strict=True)
        ],
        "rows_per_epoch": plan.n_rows,
        "max_seq_len": plan.max_seq_len,
        "fingerprint": plan.fingerprint,
    }
