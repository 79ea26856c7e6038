"""Two mounts of one folder see what two clients of an NFS server would."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nfs import Mount, available

pytestmark = pytest.mark.skipif(not available(), reason="mounting needs root and /dev/fuse")

Pair = tuple[Mount, Mount]


@contextlib.contextmanager
def refused(code: int) -> Iterator[None]:
    with pytest.raises(OSError, match=re.escape(os.strerror(code))):
        yield


def replace(path: Path, text: str) -> None:
    fresh = path.with_name("fresh")
    fresh.write_text(text)
    os.replace(fresh, path)


def test_what_one_closes_the_other_opens(mounts: Pair) -> None:
    a, b = mounts
    (a.place / "x").write_text("one")
    assert (b.place / "x").read_text() == "one"
    (a.place / "x").write_text("longer")
    assert (b.place / "x").stat().st_size == 3, "remembered"
    assert (b.place / "x").read_text() == "longer", "opening asks"


def test_an_old_name_leads_to_the_old_file_until_the_folder_is_listed(mounts: Pair) -> None:
    a, b = mounts
    (a.place / "x").write_text("old")
    os.link(a.place / "x", a.place / "kept")
    assert (b.place / "x").read_text() == "old"
    assert not (b.place / "y").exists()
    replace(a.place / "x", "new")
    (a.place / "y").touch()
    assert (b.place / "x").read_text() == "old"
    assert not (b.place / "y").exists()
    assert sorted(os.listdir(b.place)) == ["kept", "x", "y"]
    assert (b.place / "x").read_text() == "new"
    assert (b.place / "y").exists()


def test_what_another_has_replaced_is_stale_where_it_is_open(mounts: Pair) -> None:
    a, b = mounts
    (a.place / "x").write_text("old")
    with (b.place / "x").open("rb", buffering=0) as file:
        replace(a.place / "x", "new")
        with refused(errno.ESTALE):
            file.read()
    assert (b.place / "x").read_text() == "new", "no handle is left: the name is asked for anew"


def test_what_is_removed_here_stays_readable_here(mounts: Pair) -> None:
    a, _ = mounts
    (a.place / "x").write_text("old")
    with (a.place / "x").open("rb", buffering=0) as file:
        replace(a.place / "x", "new")
        assert file.read() == b"old"


def test_appending_at_once_overwrites(mounts: Pair) -> None:
    how = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    first, second = (os.open(mount.place / "log", how) for mount in mounts)
    for descriptor, text in ((first, b"1"), (second, b"2")):
        os.write(descriptor, text)
        os.fsync(descriptor)
        os.close(descriptor)
    assert (mounts[0].place / "log").read_bytes() == b"2"


@pytest.mark.parametrize("name", ["sync_error", "close_error"])
def test_a_refusal_comes_late_and_takes_what_was_written(mounts: Pair, name: str) -> None:
    a, b = mounts
    descriptor = os.open(a.place / "x", os.O_WRONLY | os.O_CREAT)
    with a.behaving(**{name: errno.EDQUOT}):
        os.write(descriptor, b"lost")
        with refused(errno.EDQUOT):
            (os.fsync if name == "sync_error" else os.close)(descriptor)
    assert (b.place / "x").read_bytes() == b""


def test_a_server_that_has_forgotten_its_handles(mounts: Pair) -> None:
    a, _ = mounts
    (a.place / "x").write_text("one")
    with (a.place / "x").open("rb", buffering=0) as file:
        a.behave(epoch=1)
        with refused(errno.ESTALE):
            file.read()
    assert (a.place / "x").read_text() == "one"


def test_without_hard_links(mounts: Pair) -> None:
    a, _ = mounts
    a.behave(links=False)
    (a.place / "x").touch()
    with refused(errno.EOPNOTSUPP):
        os.link(a.place / "x", a.place / "y")
