"""Text that changed is tokenised anew, though its name, size and time are as they were."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from minimind.data.token_store import TokenStore
from minimind.data.tokenize import build, identity
from minimind.data.tokenize.build import open_corpus
from tests.unit.data.helpers import TEXTS, write_jsonl


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = Path(write_jsonl(tmp_path / "a.jsonl", TEXTS))
    monkeypatch.setattr(identity, "TICK_SECONDS", -1.0)
    return path


@pytest.fixture
def opened(data: Path, tmp_path: Path, tokenizer_path: str) -> object:
    def run() -> TokenStore:
        return open_corpus([str(data)], tokenizer_path, cache_dir=str(tmp_path / "c"), n_workers=1)

    return run


def touch(path: Path) -> None:
    """Change the time of its last change of any kind, and nothing else."""
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def read_files(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    read: list[Path] = []
    real = identity.sha256_of
    monkeypatch.setattr(identity, "sha256_of", lambda path, go: read.append(path) or real(path, go))
    return read


def test_text_that_seems_the_same_is_not(data, opened, caplog) -> None:
    first = opened()
    times = data.stat()
    data.write_text(data.read_text(encoding="utf-8").replace("quick", "slow!"), encoding="utf-8")
    os.utime(data, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = opened()
    assert second.path == first.path, "all that its name is made of is as it was"
    assert second.content_hash != first.content_hash
    assert f"{data} changed, though not its size and time: it is tokenised anew" in caplog.text
    assert opened().content_hash == second.content_hash


def test_text_is_read_once_to_see_that_it_is_the_same(data, opened, monkeypatch) -> None:
    opened()
    monkeypatch.setattr(build, "load_tokenizer", lambda _: pytest.fail("tokenised again"))
    read = read_files(monkeypatch)
    opened()
    assert read == [], "nothing has changed at all"
    touch(data)
    opened()
    opened()
    assert read == [data]


def test_a_change_just_now_may_not_be_the_last(data, opened, monkeypatch) -> None:
    monkeypatch.setattr(identity, "TICK_SECONDS", time.time())
    read = read_files(monkeypatch)
    for _ in range(3):
        opened()
    assert read == [data] * 3, "when it was tokenised, and at each start"
