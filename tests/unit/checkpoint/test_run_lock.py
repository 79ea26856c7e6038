from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from minimind.checkpoint import run_lock as lock_module
from minimind.checkpoint.run_lock import FolderLock, LockLostError
from minimind.errors import ConfigError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "BEAT_SECONDS", 0.05)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.lock"


def owned_by(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**lock_module.this_owner(), **changes}))


def test_acquire_and_release(path: Path) -> None:
    lock = FolderLock(path)
    lock.acquire()
    assert lock.is_mine()
    lock.release()
    assert not path.exists()


def test_a_living_owner_keeps_it(path: Path) -> None:
    first = FolderLock(path)
    first.acquire()
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        FolderLock(path).acquire()
    first.release()
    second = FolderLock(path)
    second.acquire()
    second.release()


def test_a_dead_owner_on_this_machine_loses_it_at_once(path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    owned_by(path, pid=int(dead.stdout))
    lock = FolderLock(path)
    lock.acquire()
    assert lock.is_mine()
    lock.release()


def test_a_number_that_another_process_has_now_is_a_dead_owner(path: Path) -> None:
    owned_by(path, started=1)
    lock = FolderLock(path)
    lock.acquire()
    assert lock.is_mine()
    lock.release()


def test_an_owner_in_another_container_is_judged_by_its_silence(path: Path) -> None:
    owned_by(path, pid_namespace="pid:[1]")
    lock = FolderLock(path, stale_seconds=0.2)
    lock.acquire()
    assert lock.is_mine()
    lock.release()


def test_a_silent_owner_elsewhere_loses_it_after_a_while(path: Path) -> None:
    owned_by(path, host="lost-node", pid=1)
    lock = FolderLock(path, stale_seconds=0.2)
    lock.acquire()
    assert lock.is_mine()
    lock.release()


def test_an_owner_elsewhere_that_still_beats_keeps_it(path: Path) -> None:
    owned_by(path, host="busy-node", pid=1)

    def beat() -> None:
        os.utime(path)

    with pytest.raises(ConfigError, match="on busy-node"):
        FolderLock(path, stale_seconds=60).acquire(check=beat)


def test_a_later_attempt_of_the_same_job_takes_over_and_fences_the_earlier(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    earlier = FolderLock(path)
    earlier.acquire()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    later = FolderLock(path)
    later.acquire()
    with pytest.raises(LockLostError, match="taken over"):
        earlier.ensure_mine()
    later.ensure_mine()
    earlier.release()
    assert later.is_mine()
    later.release()


@pytest.mark.parametrize(("owner", "waits"), [("mine", False), ("other", True)])
def test_only_a_later_attempt_of_the_same_run_does_not_wait_for_a_killed_container(
    path: Path, monkeypatch: pytest.MonkeyPatch, owner: str, waits: bool
) -> None:
    monkeypatch.setenv("MINIMIND_EVENTS", f"/runs/{owner}/events.jsonl")
    monkeypatch.setenv("LAUNCHER_ATTEMPT", "1")
    owned_by(path, pid_namespace="pid:[1]")
    monkeypatch.setenv("MINIMIND_EVENTS", "/runs/mine/events.jsonl")
    monkeypatch.setenv("LAUNCHER_ATTEMPT", "2")

    class Waits(Exception):
        pass

    def wait() -> None:
        raise Waits

    lock = FolderLock(path)
    with pytest.raises(Waits) if waits else contextlib.nullcontext():
        lock.acquire(check=wait)
    assert lock.is_mine() is not waits
    lock.release()


def test_another_job_does_not_take_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    first = FolderLock(path)
    first.acquire()
    monkeypatch.setenv("SLURM_JOB_ID", "43")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "5")
    with pytest.raises(ConfigError, match="Slurm job 42"):
        FolderLock(path).acquire()
    first.release()


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_garbled_lock_file_is_taken_over(path: Path, content: str) -> None:
    path.write_text(content)
    lock = FolderLock(path, stale_seconds=0.1)
    lock.acquire()
    assert lock.is_mine()
    lock.release()


def test_a_full_disk_leaves_no_lock(path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            FolderLock(path).acquire()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(path.parent.iterdir())


def test_what_a_killed_owner_was_writing_is_removed(path: Path) -> None:
    path.with_name(f".{path.name}.0123").touch()
    lock = FolderLock(path)
    lock.acquire()
    assert list(path.parent.iterdir()) == [path]
    lock.release()
    assert not list(path.parent.iterdir())


def test_without_hard_links_only_one_gets_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*paths: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    lock = FolderLock(path)
    lock.acquire()
    assert lock.is_mine()
    with pytest.raises(ConfigError, match="in use by process"):
        FolderLock(path).acquire()
    lock.release()


def test_the_owner_beats(path: Path) -> None:
    lock = FolderLock(path)
    lock.acquire()
    os.utime(path, (1, 1))
    for _ in range(200):
        if path.stat().st_mtime > 1:
            break
        lock._stop.wait(0.05)
    assert path.stat().st_mtime > 1
    lock.release()


def test_only_one_of_many_processes_gets_it(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from minimind.checkpoint.run_lock import FolderLock\n"
        "from minimind.errors import ConfigError\n"
        "lock = FolderLock(Path(sys.argv[1]))\n"
        "try: lock.acquire()\n"
        "except ConfigError: print('busy', flush=True)\n"
        "else: print('mine', flush=True)\n"
        "sys.stdin.read()\n"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    words = [child.stdout.readline().strip() for child in children if child.stdout]
    for child in children:
        child.communicate("")
    assert sorted(words) == ["busy", "busy", "busy", "mine"]
