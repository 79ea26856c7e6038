"""The parser of every ``minimind`` command line. Standard library only."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Mapping, Sequence
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
        self.elsewhere: Mapping[str, str] = {}
        """Flags of other programs → what does the same here."""
        self._words: Sequence[str] = ()

    def flag(self, name: str, **settings: Any) -> None:
        """Add ``--name``, whose help shows both spellings."""
        names = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        self.add_argument(*names, **settings)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str], namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        self._words = [underscored(word) for word in args]
        return super().parse_known_args(self._words, namespace)

    def error(self, message: str) -> NoReturn:
        hints = ""
        if message.startswith("unrecognized arguments: "):
            hints = "".join(f"; {hint}" for hint in self._proposals(message.split()[2:]))
        raise ConfigError(f"{message}{hints} (see {self.prog} --help)")

    def _proposals(self, words: Sequence[str]) -> list[str]:
        """What may have been meant by those of ``words`` that look like flags."""
        parser = self._parser_in_use()
        known = [option[2:] for option in parser._option_string_actions if option[:2] == "--"]
        flags = [word[2:].partition("=")[0] for word in words if word.startswith("--")]
        return [hint for flag in flags if (hint := proposal(flag, known, parser.elsewhere))]

    def _parser_in_use(self) -> Parser:
        """Of a command with commands of its own: the one that was called."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                called = [word for word in self._words if word in action.choices]
                return action.choices[called[0]] if called else self
        return self


def proposal(
    name: str, known: Iterable[str], elsewhere: Mapping[str, str] | None = None, mark: str = "--"
) -> str:
    """What may be meant by the unknown flag ``name``; "": nothing is near.

    Args:
        known: the flags that there are.
        elsewhere: as :attr:`Parser.elsewhere`.
        mark: before a flag's name.
    """
    if elsewhere and name in elsewhere:
        return f"{mark}{name} is {elsewhere[name]} here"
    near = difflib.get_close_matches(name.replace("-", "_"), sorted(known), n=1)
    return f"did you mean {mark}{near[0]}?" if near else ""


def underscored(word: str) -> str:
    """``--batch-size=8-9`` → ``--batch_size=8-9``; what is no flag stays as it is."""
    if not word.startswith("--") or word == "--":
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
