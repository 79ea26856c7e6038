"""What a file is compressed with comes from its first bytes; its name and its links say little."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import struct
from pathlib import Path

import pytest
import zstandard

from minimind.data import compression
from minimind.data.rows import parse_rows, read_texts
from minimind.errors import DataError

ROWS = b"".join(b'{"text": "row %d %s"}\n' % (i, b"abc" * i) for i in range(400))
PRESS = {
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}
TEXTS = list(parse_rows(ROWS, 1, "text"))


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", PRESS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.JSONL.ZST", "a.GZ", "a"])
def test_the_content_decides_not_the_name(tmp_path: Path, suffix: str, name: str) -> None:
    assert list(read_texts(written(tmp_path / name, PRESS[suffix](ROWS)))) == TEXTS


@pytest.mark.parametrize("suffix", PRESS)
def test_plain_text_is_read_whatever_it_is_called(tmp_path: Path, suffix: str) -> None:
    assert list(read_texts(written(tmp_path / f"a.jsonl{suffix}", ROWS))) == TEXTS


@pytest.mark.parametrize("suffix", PRESS)
def test_a_link_to_a_blob_without_a_suffix(tmp_path: Path, suffix: str) -> None:
    written(tmp_path / "0123abcd", PRESS[suffix](ROWS))
    link = tmp_path / f"a.jsonl{suffix}"
    link.symlink_to("0123abcd")
    assert list(read_texts(link)) == TEXTS


@pytest.mark.parametrize("suffix", PRESS)
def test_several_frames_are_one_file(tmp_path: Path, suffix: str) -> None:
    press = PRESS[suffix]
    path = written(tmp_path / f"a{suffix}", press(ROWS[:7000]) + press(b"") + press(ROWS[7000:]))
    assert list(read_texts(path)) == TEXTS


@pytest.mark.parametrize("suffix", PRESS)
@pytest.mark.parametrize("damage", ["cut early", "cut late", "rubbish after"])
def test_damage_is_named(tmp_path: Path, suffix: str, damage: str) -> None:
    data = PRESS[suffix](ROWS)
    found = {"cut early": data[:40], "cut late": data[:-2], "rubbish after": data + b"rubbish x"}
    path = written(tmp_path / f"a.jsonl{suffix}", found[damage])
    with pytest.raises(DataError, match=rf"a\.jsonl{suffix}: damaged or incomplete compressed"):
        list(read_texts(path))


def test_padding_between_xz_streams_hides_nothing(tmp_path: Path) -> None:
    data = lzma.compress(ROWS[:7000]) + bytes(8) + lzma.compress(ROWS[7000:]) + bytes(4)
    assert list(read_texts(written(tmp_path / "a.jsonl.xz", data))) == TEXTS


def test_a_skippable_zstd_frame_may_come_first(tmp_path: Path) -> None:
    skipped = struct.pack("<II", 0x184D2A50, 4) + b"size"
    path = written(tmp_path / "a.jsonl.zst", skipped + zstandard.compress(ROWS) + skipped)
    assert list(read_texts(path)) == TEXTS


def with_window(log: int) -> bytes:
    """A frame as ``zstd --long=LOG`` writes it from a pipe: the window, and no size of content."""
    frame = b"\x28\xb5\x2f\xfd" + bytes([0, (log - 10) << 3])
    for start in range(0, len(ROWS), 100_000):
        block = ROWS[start : start + 100_000]
        is_last = start + 100_000 >= len(ROWS)
        frame += struct.pack("<I", len(block) << 3 | is_last)[:3] + block
    assert zstandard.get_frame_parameters(frame).window_size == 1 << log
    return frame


def test_zstd_with_a_long_window_is_read(tmp_path: Path) -> None:
    assert list(read_texts(written(tmp_path / "a.jsonl.zst", with_window(31)))) == TEXTS


def test_what_the_decoder_declines_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "WINDOW_BYTES", 1 << 20)
    path = written(tmp_path / "a.jsonl.zst", with_window(27))
    with pytest.raises(DataError, match=r"zstd cannot decompress it here: its window") as raised:
        list(read_texts(path))
    assert "damaged" not in str(raised.value)


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
            "git-lfs pointer.*lfs pull",
        ),
        (b"/annex/objects/SHA256E-s1--ab\n", "git-annex pointer.*git annex get"),
        (b"\n<!DOCTYPE html>\n<html>", "web page.*download the file again"),
        (b"<html><body>404", "web page"),
        (b'<?xml version="1.0"?><Error>AccessDenied', "web page"),
        ('{"text": "a"}'.encode("utf-16"), "UTF-16.*iconv"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"ORC\0", "ORC file"),
        (b"PARE\x15\0", "encrypted Parquet"),
        (b"\x04\x22\x4d\x18xx", "lz4"),
        (b"x" * 257 + b"ustar\0", "tar archive"),
        (packed(b"x" * 257 + b"ustar\0"), "tar archive"),
        (packed(packed(ROWS)), "compressed twice"),
        (packed(b"PAR1\x15\x04"), "compressed Parquet"),
        (packed(b"<html>"), "web page"),
        (random.Random(0).randbytes(500), "not compressed as its name says"),
    ],
)
def test_what_is_no_text_is_named_in_one_line(tmp_path: Path, data: bytes, what: str) -> None:
    path = written(tmp_path / "train.jsonl.gz", data)
    with pytest.raises(DataError, match=rf"train\.jsonl\.gz: is .*{what}") as raised:
        list(read_texts(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["ORCHIDS of the islands", "PARENTS and children", "FEA1 sheet"])
def test_a_text_that_begins_as_a_binary_file_is_text(tmp_path: Path, text: str) -> None:
    assert list(read_texts(written(tmp_path / "a.txt", text.encode()))) == [text]
