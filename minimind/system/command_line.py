"""The parser of every ``minimind`` command line. Standard library only."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from minimind.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Flags take dashes where they have underscores, and no abbreviations; errors are ours.

    Raises:
        ConfigError: an unknown flag, or a value of the wrong kind.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        settings.setdefault("allow_abbrev", False)
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **settings)

    def flag(self, name: str, **settings: Any) -> None:
        """Add ``--name``, whose help shows both spellings."""
        names = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        self.add_argument(*names, **settings)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str], namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        return super().parse_known_args([underscored(word) for word in args], namespace)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see {self.prog} --help)")


def underscored(word: str) -> str:
    """``--batch-size=8-9`` → ``--batch_size=8-9``; what is no flag stays as it is."""
    if not word.startswith("--") or word == "--":
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
