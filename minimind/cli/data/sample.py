"""``minimind data sample``: a small corpus from this Python's own texts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minimind.data.sample_corpus import make_sample
from minimind.system.command_line import Parser


def add_command(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "sample",
        help="make a small corpus from this Python's own texts",
        epilog="Example: minimind data sample --out data/sample",
    )
    parser.flag(
        "out",
        type=Path,
        default=Path("data/sample"),
        metavar="DIR",
        help="folder for train.jsonl and eval.jsonl (default: data/sample)",
    )
    parser.flag(
        "packages",
        action="store_true",
        help="the texts of all installed packages too: some twenty times as much, in a minute",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    made = make_sample(arguments.out, packages=arguments.packages)
    for path, documents, n_bytes in made.values():
        print(f"{path}: {documents} documents, {n_bytes / 1e6:.1f} MB")
