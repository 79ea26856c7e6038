"""``minimind track``: send the offline SwanLab records of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minimind.system.command_line import Parser
from minimind.telemetry.trackers.sync import sync

EXAMPLES = """\
Examples:
  minimind track sync out --dry-run
  minimind track sync out"""


def build_parser() -> Parser:
    parser = Parser(
        prog="minimind track", description="Send offline SwanLab records.", epilog=EXAMPLES
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parser_sync: Parser = commands.add_parser(
        "sync",
        help="send a run's offline SwanLab records",
        description="Send the offline SwanLab records of a run, however often it was interrupted,\n"
        "as one experiment. What was sent before is not sent again.",
        epilog=EXAMPLES,
    )
    parser_sync.add_argument("save_dir", type=Path, metavar="SAVE_DIR", help="--save_dir of a run")
    parser_sync.flag("dry_run", action="store_true", help="print the commands, send nothing")
    return parser


def main(argv: Sequence[str]) -> int:
    args = build_parser().parse_args(list(argv))
    return sync(args.save_dir, args.dry_run)
