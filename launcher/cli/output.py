"""Printing: JSON for programs, rich tables for people, lines where nobody looks."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from launcher.supervise import classify as causes

if TYPE_CHECKING:
    from rich.table import Table

    from launcher.inspect.run_state import RunState


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json_text(value))


def json_text(value: Any) -> str:
    """How all commands write JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def note(text: str) -> None:
    """A line for people, on standard error, so that ``--json`` stays clean."""
    print(text, file=sys.stderr)


def show(stream: TextIO, text: str) -> None:
    """Writes for whoever still reads: a run must not end because nobody does any more."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # The terminal or the pipe is gone. What is written later, at exit too, goes nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def duration(seconds: float | None) -> str:
    """``95`` → ``1m35s``; hours and days where they matter; ``—`` for None."""
    if seconds is None:
        return "—"
    total = int(seconds)
    days, rest = divmod(total, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{secs:02}s" if minutes else f"{secs}s"


def runs_table(rows: list[tuple[RunState, float | None]]) -> Table:
    """``status``'s table; each row is a run and its goodput (0 to 1)."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("RUN", "STATE", "JOB", "NODES", "TRY", "EPOCH", "STEP", "LOSS"):
        table.add_column(column, no_wrap=True)
    for column in ("TOK/S", "ETA", "RESTARTS", "GOODPUT"):
        table.add_column(column, no_wrap=True)
    for state, goodput in rows:
        # As Text: a name or an answer of Slurm's may hold what rich takes for markup.
        table.add_row(
            Text(state.name),
            Text(state.state, style=_STYLES.get(state.state, "")),
            Text(state.job_id or "—"),
            Text(",".join(state.nodes) or "—"),
            str(state.attempt or "—"),
            str(state.epoch if state.epoch is not None else "—"),
            step_text(state),
            f"{state.loss:.4f}" if isinstance(state.loss, (int, float)) else str(state.loss or "—"),
            f"{state.tokens_per_second:,.0f}" if state.tokens_per_second else "—",
            duration(state.eta_seconds),
            Text(restarts_text(state.restarts)),
            f"{100 * goodput:.0f}%" if goodput is not None else "—",
        )
    return table


def step_text(state: RunState) -> str:
    """``120/1000 (12%)``, or what the run does before its first step."""
    if state.preparing:
        return state.preparing
    if not state.total_steps:
        return str(state.step)
    return f"{state.step}/{state.total_steps} ({state.percent:.0f}%)"


def restarts_text(restarts: dict[str, int]) -> str:
    """``preempted 2, crash 1``"""
    return ", ".join(f"{cause} {count}" for cause, count in sorted(restarts.items())) or "0"


def cause_text(cause: str) -> str:
    """A cause in plain words."""
    return causes.IN_WORDS.get(cause, cause)


_STYLES = {
    "RUNNING": "green",
    "DONE": "bold green",
    "FAILED": "bold red",
    "HELD": "yellow",
    "INTERRUPTED": "yellow",
    "CANCELLED": "dim",
    "DAMAGED": "bold red",
}
