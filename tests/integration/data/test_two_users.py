"""Two users of one machine, and a cache folder that both can write. Needs root, to be both."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.needs import lacks
from tests.unit.data.helpers import TEXTS, write_jsonl

ANNA, BEN, TEAM = 54321, 54322, 54330

PROGRAM = """
import logging, os, sys
from minimind.data.packing import plan_rows
from minimind.data.tokenize.build import open_corpus
logging.basicConfig(format="%(message)s", level=logging.INFO)
os.umask(int(sys.argv[1], 8))
store = open_corpus([sys.argv[2]], cache_dir=sys.argv[3], n_workers=1)
plan_rows(store, 32)
print(store.path)
"""

ROOT = Path(__file__).parents[3]


PYTHONS = (os.path.realpath(sys.executable), f"/usr/bin/python3.{sys.version_info.minor}")
"""The first may lie in root's home folder, where nobody else can run it."""


def as_user(user: int, *command: str) -> subprocess.CompletedProcess[str]:
    identity = [f"--reuid={user}", f"--regid={user}", f"--groups={TEAM}"]
    return subprocess.run(
        ["setpriv", *identity, *command],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
    )


@functools.cache
def python_for_all() -> str | None:
    """An interpreter that any user can run, and start again, as the tokenising does."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return None
    code = "import subprocess, sys, minimind.data; subprocess.check_call([sys.executable, '-V'])"
    runs = (python for python in PYTHONS if not as_user(ANNA, python, "-c", code).returncode)
    return next(runs, None)


@pytest.fixture
def place() -> Iterator[Path]:
    if python_for_all() is None:
        lacks("needs root, setpriv, and a Python that others can run")
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        cache = Path(name) / "cache"
        cache.mkdir()
        os.chown(cache, -1, TEAM)
        data = Path(write_jsonl(Path(name) / "a.jsonl", TEXTS))
        data.chmod(0o644)
        yield Path(name)


def opened(user: int, umask: str, place: Path) -> tuple[Path, str]:
    data, cache = str(place / "a.jsonl"), str(place / "cache")
    done = as_user(user, str(python_for_all()), "-c", PROGRAM, umask, data, cache)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip()), done.stderr


def contents(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {str(path): path.stat() for path in [folder, *folder.rglob("*")]}
    return {name: (s.st_ino, s.st_mtime_ns, s.st_uid) for name, s in found.items()}


def test_a_group_shares_a_cache(place: Path) -> None:
    """As docs/data.md says: chgrp and chmod g+rwxs of the folder, and nothing else."""
    (place / "cache").chmod(0o2770)
    annas, _ = opened(ANNA, "077", place)
    before = contents(annas)
    assert all(owner == ANNA for _, _, owner in before.values())
    bens, said = opened(BEN, "077", place)
    assert bens == annas, said
    assert "tokenised" not in said
    assert contents(annas) == before

    # As an older version left one whose owner has a umask of 077: not damaged, and not Ben's.
    for path in annas.rglob("*.json"):
        path.chmod(0o600)
    before = contents(annas)
    bens, said = opened(BEN, "022", place)
    assert bens == annas.with_name(f"{annas.name}-u{BEN}")
    assert "meta.json: cannot be read: Permission denied; its owner can let others read it" in said
    assert contents(annas) == before


def test_where_all_can_write_each_has_a_store(place: Path) -> None:
    """And what one has planted under the name of an unfinished store harms nobody."""
    (place / "cache").chmod(0o1777)
    annas, _ = opened(ANNA, "022", place)
    secret = place / "secret"
    secret.write_text("precious")
    secret.chmod(0o600)
    os.chown(secret, BEN, BEN)
    planted = annas.with_name(f"{annas.name}-u{BEN}-{os.uname().nodename}-1-x.building")
    shutil.copytree(annas, planted)
    sizes = '{"tokens.bin": 0, "lengths.tmp": 0, "bytes.tmp": 0, "rejected.jsonl": 0}'
    (planted / "mark.json").write_text(
        f'{{"source": 0, "place": {{"line": 1, "offset": 0}}, "sizes": {sizes}, "digest": ""}}'
    )
    (planted / "tokens.bin").unlink()
    (planted / "tokens.bin").symlink_to(secret)
    for path in (planted, *planted.rglob("*")):
        os.chown(path, ANNA, ANNA, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(0o777)
    bens, said = opened(BEN, "022", place)
    assert bens == annas.with_name(f"{annas.name}-u{BEN}")
    assert f"{annas} is not used: it belongs to user {ANNA}, and the cache is not opened" in said
    assert secret.read_text() == "precious"
    assert planted.exists()
    assert all(owner == BEN for _, _, owner in contents(bens).values())
