"""``minimind data stats``: what a corpus holds, and what rows it would make."""

from __future__ import annotations

import argparse
from typing import Any

from minimind.cli.common_flags import add_json_flag
from minimind.cli.data.row_flags import add_row_flags
from minimind.data.tools.stats import DEFAULT_LENGTHS, stats
from minimind.errors import require
from minimind.system.command_line import Parser
from minimind.system.terminal import count_text, print_json, size_text

LONGEST_ROW = 1 << 20
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
    parser.flag(
        "render_chat", action="store_true", help="the field holds conversations: render them"
    )
    parser.flag("tokenizer_path", default="", metavar="DIR", help="default: the shipped tokenizer")
    parser.flag("bos_token", default="", metavar="TOKEN", help="what begins each document")
    parser.flag("eos_token", default="", metavar="TOKEN", help="what ends each document")
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
        render_chat=arguments.render_chat,
        max_bad_rows=arguments.max_bad_rows,
        tokenizer_path=arguments.tokenizer_path,
        cache_dir=arguments.cache_dir,
        progress=not arguments.json,
        bos_token=arguments.bos_token,
        eos_token=arguments.eos_token,
    )
    if arguments.json:
        print_json(found)
    else:
        print("\n".join(_report(found)))


def _marks(special: dict[str, int | None]) -> str:
    """What is around each document, among its tokens."""
    given = [f"{role} token {token}" for role, token in special.items() if token is not None]
    lacking = [f"no {role} token" for role, token in special.items() if token is None]
    advice = " (--bos_token and --eos_token name them)" if lacking else ""
    return f"each document has: {', '.join(given + lacking)}{advice}"


def _report(found: dict[str, Any]) -> list[str]:
    lengths = found["lengths"]
    lines = [
        f"{found['documents']:,} documents in {len(found['files'])} file(s), "
        f"{size_text(found['bytes'])} of text, {found['tokens']:,} tokens "
        f"({found['bytes_per_token']:.2f} bytes a token)",
        f"repeated texts: {found['duplicates']['documents']:,} "
        f"({found['duplicates']['share']:.2%} of the documents)",
        _marks(found["special_tokens"]),
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
