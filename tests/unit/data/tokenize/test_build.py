from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import rich.console

from minimind.data.chunks import CHUNK_BYTES
from minimind.data.tokenize.build import open_corpus
from tests.unit.data.helpers import TEXTS, write_jsonl


@pytest.mark.parametrize(
    ("progress", "terminal", "shown"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_progress_is_shown_on_a_terminal_if_wanted(
    tmp_path: Path,
    tokenizer_path: str,
    monkeypatch: pytest.MonkeyPatch,
    progress: bool,
    terminal: bool,
    shown: bool,
) -> None:
    screen = io.StringIO()
    real = rich.console.Console

    def console(**_: Any) -> rich.console.Console:
        return real(file=screen, force_terminal=terminal, width=100)

    monkeypatch.setattr(rich.console, "Console", console)
    data = write_jsonl(tmp_path / "a.jsonl", TEXTS * 100)
    open_corpus([data], tokenizer_path, cache_dir=str(tmp_path / "c"), progress=progress)
    assert ("tokenising" in screen.getvalue()) is shown
    if shown:  # the bar gets to the end
        size = Path(data).stat().st_size / 1000
        assert f"{size:.1f}/{size:.1f} kB" in screen.getvalue()


def test_the_log_tells_how_fast_it_was(
    tmp_path: Path, tokenizer_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    data = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    store = open_corpus([data], tokenizer_path, cache_dir=str(tmp_path / "c"))
    assert f"tokenised {store.n_docs} documents ({store.n_tokens} tokens" in caplog.text


def test_the_caller_hears_how_far_it_is(tmp_path: Path, tokenizer_path: str) -> None:
    data = write_jsonl(tmp_path / "a.jsonl", TEXTS * 10_000)
    heard: list[str] = []
    open_corpus([data], tokenizer_path, cache_dir=str(tmp_path / "c"), report=heard.append)
    assert Path(data).stat().st_size > 2 * CHUNK_BYTES
    shares = [int(text.partition("(")[2].partition("%")[0]) for text in heard]
    assert shares == sorted(shares)
    assert shares[0] < 50 < shares[-1] == 100
    assert heard[-1].endswith("about 0 minutes left")
