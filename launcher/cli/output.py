"""The table of runs, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minimind.system.terminal import short_duration

if TYPE_CHECKING:
    from rich.table import Table

    from launcher.inspect.run_state import RunState


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
            short_duration(state.eta_seconds),
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


_STYLES = {
    "RUNNING": "green",
    "DONE": "bold green",
    "FAILED": "bold red",
    "HELD": "yellow",
    "INTERRUPTED": "yellow",
    "CANCELLED": "dim",
    "DAMAGED": "bold red",
}
