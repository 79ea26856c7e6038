"""``minimind data dedup``: leave out texts that were there before."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minimind.cli.common_flags import add_json_flag
from minimind.cli.data.row_flags import add_row_flags, say_rejected
from minimind.data.tools.dedup import dedup
from minimind.system.command_line import Parser
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
