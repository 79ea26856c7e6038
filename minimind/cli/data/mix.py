"""``minimind data mix``: what a weighted ``--data_path`` makes of an epoch."""

from __future__ import annotations

import argparse
from typing import Any

from minimind.cli.common_flags import add_json_flag
from minimind.data.tools.mix import describe_mix
from minimind.system.command_line import Parser
from minimind.system.terminal import print_json, printable

DESCRIPTION = """\
Show how much each source of a weighted --data_path gives to an epoch, before training on it:
  minimind pretrain --data_path zh.jsonl:0.7 en.jsonl:0.3
An epoch has as many rows as all sources together; the weights say whose they are. A source
that owes more than it has is read more than once an epoch; one that owes less shows the rest
in later epochs. Order and exact resume are as for any data.

It takes the flags of `minimind pretrain` (--data_path, --max_seq_len, --config …)."""

EXAMPLES = """\
Examples:
  minimind data mix --data_path zh.jsonl:0.7 'en/*.jsonl.gz:0.3' --max_seq_len 512
  minimind data mix --config out/config.toml --json
"""


def add_command(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "mix", help="show what weighted sources give", description=DESCRIPTION, epilog=EXAMPLES
    )
    add_json_flag(parser)
    parser.set_defaults(run=run, takes_train_flags=True)


def run(arguments: argparse.Namespace) -> None:
    found = describe_mix(arguments.train)
    if arguments.json:
        print_json(found)
        return
    print(f"{'share':>7} {'rows':>10} {'an epoch':>10} {'passes':>7} {'tokens':>15}  source")
    for source in found["sources"]:
        print(
            f"{source['share']:>7.2%} {source['rows']:>10,} {source['rows_per_epoch']:>10,} "
            f"{source['passes_per_epoch']:>7.2f} {source['tokens']:>15,}  "
            f"{printable(source['path'])}"
        )
    print(f"an epoch: {found['rows_per_epoch']:,} rows of {found['max_seq_len']} tokens")
