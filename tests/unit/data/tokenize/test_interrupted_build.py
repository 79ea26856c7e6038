"""Tokenising that was interrupted goes on where it was, and ends in the very same store."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from filelock import FileLock

from minimind.data import chunks as reader
from minimind.data.chunks import Place
from minimind.data.token_store import TokenStore
from minimind.data.tokenize import build, cache
from minimind.data.tokenize.build import open_corpus
from minimind.data.tokenize.cache import Mark
from minimind.errors import DataError
from tests.unit.data.helpers import TEXTS


def rows(texts: list[str]) -> bytes:
    """Good rows, and among them a bad one, a blank line and one that is too long."""
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    lines[3:3] = ['{"txet": "no text"}', "", json.dumps({"text": "x" * 2000})]
    return "".join(line + "\n" for line in lines).encode()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(reader, "CHUNK_BYTES", 200)
    monkeypatch.setattr(reader, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(build, "MARK_SECONDS", 0.0)
    plain, gz, zst = (tmp_path / f"{i}.jsonl{end}" for i, end in enumerate(("", ".gz", ".zst")))
    plain.write_bytes(b"\xef\xbb\xbf" + rows(TEXTS * 2))
    gz.write_bytes(gzip.compress(rows(TEXTS[::-1])))
    zst.write_bytes(zstandard.compress(rows(TEXTS)))
    return [str(plain), str(gz), str(zst)]


Tokenise = Callable[..., TokenStore]


@pytest.fixture
def tokenise(tmp_path: Path, sources: list[str], tokenizer_path: str) -> Tokenise:
    """``tokenise(cache, stop_after)``: interrupted after so many chunks, if it has as many."""

    def run(
        cache: str,
        stop_after: int | None = None,
        error: BaseException | None = None,
        heard: list[str] | None = None,
    ) -> Any:
        heard = [] if heard is None else heard

        def report(words: str) -> None:
            heard.append(words)
            if len(heard) == stop_after:
                raise error or KeyboardInterrupt

        return open_corpus(
            sources, tokenizer_path, cache_dir=str(tmp_path / cache), report=report, n_workers=1
        )

    return run


def content(store: TokenStore) -> dict[str, Any]:
    files = {path.name: path.read_bytes() for path in store.path.iterdir()}
    files.pop("confirmed.json")  # times, and nothing of the text
    return {**files, "meta.json": json.loads(files["meta.json"])}


def interrupted(tokenise: Tokenise, cache: str, stop_after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        tokenise(cache, stop_after)


def only(tmp_path: Path, pattern: str) -> Path:
    (found,) = tmp_path.glob(pattern)
    return found


@pytest.fixture
def whole(tokenise: Tokenise) -> dict[str, Any]:
    store = tokenise("whole")
    assert store.n_rejected == 6
    return content(store)


@pytest.mark.parametrize("stop_after", range(1, 11))
def test_the_store_is_the_same_wherever_it_was_interrupted(
    tokenise: Tokenise, whole: dict[str, Any], stop_after: int
) -> None:
    interrupted(tokenise, "c", stop_after)
    assert content(tokenise("c")) == whole


def test_nothing_is_read_twice_however_often_it_is_interrupted(
    tokenise: Tokenise,
    whole: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[tuple[Path, Place]] = []
    real = build.read_chunks

    def noting(path: Path, start: Place, field: str) -> Any:
        for chunk in real(path, start, field):
            read.append((path, chunk.end))
            yield chunk

    monkeypatch.setattr(build, "read_chunks", noting)
    attempts = 0
    while True:
        attempts += 1
        try:
            # One chunk is marked and the next is being encoded.
            store = tokenise("c", 2)
        except KeyboardInterrupt:
            continue
        break
    assert attempts > 4
    assert content(store) == whole
    assert [path.name for path in (tmp_path / "c").iterdir() if path.is_dir()] == [store.path.name]
    # What was on its way when the interruption came is read again, and no more.
    assert len(read) <= len(set(read)) + 2 * attempts
    assert len({start for _, start in read}) > attempts


def test_a_failure_leaves_nothing(tokenise: Tokenise, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        tokenise("c", 3, DataError("broken"))
    assert not list(tmp_path.glob("c/*.building"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def change_mark(folder: Path, key: str, value: object) -> None:
    mark = json.loads((folder / "mark.json").read_text())
    (folder / "mark.json").write_text(json.dumps({**mark, key: value}))


@pytest.mark.parametrize(
    "harm, said",
    [
        (lambda f: flip(f / "tokens.bin"), "it is not what its mark says"),
        (lambda f: flip(f / "lengths.tmp"), "it is not what its mark says"),
        (lambda f: os.truncate(f / "bytes.tmp", 4), "bytes.tmp is cut off"),
        (lambda f: (f / "tokens.bin").unlink(), "No such file"),
        (lambda f: (f / "rejected.jsonl").write_bytes(b"\0" * 9999), "Expecting value"),
        (lambda f: change_mark(f, "place", {"line": 2, "offset": 1}), "not what its mark says"),
        (lambda f: change_mark(f, "source", 0), "it is not what its mark says"),
        (lambda f: change_mark(f, "source", float("inf")), ""),
        (lambda f: change_mark(f, "sizes", {}), "tokens.bin"),
        (lambda f: os.truncate(f / "mark.json", 20), ""),
        (lambda f: (f / "mark.json").write_text("[" * 100_000), ""),
    ],
    ids=[
        *("tokens", "lengths", "cut", "gone", "listing", "place", "source", "infinite", "no sizes"),
        *("mark cut", "nested mark"),
    ],
)
def test_what_a_crash_left_damaged_is_not_built_upon(
    harm: Callable[[Path], None],
    said: str,
    tokenise: Tokenise,
    whole: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    interrupted(tokenise, "c", 8)
    harm(only(tmp_path, "c/*.building"))
    assert content(tokenise("c")) == whole
    assert said in caplog.text
    assert ("begun anew" in caplog.text) is bool(said)


@pytest.mark.parametrize("planted", ["link", "second name", "writable", "linked folder", "foreign"])
def test_an_unfinished_store_of_others_is_not_taken_up(
    planted: str,
    tokenise: Tokenise,
    whole: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a shared cache anybody can plant one, with links to what is not theirs to write."""
    interrupted(tokenise, "c", 8)
    building = only(tmp_path, "c/*.building")
    secret = tmp_path / "secret"
    shutil.copy(building / "tokens.bin", secret)
    with open(secret, "ab") as file:
        file.write(b"precious")
    before = secret.read_bytes()
    if planted in ("link", "second name"):
        (building / "tokens.bin").unlink()
        (os.symlink if planted == "link" else os.link)(secret, building / "tokens.bin")
    elif planted == "writable":
        building.chmod(0o777)
    elif planted == "linked folder":
        os.rename(building, tmp_path / "elsewhere")
        building.symlink_to(tmp_path / "elsewhere")
    else:
        # Only root could give it to another user, so another one looks at it.
        holds, user_on = cache.holds_only_own_files, cache.user_on
        monkeypatch.setattr(
            cache, "holds_only_own_files", lambda folder, user: holds(folder, user + 1)
        )
        monkeypatch.setattr(cache, "user_on", lambda folder: user_on(folder) + 1)
    age(building, 8 * 24 * 3600)
    assert content(tokenise("c")) == whole
    assert secret.read_bytes() == before
    assert building.exists() or planted not in ("linked folder", "foreign"), "not ours to remove"


