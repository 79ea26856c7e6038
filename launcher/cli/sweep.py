"""``sweep``: a grid of train flags as one Slurm array."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.spec import options as o
from minimind.system.terminal import note, print_json


def sweep(
    train_flags: o.TrainFlags = None,
    vary: Annotated[list[str] | None, o.option("FLAG=VALUE,VALUE,… ; repeatable.", "Grid")] = None,
    grid: Annotated[Path | None, o.option("TOML of flag = [values].", "Grid")] = None,
    name: o.Name = None,
    cluster: o.Cluster = None,
    nodes: o.Nodes = None,
    gpus: o.Gpus = None,
    partition: o.Partition = None,
    account: o.Account = None,
    qos: o.Qos = None,
    time: o.Time = None,
    mem: o.Mem = None,
    cpus_per_gpu: o.CpusPerGpu = None,
    constraint: o.Constraint = None,
    exclude: o.Exclude = None,
    reservation: o.Reservation = None,
    image: o.Image = None,
    container: o.Container = None,
    mount: o.MountOption = None,
    env: o.Env = None,
    secret_env: o.SecretEnv = None,
    profile: o.Profile = None,
    runs_dir: o.RunsDir = None,
    python: o.Python = None,
    module: o.Module = None,
    max_restarts: o.MaxRestarts = None,
    hang_timeout: o.HangTimeout = None,
    dry_run: o.DryRun = False,
    as_json: o.AsJson = False,
) -> int:
    """Submit a run for every point of a grid of train flags."""
    given = dict(locals())
    train = list(given.pop("train_flags") or ())
    from launcher.cli.submit import note_next, spec_from
    from launcher.spec.run_folder import RunFolder
    from launcher.submit.resolve import read_secrets
    from launcher.submit.sweep import check_new, parse_vary, point_specs, read_grid, submit_sweep

    flags = (read_grid(grid) if grid else {}) | parse_vary(vary or [])
    spec = spec_from(given, train)
    if dry_run:
        from launcher.cli.submit import show_script

        specs = point_specs(spec, train, flags)
        for point in specs:
            note(f"{spec.name}/{Path(point.run_dir).name}: {' '.join(point.train_args)}")
        return show_script(spec, as_json, point=specs[0])
    secrets = read_secrets(spec)
    check_new(spec)
    found = submit_sweep(spec, train, flags, secrets)
    if as_json:
        print_json(found)
        return 0
    for entry in found:
        words = " ".join(f"--{flag} {value}" for flag, value in entry["flags"].items())
        note(f"{entry['run']}: job {entry['job_id']}, {words}")
    first = f"{spec.name}/0"
    note_next(RunFolder(spec.run_dir), ["status", f"logs {first} -f", f"cancel {first}"])
    return 0


def register(app: typer.Typer) -> None:
    """Adds this module's command to the application."""
    shown = "launcher sweep --vary learning_rate=1e-3,5e-4 -- --data_path /shared/corpus.jsonl"
    app.command(epilog=f"Example: {shown}")(sweep)
