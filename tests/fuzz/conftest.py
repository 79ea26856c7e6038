from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

MOST_KILOBYTES = 1 << 20
"""What reading damaged files may cost, over what the imports cost."""


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MOST_KILOBYTES, f"a file of a few kilobytes cost {grown >> 10} MiB"
