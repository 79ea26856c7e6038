"""Disks, folders, files and clocks that go wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.faults.moments import later, send, some_moment, steps
from tests.chaos.faults.registry import fault
from tests.chaos.faults.signals import ALONE, CRASHED, EARLY, NOBODY, SHIMMED
from tests.chaos.target import wait_for
from tests.shim import slow_fsync, striking

REFUSED = 2


@fault(*SHIMMED, codes=EARLY, weight=2)
def slow_fsync_from_now_on(run: Any, rng: Random) -> None:
    """Every fsync takes up to a tenth of a second longer."""
    run.ensure_running(slow_fsync(run.folder, rng.uniform(0.01, 0.1)))
    steps(run, rng.randint(1, 10))


@fault(*SHIMMED, weight=3)
def clock_step(run: Any, rng: Random) -> str:
    """The wall clock jumps, by up to a month, forwards or backwards."""
    moment = some_moment(run, rng)
    sign = rng.choice((-1, 1))
    run.settings.step_clock(sign * 10 ** rng.uniform(0, 6.4))
    return f"{'back' if sign < 0 else 'forward'} {moment}"


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """The disk with this folder has no byte left."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    yield
    ballast.unlink(missing_ok=True)


def has_own_disk(run: Any) -> bool:
    """Whether the checkpoints lie on a small disk that can be filled."""
    return bool(run.checkpoint_dir.is_mount())


@fault(*ALONE, codes=(CRASHED, REFUSED), weight=2, needs=has_own_disk)
def full_disk(run: Any, rng: Random) -> str:
    """Training goes on, since the last good checkpoint stands."""
    moment = some_moment(run, rng)
    with full(run.checkpoint_dir):
        steps(run, run.steps() + rng.randint(1, 30))
    return moment


@fault(*ALONE, codes=(CRASHED, REFUSED, *EARLY), ends=True, needs=has_own_disk)
def stop_on_a_full_disk(run: Any, rng: Random) -> str:
    """The stop cannot save; what was saved before stays good."""
    moment = some_moment(run, rng)
    with full(run.checkpoint_dir):
        for pid in run.ranks():
            send(pid, signal.SIGTERM)
        wait_for(lambda: not run.is_running(), "the end on a full disk")
    return moment


@fault(*ALONE, codes=(CRASHED, REFUSED), weight=2, needs=has_own_disk)
def read_only_folder(run: Any, rng: Random) -> str:
    moment = some_moment(run, rng)
    # Refused while a file there is open for writing: then the next moment does.
    wait_for(lambda: _remount(run.checkpoint_dir, "ro"), "a moment without open files")
    steps(run, run.steps() + rng.randint(1, 30))
    _remount(run.checkpoint_dir, "rw")
    return moment


def _remount(folder: Path, mode: str) -> bool:
    command = ["mount", "-o", f"remount,{mode}", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


@fault(*ALONE, codes=(CRASHED, REFUSED), weight=2)
def vanished_folder(run: Any, rng: Random) -> str:
    """The output folder is gone for a while, as when a mount is lost, and comes back as it was."""
    moment = some_moment(run, rng)
    if not run.save_dir.exists():
        return "(not there yet)"
    away = run.save_dir.with_name("away")
    os.rename(run.save_dir, away)
    time.sleep(rng.uniform(0, 0.5))
    # What was made anew meanwhile is not what was lost.
    while True:
        shutil.rmtree(run.save_dir, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rename(away, run.save_dir)
            return moment


def damage(path: Path, rng: Random) -> str:
    """Cut a file short, empty it, fill it with zeros, or flip a bit of it."""
    content = bytearray(path.read_bytes())
    how = rng.choice(("cut", "emptied", "zeroed", "bit flipped"))
    if how == "cut":
        del content[rng.randrange(len(content)) :]
    elif how == "emptied":
        content.clear()
    elif how == "zeroed":
        content = bytearray(len(content))
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return how


@fault(*SHIMMED, codes=EARLY, weight=3)
def damaged_checkpoint(run: Any, rng: Random) -> str:
    """The newest checkpoint is damaged between two attempts, where there is an older one."""
    later(run, rng)
    run.rest()
    older = list(run.checkpoint_dir.glob("*.step*.pt"))
    newest = [p for p in run.checkpoint_dir.glob("*.pt") if p.name.count(".") == 1]
    if run.is_over() or not (older and newest):
        return NOBODY
    fresh = newest[0].with_name(".damaged")
    shutil.copyfile(newest[0], fresh)
    how = damage(fresh, rng)
    # Not in place: an older checkpoint may be the same file under another name.
    os.replace(fresh, newest[0])
    return how


def token_files(run: Any) -> list[Path]:
    """The files of the run's token stores that it reads."""
    found = sorted(p for p in run.cache_dir.glob("tokens-*/*") if p.is_file())
    return [p for p in found if p.name != "rejected.jsonl"]


@fault(*SHIMMED, codes=EARLY, weight=2)
def damaged_token_store(run: Any, rng: Random) -> str:
    """A file of the token store is cut short or gone between two attempts."""
    later(run, rng)
    run.rest()
    if run.is_over() or not (files := token_files(run)):
        return NOBODY
    victim = rng.choice(files)
    if rng.random() < 0.5:
        victim.unlink()
        return "file gone"
    os.truncate(victim, rng.randrange(victim.stat().st_size or 1))
    return "file cut"


@fault(*SHIMMED, codes=(-9, CRASHED, *EARLY), causes=("crash",), ends=True, weight=2)
def kill_while_tokenising(run: Any, rng: Random) -> str:
    """The token store is half-written when its writer is killed."""
    run.rest()
    shutil.rmtree(run.cache_dir, ignore_errors=True)
    call = rng.choice(("open", "write", "fsync", "rename"))
    when = rng.choice(("before", "after"))
    at = striking(run.cache_dir, call, rng.randint(1, 6), when, signal.SIGKILL)
    run.ensure_running(at)
    steps(run, 1)
    told = f"{when} {call}" if run.settings.struck() else "(never came)"
    for pid in run.ranks():
        send(pid, signal.SIGKILL)
    return told
