"""The training's own flags, behind ``--``: checked, and completed with the run's folders."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from launcher.spec.job_spec import JobSpec
from launcher.spec.options import TRAIN_MODULE
from launcher.spec.run_folder import RunFolder
from minimind.errors import ConfigError
from minimind.rundir.layout import RunPaths
from minimind.system.terminal import note


def complete_train_args(
    given: list[str], run_dir: Path, module: str, *, quiet: bool = False
) -> tuple[list[str], str, bool]:
    """The training's flags with the run folder filled in where the user named no folder.

    Returns the flags, the folder of ``metrics.jsonl``, and whether the training is told to run
    on the CPU. Ours come first: a flag that the user gave comes later and wins. The folders in
    a ``--config`` that another run has left are that run's, and no choice of the user.

    Raises:
        ConfigError: the training's own parser refuses the flags, or they name another run's
            folder.
    """
    paths = RunPaths(run_dir)
    ours = {"save_dir": str(paths.output), "checkpoint_dir": str(paths.checkpoints)}
    ours["from_resume"] = "auto"
    if module != TRAIN_MODULE:
        words = [word for field, value in ours.items() for word in (f"--{field}", value)]
        return [*words, *given], ours["save_dir"], "cpu" in given
    from minimind.config import TrainConfig, parse_args, parse_words

    asked, named, defaults = parse_args(given), parse_words(given), TrainConfig()
    old = None
    for field in ("save_dir", "checkpoint_dir"):
        folder = getattr(asked, field)
        if field not in named and folder == getattr(defaults, field):
            continue
        other = _run_around(folder)
        if other is None or other.root == Path(os.path.realpath(run_dir)):
            continue
        if field in named:
            raise ConfigError(
                f"--{field} {folder}: belongs to the run {other.name}; leave it out "
                "(each run has its own), or name another"
            )
        old = other.name
    if old is not None and not quiet:
        note(
            f"--config {named['config']}: the folders in it are the run {old}'s; "
            "this run writes into its own"
        )
    added = []
    for field, value in ours.items():
        untold = getattr(asked, field) == getattr(defaults, field)
        if untold or (old is not None and field not in named):
            added += [f"--{field}", value]
    config = parse_args([*added, *given])
    return [*added, *given], os.path.abspath(config.save_dir), config.device == "cpu"


def start_wish(spec: JobSpec) -> str:
    """The last word of ``--from_resume`` among the flags of a spec, of whatever program."""
    wish, flags = "", iter(spec.train_args)
    for word in flags:
        name, has_value, value = word.partition("=")
        if name.replace("-", "_") == "__from_resume":
            wish = value if has_value else next(flags, "")
    return wish


def continuing(spec: JobSpec) -> JobSpec:
    """The spec of the same run, which goes on from its newest checkpoint."""
    return replace(spec, train_args=(*spec.train_args, "--from_resume", "auto"))


def _run_around(folder: str) -> RunFolder | None:
    """The run in whose folder ``folder`` lies."""
    path = Path(os.path.realpath(folder))
    for root in (path, *path.parents):
        run = RunFolder(root)
        # A spec.json may be anybody's.
        if os.path.isfile(run.spec_file) and os.path.isdir(run.attempts):
            return run
    return None
