"""What a start finds is not what was saved: checkpoints gone or stale, a store that was changed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.faults.files import REFUSED, token_files
from tests.chaos.faults.moments import later, steps
from tests.chaos.faults.registry import fault
from tests.chaos.faults.signals import EARLY, EVERYWHERE, NOBODY, has_peers

REFUSES = ("config", "cancelled")
"""A run under Slurm rests by being cancelled: a job that is stopped is started again."""


def checkpoints(run: Any) -> list[Path]:
    """The run's checkpoints, newest first."""
    found = [p for p in run.checkpoint_dir.glob("*.pt") if "replaced" not in p.name]
    newest = [p for p in found if p.name.count(".") == 1]
    return newest + sorted((p for p in found if p not in newest), reverse=True)


def between_attempts(run: Any, rng: Random, what_is_hit: list[Path]) -> None:
    """Let nothing run; often right after the attempt before, since a start may take long."""
    if not what_is_hit or rng.random() < 0.3:
        later(run, rng)
    run.rest()


@contextlib.contextmanager
def put_away(run: Any, files: list[Path]) -> Iterator[Path]:
    """Files of the checkpoints' folder lie elsewhere inside."""
    # On the same file system, since two names may be one file.
    away = run.checkpoint_dir / "away"
    away.mkdir()
    for path in files:
        os.rename(path, away / path.name)
    yield away
    for path in files:
        os.rename(away / path.name, path)
    away.rmdir()


@fault(*EVERYWHERE, codes=(REFUSED, *EARLY), causes=REFUSES, weight=3)
def vanished_checkpoints(run: Any, rng: Random) -> str:
    """They are gone at one start, which refuses, and there again at the next."""
    between_attempts(run, rng, checkpoints(run))
    found = checkpoints(run)
    if run.is_over() or not found:
        return NOBODY
    with put_away(run, found):
        run.be_refused()
    return ""


@fault(*EVERYWHERE, codes=(REFUSED, *EARLY), causes=REFUSES, weight=3)
def stale_checkpoint(run: Any, rng: Random) -> str:
    """An older one has the newest one's name at one start, which refuses."""
    between_attempts(run, rng, checkpoints(run)[1:])
    found = checkpoints(run)
    if run.is_over() or len(found) < 2 or found[0].samefile(found[-1]):
        return NOBODY
    with put_away(run, found) as away:
        shutil.copyfile(away / found[-1].name, found[0])
        run.be_refused()
        found[0].unlink()
    return ""


@fault("plain", "nfs", codes=(REFUSED, *EARLY), weight=4, needs=has_peers)
def stale_view_of_one_rank(run: Any, rng: Random) -> str:
    """One rank sees an older checkpoint under the name, for a moment or longer than it waits."""
    between_attempts(run, rng, checkpoints(run)[1:])
    found = checkpoints(run)
    older = [path for path in found[1:] if not path.samefile(found[0])]
    if run.is_over() or not older or os.geteuid():
        return NOBODY
    seen = run.folder.with_name(f"{run.folder.name}.seen")
    shutil.rmtree(seen, ignore_errors=True)
    seen.mkdir()
    shutil.copyfile(older[0], seen / found[0].name)
    passing = rng.random() < 0.5
    rank = rng.randrange(1, run.world_size)
    with run.stale_view(rank, seen, seconds=1.0 if passing else None):
        if passing:
            run.ensure_running()
            steps(run, 1)
        else:
            run.be_refused()
    return "for a moment" if passing else "for long"


@fault(*EVERYWHERE, codes=(REFUSED, *EARLY), causes=REFUSES, weight=3)
def overwritten_store(run: Any, rng: Random) -> str:
    """Bytes of a token store are overwritten in place between two attempts, the size as it was."""
    between_attempts(run, rng, token_files(run))
    files = [path for path in token_files(run) if path.stat().st_size]
    if run.is_over() or not files:
        return NOBODY
    victim = rng.choice(files)
    before = victim.read_bytes()
    begin = rng.randrange(len(before))
    changed = bytes(byte ^ 0x55 for byte in before[begin : begin + rng.randint(1, 1 << 16)])
    with open(victim, "r+b") as file:
        file.seek(begin)
        file.write(changed)
    run.ensure_running()
    steps(run, 1)
    if not run.is_running() and victim.exists():
        # Refused: a person puts right what the message names.
        victim.write_bytes(before)
    return victim.name
