"""What others may have laid under a name that they can guess is not taken for ours."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from minimind.system import ownership
from minimind.system.ownership import (
    create_anew,
    holds_only_own_files,
    let_read,
    lets_others_rename,
    open_private,
    own_folder,
    user_on,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir(mode=0o700)
    (made / "file").write_text("ours")
    (made / "file").chmod(0o600)
    return made


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("precious")
    path.chmod(0o600)
    return path


def test_our_own_folder(folder: Path, tmp_path: Path) -> None:
    assert user_on(tmp_path) == os.geteuid()
    assert list(tmp_path.iterdir()) == [folder], "the probe is gone"
    assert holds_only_own_files(folder, os.geteuid())
    (folder / "file").chmod(0o664)  # as a umask of 002 makes it, where nobody can reach it
    assert holds_only_own_files(folder, os.geteuid())


@pytest.mark.parametrize(
    "planted",
    ["link", "second name", "subfolder", "pipe", "writable file", "writable", "linked", "foreign"],
)
def test_what_others_could_have_made(folder: Path, secret: Path, planted: str) -> None:
    user = os.geteuid()
    match planted:
        case "link":
            (folder / "tokens.bin").symlink_to(secret)
        case "second name":
            os.link(secret, folder / "tokens.bin")
        case "subfolder":
            (folder / "plans").mkdir(mode=0o700)
        case "pipe":
            os.mkfifo(folder / "pipe", 0o600)
        case "writable file":
            folder.chmod(0o755)
            (folder / "file").chmod(0o620)
        case "writable":
            folder.chmod(0o702)
        case "linked":
            (folder.parent / "link").symlink_to(folder)
            folder = folder.parent / "link"
        case "foreign":
            user += 1
    assert not holds_only_own_files(folder, user)


@pytest.mark.parametrize("planted", ["link", "second name", "foreign"])
def test_no_file_but_our_own_is_opened(folder: Path, secret: Path, planted: str) -> None:
    path, user = folder / "tokens.bin", os.geteuid()
    if planted == "link":
        path.symlink_to(secret)
    elif planted == "second name":
        os.link(secret, path)
    else:
        user += 1
    with pytest.raises(OSError, match=r"not this user's own file|symbolic links"):
        open_private(path, os.O_RDWR | os.O_CREAT, user)
    assert secret.read_text() == "precious"


def test_a_new_file_takes_the_place_of_a_link(folder: Path, secret: Path) -> None:
    (folder / "probe").symlink_to(secret)
    with os.fdopen(create_anew(folder / "probe"), "w") as file:
        file.write("new")
    assert (folder / "probe").read_text() == "new"
    assert not (folder / "probe").is_symlink()
    assert secret.read_text() == "precious"


def test_readers_of_the_cache_may_read_what_is_finished(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for mode, of_folder, of_file in ((0o2775, 0o2755, 0o644), (0o1777, 0o755, 0o644)):
        cache.chmod(mode)
        let_read(folder, like=cache)
        assert stat.S_IMODE(folder.stat().st_mode) == of_folder
        assert stat.S_IMODE((folder / "file").stat().st_mode) == of_file
    cache.chmod(0o700)
    let_read(folder, like=cache)
    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "mode, rename",
    [(0o700, False), (0o775, False), (0o2775, True), (0o777, True), (0o1777, False)],
)
def test_who_may_put_another_folder_in_the_place_of_ours(
    tmp_path: Path, mode: int, rename: bool
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(mode)
    assert lets_others_rename(cache.stat()) is rename
    assert own_folder(cache / "code") is not rename


def test_a_folder_for_code_is_ours_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_folder(folder)
    monkeypatch.setattr(ownership.os, "geteuid", lambda: os.getuid() + 1)
    assert not own_folder(folder)
