"""The readers of ``make fuzz-guided`` read what is valid, and read or refuse what is damaged."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from tests.fuzz.damage import damaged_bytes, fuzz
from tests.fuzz.guided.readers import READERS


@pytest.mark.parametrize("name", READERS)
def test_what_is_valid_is_read(name: str) -> None:
    valid = READERS[name].valid()
    assert valid
    for data in valid:
        assert READERS[name].read(data)


@fuzz(data=st.data(), name=st.sampled_from(sorted(READERS)))
def test_what_is_damaged_is_read_or_refused(data: st.DataObject, name: str) -> None:
    valid = data.draw(st.sampled_from(READERS[name].valid()))
    READERS[name].read(data.draw(damaged_bytes(valid)))
