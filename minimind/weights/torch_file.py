"""Reads what ``torch.save`` wrote, from anybody: nothing is executed, and memory is bounded.

Torch's restricted loader runs no code, but a few kilobytes can still make it fill the memory:
a compressed record, one record under many names, a pickle that asks for a long ``bytearray``.
So the archive and the names in its pickle are looked at first.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
import pickletools
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from minimind.errors import WeightsError
from minimind.system.digest import sha256_of

log = logging.getLogger(__name__)

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_NEEDED = re.compile(
    r"collections OrderedDict"
    r"|torch\._utils _rebuild_(?:tensor|tensor_v2|parameter)"
    r"|torch (?:\w+Storage|Size|device|bfloat16|float16|float32|float64|int64|int32|uint8|bool)"
    r"|torch\.(?:serialization _get_layout|storage UntypedStorage|nn\.parameter Parameter)"
)
"""Globals that tensors and plain values need, of all that torch's loader would allow."""

READ_BYTES = 1 << 20

MOST_PICKLES = 8
"""A file older than torch 1.6 is a few pickles, one after the other, and then the data."""


def verify_file(path: Path, each_block: Callable[[], None] = lambda: None) -> None:
    """Check every record's CRC-32, and that the records are no larger than the file.

    Args:
        each_block: called after each megabyte.

    Raises:
        WeightsError: the file is empty, truncated, changed, or not torch's format.
    """
    with _naming_damage(path), path.open("rb") as file:
        _verify(file, path, each_block)


def load_verified(path: Path, each_block: Callable[[], None] = lambda: None) -> tuple[Any, str]:
    """Verify and load a file; return what it holds, and its :func:`content_digest`.

    It is opened once: a moment later its name may stand for another file.

    Raises:
        WeightsError: as :func:`verify_file` and :func:`load_torch_file`.
    """
    with _naming_damage(path), path.open("rb") as file:
        _verify(file, path, each_block)
        return _load(file, path), _digest(file)


def content_digest(path: Path) -> str:
    """SHA-256 (hex) that two files share only if they hold the same.

    It is over each record's name, size and CRC-32, which are at the file's end: that takes
    milliseconds, and counts for the records only once :func:`verify_file` has checked them. A file
    that is no torch archive, from before torch 1.6 or of another kind, is read as a whole.

    Raises:
        WeightsError: the file cannot be read, or its end is damaged.
    """
    with _naming_damage(path), path.open("rb") as file:
        return _digest(file) if zipfile.is_zipfile(file) else sha256_of(path).hexdigest()


def load_torch_file(path: Path, *, mmap: bool = False) -> Any:
    """Load tensors and plain values, never code, on the CPU.

    Args:
        mmap: leave tensors on the disk; the caller has to verify them.

    Raises:
        WeightsError: the file cannot be read, is damaged, or its pickle asks for code to run.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    with file, _naming_damage(path):
        # torch reads over a wrong checksum.
        if not mmap and zipfile.is_zipfile(file):
            if _has_checksums(file):
                _verify(file, path, lambda: None)
            else:
                log.warning("%s was saved without checksums: damage in it would go unnoticed", path)
        return _load(file, path, mmap=mmap)


@contextlib.contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise WeightsError(f"{path} is damaged or not a checkpoint ({error})") from None
    except (NotImplementedError, RuntimeError, OverflowError) as error:
        raise WeightsError(f"{path} is damaged or not a checkpoint ({error})") from None


def _verify(file: IO[bytes], path: Path, each_block: Callable[[], None]) -> None:
    with zipfile.ZipFile(file) as archive:
        _check_sizes(archive, file, path)
        for record in archive.infolist():
            try:
                with archive.open(record) as stream:
                    while stream.read(READ_BYTES):
                        each_block()
            except zipfile.BadZipFile as error:
                raise WeightsError(
                    f"{path} is damaged: record {record.filename} fails its checksum"
                ) from error


def _has_checksums(file: IO[bytes]) -> bool:
    """False after ``torch.serialization.set_crc32_options(False)``, which writes zeros."""
    with zipfile.ZipFile(file) as archive:
        return any(record.CRC for record in archive.infolist())


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    with zipfile.ZipFile(file) as archive:
        for record in archive.infolist():
            # The folder around all records is named after the temporary file they were written to.
            name = record.filename.partition("/")[2]
            digest.update(f"{name}\0{record.file_size} {record.CRC}\n".encode())
    return digest.hexdigest()


def _load(file: IO[bytes], path: Path, *, mmap: bool = False) -> Any:
    try:
        _refuse_foreign(file, path)
        file.seek(0)
        source = path if mmap else file
        return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    except WeightsError:
        raise
    # torch raises errors of many types on damaged files.
    except Exception as error:
        code = _GLOBAL.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code:
            raise _carries_code(path, code[1]) from None
        raise WeightsError(
            f"{path} is damaged, or no weight file ({type(error).__name__})"
        ) from None


def plain_tensor(value: Any) -> bool:
    """True for a tensor whose values are all stored in the file.

    One that repeats a single stored value a million million times is not, nor is one without
    values: both load in an instant, and break what computes with them.
    """
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _refuse_foreign(file: IO[bytes], path: Path) -> None:
    """Raise WeightsError when the file's pickle needs more than tensors do."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        pickles: Iterator[IO[bytes]] = (file for _ in range(MOST_PICKLES))
        for stream in pickles:
            _refuse_names(stream, path)
        return
    with zipfile.ZipFile(file) as archive:
        _check_sizes(archive, file, path)
        for record in archive.infolist():
            if record.filename.endswith(".pkl"):
                # Zero stands for "no checksum", which zipfile does not know of.
                record.CRC = record.CRC or None  # type: ignore[assignment]
                with archive.open(record) as stream:
                    _refuse_names(stream, path)


def _refuse_names(stream: IO[bytes], path: Path) -> None:
    try:
        for operation, argument, _ in pickletools.genops(stream):
            if operation.name in ("GLOBAL", "INST") and not _NEEDED.fullmatch(str(argument)):
                raise _carries_code(path, str(argument).replace(" ", "."))
    except ValueError:
        # No pickle from here on: torch's loader says what is wrong, if anything is.
        return


def _carries_code(path: Path, name: str) -> WeightsError:
    return WeightsError(
        f"refused: {path} carries code: it asks for the global {name}, which no weight file needs"
    )


def _check_sizes(archive: zipfile.ZipFile, file: IO[bytes], path: Path) -> None:
    """Raise WeightsError for records that would unpack to more than the file holds."""
    records = archive.infolist()
    stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
    size = os.fstat(file.fileno()).st_size
    if not stored or sum(record.file_size for record in records) > size:
        raise WeightsError(f"{path} is refused: torch.save neither compresses nor repeats records")
