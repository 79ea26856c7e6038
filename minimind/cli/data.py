"""``minimind data``: get text, look at it, and prepare it for training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minimind.cli.parser import Parser
from minimind.config import parse_args
from minimind.data.download import dataset_url, download
from minimind.data.sample_corpus import make_sample
from minimind.data.tools import dedup, preview, split, stats
from minimind.data.tools import mix as mix_cli
from minimind.errors import EXIT_DONE

DATASETS = ("pretrain_t2t_mini.jsonl", "pretrain_t2t.jsonl", "pretrain_hq.jsonl")
"""The pretraining files of MiniMind's data sets; any other file name is taken as it is."""

EXAMPLE = "Example: minimind data sample && minimind data stats data/sample/train.jsonl"


def build_parser() -> Parser:
    parser = Parser(
        prog="minimind data",
        description="Get text, look at it, and prepare it for training.",
        epilog=EXAMPLE,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_sample(commands)
    _add_download(commands)
    for command in (stats, dedup, split, mix_cli, preview):
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


def _add_sample(commands: Any) -> None:
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
    parser.set_defaults(run=_sample)


def _add_download(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "download",
        help="fetch one of MiniMind's data sets; resumable",
        epilog="Example: minimind data download pretrain_t2t_mini.jsonl --source modelscope",
    )
    parser.add_argument("name", metavar="NAME", help=f"a file: {', '.join(DATASETS)} …")
    parser.flag(
        "out", type=Path, default=Path("data"), metavar="DIR", help="folder for it (default: data)"
    )
    parser.flag(
        "source",
        choices=("hf", "modelscope"),
        default="hf",
        help="hf: Hugging Face, or the mirror that HF_ENDPOINT names (default); modelscope",
    )
    parser.set_defaults(run=_download)


def _sample(arguments: argparse.Namespace) -> None:
    made = make_sample(arguments.out, packages=arguments.packages)
    for path, documents, n_bytes in made.values():
        print(f"{path}: {documents} documents, {n_bytes / 1e6:.1f} MB")


def _download(arguments: argparse.Namespace) -> None:
    name = arguments.name if "." in arguments.name else f"{arguments.name}.jsonl"
    target = arguments.out / Path(name).name
    url = dataset_url(name, arguments.source)
    print(f"{url} → {target}")
    checksum = download(url, target)
    print(f"{target}: {target.stat().st_size} bytes, sha256 {checksum}")
