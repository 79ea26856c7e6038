"""``sweep``: a grid of train flags as one Slurm array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.cli.options import submission_options
from launcher.cli.submit import note_next
from minimind.system.terminal import note, print_json


@submission_options
def sweep(train_flags: list[str] | None, **given: Any) -> int:
    """Submit a run for every point of a grid of train flags."""
    from launcher.spec.run_folder import RunFolder
    from launcher.submit.resolve import read_secrets, resolve
    from launcher.submit.sweep import check_new, parse_vary, point_specs, read_grid, submit_sweep

    train = train_flags or []
    table = read_grid(given["grid"]) if given["grid"] else {}
    flags = table | parse_vary(given["vary"] or [])
    spec = resolve(given, train)
    specs = point_specs(spec, train, flags)
    if given["dry_run"]:
        from launcher.cli.output import print_script

        for point in specs:
            note(f"{spec.name}/{Path(point.run_dir).name}: {' '.join(point.train_args)}")
        print_script(spec, given["as_json"], point=specs[0])
        return 0
    from launcher.cli.output import warn_of_unseen_data

    secrets = read_secrets(spec)
    check_new(spec)
    warn_of_unseen_data(spec)
    found = submit_sweep(spec, train, flags, secrets)
    if given["as_json"]:
        print_json(found)
        return 0
    for entry in found:
        words = " ".join(f"--{flag} {value}" for flag, value in entry["flags"].items())
        note(f"{entry['run']}: job {entry['job_id']}, {words}")
    first = f"{spec.name}/0"
    note_next(RunFolder(spec.run_dir), ["status", f"logs {first} -f", f"cancel {first}"])
    return 0
