"""What a file holds, told in milliseconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minimind.errors import WeightsError
from minimind.weights.torch_file import content_digest, load_torch_file


def saved(path: Path, value: float = 1.0, **options: bool) -> Path:
    torch.save({"a": torch.full((64,), value), "step": 3}, path, **options)
    return path


def test_equal_content_has_one_digest_whatever_the_file_is_called(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "one.pt"), saved(tmp_path / ".two.pt.tmp")
    assert first.read_bytes() != second.read_bytes()
    assert content_digest(first) == content_digest(second)


def test_one_other_number_gives_another_digest(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "one.pt"), saved(tmp_path / "two.pt", value=1 + 2**-23)
    assert first.stat().st_size == second.stat().st_size
    assert content_digest(first) != content_digest(second)


def test_a_file_of_another_kind_is_read_as_a_whole(tmp_path: Path) -> None:
    old = saved(tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    before = content_digest(old)
    data = bytearray(old.read_bytes())
    data[len(data) // 2] ^= 1
    old.write_bytes(data)
    assert content_digest(old) != before


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.pt cannot be read: No such file"):
        content_digest(tmp_path / "gone.pt")
    cut = saved(tmp_path / "cut.pt")
    # The end of the archive is there; the directory before it is not.
    cut.write_bytes(cut.read_bytes()[-200:])
    with pytest.raises(WeightsError, match=r"cut\.pt is damaged or not a checkpoint"):
        content_digest(cut)


def test_a_number_that_changed_is_noticed(tmp_path: Path) -> None:
    """torch itself loads it."""
    path = saved(tmp_path / "weights.pth", value=0.0)
    data = bytearray(path.read_bytes())
    data[data.index(bytes(256)) + 100] ^= 1
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["a"].count_nonzero() == 1
    with pytest.raises(WeightsError, match=r"weights\.pth is damaged: record .*data/0 fails its"):
        load_torch_file(path)


def test_weights_that_were_saved_without_checksums_are_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "weights.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(4)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_torch_file(path)["a"].tolist() == [0, 1, 2, 3]
    assert f"{path} was saved without checksums" in caplog.text
