from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from minimind.data.tools.digests import DigestTable


@settings(max_examples=20)
@given(texts=st.lists(st.sampled_from("abcdefgh") | st.text(max_size=3), max_size=60))
def test_repeats_are_all_but_the_first(texts: list[str]) -> None:
    numbers = range(0, 3 * len(texts), 3)  # lines in between hold no row
    with tempfile.TemporaryDirectory() as folder, DigestTable(Path(folder)) as table:
        for number, text in zip(numbers, texts, strict=True):
            table.add(text, number)
        found = table.repeats(3 * len(texts) + 1).nonzero()[0].tolist()
    expected = [n for i, n in enumerate(numbers) if texts[i] in texts[:i]]
    assert found == expected


def test_the_disk_holds_24_bytes_a_text(tmp_path: Path) -> None:
    with DigestTable(tmp_path) as table:
        for number in range(1000):
            table.add(str(number), number)
        assert not table.repeats(1000).any()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 24_000
