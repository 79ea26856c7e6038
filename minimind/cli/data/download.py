"""``minimind data download``: fetch a data set from a hub."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minimind.data.download import MINIMIND, dataset_url, download, download_all
from minimind.data.recipes import RECIPES, Recipe, first_gigabytes, recipe_of, text_files
from minimind.errors import require
from minimind.system.command_line import Parser
from minimind.system.terminal import size_text

EXAMPLES = """\
Examples:
  minimind data download pretrain_t2t_mini.jsonl --source modelscope
  minimind data download fineweb-edu --max_gb 5"""


def add_command(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "download",
        help="fetch a data set; resumable",
        epilog=EXAMPLES,
    )
    names = ", ".join(recipe.name for recipe in RECIPES)
    parser.add_argument(
        "name",
        metavar="NAME",
        help=f"{names}; another file of MiniMind's; or datasets/OWNER/NAME[/FOLDER] of the hub",
    )
    parser.flag(
        "out", type=Path, default=Path("data"), metavar="DIR", help="folder for it (default: data)"
    )
    parser.flag(
        "source",
        choices=("hf", "modelscope"),
        default="hf",
        help="hf: Hugging Face, or the mirror that HF_ENDPOINT names (default); modelscope: "
        "MiniMind's files only",
    )
    parser.flag(
        "max_gb",
        type=float,
        metavar="N",
        help="of many files, the first that have N GB together (default: all)",
    )
    parser.flag(
        "list",
        action=_List,
        nargs=0,
        help="show page, licence and size of what is known by name, and end",
    )
    parser.set_defaults(run=run)


class _List(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print("\n\n".join(map(_described, RECIPES)))
        parser.exit()


def _described(recipe: Recipe) -> str:
    return (
        f"{recipe.name}: {recipe.what}\n"
        f"  page     {recipe.page} ({recipe.path}; read on {recipe.read})\n"
        f"  licence  {recipe.licence}\n"
        f"  size     {recipe.size}"
    )


def run(arguments: argparse.Namespace) -> None:
    recipe = recipe_of(arguments.name)
    if recipe is None or (recipe in RECIPES and recipe.dataset == MINIMIND):
        _fetch_file(arguments)
    else:
        _fetch_many(arguments, recipe)


def _fetch_file(arguments: argparse.Namespace) -> None:
    """One file of MiniMind's data sets."""
    require(arguments.max_gb is None, f"--max_gb: {arguments.name} is one file")
    name = arguments.name if "." in arguments.name else f"{arguments.name}.jsonl"
    target = arguments.out / Path(name).name
    url = dataset_url(name, arguments.source)
    print(f"{url} → {target}")
    checksum = download(url, target)
    print(f"{target}: {target.stat().st_size} bytes, sha256 {checksum}")


def _fetch_many(arguments: argparse.Namespace, recipe: Recipe) -> None:
    require(arguments.source == "hf", f"--source modelscope: {recipe.name} is only fetched with hf")
    require(arguments.max_gb is None or arguments.max_gb > 0, "--max_gb must be greater than 0")
    there = text_files(recipe)
    files = there if arguments.max_gb is None else first_gigabytes(there, arguments.max_gb)
    size, of = (size_text(sum(file.size for file in some)) for some in (files, there))
    terms = f"licence {recipe.licence}" if recipe.licence else "its licence is on its page"
    print(f"{recipe.page}: {len(files)} of {len(there)} files, {size} of {of}; {terms}")
    target = arguments.out / recipe.name
    download_all(recipe.dataset, files, recipe.path, target)
    print(f"{target}: {len(files)} files, as the hub has them; --data_path {target} trains on them")
