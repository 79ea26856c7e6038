"""A cache that several people write: what is read, what is left alone, what is made anew."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minimind.data.packing import plan_rows
from minimind.data.token_store import TokenStore, UnreadableStoreError
from minimind.data.tokenize import lookup
from minimind.data.tokenize.build import open_corpus
from minimind.errors import DataError
from tests.unit.data.helpers import TEXTS, write_jsonl

Opened = Callable[[], TokenStore]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    made = tmp_path / "cache"
    made.mkdir()
    return made


@pytest.fixture
def opened(tmp_path: Path, cache: Path, tokenizer_path: str) -> Opened:
    data = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    return lambda: open_corpus([data], tokenizer_path, cache_dir=str(cache), n_workers=1)


only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
COLLEAGUE, ADMIN = 54321, 54322


def give_away(folder: Path) -> None:
    """A colleague has made the store, in a cache folder that somebody else has made."""
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, COLLEAGUE, -1, follow_symlinks=False)
    os.chown(folder.parent, ADMIN, -1)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    found = [folder, *folder.rglob("*")]
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


@only_root
def test_a_colleagues_store_is_read_and_never_written(cache: Path, opened: Opened) -> None:
    cache.chmod(0o2770)
    first = opened()
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o2750
    give_away(first.path)
    before = contents(first.path)
    second = opened()
    assert second.path == first.path
    plan = plan_rows(second, 32)
    assert contents(first.path) == before
    beside = cache / f"{first.path.name}-plans-u0" / "bestfit-32-v1"
    assert beside.is_dir()
    (beside / "plan.json").write_text("damaged")
    assert plan_rows(second, 32).fingerprint == plan.fingerprint
    # One that the colleague has made is as good as the store.
    os.rename(beside.parent, first.path / "plans")
    for path in (first.path / "plans", *(first.path / "plans").rglob("*")):
        os.chown(path, COLLEAGUE, -1)
    plan_rows(second, 32)
    assert not beside.parent.exists()


@only_root
def test_a_colleagues_damaged_store_is_left_alone(cache: Path, opened: Opened) -> None:
    cache.chmod(0o2770)
    first = opened()
    os.truncate(first.path / "tokens.bin", 10)
    give_away(first.path)
    before = contents(first.path)
    second = opened()
    assert second.path == first.path.with_name(f"{first.path.name}-u0")
    assert contents(first.path) == before
    assert opened().path == second.path


@only_root
@pytest.mark.parametrize("mode", [0o755, 0o1777, 0o2777])
def test_in_a_cache_that_is_not_opened_ones_own_is_made(
    cache: Path, opened: Opened, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    caplog.set_level(logging.INFO)
    first = opened()
    cache.chmod(mode)
    give_away(first.path)
    before = contents(first.path)
    second = opened()
    assert second.path == first.path.with_name(f"{first.path.name}-u0")
    assert f"{first.path} is not used: it belongs to user {COLLEAGUE}, and the" in caplog.text
    assert contents(first.path) == before
    give_away(second.path)
    with pytest.raises(DataError, match="-u0 belongs to another user; point --cache_dir"):
        opened()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EACCES])
@pytest.mark.parametrize("name", ["meta.json", "sources.jsonl"])
def test_what_cannot_be_read_is_not_damaged(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    store = opened()
    before = contents(store.path)
    real = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == name:
            raise OSError(number, os.strerror(number), str(path))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        with pytest.raises(UnreadableStoreError, match=f"{name}: cannot be read: ") as raised:
            opened()
    assert raised.value.exit_code == (2 if number == errno.EACCES else 1)
    assert "\n" not in str(raised.value)
    assert contents(store.path) == before
    assert opened().path == store.path


def test_a_plan_that_cannot_be_read_is_made_for_this_run(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened()
    plan = plan_rows(store, 32)
    before = contents(store.path / "plans" / "bestfit-32-v1")
    real = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "plan.json":
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        assert plan_rows(store, 32).fingerprint == plan.fingerprint
    assert "cannot be read" in caplog.text
    assert contents(store.path / "plans" / "bestfit-32-v1") == before


def status(uid: int, mode: int) -> Any:
    return SimpleNamespace(st_uid=uid, st_mode=mode)


@pytest.mark.parametrize(
    "owner, link, mode, cache_owner, cache_mode, reason",
    [
        (7, 7, 0o755, 9, 0o700, ""),  # ours
        (0, 0, 0o755, 9, 0o1777, ""),  # root's
        (9, 9, 0o755, 9, 0o755, ""),  # whose folder it is
        (8, 8, 0o755, 9, 0o2775, ""),  # a colleague's in a group's cache
        (8, 8, 0o775, 9, 0o2775, ""),
        (8, 8, 0o755, 9, 0o775, "belongs to user 8"),  # as a umask of 002 makes any folder
        (8, 8, 0o755, 9, 0o2755, "belongs to user 8"),
        (8, 8, 0o755, 9, 0o2777, "belongs to user 8"),
        (8, 8, 0o755, 9, 0o1777, "belongs to user 8"),
        (7, 8, 0o755, 9, 0o1777, "belongs to user 8"),  # another's link to one of ours
        (7, 7, 0o777, 7, 0o700, "everybody can write to it"),
        (8, 8, 0o757, 9, 0o2775, "everybody can write to it"),
    ],
)
def test_whom_to_trust(
    owner: int, link: int, mode: int, cache_owner: int, cache_mode: int, reason: str
) -> None:
    said = lookup.reason_to_distrust(
        status(owner, mode), status(link, mode), status(cache_owner, cache_mode), me=7
    )
    assert reason in said
    assert bool(reason) is bool(said)
