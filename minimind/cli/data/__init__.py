"""``minimind data``: get text, look at it, and prepare it for training."""

from __future__ import annotations

from collections.abc import Sequence

from minimind.cli.data import dedup, download, mix, preview, sample, split, stats
from minimind.config import parse_args
from minimind.errors import EXIT_DONE
from minimind.system.command_line import Parser

EXAMPLE = "Example: minimind data sample && minimind data stats data/sample/train.jsonl"


def build_parser() -> Parser:
    parser = Parser(
        prog="minimind data",
        description="Get text, look at it, and prepare it for training.",
        epilog=EXAMPLE,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (sample, download, stats, dedup, split, mix, preview):
        command.add_command(commands)
    return parser


def main(argv: Sequence[str]) -> int:
    """Run one subcommand and return its exit code.

    Raises:
        MiniMindError: the command cannot be done; the message says why.
    """
    parser = build_parser()
    arguments, rest = parser.parse_known_args(list(argv))
    if getattr(arguments, "takes_train_flags", False):
        arguments.train = parse_args(rest)
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.run(arguments)
    return EXIT_DONE