def test_what_is_unfinished_is_for_this_user_alone(tokenise: Tokenise, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c").chmod(0o777)
    interrupted(tokenise, "c", 4)
    assert only(tmp_path, "c/*.building").stat().st_mode & 0o077 == 0


def renamed(building: Path, host: str) -> Path:
    store = building.name[: len("tokens-") + 32]
    return building.rename(building.with_name(f"{store}-{host}-1-x.building"))


def age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in [*folder.iterdir(), folder]:
        os.utime(path, (then, then))


@pytest.mark.parametrize("seconds, goes_on", [(0.0, False), (200.0, True)])
def test_another_machines_build_is_taken_up_once_it_is_silent(
    seconds: float,
    goes_on: bool,
    tokenise: Tokenise,
    whole: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    interrupted(tokenise, "c", 8)
    elsewhere = renamed(only(tmp_path, "c/*.building"), "elsewhere")
    age(elsewhere, seconds)
    assert content(tokenise("c")) == whole
    assert ("going on with an interrupted build" in caplog.text) is goes_on
    assert elsewhere.exists() is not goes_on


def test_a_build_that_somebody_holds_is_not_taken_up(
    tokenise: Tokenise, whole: dict[str, Any], tmp_path: Path
) -> None:
    interrupted(tokenise, "c", 8)
    building = only(tmp_path, "c/*.building")
    with FileLock(building / "owner.lock"):
        assert content(tokenise("c")) == whole
    assert Mark.read(building) is not None


def test_of_two_that_go_on_one_begins_anew(
    tokenise: Tokenise, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where locks mean nothing both may try; the folder can be renamed once."""
    interrupted(tokenise, "c", 8)
    real = os.rename

    def late(source: Any, target: Any) -> None:
        if str(source).endswith(".building") and str(target).endswith(".building"):
            shutil.move(source, tmp_path / "the other's")
        real(source, target)

    monkeypatch.setattr(cache.os, "rename", late)
    assert content(tokenise("c")) == whole


def test_an_interrupted_build_is_kept_for_a_week(
    tokenise: Tokenise, tmp_path: Path, tokenizer_path: str
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "another corpus"}\n')
    interrupted(tokenise, "c", 8)
    building = only(tmp_path, "c/*.building")
    for days, stays in ((6, True), (8, False)):
        age(building, days * 24 * 3600)
        shutil.rmtree(tmp_path / "c" / "store", ignore_errors=True)
        other.write_text(f'{{"text": "another corpus, {days}"}}\n')
        open_corpus([str(other)], tokenizer_path, cache_dir=str(tmp_path / "c"))
        assert building.exists() is stays


def test_what_is_said_of_its_progress_goes_on_too(tokenise: Tokenise) -> None:
    before: list[str] = []
    after: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        tokenise("c", 8, heard=before)
    tokenise("c", heard=after)

    def share(words: str) -> int:
        return int(words.partition("(")[2].partition("%")[0])

    assert [share(words) for words in before] == sorted(share(words) for words in before)
    assert share(before[-1]) <= share(after[0])
    # How long the rest takes, only what was done now can tell.
    assert "minutes left" in before[0]
    assert "minutes left" not in after[0]
    assert share(after[-1]) == 100
