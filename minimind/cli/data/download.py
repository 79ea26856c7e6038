"""``minimind data download``: fetch one of MiniMind's data sets."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minimind.data.download import dataset_url, download
from minimind.system.command_line import Parser

DATASETS = ("pretrain_t2t_mini.jsonl", "pretrain_t2t.jsonl", "pretrain_hq.jsonl")
"""The pretraining files of MiniMind's data sets; any other file name is taken as it is."""


def add_command(commands: Any) -> None:
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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    name = arguments.name if "." in arguments.name else f"{arguments.name}.jsonl"
    target = arguments.out / Path(name).name
    url = dataset_url(name, arguments.source)
    print(f"{url} → {target}")
    checksum = download(url, target)
    print(f"{target}: {target.stat().st_size} bytes, sha256 {checksum}")
