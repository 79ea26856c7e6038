"""``minimind generate``: write text with trained weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from minimind.cli.common_flags import add_device_flag, add_weight_flags, find_device
from minimind.cli.sampling_flags import add_sampling_flags, read_sampling
from minimind.errors import EXIT_DONE, require
from minimind.inference.sampling import TextStream
from minimind.system.command_line import Parser

EXAMPLES = """\
Examples:
  minimind generate --weight out/pretrain_512.pth --prompt "The"
  minimind generate --weight exported/hf --prompts_file prompts.txt --batch_size 16 --json
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="minimind generate",
        description="Write text with trained weights. One prompt is written as it comes.",
        epilog=EXAMPLES,
    )
    add_weight_flags(parser)
    parser.flag("prompt", action="append", default=[], help="text to continue; may be repeated")
    parser.flag(
        "prompts_file",
        type=Path,
        metavar="FILE",
        help='more prompts: .jsonl with a field "prompt" (or "text"), else one on each line',
    )
    parser.flag("batch_size", type=int, default=8, help="prompts at once (default: 8)")
    add_sampling_flags(parser)
    add_device_flag(parser)
    parser.flag(
        "dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="precision of the weights in memory; bfloat16 is faster (default: float32)",
    )
    parser.flag(
        "json", action="store_true", help='print a line {"prompt": …, "text": …} for each prompt'
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError, DataError or WeightsError where the command cannot be done."""
    args = build_parser().parse_args(list(argv))
    sampling = read_sampling(args)
    require(args.batch_size > 0, f"--batch_size must be 1 or more, but is {args.batch_size}")

    import torch

    from minimind.inference.generate import generate, read_prompts
    from minimind.weights.pretrained import load_for_text

    prompts = args.prompt + (read_prompts(args.prompts_file) if args.prompts_file else [])
    require(bool(prompts), "give a --prompt or a --prompts_file")
    device = find_device(args.device)
    model, tokenizer = load_for_text(
        args.weight,
        device,
        args.tokenizer_path,
        args.num_experts_per_tok,
        getattr(torch, args.dtype),
        args.allow_other_tokenizer,
    )
    settings = {**vars(sampling), "seed": args.seed, "device": device}
    if len(prompts) == 1 and not args.json:
        write = partial(print, end="", flush=True)
        write(prompts[0])
        generate(model, tokenizer, prompts, stream=TextStream(tokenizer, write), **settings)
        write("\n\n")
        return EXIT_DONE
    for batch in _batches(prompts, args.batch_size):
        texts = generate(model, tokenizer, batch, **settings)
        for prompt, text in zip(batch, texts, strict=True):
            if args.json:
                line = json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False)
                print(line, flush=True)
            else:
                print(f"{prompt}{text}\n", flush=True)
    return EXIT_DONE


def _batches(prompts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(prompts), size):
        yield prompts[start : start + size]
