"""``drill``: interruptions on purpose, and what they cost."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from launcher.cli.options import AsJson, Partition, Profile, RunsDir
from minimind.errors import ConfigError
from minimind.system.terminal import print_json


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
        print_json([asdict(result) for result in results])
    else:
        for result in results:
            print(f"{result.verdict:5} {result.part}: {result.text}")
    sys.stdout.flush()
    return int(any(result.verdict == "FAIL" for result in results))
