"""A grid of train flags, and one run for each of its points."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from launcher.spec.job_spec import JobSpec
from launcher.spec.options import TRAIN_MODULE
from launcher.spec.run_folder import RunFolder
from launcher.spec.train_flags import complete_train_args
from launcher.submit.submission import prepare, submit_points
from minimind.errors import ConfigError
from minimind.system.durable import write_text_durably
from minimind.system.toml import read_toml

MOST_POINTS = 1000
Grid = dict[str, list[str]]
"""Flag without dashes → its values, as the command line would have them."""


def parse_vary(entries: list[str]) -> Grid:
    """``["learning_rate=1e-3,5e-4"]`` → ``{"learning_rate": ["1e-3", "5e-4"]}``.

    Raises:
        ConfigError: another shape.
    """
    grid: Grid = {}
    for entry in entries:
        name, equals, values = entry.partition("=")
        if not equals or not values or not name:
            raise ConfigError(f"--vary {entry!r}: write FLAG=VALUE,VALUE,…")
        grid[name.lstrip("-").replace("-", "_")] = values.split(",")
    return grid


def read_grid(path: Path) -> Grid:
    """Reads a TOML table of ``flag = [value, …]``.

    Raises:
        ConfigError: no such file, bad TOML, or a value that is no list of plain values.
    """
    table = read_toml(path, "--grid")
    grid: Grid = {}
    for name, values in table.items():
        plain = isinstance(values, list) and values
        if not plain or not all(isinstance(value, (str, int, float)) for value in values):
            raise ConfigError(f"--grid {path}: {name} must be a list of values")
        grid[name.replace("-", "_")] = [str(value) for value in values]
    return grid


def points(grid: Grid) -> list[dict[str, str]]:
    """Every combination, the last flag varying fastest.

    Raises:
        ConfigError: no flag at all, or more than a thousand combinations.
    """
    if not grid:
        raise ConfigError("a sweep needs --vary FLAG=VALUE,VALUE or --grid FILE.toml")
    combinations = list(itertools.product(*grid.values()))
    if len(combinations) > MOST_POINTS:
        raise ConfigError(f"the grid has {len(combinations)} points; {MOST_POINTS} are allowed")
    return [dict(zip(grid, values, strict=True)) for values in combinations]


def point_specs(spec: JobSpec, train: list[str], grid: Grid) -> list[JobSpec]:
    """A spec for every point, below the sweep's folder and named by its index.

    Raises:
        ConfigError: the training's parser refuses one of the points, or some would write to one
            folder.
    """
    found = []
    for index, values in enumerate(points(grid)):
        run_dir = Path(spec.run_dir) / str(index)
        flags = [word for name, value in values.items() for word in (f"--{name}", value)]
        # What there is to say, the sweep's own spec has had said.
        arguments, save_dir, _ = complete_train_args(
            [*train, *flags], run_dir, spec.module, quiet=True
        )
        found.append(
            dataclasses.replace(
                spec,
                name=f"{spec.name}-{index}",
                run_dir=str(run_dir),
                sweep_dir=spec.run_dir,
                train_args=tuple(arguments),
                save_dir=save_dir,
            )
        )
    if spec.module == TRAIN_MODULE:
        _check_folders(found)
    return found


def _check_folders(specs: list[JobSpec]) -> None:
    """Raises ConfigError when two points would write over each other's results."""
    from minimind.config import parse_args

    configs = [parse_args(spec.train_args) for spec in specs]
    for field in ("save_dir", "checkpoint_dir"):
        users = Counter(os.path.realpath(getattr(config, field)) for config in configs)
        folder, count = users.most_common(1)[0]
        if count > 1:
            raise ConfigError(
                f"--{field} {folder}: {count} points of the sweep would write there; "
                "leave it out, and each has its own"
            )


def submit_sweep(
    spec: JobSpec, train: list[str], grid: Grid, secrets: dict[str, str]
) -> list[dict[str, Any]]:
    """Submits the sweep; returns name, folder, job id and flags of every point."""
    specs = point_specs(spec, train, grid)
    root = prepare(spec, secrets)
    # The sweep's own folder is not a run: only its points are.
    root.spec_file.unlink()
    job_ids = submit_points(root, spec, specs)
    found = [
        {"run": f"{spec.name}/{i}", "run_dir": s.run_dir, "job_id": job_id, "flags": values}
        for i, (s, job_id, values) in enumerate(zip(specs, job_ids, points(grid), strict=True))
    ]
    write_text_durably(root.sweep_file, json.dumps(found, indent=2, ensure_ascii=False))
    return found


def check_new(spec: JobSpec) -> None:
    """Raises ConfigError when a run or sweep of this name is there."""
    if (RunFolder(spec.run_dir).root).exists():
        raise ConfigError(f"{spec.run_dir} exists: choose another --name")
