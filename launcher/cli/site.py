"""Commands about the place a run would run in: doctor and drill."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.cli.options import AsJson, Partition, Profile, RunsDir
from minimind.errors import ConfigError
from minimind.system.terminal import note, print_json

if TYPE_CHECKING:
    from launcher.inspect.doctor import Finding
    from launcher.spec.run_folder import RunFolder

POLL_SECONDS = 1.0


def doctor(
    nodes: Annotated[
        int | None, typer.Option(help="Measure on this many nodes, as a job.", show_default=False)
    ] = None,
    gpus: Annotated[int, typer.Option(help="GPUs a node of that job.")] = 1,
    partition: Partition = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="CPU ranks over gloo.")] = False,
    timeout: Annotated[int, typer.Option(help="Seconds to wait for that job.")] = 600,
    profile: Profile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> int:
    """Say in plain words what is safe here; exit status 1 when something is not."""
    from launcher.inspect.doctor import BAD, examine
    from launcher.spec.profile import load_profile
    from launcher.submit.resolve import runs_folder

    values = load_profile(profile)
    if nodes is None:
        found = examine(runs_folder(runs_dir, values))
    else:
        size = {"nodes": nodes, "gpus": gpus, "partition": partition, "runs_dir": runs_dir}
        found = _examine_nodes(size, values, cpu=cpu, timeout=timeout)
    if as_json:
        print_json([finding.to_dict() for finding in found])
    else:
        _print(found)
    return int(any(finding.level == BAD for finding in found))


def _print(found: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "warn": "yellow", "bad": "bold red"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in found:
        level = Text(finding.level, style=styles[finding.level])
        table.add_row(level, Text(finding.subject), Text(finding.text))
    Console().print(table)


def _examine_nodes(
    size: dict[str, Any], profile: dict[str, Any], *, cpu: bool, timeout: int
) -> list[Finding]:
    from launcher.inspect.control import cancel_run
    from launcher.inspect.doctor import BAD, Finding, examine_nodes
    from launcher.spec.run_folder import RunFolder
    from launcher.submit.resolve import job_spec, runs_dir_flag, runs_folder
    from launcher.submit.submission import submit

    name = time.strftime("doctor-%Y%m%d-%H%M%S")
    folder = runs_folder(size["runs_dir"], profile) / name
    train = ["--device", "cpu"] if cpu else []
    spec = job_spec(name, size, profile, "launcher.probe", train)
    submitted = time.time()
    job = submit(spec, {})
    note(f"job {job} measures on {spec.nodes} nodes; its folder is {folder}")
    run = RunFolder(folder)
    if not _wait(run, timeout):
        cancel_run(run)
        why = f"launcher why {name}{runs_dir_flag(run)}"
        text = f"did not end within {timeout} s and was cancelled; see {why}"
        return [Finding(BAD, "job", text)]
    return examine_nodes(run, submitted)


def _wait(run: RunFolder, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while run.final() is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def drill(
    nodes: Annotated[int, typer.Option(help="Number of nodes.")] = 1,
    gpus: Annotated[int, typer.Option(help="GPUs a node, one rank each.")] = 1,
    partition: Partition = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="CPU ranks over gloo.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="term, usr2, kill, time or node; repeatable (all that are allowed)."),
    ] = None,
    timeout: Annotated[int, typer.Option(help="Seconds to wait for each part.")] = 1800,
    profile: Profile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> int:
    """Prove on this cluster that interruptions lose nothing: bit for bit, PASS or what was lost."""
    from launcher.inspect.drill import PARTS, Drill
    from launcher.spec.profile import load_profile

    unknown = set(only or ()) - set(PARTS)
    if unknown:
        raise ConfigError(f"--only {sorted(unknown)[0]}: choose {', '.join(PARTS)}")
    options = {"nodes": nodes, "gpus": gpus, "partition": partition, "runs_dir": runs_dir}
    exercise = Drill(options, load_profile(profile), cpu=cpu, timeout=timeout)
    results = exercise.run(list(only or PARTS))
    if as_json:
        print_json([result.to_dict() for result in results])
    else:
        for result in results:
            print(f"{result.verdict:5} {result.part}: {result.text}")
    sys.stdout.flush()
    return int(any(result.verdict == "FAIL" for result in results))


def register(app: typer.Typer) -> None:
    """Adds this module's commands to the application."""
    app.command(epilog="Example: launcher doctor --nodes 2 --gpus 8")(doctor)
    app.command(epilog="Example: launcher drill --nodes 2 --only term --only kill")(drill)
