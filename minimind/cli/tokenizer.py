"""``minimind tokenizer``: train a tokenizer, or repeat the recipe of the shipped one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from minimind.data.chunks import BadRow
from minimind.data.inputs import find_files
from minimind.data.rows import read_texts, refuse_unknown_field
from minimind.data.tokenizer import load_tokenizer
from minimind.data.tools.tokenizer_training import train_tokenizer
from minimind.errors import EXIT_DONE, DataError
from minimind.system.command_line import Parser
from minimind.system.digest import sha256_of

SHIPPED_VOCABULARY = 6400

TRAIN_EXAMPLE = "Example: minimind tokenizer train corpus.jsonl --out tokenizer --vocab_size 4000"


def build_parser() -> Parser:
    parser = Parser(
        prog="minimind tokenizer",
        description="Train a tokenizer, or repeat the recipe of the shipped one.",
        epilog=TRAIN_EXAMPLE,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train: Parser = commands.add_parser(
        "train", help="train a byte-level BPE tokenizer on text", epilog=TRAIN_EXAMPLE
    )
    train.add_argument(
        "files", nargs="+", metavar="FILE", help="files of any format, folders, globs"
    )
    train.flag("out", required=True, type=Path, metavar="DIR", help="folder to write")
    train.flag(
        "vocab_size",
        type=int,
        default=SHIPPED_VOCABULARY,
        metavar="N",
        help=f"number of entries (default: {SHIPPED_VOCABULARY})",
    )
    train.flag(
        "text_field", default="text", metavar="NAME", help="field with the text (default: text)"
    )
    train.set_defaults(run=_train)

    recipe: Parser = commands.add_parser(
        "recipe",
        help="make the shipped tokenizer again, from Debian 12's packages",
        epilog="Example: minimind tokenizer recipe --out build/tokenizer",
    )
    recipe.flag("out", required=True, type=Path, metavar="DIR", help="folder to write")
    recipe.set_defaults(run=_recipe)
    return parser


def main(argv: Sequence[str]) -> int:
    """Run one subcommand and return its exit code."""
    arguments = build_parser().parse_args(list(argv))
    arguments.run(arguments)
    return EXIT_DONE


def _train(arguments: argparse.Namespace) -> None:
    counts = {"rows": 0, "bad": 0}
    texts = _texts(find_files(arguments.files), arguments.text_field, counts)
    train_tokenizer(texts, arguments.vocab_size, arguments.out)
    print(f"trained on {counts['rows']} rows ({counts['bad']} unusable ones left out)")
    print(f"tokenizer: {arguments.out} (use it with --tokenizer_path {arguments.out})")


def _texts(files: Sequence[Path], text_field: str, counts: dict[str, int]) -> Iterator[str]:
    refuse_unknown_field(files, text_field)
    for file in files:
        for row in read_texts(file, text_field):
            if isinstance(row, BadRow):
                counts["bad"] += 1
            else:
                counts["rows"] += 1
                yield row
    if not counts["rows"]:
        raise DataError(f"none of the {counts['bad']} rows has text in field {text_field!r}")


def _recipe(arguments: argparse.Namespace) -> None:
    from minimind.data.tools.tokenizer_recipe import make_corpus

    corpus = make_corpus(arguments.out)
    folder = arguments.out / "tokenizer"
    train_tokenizer(_good_texts(corpus["train"]), SHIPPED_VOCABULARY, folder)
    for path in (corpus["train"], folder / "tokenizer.json"):
        print(f"{sha256_of(path).hexdigest()}  {path} {path.stat().st_size}")
    tokenizer = load_tokenizer(str(folder))
    for language in ("zh", "en"):
        texts = list(_good_texts(corpus[f"heldout-{language}"]))
        n_tokens = sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))
        n_bytes = sum(len(text.encode()) for text in texts)
        n_chars = sum(map(len, texts))
        print(
            f"held-out {language}: {n_bytes} bytes, {n_bytes / n_tokens:.2f} bytes/token, "
            f"{n_chars / n_tokens:.2f} characters/token"
        )


def _good_texts(path: Path) -> Iterator[str]:
    return (row for row in read_texts(path) if isinstance(row, str))
