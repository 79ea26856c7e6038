"""Leaves out texts that were there before, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minimind.data.tools.digests import DigestTable
from minimind.data.tools.lines import Lines, listing_beside, rejected_file, scratch_folder
from minimind.data.tools.outputs import check_outputs


def dedup(
    paths: Sequence[str],
    out: Path,
    *,
    text_field: str = "text",
    max_bad_rows: int = -1,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the rows whose text no earlier row has, in order, their lines unchanged.

    Returns:
        counts of good ``rows``, of those ``kept`` and of ``duplicates``; ``rejected`` rows.

    Raises:
        ConfigError, DataError: input or output cannot be used; nothing is written.
    """
    with listing_beside(out) as listing:
        lines = Lines(paths, text_field, listing)
        check_outputs([out], lines.files, overwrite=overwrite)
        with scratch_folder(near=out) as scratch, DigestTable(scratch) as table:
            for number, row in lines.rows():
                table.add(row.text, number)
            lines.rejected.refuse_more_than(max_bad_rows)
            repeated = table.repeats(len(lines.is_row))
        target = (lines.is_row & ~repeated).astype(np.int8) - np.int8(1)
        lines.copy(target, [out])
    n_repeated = int(repeated.sum())
    return {
        "out": str(out),
        "rows": lines.n_rows,
        "kept": lines.n_rows - n_repeated,
        "duplicates": n_repeated,
        "rejected": lines.rejected.to_dict(rejected_file(out)),
    }
