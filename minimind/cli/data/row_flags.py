"""What the commands that read rows and write rows share."""

from __future__ import annotations

import sys
from typing import Any

from minimind.data.rows import left_out
from minimind.system.command_line import Parser


def add_row_flags(parser: Parser, *, writes: bool = True) -> None:
    """The files, their text field, and what to do about bad rows."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="files of any format, folders, globs"
    )
    parser.flag("text_field", default="text", metavar="NAME", help="the field with the text")
    parser.flag(
        "max_bad_rows",
        type=int,
        default=-1,
        metavar="N",
        help="refuse the data when more rows than this are unusable (default: only report them)",
    )
    if writes:
        parser.flag("overwrite", action="store_true", help="replace output files that exist")


def say_rejected(rejected: dict[str, Any]) -> None:
    """Say on stderr how many rows were left out, and where they are listed."""
    if rejected["count"]:
        text = left_out(rejected["count"], rejected["reasons"], rejected["first"], rejected["list"])
        print(text, file=sys.stderr)
