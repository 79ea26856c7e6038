"""What commands print for people: the table of runs, the script of a dry run."""

from __future__ import annotations

import json
import os
import shlex
import sys

from rich.table import Table
from rich.text import Text

from launcher.containers import runtimes
from launcher.inspect import run_state as state
from launcher.inspect.run_state import RunState
from launcher.slurm.environment import describe_defaults
from launcher.slurm.sbatch import batch_script
from launcher.spec.job_spec import JobSpec
from launcher.spec.run_folder import RunFolder
from launcher.submit.resolve import unseen_data
from launcher.supervise import local
from launcher.supervise.resume import asks_itself, lost_checkpoint
from minimind.rundir.layout import label
from minimind.system.terminal import note, print_json, short_duration

STYLES = {
    state.RUNNING: "green",
    state.DONE: "bold green",
    state.FAILED: "bold red",
    state.HELD: "yellow",
    state.INTERRUPTED: "yellow",
    state.CANCELLED: "dim",
    state.DAMAGED: "bold red",
}


def print_script(spec: JobSpec, as_json: bool, *, point: JobSpec | None = None) -> None:
    """Prints the batch script, and the command that its supervisor starts the ranks with.

    Where there is no batch script, the command of each rank. ``point``: of a sweep, for whose
    array ``spec`` stands.
    """
    run = point or spec
    if spec.cluster == "local":
        command = shlex.join(local.rank_command(run))
        text = f"{spec.world_size} × {command}\n"
    else:
        command = shlex.join(runtimes.rank_command(run))
        text = batch_script(spec, array=point is not None)
    if as_json:
        print_json({"spec": json.loads(spec.to_json()), "script": text, "ranks": command})
    else:
        sys.stdout.write(text)
        if spec.cluster == "slurm":
            for line in describe_defaults(os.environ):
                note(line)
            note(f"The ranks of {run.name}: {command}")


def warn_of_unseen_data(spec: JobSpec) -> None:
    """Says which files of a run's data are not seen from here; where the job runs they may be."""
    for path in unseen_data(spec):
        note(f"warning: --data_path {path}: not found on this machine; the job may see it")


def warn_of_lost_checkpoint(run: RunFolder, spec: JobSpec, *, new_code: bool) -> None:
    """Says that a run's checkpoint is not seen from here; where the job runs it may be.

    ``new_code``: the submission gives the run this version's code.
    """
    if not (lost := lost_checkpoint(run, spec)):
        return
    note(f"warning: as seen from this machine, {lost}")
    if new_code or asks_itself(run):
        note("The job looks again where it runs, and trains only if it finds one.")
    else:
        note(
            f"The code of {run.name} is of a version that does not look again: without a "
            f"checkpoint it begins at step 0. `launcher submit --name {run.name} --resume … -- "
            "FLAGS` gives it this version's."
        )


def runs_table(rows: list[tuple[RunState, float | None]]) -> Table:
    """``status``'s table; each row is a run and its goodput (0 to 1)."""
    table = Table(box=None, pad_edge=False)
    for column in ("RUN", "STATE", "JOB", "NODES", "TRY", "EPOCH", "STEP", "LOSS"):
        table.add_column(column, no_wrap=True)
    for column in ("TOK/S", "ETA", "RESTARTS", "GOODPUT"):
        table.add_column(column, no_wrap=True)
    for run, goodput in rows:
        # As Text: a name or an answer of Slurm's may hold what rich takes for markup.
        table.add_row(
            Text(label(run.name, run.varied)),
            Text(*state_text(run)),
            Text(run.job_id or "—"),
            Text(nodes_text(run)),
            str(run.attempt or "—"),
            str(run.epoch if run.epoch is not None else "—"),
            step_text(run),
            f"{run.loss:.4f}" if isinstance(run.loss, (int, float)) else str(run.loss or "—"),
            f"{run.tokens_per_second:,.0f}" if run.tokens_per_second else "—",
            short_duration(run.eta_seconds),
            Text(restarts_text(run.restarts)),
            f"{100 * goodput:.0f}%" if goodput is not None else "—",
        )
    return table


def state_text(run: RunState) -> tuple[str, str]:
    """The state and its style; a run that is suspended does not get on, whatever else it is."""
    if run.suspended:
        return "SUSPENDED", "yellow"
    return run.state, STYLES.get(run.state, "")


def nodes_text(run: RunState) -> str:
    """``n1,n3 (not n2)``: the newest attempt's nodes, and those that the job is kept from."""
    excluded = f" (not {','.join(run.excluded)})" if run.excluded else ""
    return (",".join(run.nodes) or "—") + excluded


def step_text(run: RunState) -> str:
    """``120/1000 (12%)``, or what the run does before its first step."""
    if run.preparing:
        return run.preparing
    if not run.total_steps:
        return str(run.step)
    return f"{run.step}/{run.total_steps} ({run.percent:.0f}%)"


def restarts_text(restarts: dict[str, int]) -> str:
    """``preempted 2, crash 1``"""
    return ", ".join(f"{cause} {count}" for cause, count in sorted(restarts.items())) or "0"
