"""``minimind chat``: talk to a model in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from minimind.cli.parser import Parser, add_device_flag, add_weight_flags, find_device
from minimind.errors import EXIT_DONE, require
from minimind.inference.sampling import Sampling, TextStream, add_sampling_flags
from minimind.weights.pretrained import open_pretrained

HELP = "/reset begins anew, /help shows this, /quit (or Ctrl-D) leaves; Ctrl-C stops an answer"
EXAMPLES = """\
Examples:
  minimind chat --weight out/pretrain_512.pth
  minimind chat --weight out/pretrain_512.pth --plain --temperature 0.5
"""


@dataclass
class Conversation:
    """A dialogue with a model. What was read before is kept in its cache, not read again.

    Attributes:
        plain: no roles: the model continues one text, which both sides write.
        context: most tokens that the model is shown; the oldest turns are left out.
    """

    model: Any
    tokenizer: Any
    sampling: Sampling
    context: int
    plain: bool = False
    turns: list[dict[str, str]] = field(default_factory=list)
    _read: list[int] = field(default_factory=list)
    _cache: DynamicCache | None = None

    def answer(self, text: str, write: Callable[[str], None]) -> str:
        """Say ``text``, and hand the model's answer to ``write`` as it comes.

        A KeyboardInterrupt ends the answer where it is.
        """
        self.turns.append({"role": "user", "content": text})
        stream = TextStream(self.tokenizer, write)
        try:
            self._generate(self._fitting_ids(), stream)
        except KeyboardInterrupt:
            stream.end()
            self._forget()
        self.turns.append({"role": "assistant", "content": stream.text})
        return stream.text

    def reset(self) -> None:
        self.turns.clear()
        self._forget()

    def _forget(self) -> None:
        self._read, self._cache = [], None

    def _fitting_ids(self) -> list[int]:
        """The prompt, without the oldest turns where they do not fit."""
        room = max(1, self.context - self.sampling.max_new_tokens)
        turns = list(self.turns)
        ids = self._ids(turns)
        first = 1 if turns[0]["role"] == "system" else 0
        while len(ids) > room and len(turns) > first + 1:
            del turns[first]
            ids = self._ids(turns)
        return ids[-room:]

    def _ids(self, turns: list[dict[str, str]]) -> list[int]:
        if self.plain:
            bos = self.tokenizer.bos_token_id
            text = "".join(turn["content"] for turn in turns)
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            return ([] if bos is None else [bos]) + ids
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.inference_mode()
    def _generate(self, ids: list[int], stream: TextStream) -> None:
        shared = 0
        while shared < min(len(ids) - 1, len(self._read)) and ids[shared] == self._read[shared]:
            shared += 1
        if self._cache is None:
            self._cache = DynamicCache(config=self.model.config)
        elif shared < self._cache.get_seq_length():
            self._cache.crop(shared - self._cache.get_seq_length())
        device = next(self.model.parameters()).device
        input_ids = torch.tensor([ids], device=device)
        output = self.model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            past_key_values=self._cache,
            pad_token_id=self.tokenizer.eos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            streamer=stream,
            **self.sampling.settings(),
        )
        # The last token was written, not read.
        self._read = output[0].tolist()[: self._cache.get_seq_length()]


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
    add_sampling_flags(parser, max_new_tokens=128, repetition_penalty=1.1)
    add_device_flag(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError, DataError or WeightsError where the command cannot be done."""
    args = build_parser().parse_args(list(argv))
    sampling = Sampling.from_flags(args)
    require(not (args.plain and args.system), "--system needs roles: leave out --plain")
    device = find_device(args.device)
    source = open_pretrained(args.weight, args.tokenizer_path, args.num_experts_per_tok)
    require(
        args.plain or bool(source.tokenizer.chat_template),
        f"the tokenizer {source.tokenizer_folder} has no chat template; use --plain",
    )
    context = args.context or int(source.flags.get("max_seq_len", 512))
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
            talk.answer(line, _write)
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


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
