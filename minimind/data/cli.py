"""``minimind data``: make the sample corpus, or download one of MiniMind's data sets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from minimind.data.download import dataset_url, download
from minimind.data.sample import make_sample
from minimind.errors import EXIT_DONE

DATASETS = ("pretrain_t2t_mini.jsonl", "pretrain_t2t.jsonl", "pretrain_hq.jsonl")
"""The pretraining files of MiniMind's data sets; any other file name is taken as it is."""


def main(argv: Sequence[str]) -> int:
    """Run one subcommand and return its exit code."""
    parser = argparse.ArgumentParser(prog="minimind data", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    sample = commands.add_parser("sample", help="make a small corpus from this Python's own texts")
    sample.add_argument("--out", type=Path, default=Path("data/sample"), metavar="DIR")
    sample.set_defaults(run=_sample)

    fetch = commands.add_parser("download", help="fetch one of MiniMind's data sets; resumable")
    fetch.add_argument("name", metavar="NAME", help=f"a file: {', '.join(DATASETS)} …")
    fetch.add_argument("--out", type=Path, default=Path("data"), metavar="DIR")
    fetch.add_argument(
        "--source",
        choices=("hf", "modelscope"),
        default="hf",
        help="hf: Hugging Face, or the mirror that HF_ENDPOINT names (default); modelscope",
    )
    fetch.set_defaults(run=_download)

    arguments = parser.parse_args(argv)
    arguments.run(arguments)
    return EXIT_DONE


def _sample(arguments: argparse.Namespace) -> None:
    for path, documents, n_bytes in make_sample(arguments.out).values():
        print(f"{path}: {documents} documents, {n_bytes / 1e6:.1f} MB")


def _download(arguments: argparse.Namespace) -> None:
    name = arguments.name if "." in arguments.name else f"{arguments.name}.jsonl"
    target = arguments.out / Path(name).name
    url = dataset_url(name, arguments.source)
    print(f"{url} → {target}")
    checksum = download(url, target)
    print(f"{target}: {target.stat().st_size} bytes, sha256 {checksum}")
