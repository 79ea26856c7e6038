"""Flags of the launcher's commands: those of a submission, from the table, and the shared ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from launcher.spec.options import OPTIONS, Option

SHARED = {row.name: row for row in OPTIONS}

RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run.")]
AsJson = Annotated[bool, typer.Option("--json", help=SHARED["as_json"].help)]
RunsDir = Annotated[
    str | None,
    typer.Option("--runs-dir", help=SHARED["runs_dir"].help, show_default=False),
]
Profile = Annotated[Path | None, typer.Option(help=SHARED["profile"].help, show_default=False)]
Partition = Annotated[str | None, typer.Option(help=SHARED["partition"].help, show_default=False)]

TrainFlags = Annotated[
    list[str] | None, typer.Argument(metavar="-- TRAIN FLAGS", help="Flags of the training.")
]
Command = Callable[..., int]


def submission_options(function: Command) -> Command:
    """Gives a command the flags that the table has for its name.

    ``function`` gets the training's flags as ``train_flags`` and every row of the table by its
    name, each None where the command line has none.
    """
    own = [row for row in OPTIONS if function.__name__ in row.commands]
    parameters = [_parameter("train_flags", TrainFlags, None)]
    parameters += [
        _parameter(row.name, _annotation(row, function.__name__), _nothing(row)) for row in own
    ]
    # What Typer reads of a function.
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {entry.name: entry.annotation for entry in parameters}
    return function


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _annotation(row: Option, command: str) -> Any:
    option = typer.Option(
        *row.flags, help=row.help_text(command), rich_help_panel=row.panel, show_default=False
    )
    kind = list[str] if row.kind is list else row.kind
    return Annotated[kind if kind is bool else kind | None, option]


def _nothing(row: Option) -> Any:
    """None is "not given", so that a profile can decide."""
    return False if row.kind is bool else None
