"""The crash model finds what it is there to find."""

from __future__ import annotations

from pathlib import Path

from tests.shim.crash import MARK, Operation, crashes

ROOT = Path("/root")


def op(call: str, inode: int, path: str, other: str = "", offset: int = 0) -> Operation:
    return Operation(call, inode, offset, f"/root/{path}" if path else "/root", other)


def write(inode: int, path: str, data: bytes, offset: int = 0) -> Operation:
    return op("write", inode, path, data.hex(), offset)


def contents(operations: list[Operation], name: str) -> set[bytes | None]:
    return {crash.files.get(name) for crash in crashes(operations, ROOT)}


FRESH = [op("create", 1, "a"), write(1, "a", b"old"), op("fsync", 1, "a"), op("fsync", 9, "")]


def test_renaming_without_fsync_can_leave_half_a_file() -> None:
    careless = [
        *FRESH,
        op("create", 2, ".a"),
        write(2, ".a", b"newer"),
        op("rename", 2, ".a", "/root/a"),
    ]
    found = contents(careless, "a")
    assert {b"old", b"newer", b"", b"n", b"ne", b"\0\0\0\0\0"} <= found


def test_fsync_before_the_rename_leaves_old_or_new() -> None:
    careful = [
        *FRESH,
        op("create", 2, ".a"),
        write(2, ".a", b"newer"),
        op("fsync", 2, ".a"),
        op("rename", 2, ".a", "/root/a"),
    ]
    assert contents(careful, "a") - contents(FRESH, "a") == {b"newer"}
    synced = list(crashes([*careful, op("fsync", 9, "")], ROOT))
    last = [crash.files["a"] for crash in synced if crash.after == len(careful) + 1]
    assert set(last) <= {b"newer"}, "the new name is safe once the folder is synced"


def test_a_file_whose_name_was_not_synced_can_be_missing() -> None:
    operations = [op("create", 1, "a"), write(1, "a", b"x"), op("fsync", 1, "a")]
    promise = Operation(MARK, 0, 0, "written", "")
    after = [c.files for c in crashes([*operations, promise], ROOT) if c.marks]
    assert {} in after
    assert {"a": b"x"} in after


def test_later_writes_can_arrive_before_earlier_ones() -> None:
    operations = [op("create", 1, "a"), write(1, "a", b"11"), write(1, "a", b"22", offset=2)]
    assert {b"1122", b"11", b"\0\x0022"} <= contents(operations, "a")


def test_a_removed_folder_takes_its_files_along() -> None:
    operations = [
        op("mkdir", 5, "d"),
        op("create", 1, "d/a"),
        op("fsync", 5, "d"),
        op("fsync", 9, ""),
        op("rename", 5, "d", "/root/e"),
    ]
    found = [set(crash.files) for crash in crashes(operations, ROOT)]
    assert {"d/", "d/a"} in found
    assert {"e/", "e/a"} in found
