from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nfs import Behaviour, Mount

LONG = 3600.0
"""Seconds for which what is remembered stays so, as far as a test goes."""


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[tuple[Mount, Mount]]:
    server = tmp_path / "server"
    server.mkdir()
    with contextlib.ExitStack() as stack:
        made = []
        for name in ("a", "b"):
            made.append(Mount(server, tmp_path / name, Behaviour(LONG)))
            stack.callback(made[-1].close)
        yield made[0], made[1]
