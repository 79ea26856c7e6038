"""The ``minimind`` command line: one module a command."""

from minimind.cli.main import COMMANDS, main, program

__all__ = ["COMMANDS", "main", "program"]
