"""``minimind eval``: score text that a model has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minimind.cli.common_flags import add_device_flag, add_json_flag, add_weight_flags, find_device
from minimind.errors import EXIT_DONE, require
from minimind.system.command_line import Parser
from minimind.system.terminal import print_json

_OF_WEIGHT = ("tokenizer_path", "num_experts_per_tok", "allow_other_tokenizer")

EXAMPLES = """\
Examples:
  minimind eval --weight out/pretrain_512.pth --data_path data/sample/eval.jsonl
  minimind eval --weight out/pretrain_512.pth exported/hf --data_path held_out.jsonl --json
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="minimind eval",
        description="Score text: loss (nats per token), perplexity and bits per UTF-8 byte.\n"
        "Bits per byte compare models with different tokenizers too.",
        epilog=EXAMPLES,
    )
    parser.flag(
        "weight",
        required=True,
        nargs="+",
        metavar="WEIGHT",
        help="a .pth, a checkpoint .pt or a model folder; several are compared",
    )
    parser.flag(
        "data_path",
        required=True,
        nargs="+",
        metavar="PATH",
        help="files of any format, folders, globs",
    )
    parser.flag("text_field", default="text", metavar="NAME", help="field with the text")
    parser.flag(
        "render_chat", action="store_true", help="the field holds conversations: render them"
    )
    parser.flag(
        "max_seq_len",
        type=int,
        metavar="N",
        help="row length in tokens, the most that a token sees (default: the first weight's run's, "
        "or 512)",
    )
    parser.flag("batch_size", type=int, default=8, metavar="N", help="rows at once (default: 8)")
    parser.flag(
        "dtype",
        choices=("bfloat16", "float16", "float32"),
        default="float32",
        help="autocast precision (default: float32)",
    )
    parser.flag("cache_dir", default="", metavar="DIR", help="folder for tokenised data")
    add_weight_flags(parser, weight=False)
    add_device_flag(parser)
    add_json_flag(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError, DataError or WeightsError where the command cannot be done."""
    args = build_parser().parse_args(list(argv))
    require(args.batch_size > 0, f"--batch_size must be 1 or more, but is {args.batch_size}")
    require(
        args.max_seq_len is None or args.max_seq_len >= 8,
        f"--max_seq_len must be 8 or more, but is {args.max_seq_len}",
    )
    from minimind.training.evaluate import score

    device = find_device(args.device)
    names = (
        "data_path",
        "text_field",
        "render_chat",
        "batch_size",
        "dtype",
        "cache_dir",
        *_OF_WEIGHT,
    )
    settings = {name: getattr(args, name) for name in names}
    results: list[dict[str, Any]] = []
    for weight in args.weight:
        # All in rows of one length: a loss depends on how far back a token can see.
        length = results[0]["max_seq_len"] if results else args.max_seq_len
        results.append(score(weight, device, max_seq_len=length, **settings))
        if not args.json:
            print(_line(results[-1]), flush=True)
    if args.json:
        print_json(results)
    return EXIT_DONE


def _line(result: dict[str, Any]) -> str:
    return (
        f"{result['weight']}: loss {result['loss']:.4f}, perplexity {result['perplexity']:.2f}, "
        f"bits_per_byte {result['bits_per_byte']:.4f} ({result['documents']:,} documents, "
        f"{result['scored_tokens']:,} tokens in rows of {result['max_seq_len']})"
    )
