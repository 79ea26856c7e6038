from __future__ import annotations

import contextlib
import gzip
import os
import stat
from pathlib import Path

import pytest
import zstandard

from minimind.data.tools.outputs import check_outputs, writing
from minimind.errors import ConfigError, DataError


def test_a_suffix_chooses_the_compression(tmp_path: Path) -> None:
    paths = [tmp_path / "sub" / name for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst")]
    for _ in range(2):
        with writing(paths) as streams:
            for stream in streams:
                stream.write(b"hello\n")
        whole = [path.read_bytes() for path in paths]
        assert whole[0] == b"hello\n"
        assert gzip.decompress(whole[1]) == b"hello\n"
        assert zstandard.ZstdDecompressor().decompressobj().decompress(whole[2]) == b"hello\n"
    assert [path.read_bytes() for path in paths] == whole  # the same bytes each time
    assert sorted(p.name for p in paths[0].parent.iterdir()) == [p.name for p in paths]
    os.umask(mask := os.umask(0o77))
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o666 & ~mask


def test_a_failure_leaves_everything_as_it_was(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b.gz"]
    paths[0].write_text("before")
    with contextlib.suppress(RuntimeError), writing(paths) as streams:
        streams[0].write(b"half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert paths[0].read_text() == "before"


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    message = r"file/out\.jsonl: cannot be written: (Not a directory|File exists)"
    with pytest.raises(DataError, match=message), writing([blocked / "out.jsonl"]):
        pass


def test_outputs_that_would_harm_something(tmp_path: Path) -> None:
    there, new = tmp_path / "there", tmp_path / "new"
    there.touch()
    (tmp_path / "link").symlink_to(there)
    for outputs, message in [
        ([tmp_path / "link"], "is one of the files to read"),
        ([new, tmp_path / "." / "new"], "is named for two outputs"),
        ([tmp_path], "is a folder; name a file"),
    ]:
        with pytest.raises(ConfigError, match=message):
            check_outputs(outputs, [there], overwrite=True)
    with pytest.raises(ConfigError, match="there: exists; add --overwrite to replace it"):
        check_outputs([there], [], overwrite=False)
    check_outputs([there, new], [], overwrite=True)
