"""The flags of every command are frozen: a change in ``tests/goldens/flags`` breaks users' scripts.

Names, order, kinds, defaults and choices are; help texts are not. Write the files anew, on purpose,
with ``python -m tests.unit.test_frozen_flags``.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import launcher.cli
import minimind.cli
import minimind.config

GOLDENS = Path(__file__).parents[1] / "goldens" / "flags"

TYPERS_OWN = ("install_completion", "show_completion")
"""Options that Typer adds, in a form that depends on what else is installed."""


def described() -> dict[str, str]:
    """Name of a golden file → what it has to hold, for every command and group of both programs."""
    found = {"minimind": _lines(f"command: {name}" for name in minimind.cli.COMMANDS)}
    for name, (module, _) in minimind.cli.COMMANDS.items():
        if name == "pretrain":
            found["minimind-pretrain"] = _lines(_pretrain())
        else:
            parser = importlib.import_module(module).build_parser()
            found.update(_argparse_commands(f"minimind-{name}", parser))
    found.update(_click_commands("launcher", typer.main.get_command(launcher.cli.app)))
    return found


def _lines(lines: Iterator[str]) -> str:
    return "".join(line + "\n" for line in lines)


def _pretrain() -> Iterator[str]:
    """Its parser takes every value as text: what a flag is, the dataclass behind it says."""
    hints = typing.get_type_hints(minimind.config.TrainConfig)
    defaults = minimind.config.TrainConfig().to_dict()
    fields = [field.name for field in dataclasses.fields(minimind.config.TrainConfig)]
    for action in minimind.config.build_parser()._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if action.dest not in fields:
            yield _argparse_flag(action)
            continue
        hint = hints[action.dest]
        choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else None
        yield _line(
            action.option_strings,
            "flag" if hint is bool else _kind_name(getattr(hint, "__name__", "str")),
            nargs=None if hint is bool else action.nargs,
            choices=choices,
            default=defaults[action.dest],
        )


def _argparse_commands(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    lines = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                lines.append(f"command: {word}")
                yield from _argparse_commands(f"{name}-{word}", inner)
        elif not isinstance(action, argparse._HelpAction):
            lines.append(_argparse_flag(action))
    for group in parser._mutually_exclusive_groups:
        names = [action.option_strings[0] for action in group._group_actions]
        needed = ", one is required" if group.required else ""
        lines.append(f"not together: {' '.join(names)}{needed}")
    if parser.get_default("takes_train_flags"):
        lines.append("and all flags of pretrain")
    yield name, _lines(iter(lines))


def _argparse_flag(action: argparse.Action) -> str:
    is_flag = isinstance(action, argparse._StoreTrueAction)
    kind = "flag" if is_flag else _kind_name(getattr(action.type, "__name__", "str"))
    return _line(
        action.option_strings or [f"<{action.dest}>"],
        kind,
        nargs=None if is_flag else action.nargs,
        repeated=isinstance(action, argparse._AppendAction),
        const=None if is_flag else action.const,
        choices=action.choices,
        required=action.required,
        default=action.default,
    )


def _click_commands(name: str, command: Any) -> Iterator[tuple[str, str]]:
    subcommands = getattr(command, "commands", {})
    lines = [_click_flag(p) for p in command.params if p.name not in TYPERS_OWN]
    lines += [f"command: {word}" for word in subcommands]
    yield name, _lines(iter(lines))
    for word, inner in subcommands.items():
        yield from _click_commands(f"{name}-{word}", inner)


def _click_flag(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    is_flag = is_option and parameter.is_flag
    many = parameter.nargs == -1 or parameter.multiple
    return _line(
        [*parameter.opts, *parameter.secondary_opts] if is_option else [f"<{parameter.name}>"],
        "flag" if is_flag else _click_kind(parameter),
        nargs="*" if parameter.nargs == -1 else None,
        repeated=parameter.multiple,
        choices=getattr(getattr(parameter, "type", None), "choices", None),
        required=parameter.required,
        default=None if many and not parameter.default else parameter.default,
    )


def _click_kind(parameter: Any) -> str:
    descriptor = getattr(parameter, "type_descriptor", None)
    if descriptor is None:
        # A Typer that still hands its types over to Click.
        return {"integer": "whole number", "float": "number"}.get(parameter.type.name, "text")
    inner = (*typing.get_args(descriptor.annotation), descriptor.annotation)[0]
    return _kind_name(inner.__name__)


def _kind_name(type_name: str) -> str:
    names = {"int": "whole number", "float": "number", "Path": "path"}
    return names.get(type_name, "text")


def _line(
    names: list[str],
    kind: str,
    *,
    nargs: Any = None,
    repeated: bool = False,
    const: Any = None,
    choices: Any = None,
    required: bool = False,
    default: Any = None,
) -> str:
    """One flag or positional as a line of a golden file."""
    parts = [kind]
    if choices is not None:
        parts[0] = "one of " + " ".join(map(str, choices))
    if nargs is not None:
        parts.append(f"nargs {nargs}")
    if repeated:
        parts.append("may be repeated")
    if const is not None:
        parts.append(f"bare: {_value(const)}")
    if required:
        parts.append("required")
    if kind != "flag" and not required and _value(default) is not None:
        parts.append(f"default {_value(default)}")
    elif kind == "flag" and default is True:
        parts.append("on by default")
    return f"{' '.join(names)}: {', '.join(parts)}"


def _value(value: Any) -> str | None:
    # By type: Click's and argparse's marks for "no default" are objects of their own.
    if isinstance(value, Path):
        return repr(str(value))
    if isinstance(value, (bool, int, float, str, list, tuple)) and value != argparse.SUPPRESS:
        return repr(value)
    return None


@pytest.fixture(scope="module")
def now() -> dict[str, str]:
    return described()


def test_every_command_has_its_golden_file_and_every_golden_file_its_command(
    now: dict[str, str],
) -> None:
    assert sorted(now) == sorted(path.stem for path in GOLDENS.glob("*.txt"))


@pytest.mark.parametrize("command", sorted(path.stem for path in GOLDENS.glob("*.txt")))
def test_flags_of_a_command_are_frozen(command: str, now: dict[str, str]) -> None:
    assert now[command] == (GOLDENS / f"{command}.txt").read_text(encoding="utf-8")


def write() -> None:
    """Replaces all golden files with what the programs take now."""
    GOLDENS.mkdir(parents=True, exist_ok=True)
    for path in GOLDENS.glob("*.txt"):
        path.unlink()
    for command, text in described().items():
        (GOLDENS / f"{command}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
