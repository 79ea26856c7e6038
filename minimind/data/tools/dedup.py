"""``minimind data dedup``: leave out texts that were there before, exactly."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minimind.cli.parser import Parser, add_json_flag
from minimind.data.tools.digests import DigestTable
from minimind.data.tools.lines import Lines, listing_beside, rejected_file, scratch_folder
from minimind.data.tools.outputs import check_outputs
from minimind.data.tools.row_flags import add_row_flags, say_rejected
from minimind.system.terminal import print_json

DESCRIPTION = """\
Copy the rows of some files, each text once: the first row with it stays, as it was written.
Texts are equal when all their characters are. Memory: about 4 MB for a million rows;
beside --out, 24 MB of disk for a million rows while it runs."""

EXAMPLE = "Example: minimind data dedup crawl/*.jsonl.zst --out data/unique.jsonl"


def add_command(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "dedup", help="leave out repeated texts", description=DESCRIPTION, epilog=EXAMPLE
    )
    parser.flag("out", required=True, type=Path, metavar="FILE", help="what to write (.gz, .zst)")
    add_row_flags(parser)
    add_json_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    found = dedup(
        arguments.files,
        arguments.out,
        text_field=arguments.text_field,
        max_bad_rows=arguments.max_bad_rows,
        overwrite=arguments.overwrite,
    )
    if arguments.json:
        print_json(found)
        return
    say_rejected(found["rejected"])
    share = found["duplicates"] / found["rows"]
    print(
        f"{found['out']}: {found['kept']:,} of {found['rows']:,} rows; "
        f"{found['duplicates']:,} ({share:.1%}) had a text that was there before"
    )


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
