"""``minimind chat``: talk to a model in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from minimind.cli.common_flags import add_device_flag, add_weight_flags, find_device
from minimind.cli.sampling_flags import add_sampling_flags, read_sampling
from minimind.errors import EXIT_DONE, require
from minimind.system.command_line import Parser

HELP = "/reset begins anew, /help shows this, /quit (or Ctrl-D) leaves; Ctrl-C stops an answer"
ANSWER_TOKENS = 128
EXAMPLES = """\
Examples:
  minimind chat --weight out/pretrain_512.pth
  minimind chat --weight out/pretrain_512.pth --plain --temperature 0.5
"""


def build_parser() -> Parser:
    parser = Parser(
        prog="minimind chat",
        description=f"Talk to a model in the terminal. {HELP}.\n"
        "A model that was only pretrained continues text rather than answering: try --plain.",
        epilog=EXAMPLES,
    )
    add_weight_flags(parser)
    parser.flag("plain", action="store_true", help="no roles: the model continues what you write")
    parser.flag("system", default="", metavar="TEXT", help="an instruction to begin with")
    parser.flag(
        "context",
        type=int,
        metavar="N",
        help="most tokens that the model is shown (default: its training's row length, or 512)",
    )
    tokens = {"max_new_tokens": f"{ANSWER_TOKENS}, or half of --context where that is less"}
    add_sampling_flags(parser, derived=tokens, repetition_penalty=1.1)
    add_device_flag(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError, DataError or WeightsError where the command cannot be done."""
    args = build_parser().parse_args(list(argv))
    sampling = read_sampling(args)
    require(not (args.plain and args.system), "--system needs roles: leave out --plain")

    import torch

    from minimind.inference.chat import Conversation
    from minimind.weights.pretrained import open_pretrained

    device = find_device(args.device)
    source = open_pretrained(
        args.weight, args.tokenizer_path, args.num_experts_per_tok, args.allow_other_tokenizer
    )
    require(
        args.plain or bool(source.tokenizer.chat_template),
        f"the tokenizer {source.tokenizer_folder} has no chat template; use --plain",
    )
    context = args.context or int(source.flags.get("max_seq_len", 512))
    if args.max_new_tokens is None:
        sampling = replace(sampling, max_new_tokens=min(ANSWER_TOKENS, max(1, context // 2)))
    require(
        context > sampling.max_new_tokens,
        f"--context {context} must exceed --max_new_tokens {sampling.max_new_tokens}",
    )
    torch.manual_seed(args.seed)
    talk = Conversation(
        source.build().to(device), source.tokenizer, sampling, context, plain=args.plain
    )
    opening = [{"role": "system", "content": args.system}] if args.system else []
    talk.turns += opening
    asks = sys.stdin.isatty()
    if asks:
        print(HELP)
    while (line := _read_line("> " if asks else "")) is not None:
        command = line.strip()
        if command == "/quit":
            break
        if command == "/help":
            print(HELP)
        elif command == "/reset":
            talk.reset()
            talk.turns += opening
        elif command.startswith("/"):
            print(f"unknown command {command.split()[0]}; {HELP}")
        elif command:
            talk.answer(line, partial(print, end="", flush=True))
            print(flush=True)
    return EXIT_DONE


def _read_line(prompt: str) -> str | None:
    """A line that the user types; None at the end of the input."""
    while True:
        try:
            return input(prompt)
        except EOFError:
            return None
        except KeyboardInterrupt:
            print()
