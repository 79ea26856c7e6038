"""``minimind data preview``: rows as the model sees them, decoded."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from minimind.cli.common_flags import add_json_flag
from minimind.data.tools.preview import describe_row, first_rows, plan_of
from minimind.errors import require
from minimind.system.command_line import Parser
from minimind.system.terminal import print_json, printable, visible

STYLES = ("cyan", "yellow", "green", "magenta")
"""Neighbouring documents differ in colour."""

MOST_EPOCHS = 1 << 31

DESCRIPTION = """\
Show rows as the model sees them: each document's tokens decoded, in a colour of its own, under
a line with its place in the row. Rows have the numbers that `--record_rows` writes and that a
NaN message names. Without --row: the first rows that training reads.

It takes the flags of `minimind pretrain` (--data_path, --max_seq_len, --pack, --seed, --config …):
give those of your run."""

EXAMPLES = """\
Examples:
  minimind data preview --data_path data/sample/train.jsonl --max_seq_len 128
  minimind data preview --row 17 99 --config out/config.toml
"""


def add_command(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "preview", help="show packed rows, decoded", description=DESCRIPTION, epilog=EXAMPLES
    )
    parser.flag("row", type=int, nargs="+", metavar="ID", help="show these rows")
    parser.flag("count", type=int, default=2, metavar="N", help="how many rows (default: 2)")
    parser.flag("epoch", type=int, default=1, metavar="N", help="of which epoch (default: 1)")
    add_json_flag(parser)
    parser.set_defaults(run=run, takes_train_flags=True)


def run(arguments: argparse.Namespace) -> None:
    require(arguments.count > 0, f"--count must be 1 or more, but is {arguments.count}")
    require(
        0 < arguments.epoch < MOST_EPOCHS,
        f"--epoch must be from 1 to {MOST_EPOCHS - 1}, but is {arguments.epoch}",
    )
    plan = plan_of(arguments.train)
    rows = arguments.row
    if rows is None:
        rows = first_rows(plan, arguments.train.seed, arguments.epoch - 1, arguments.count)
    shown = (describe_row(plan, row, arguments.train.tokenizer_path) for row in rows)
    if arguments.json:
        print_json(list(shown))
    else:
        _print_rows(shown, plan.max_seq_len)


def _print_rows(rows: Iterable[dict[str, Any]], max_seq_len: int) -> None:
    # rich leaves colours out where stdout is no terminal, and for NO_COLOR.
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for row in rows:
        source = f" of {printable(row['source'])}" if row["source"] else ""
        console.print(
            Text(
                f"═══ row {row['row']}{source}: {row['tokens']} of {max_seq_len} tokens, "
                f"documents: {len(row['documents'])}",
                style="bold",
            )
        )
        for number, document in enumerate(row["documents"]):
            style = STYLES[number % len(STYLES)]
            last = document["position"] + document["tokens"] - 1
            line = f"─── document {document['document']}, positions {document['position']}–{last}"
            if document["cut_before"]:
                line += f", continued from its token {document['from_token']}"
            if document["cut_after"]:
                line += ", goes on in another row"
            console.print(Text(line, style=f"dim {style}"))
            console.print(Text(visible(document["text"]), style=style))
        if row["padding"]:
            console.print(Text(f"─── padding: {row['padding']} tokens", style="dim"))
