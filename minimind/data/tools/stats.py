"""``minimind data stats``: what a corpus holds, and what rows it would make."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minimind.cli.parser import Parser, add_json_flag
from minimind.data.rows import BadRow, read_rows
from minimind.data.tools.digests import DigestTable
from minimind.data.tools.row_flags import add_row_flags
from minimind.data.tools.scripts import script_of
from minimind.errors import require
from minimind.system.terminal import count_text, print_json, size_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from minimind.data.token_store import TokenStore

LONGEST_ROW = 1 << 20
DEFAULT_LENGTHS = (256, 512, 1024, 2048)
PERCENTILES = (10, 25, 50, 75, 90, 99)
BAR_CHARS = 30

DESCRIPTION = """\
Say what is in some files: documents, tokens, lengths, repeated texts, scripts; and for each
--max_seq_len how full its rows are, packed (--pack bestfit) and padded (--pack none), and how
much text padding would truncate away. The text is tokenised as a run would, and kept for it."""

EXAMPLES = """\
Examples:
  minimind data stats data/sample/train.jsonl
  minimind data stats 'zh/*.jsonl.gz' --max_seq_len 512 768 --json
"""


def add_command(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "stats", help="say what a corpus holds", description=DESCRIPTION, epilog=EXAMPLES
    )
    add_row_flags(parser, writes=False)
    parser.flag(
        "max_seq_len",
        type=int,
        nargs="+",
        default=list(DEFAULT_LENGTHS),
        metavar="N",
        help=f"row lengths to look at (default: {' '.join(map(str, DEFAULT_LENGTHS))})",
    )
    parser.flag("tokenizer_path", default="", metavar="DIR", help="default: the shipped tokenizer")
    parser.flag("cache_dir", default="", metavar="DIR", help="folder for tokenised data")
    add_json_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    for length in arguments.max_seq_len:
        require(
            8 <= length <= LONGEST_ROW,
            f"--max_seq_len must be from 8 to {LONGEST_ROW}, but is {length}",
        )
    found = stats(
        arguments.files,
        max_seq_lens=arguments.max_seq_len,
        text_field=arguments.text_field,
        max_bad_rows=arguments.max_bad_rows,
        tokenizer_path=arguments.tokenizer_path,
        cache_dir=arguments.cache_dir,
        progress=not arguments.json,
    )
    if arguments.json:
        print_json(found)
    else:
        print("\n".join(_report(found)))


def stats(
    paths: Sequence[str],
    *,
    max_seq_lens: Sequence[int] = DEFAULT_LENGTHS,
    text_field: str = "text",
    max_bad_rows: int = -1,
    tokenizer_path: str = "",
    cache_dir: str = "",
    progress: bool = False,
) -> dict[str, Any]:
    """Count what is in the files; the memory is about 10 MB for a million documents.

    Raises:
        DataError: the data cannot be used, as in a run.
    """
    from minimind.data.inputs import find_files
    from minimind.data.tokenize.build import open_corpus

    files = find_files(paths)
    store = open_corpus(
        [str(file) for file in files],
        tokenizer_path,
        text_field=text_field,
        cache_dir=cache_dir,
        max_bad_rows=max_bad_rows,
        progress=progress,
    )
    lengths = np.diff(store.offsets).astype(np.int64)
    return {
        "files": [str(file) for file in files],
        "documents": store.n_docs,
        "tokens": store.n_tokens,
        "bytes": store.n_bytes,
        "bytes_per_token": store.n_bytes / store.n_tokens,
        "lengths": _lengths(lengths),
        "rows": [_rows(store, lengths, length) for length in max_seq_lens],
        **_texts(files, text_field, store.n_docs),
        "rejected": _rejected(store),
    }


def _lengths(lengths: NDArray[np.int64]) -> dict[str, Any]:
    """Tokens a document: extremes, percentiles, and a histogram in powers of two."""
    power = np.frexp(lengths.astype(np.float64))[1] - 1  # 2**power <= length < 2**(power + 1)
    documents = np.bincount(power)
    tokens = np.bincount(power, weights=lengths).astype(np.int64)
    return {
        "min": int(lengths.min()),
        "mean": float(lengths.mean()),
        "max": int(lengths.max()),
        "percentiles": {
            str(p): float(value)
            for p, value in zip(PERCENTILES, np.percentile(lengths, PERCENTILES), strict=True)
        },
        "histogram": [
            {"from": 2**p, "to": 2 ** (p + 1) - 1, "documents": int(d), "tokens": int(t)}
            for p, (d, t) in enumerate(zip(documents, tokens, strict=True))
            if p >= power.min()
        ],
    }


def _rows(store: TokenStore, lengths: NDArray[np.int64], max_seq_len: int) -> dict[str, Any]:
    from minimind.data.packing import plan_rows

    packed = plan_rows(store, max_seq_len)
    kept = np.minimum(lengths, max_seq_len)
    return {
        "max_seq_len": max_seq_len,
        "packed": {"rows": packed.n_rows, "fill": packed.fill},
        "padded": {
            "rows": len(lengths),
            "fill": float(kept.sum()) / (len(lengths) * max_seq_len),
            "truncated_documents": float((lengths > max_seq_len).mean()),
            "truncated_tokens": 1 - float(kept.sum()) / float(lengths.sum()),
        },
    }


def _texts(files: Sequence[Path], text_field: str, n_docs: int) -> dict[str, Any]:
    """What only the text itself tells: repeats and scripts."""
    from minimind.data.tools.lines import scratch_folder

    scripts: Counter[str] = Counter()
    with scratch_folder() as scratch, DigestTable(scratch) as table:
        number = 0
        for file in files:
            for row in read_rows(file, text_field):
                if isinstance(row, BadRow):
                    continue
                table.add(row.text, number)
                scripts[script_of(row.text)] += 1
                number += 1
        repeats = int(table.repeats(number).sum())
    return {
        "duplicates": {"documents": repeats, "share": repeats / n_docs},
        "scripts": {name: count / number for name, count in scripts.most_common()},
    }


def _rejected(store: TokenStore) -> dict[str, Any]:
    from minimind.data.token_store import REJECTED

    first = next(store.rejected(), None)
    return {
        "count": store.n_rejected,
        "reasons": store.reject_reasons,
        "first": first and f"{first['file']}:{first['line']}: {first['reason']}",
        "list": str(store.path / REJECTED) if first else None,
    }


def _report(found: dict[str, Any]) -> list[str]:
    lengths = found["lengths"]
    lines = [
        f"{found['documents']:,} documents in {len(found['files'])} file(s), "
        f"{size_text(found['bytes'])} of text, {found['tokens']:,} tokens "
        f"({found['bytes_per_token']:.2f} bytes a token)",
        f"repeated texts: {found['duplicates']['documents']:,} "
        f"({found['duplicates']['share']:.2%} of the documents)",
        "scripts: " + ", ".join(f"{name} {share:.1%}" for name, share in found["scripts"].items()),
        "",
        f"tokens a document: {lengths['min']:,} to {lengths['max']:,}, mean {lengths['mean']:,.1f}",
        ", ".join(f"{p}% up to {value:,.0f}" for p, value in lengths["percentiles"].items()),
    ]
    most = max(bin["documents"] for bin in lengths["histogram"])
    for bin in lengths["histogram"]:
        bar = "█" * -(-BAR_CHARS * bin["documents"] // most)
        span = f"{bin['from']:,}–{bin['to']:,}"
        lines.append(
            f"  {span:>19}  {bin['documents']:>12,}  {count_text(bin['tokens']):>8} tokens  {bar}"
        )
    lines += [
        "",
        f"{'':11} │ {'packed':^18} │ {'padded':^44}",
        f"{'max_seq_len':>11} │ {'rows':>10} {'text':>7} │ {'rows':>10} {'text':>7} "
        f"{'cut documents':>14} {'cut text':>9}",
    ]
    for row in found["rows"]:
        packed, padded = row["packed"], row["padded"]
        lines.append(
            f"{row['max_seq_len']:>11} │ {packed['rows']:>10,} {packed['fill']:>7.1%} │ "
            f"{padded['rows']:>10,} {padded['fill']:>7.1%} "
            f"{padded['truncated_documents']:>14.1%} {padded['truncated_tokens']:>9.1%}"
        )
    return [line.rstrip() for line in lines]
