"""``minimind data split``: hold documents out, so that nothing is on both sides."""

from __future__ import annotations

import argparse
import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minimind.cli.parser import Parser, add_json_flag
from minimind.data.tools.lines import Lines, listing_beside, rejected_file
from minimind.data.tools.outputs import check_outputs
from minimind.data.tools.row_flags import add_row_flags, say_rejected
from minimind.errors import ConfigError, require
from minimind.system.terminal import print_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


def split(
    paths: Sequence[str],
    train: Path,
    held_out: Path,
    *,
    share: float | None = None,
    count: int | None = None,
    seed: int = 42,
    text_field: str = "text",
    max_bad_rows: int = -1,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write each row, its line unchanged, to one of two files.

    Args:
        share, count: how much to hold out; one of them is None. Where equal texts make
            the exact number impossible, fewer rows are held out, but never none.

    Raises:
        ConfigError, DataError: input or output cannot be used; nothing is written.
    """
    with listing_beside(train) as listing:
        lines = Lines(paths, text_field, listing)
        check_outputs([train, held_out], lines.files, overwrite=overwrite)
        hashes = array("Q")
        for _, row in lines.rows():
            hashes.append(_hash(row.text, seed))
        lines.rejected.refuse_more_than(max_bad_rows)
        wanted = count if share is None else max(1, round(share * lines.n_rows))
        assert wanted is not None
        is_held_out = choose(np.frombuffer(hashes, np.uint64), wanted)
        n_held_out = int(is_held_out.sum())
        if n_held_out == lines.n_rows:
            raise ConfigError(
                f"holding out {wanted} of {lines.n_rows} rows leaves none to train on"
            )
        target = np.full(len(lines.is_row), -1, np.int8)
        target[lines.is_row] = is_held_out
        lines.copy(target, [train, held_out])
    return {
        "train": str(train),
        "eval": str(held_out),
        "rows": lines.n_rows,
        "train_rows": lines.n_rows - n_held_out,
        "eval_rows": n_held_out,
        "share": n_held_out / lines.n_rows,
        "seed": seed,
        "rejected": lines.rejected.to_dict(rejected_file(train)),
    }


def choose(hashes: NDArray[np.uint64], wanted: int) -> NDArray[np.bool_]:
    """Choose the ``wanted`` rows of lowest hash; rows of equal hash all or none.

    Where that cannot be met, fewer are chosen; if the lowest hash alone has more rows, those.
    """
    if wanted >= len(hashes):
        return np.ones(len(hashes), np.bool_)
    border = np.partition(hashes, wanted)[wanted]
    chosen = hashes < border
    return chosen if chosen.any() else hashes == border


def _hash(text: str, seed: int) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode())
    return int.from_bytes(digest.digest(), "little")
