from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from minimind.system import digest
from minimind.system.digest import sha256_of


@pytest.mark.parametrize("size", [0, 3, 4, 9])
def test_a_file_of_any_size_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(digest, "READ_BYTES", 4)
    data = bytes(range(size))
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(tmp_path / "file").hexdigest() == hashlib.sha256(data).hexdigest()
