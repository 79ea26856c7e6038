"""The ``minimind`` console script: finds the subcommand's module and runs it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from minimind import __version__
from minimind.errors import (
    EXIT_BROKEN_PIPE,
    EXIT_DONE,
    EXIT_USER_ERROR,
    MiniMindError,
)
from minimind.system.terminal import complain, print_anything
from minimind.system.timeout import leave_in_time

COMMANDS = {
    "pretrain": ("minimind.train_pretrain", "pretrain a model"),
    "plan": ("minimind.cli.plan", "say what a run would take: memory, disk, time"),
    "generate": ("minimind.cli.generate", "write text with a trained model"),
    "chat": ("minimind.cli.chat", "talk to a model in the terminal"),
    "eval": ("minimind.cli.eval", "score text that the model has not seen"),
    "report": ("minimind.cli.report", "a run, or several, as one HTML page"),
    "inspect": ("minimind.cli.inspect", "say what a file or folder is, and whether it verifies"),
    "export": ("minimind.cli.export", "write weights for other programs"),
    "data": ("minimind.cli.data", "get text, look at it, and prepare it for training"),
    "tokenizer": ("minimind.cli.tokenizer", "train a tokenizer"),
    "track": ("minimind.cli.track", "send offline SwanLab records"),
}
"""Subcommand → (module with ``main(argv) -> exit code``, help). Loaded only when asked for."""


EXAMPLE = "Example: minimind data sample && minimind pretrain --max_steps 100"


def usage() -> str:
    head = f"minimind {__version__}: usage: minimind COMMAND [FLAGS] (COMMAND --help tells more)"
    lines = [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join([head, "", *lines, "", EXAMPLE])


def program() -> int:
    """The command of this process, whose end nothing that was left holds up."""
    return leave_in_time(main())


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    print_anything()
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return EXIT_DONE
    if words[0] == "--version":
        print(__version__)
        return EXIT_DONE
    if words[0] not in COMMANDS:
        print(f"minimind: unknown command {words[0]!r}\n{usage()}", file=sys.stderr)
        return EXIT_USER_ERROR
    module = importlib.import_module(COMMANDS[words[0]][0])
    try:
        return module.main(words[1:])
    except BrokenPipeError:
        # The reader of a pipe has had enough (`| head`). Python would complain once more at
        # exit, when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except (MiniMindError, OSError) as error:
        return complain(f"minimind {words[0]}", error)
