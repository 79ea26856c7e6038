"""A folder of arrays that is sealed: what its bytes are is written down, and checked as it is read.

``SHA256SUMS``   a digest of every file, as ``sha256sum -c`` reads it
``digests.bin``  uint32, little-endian: the CRC-32 of each block of 65,536 bytes of each array's
                 file (the last block is what is left), one array after the other

The small files are checked when they are opened, a block of an array when a process first reads
any of it. So a file that was changed in place, by a program or a disk, ends a run instead of
falsifying it, and no start has to read a terabyte before it begins. A CRC is for accidents: who
can write to the folder can write new digests, too.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minimind.errors import DataError
from minimind.system.digest import READ_BYTES, sha256_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUMS, DIGESTS = "SHA256SUMS", "digests.bin"
BLOCK_BYTES = 1 << 16
"""About what the system reads ahead of a page anyway; a table of 1/16,384 of the data."""

ALGORITHM = "crc32"
_DIGEST = np.dtype("<u4")


class DamagedFileError(DataError):
    """A file is not what was written. The message names it, and what to do."""


class FileSums:
    """Digests of a file's bytes, of which any number may come at a time."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self._blocks: list[int] = []
        self._block = 0
        self._filled = 0

    @staticmethod
    def of(path: Path) -> FileSums:
        """Of a file that is there."""
        sums = FileSums()
        with open(path, "rb") as file:
            while data := file.read(READ_BYTES):
                sums.update(data)
        return sums

    def update(self, data: bytes) -> None:
        self.sha256.update(data)
        rest = memoryview(data)
        while rest:
            part = rest[: BLOCK_BYTES - self._filled]
            self._block = zlib.crc32(part, self._block)
            self._filled += len(part)
            if self._filled == BLOCK_BYTES:
                self._blocks.append(self._block)
                self._block = self._filled = 0
            rest = rest[len(part) :]

    def blocks(self) -> NDArray[np.uint32]:
        """The CRC-32 of each block."""
        return np.array([*self._blocks, *([self._block] if self._filled else [])], _DIGEST)


def write_digests(folder: Path, arrays: Mapping[str, FileSums]) -> dict[str, Any]:
    """Write the digests of the arrays' blocks; return what their description has to hold."""
    blocks = [sums.blocks() for sums in arrays.values()]
    (folder / DIGESTS).write_bytes(np.concatenate(blocks).tobytes())
    return {"algorithm": ALGORITHM, "block_bytes": BLOCK_BYTES, "arrays": list(arrays)}


def write_sums(folder: Path, arrays: Mapping[str, FileSums], names: Sequence[str]) -> None:
    """Seal files of a folder; of the arrays it is known what was written."""
    known = {name: sums.sha256.hexdigest() for name, sums in arrays.items()}
    lines = [f"{known.get(name) or sha256_of(folder / name).hexdigest()}  {name}" for name in names]
    (folder / SUMS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


class Seal:
    """What ``SHA256SUMS`` says of a folder's files.

    Raises:
        OSError, ValueError: it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        text = (folder / SUMS).read_text(encoding="utf-8")
        digests, names = zip(*(line.split("  ", 1) for line in text.splitlines()), strict=True)
        self._sums = dict(zip(names, digests, strict=True))

    def check(self, name: str) -> None:
        """See that a file is what was written; reads all of it.

        Raises:
            DamagedFileError: it is not.
        """
        if sha256_of(self._folder / name).hexdigest() != self._sums.get(name):
            raise DamagedFileError(f"{self._folder / name} is not what {SUMS} says")

    def open_arrays(
        self, arrays: Mapping[str, NDArray[Any]], description: Mapping[str, Any]
    ) -> list[CheckedArray]:
        """Let memory-mapped arrays be checked as they are read.

        Args:
            arrays: by the names of their files.
            description: what :func:`write_digests` returned.

        Raises:
            DamagedFileError: the digests are not what was written.
            OSError, ValueError, LookupError, TypeError: or are of another kind.
        """
        form = (description["algorithm"], description["block_bytes"], description["arrays"])
        if form != (ALGORITHM, BLOCK_BYTES, list(arrays)):
            raise ValueError(f"digests of {form}")
        self.check(DIGESTS)
        digests = np.memmap(self._folder / DIGESTS, _DIGEST, "r")
        sizes = [(self._folder / name).stat().st_size for name in arrays]
        ends = np.cumsum([-(-size // BLOCK_BYTES) for size in sizes])
        if len(digests) != ends[-1]:
            raise ValueError(f"{len(digests)} digests, not {ends[-1]}")
        own = np.split(digests, ends[:-1])
        pairs = zip(arrays.values(), own, strict=True)
        return [CheckedArray(array, part) for array, part in pairs]


class CheckedArray:
    """A memory-mapped array of one dimension, whose blocks are checked when first read.

    What it is indexed by may be whatever an array takes; ``np.asarray`` checks and gives it all.
    Each process checks for itself.

    Raises:
        DamagedFileError: so does reading, where a block is not what was written.
    """

    def __init__(self, array: NDArray[Any], digests: NDArray[np.uint32]) -> None:
        assert isinstance(array, np.memmap)
        self.shape, self.dtype = array.shape, array.dtype
        self._path, self._begin = Path(str(array.filename)), int(array.offset)
        self._array = array.view(np.ndarray)
        self._bytes = np.memmap(self._path, np.uint8, "r")
        self._digests = digests
        self._is_unchecked = np.ones(len(digests), np.bool_)
        self._n_unchecked = len(digests)
        self._check(np.zeros(1, np.int64))  # the header, which has been read

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, key: Any) -> Any:
        if self._n_unchecked:
            self._check(self._blocks_of(key))
        return self._array[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        self._check(np.arange(len(self._digests)))
        return np.array(self._array, dtype) if copy else np.asarray(self._array, dtype)

    def _blocks_of(self, key: Any) -> NDArray[np.int64]:
        """Numbers of the blocks that are read, some of them more than once."""
        if isinstance(key, slice):
            taken = range(*key.indices(len(self)))
            if not taken:
                return np.empty(0, np.int64)
            first, last = sorted((taken[0], taken[-1]))
            return np.arange(self._block_of(first), self._block_of(last) + 1)
        items = np.asarray(key)
        if items.dtype.kind not in "iu":
            return np.arange(len(self._digests))
        items = items.astype(np.int64).reshape(-1)
        return np.asarray(self._block_of(np.where(items < 0, items + len(self), items)))

    def _block_of(self, item: Any) -> Any:
        # An item is in one block: blocks and headers are multiples of its size.
        return (self._begin + item * self.dtype.itemsize) // BLOCK_BYTES

    def _check(self, blocks: NDArray[np.int64]) -> None:
        for number in np.unique(blocks[self._is_unchecked[blocks]]).tolist():
            begin = number * BLOCK_BYTES
            data = self._bytes[begin : begin + BLOCK_BYTES]
            if zlib.crc32(data.data) != self._digests[number]:
                raise DamagedFileError(
                    f"{self._path}: block {number} (bytes {begin} to {begin + len(data) - 1}) is "
                    "not what was written: the file was changed, or its disk is failing; remove "
                    f"{self._path.parent}, and it is made anew at the next start"
                )
            self._is_unchecked[number] = False
            self._n_unchecked -= 1
