"""Files that people hand us in place of text, and the one line that each gets."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from minimind.data.compression import compression_of, named_compression
from minimind.data.formats.head import Head


@dataclass(frozen=True)
class Refused:
    """What a file is, how it is recognised, and what to do about it."""

    what: str
    recognised: Callable[[Head], bool]
    remedy: str


def _begins(*magic: bytes) -> Callable[[Head], bool]:
    return lambda head: head.content.startswith(magic)


def _is_binary(magic: bytes) -> Callable[[Head], bool]:
    """A file that begins with letters, as a text could: ``ORCID,abstract`` is the head of a csv."""
    return lambda head: head.content.startswith(magic) and not head.is_text


def _is_web_page(head: Head) -> bool:
    return re.match(rb"<(!doctype html|html|head|body|\?xml|Error>)", head.text, re.I) is not None


def _is_not_what_its_name_says(head: Head) -> bool:
    named = named_compression(head.path.name)
    return named is not None and head.compression is None and not head.is_text


def _is_compressed_twice(head: Head) -> bool:
    return head.compression is not None and compression_of(head.content) is not None


def _is_packed_parquet(head: Head) -> bool:
    return head.compression is not None and head.content[:6] in (b"PAR1\x15\x04", b"ARROW1")


REFUSED = (
    Refused(
        "a git-lfs pointer, not the data",
        _begins(b"version https://git-lfs.github.com/spec/"),
        "run 'git lfs pull' in its folder",
    ),
    Refused(
        "a git-annex pointer, not the data",
        lambda head: head.is_whole and re.match(rb"(\.\./)*(\.git)?/annex/", head.text) is not None,
        "run 'git annex get' on it",
    ),
    Refused(
        "a web page, as a server sends in place of a file that it does not give",
        _is_web_page,
        "look at its first lines, and download the file again",
    ),
    Refused(
        "text in UTF-16",
        _begins(b"\xff\xfe", b"\xfe\xff"),
        "convert it with 'iconv -f UTF-16 -t UTF-8'",
    ),
    Refused("an encrypted Parquet file", _is_binary(b"PARE"), "decrypt it first"),
    Refused("an ORC file", _is_binary(b"ORC"), "convert it to Parquet"),
    Refused("an Avro file", _begins(b"Obj\x01"), "convert it to Parquet"),
    Refused("a Feather file of version 1", _is_binary(b"FEA1"), "convert it to Parquet"),
    Refused("a SQLite database", _begins(b"SQLite format 3\0"), "export its text as jsonl"),
    Refused("an HDF5 file", _begins(b"\x89HDF\r\n"), "export its text as jsonl"),
    Refused("a PDF", _begins(b"%PDF-"), "extract its text first"),
    Refused("a zip archive", _begins(b"PK\x03\x04", b"PK\x05\x06"), "unpack it first"),
    Refused("a 7z archive", _begins(b"7z\xbc\xaf\x27\x1c"), "unpack it first"),
    Refused("a rar archive", _begins(b"Rar!\x1a\x07"), "unpack it first"),
    Refused("a tar archive", lambda head: head.content[257:262] == b"ustar", "unpack it first"),
    Refused("compressed by lz4", _begins(b"\x04\x22\x4d\x18"), "decompress it with 'lz4 -d'"),
    Refused(
        "compressed by snappy", _begins(b"\xff\x06\0\0sNaPpY"), "decompress it, or use gzip or zstd"
    ),
    Refused("compressed twice", _is_compressed_twice, "decompress it once"),
    Refused("a compressed Parquet or Arrow file", _is_packed_parquet, "decompress it first"),
    Refused(
        "not compressed as its name says, and no text",
        _is_not_what_its_name_says,
        "look at it with 'file', or download it again",
    ),
)
"""In the order to look."""
