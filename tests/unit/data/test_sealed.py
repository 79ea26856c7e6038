"""What is read of a sealed folder is what was written, or an error that names the place."""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimind.data import sealed
from minimind.data.sealed import CheckedArray, DamagedFileError, FileSums, Seal

BLOCK = sealed.BLOCK_BYTES
N_ITEMS = 3 * BLOCK // 8 + 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An array over four blocks, the last of them not full."""
    path = tmp_path / "numbers.npy"
    np.save(path, np.arange(N_ITEMS, dtype=np.uint64))
    return path


def opened(path: Path, digests: Any = None) -> CheckedArray:
    if digests is None:
        digests = FileSums.of(path).blocks()
    return CheckedArray(np.load(path, mmap_mode="r"), digests)


def damage(path: Path, *blocks: int) -> None:
    """Flip a bit in the middle of blocks, as it lies there: same file, same size."""
    for block in blocks:
        np.memmap(path, np.uint8, "r+")[block * BLOCK + BLOCK // 2] ^= 1


def item_of(block: int) -> int:
    """An item at the end of a block, far from what is damaged."""
    return (block + 1) * BLOCK // 8 - 17


def test_digests_of_a_file_do_not_depend_on_how_it_was_written(path: Path) -> None:
    whole = path.read_bytes()
    expected = [zlib.crc32(whole[at : at + BLOCK]) for at in range(0, len(whole), BLOCK)]
    assert FileSums.of(path).blocks().tolist() == expected
    for step in (1000, BLOCK, BLOCK + 1, 3 * BLOCK):
        sums = FileSums()
        for at in range(0, len(whole), step):
            sums.update(whole[at : at + step])
        assert sums.blocks().tolist() == expected
        assert sums.sha256.digest() == FileSums.of(path).sha256.digest()


@pytest.mark.parametrize(
    "key",
    [
        *(0, -1, N_ITEMS - 1, np.int64(70), slice(None), slice(10, 20), slice(-5, None)),
        *(slice(20, 10), slice(None, None, -1000), np.array([5, 9000, -1, 5]), [3, 1]),
        *(np.array([], np.int64), np.array([[1, 2], [20_000, 4]]), np.arange(N_ITEMS) % 7 == 0),
    ],
)
def test_it_is_indexed_like_an_array(path: Path, key: Any) -> None:
    assert np.array_equal(opened(path)[key], np.arange(N_ITEMS, dtype=np.uint64)[key])


def test_it_can_be_an_array(path: Path) -> None:
    array = opened(path)
    assert (len(array), array.shape, array.dtype) == (N_ITEMS, (N_ITEMS,), np.uint64)
    assert np.asarray(array, np.float64).sum() == N_ITEMS * (N_ITEMS - 1) / 2
    assert np.diff(array).tolist() == [1] * (N_ITEMS - 1)
    with pytest.raises(IndexError):
        array[N_ITEMS]


@pytest.mark.parametrize(
    "key",
    [
        *(item_of(2), np.int64(item_of(2)), item_of(2) - N_ITEMS, [item_of(1), item_of(2)]),
        *(slice(item_of(1), item_of(3)), slice(item_of(2), item_of(1), -9), slice(None)),
        np.arange(N_ITEMS) == 0,
    ],
)
def test_a_block_that_changed_is_not_read(path: Path, key: Any) -> None:
    digests = FileSums.of(path).blocks()
    damage(path, 2)
    array = opened(path, digests)
    assert array[[item_of(0), item_of(1), item_of(3) - N_ITEMS]].tolist()
    said = rf"numbers.npy: block 2 \(bytes {2 * BLOCK} to {3 * BLOCK - 1}\) is not what was written"
    for _ in range(2):
        with pytest.raises(DamagedFileError, match=said) as raised:
            array[key]
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)  # noqa: S301
    with pytest.raises(DamagedFileError, match="block 2"):
        np.asarray(array)


def test_a_block_is_checked_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    real = zlib.crc32
    digests = FileSums.of(path).blocks()
    monkeypatch.setattr(sealed.zlib, "crc32", lambda data: checked.append(len(data)) or real(data))
    array = opened(path, digests)
    for _ in range(3):
        array[item_of(1)], array[np.array([item_of(1), 3, item_of(1)])]
    assert checked == [BLOCK, BLOCK], "the header's and the item's"
    np.asarray(array)
    np.asarray(array)
    assert len(checked) == 4


def test_the_header_is_checked_first(path: Path) -> None:
    """Another type in it would read other numbers out of blocks that are whole."""
    digests = FileSums.of(path).blocks()
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"'<u8'", b"'<i8'", 1))
    with pytest.raises(DamagedFileError, match="block 0"):
        opened(path, digests)


def test_small_files_and_digests_are_sealed_too(path: Path, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("note")
    sums = {path.name: FileSums.of(path)}
    form = sealed.write_digests(tmp_path, sums)
    sealed.write_sums(tmp_path, sums, (path.name, "note", sealed.DIGESTS))
    seal = Seal(tmp_path)
    for name in (path.name, "note", sealed.DIGESTS):
        seal.check(name)
    arrays = {path.name: np.load(path, mmap_mode="r")}
    (array,) = seal.open_arrays(arrays, form)
    assert array[7] == 7
    with pytest.raises(ValueError, match="digests of"):
        seal.open_arrays(arrays, {**form, "algorithm": "sha256"})
    for name in ("note", sealed.DIGESTS):
        (tmp_path / name).write_bytes(b"\0" * (tmp_path / name).stat().st_size)
        with pytest.raises(DamagedFileError, match=f"{name} is not what SHA256SUMS says"):
            seal.open_arrays(arrays, form) if name == sealed.DIGESTS else seal.check(name)
