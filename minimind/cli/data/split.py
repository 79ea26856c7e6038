"""``minimind data split``: hold out a part of the text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minimind.cli.common_flags import add_json_flag
from minimind.cli.data.row_flags import add_row_flags, say_rejected
from minimind.data.tools.split import split
from minimind.errors import require
from minimind.system.command_line import Parser
from minimind.system.terminal import print_json

DESCRIPTION = """\
Divide rows into training and held-out text. A hash of the seed and the text decides, so equal
texts are on the same side, the same seed gives the same split, and rows keep their order.
Memory: about 20 MB for a million rows."""

EXAMPLES = """\
Examples:
  minimind data split corpus.jsonl --train data/train.jsonl --eval data/eval.jsonl --share 0.01
  minimind data split a.jsonl.gz b.jsonl --train t.jsonl.zst --eval e.jsonl --count 2000 --seed 7
"""


def add_command(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "split", help="hold out a part of the text", description=DESCRIPTION, epilog=EXAMPLES
    )
    parser.flag("train", required=True, type=Path, metavar="FILE", help="where most rows go")
    parser.flag("eval", required=True, type=Path, metavar="FILE", help="where held-out rows go")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--share", type=float, metavar="X", help="share of the rows to hold out (default: 0.01)"
    )
    size.add_argument("--count", type=int, metavar="N", help="number of rows to hold out")
    parser.flag("seed", type=int, default=42, metavar="N", help="another seed, another split")
    add_row_flags(parser)
    add_json_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    share, count = arguments.share, arguments.count
    if share is None and count is None:
        share = 0.01
    require(share is None or 0 < share < 1, f"--share must be between 0 and 1, but is {share}")
    require(count is None or count > 0, f"--count must be 1 or more, but is {count}")
    require(abs(arguments.seed) < 1 << 63, f"--seed must have 63 bits at most: {arguments.seed}")
    found = split(
        arguments.files,
        arguments.train,
        arguments.eval,
        share=share,
        count=count,
        seed=arguments.seed,
        text_field=arguments.text_field,
        max_bad_rows=arguments.max_bad_rows,
        overwrite=arguments.overwrite,
    )
    if arguments.json:
        print_json(found)
        return
    say_rejected(found["rejected"])
    print(f"{arguments.train}: {found['train_rows']:,} rows")
    print(f"{arguments.eval}: {found['eval_rows']:,} rows ({found['share']:.2%}), held out")
