"""``doctor``: what is safe on this site."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.cli.options import AsJson, Partition, Profile, RunsDir
from minimind.system.terminal import print_json

if TYPE_CHECKING:
    from launcher.inspect.doctor import Finding


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
    from launcher.inspect.doctor import BAD, examine, examine_as_job
    from launcher.spec.profile import load_profile
    from launcher.submit.resolve import runs_folder, site_devices

    values = load_profile(profile)
    if nodes is None:
        found = examine(runs_folder(runs_dir, values), site_devices(values, "slurm"))
    else:
        size = {"nodes": nodes, "gpus": gpus, "partition": partition, "runs_dir": runs_dir}
        found = examine_as_job(size, values, cpu=cpu, timeout=timeout)
    if as_json:
        print_json([asdict(finding) for finding in found])
    else:
        _print(found)
    return int(any(finding.level == BAD for finding in found))


def _print(found: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from launcher.inspect.doctor import BAD, GOOD, WARN

    styles = {GOOD: "green", WARN: "yellow", BAD: "bold red"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in found:
        level = Text(finding.level, style=styles[finding.level])
        table.add_row(level, Text(finding.subject), Text(finding.text))
    Console().print(table)
