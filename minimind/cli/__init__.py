"""The ``minimind`` command line: one module a command."""

from minimind.cli.main import COMMANDS, main

__all__ = ["COMMANDS", "main"]
