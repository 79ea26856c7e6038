"""Writes docs/reference.md, every flag of every command, from the code: ``make docs``.

It reads the parsers themselves, not their help texts: those differ with the terminal's width
and between versions of Python. A test compares the page with what this makes.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import re
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

import launcher.cli
import minimind.cli
from minimind.config import TrainConfig, build_parser

TARGET = Path(__file__).with_name("reference.md")

HEAD = """\
# Reference of flags

Made from the code by `make docs`; not to be edited by hand. Dashes work where underscores do.
"""


def reference() -> str:
    """The whole page."""
    sections = [*_pretrain()]
    for name, (module, _) in minimind.cli.COMMANDS.items():
        if name != "pretrain":
            sections += _argparse_command(importlib.import_module(module).build_parser())
    sections += _click_command("launcher", typer.main.get_command(launcher.cli.app))
    titles = re.findall(r"^## (.*)", "\n".join(sections), re.MULTILINE)
    links = " · ".join(f"[{title}](#{title.replace(' ', '-')})" for title in titles)
    return "\n".join(part.rstrip() + "\n" for part in (HEAD, links, *sections))


def _pretrain() -> Iterator[str]:
    yield "## minimind pretrain"
    yield (
        "`--config FILE.toml` reads flags from a file; the command line wins. In a file, keys are "
        "the flags' names. `--procs N` starts N ranks on this machine, one for each GPU or on the "
        "CPU; it is no setting of the run, and no key of a file."
    )
    hints = typing.get_type_hints(TrainConfig)
    defaults = TrainConfig()
    groups: dict[str, list[tuple[str, ...]]] = {}
    for field in dataclasses.fields(TrainConfig):
        check = field.metadata["check"]
        groups.setdefault(field.metadata["group"], []).append(
            (
                f"`--{field.name}`",
                _default(getattr(defaults, field.name)),
                check[1].removeprefix("must be ") if check else _values(hints[field.name]),
                field.metadata["help"],
            )
        )
    for title, rows in groups.items():
        yield f"### {title}"
        yield _table(("flag", "default", "values", "what"), rows)
    yield _examples(build_parser().epilog)


def _values(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return "one or more"
    return {bool: "a bare flag", str: "text"}.get(hint, "")


def _argparse_command(parser: argparse.ArgumentParser, summary: str = "") -> Iterator[str]:
    yield f"## {parser.prog}"
    yield _text(parser.description or summary)
    subcommands: list[tuple[argparse.ArgumentParser, str]] = []
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            subcommands = [(action.choices[name], text) for name, text in helps.items()]
        elif not isinstance(action, argparse._HelpAction):
            rows.append(_argparse_row(action))
    if rows:
        yield _table(("flag", "default", "what"), rows)
    yield _examples(parser.epilog)
    for command, text in subcommands:
        yield from _argparse_command(command, text)


def _argparse_row(action: argparse.Action) -> tuple[str, ...]:
    # The first spelling; the one with dashes goes without saying.
    words = action.option_strings[:1]
    if action.choices is not None:
        words = [*words, "|".join(map(str, action.choices))]
    elif action.nargs != 0:
        metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        words = [*words, metavar]
    if action.nargs in ("+", "*"):
        words = [*words, "…"]
    help_text = (action.help or "").replace("%%", "%")
    if action.required and action.option_strings:
        shown = "required"
    elif "(default" in help_text or action.nargs == 0:
        shown = ""
    else:
        shown = _default(action.default)
    return f"`{' '.join(words)}`", shown, help_text


def _click_command(name: str, command: Any) -> Iterator[str]:
    yield f"## {name}"
    yield _text(re.sub(r"\[/?bold\]", "`", command.help or ""))
    subcommands = getattr(command, "commands", {})
    if not subcommands:
        yield _table(("flag", "default", "what"), map(_click_row, command.params))
    yield _examples(command.epilog)
    for word, inner in subcommands.items():
        yield from _click_command(f"{name} {word}", inner)


def _click_row(parameter: Any) -> tuple[str, ...]:
    is_option = parameter.param_type_name == "option"
    words = list(parameter.opts) if is_option else []
    if not (is_option and parameter.is_flag):
        words.append(parameter.metavar or parameter.name.upper())
    if parameter.required and is_option:
        shown = "required"
    else:
        shown = _default(parameter.default)
    return f"`{' '.join(words)}`", shown, parameter.help or ""


def _default(value: Any) -> str:
    # By type: Click's mark for "no default" is a private object that changes with its version.
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Path)) or value == "":
        return ""
    return f"`{value}`"


def _text(text: str) -> str:
    """A paragraph; a text with lines of its own layout as it is."""
    text = text.strip()
    if "\n  " in text:
        return f"```text\n{text}\n```"
    sentence = " ".join(text.split()).rstrip(".") + "."
    return sentence[0].upper() + sentence[1:]


def _examples(epilog: str | None) -> str:
    lines = re.sub(r"Examples?:", "", epilog or "").strip().splitlines()
    return "\n".join(["```bash", *(line.strip() for line in lines), "```"])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
