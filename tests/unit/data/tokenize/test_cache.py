from __future__ import annotations

import errno
import gzip
import json
import logging
import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zstandard

from minimind.data import chunks as reader
from minimind.data.token_store import DamagedStoreError, TokenStore
from minimind.data.tokenize import build
from minimind.data.tokenize import cache as stores_cache
from minimind.data.tokenize.build import open_corpus
from minimind.data.tokenize.cache import cache_folder
from minimind.errors import DataError
from tests.unit.data.helpers import TEXTS, make_tokenizer, write_jsonl


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write_jsonl(tmp_path / "a.jsonl", TEXTS)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def decoded(store: TokenStore, tokenizer_path: str) -> list[str]:
    from minimind.data.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(tokenizer_path)
    docs = [store.tokens[a:b] for a, b in zip(store.offsets[:-1], store.offsets[1:], strict=True)]
    assert all(doc[0] == store.bos_id and doc[-1] == store.eos_id for doc in docs)
    return [tokenizer.decode(doc[1:-1].tolist()) for doc in docs]


def content(store: TokenStore) -> dict[str, bytes]:
    names = ("tokens.bin", "offsets.npy", "bytes.npy", "rejected.jsonl")
    return {name: (store.path / name).read_bytes() for name in names}


def stores(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


def test_store_holds_the_documents(data: str, cache: Path, tokenizer_path: str) -> None:
    store = open_corpus([data], tokenizer_path, cache_dir=str(cache))
    assert decoded(store, tokenizer_path) == TEXTS
    assert store.n_docs == len(TEXTS)
    assert store.n_tokens == len(store.tokens) == store.offsets[-1]
    assert np.asarray(store.doc_bytes).tolist() == [len(text.encode()) for text in TEXTS]
    assert store.n_bytes == np.asarray(store.doc_bytes).sum()
    assert (store.vocab_size, store.bos_id, store.eos_id, store.pad_id) == (300, 1, 2, 0)
    assert store.tokens.dtype == np.uint16
    assert store.offsets.dtype == np.uint64
    assert store.n_rejected == 0
    assert store.path.parent == cache
    again = pickle.loads(pickle.dumps(store))  # noqa: S301 - our own bytes
    assert np.array_equal(again.tokens, store.tokens)


def test_a_large_vocabulary_needs_four_bytes(tmp_path: Path, data: str, cache: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    folder = Path(make_tokenizer(tmp_path / "large"))
    described = json.loads((folder / "tokenizer.json").read_text())
    # Of the 70,000 more only the last is in the text; added tokens would be slow to load.
    described["model"]["vocab"] |= {f"extra{i}": 300 + i for i in range(69_999)}
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.add_tokens(["<extra 69999>"])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    text = "first <extra 69999> last"
    path = write_jsonl(tmp_path / "b.jsonl", [text])
    store = open_corpus([path], str(folder), cache_dir=str(cache))
    assert store.tokens.dtype == np.uint32
    assert store.vocab_size == 70_300
    assert np.asarray(store.tokens).max() == 70_299
    assert store.pad_id is None


def test_a_tokenizer_without_bos_or_eos(tmp_path: Path, data: str, cache: Path) -> None:
    plain = make_tokenizer(tmp_path / "plain", bos=False, eos=False)
    marked = make_tokenizer(tmp_path / "marked")
    without = open_corpus([data], plain, cache_dir=str(cache))
    with_both = open_corpus([data], marked, cache_dir=str(cache))
    assert without.bos_id is None
    assert without.eos_id is None
    assert np.diff(without.offsets).tolist() == (np.diff(with_both.offsets) - 2).tolist()


def test_files_globs_and_compression_give_the_same_tokens(
    tmp_path: Path, cache: Path, tokenizer_path: str
) -> None:
    one = write_jsonl(tmp_path / "x1.jsonl", TEXTS[:3])
    two = write_jsonl(tmp_path / "x2.jsonl", TEXTS[3:])
    (tmp_path / "z1.jsonl.gz").write_bytes(gzip.compress(Path(one).read_bytes()))
    (tmp_path / "z2.jsonl.zst").write_bytes(zstandard.compress(Path(two).read_bytes()))
    hashes = {
        open_corpus(paths, tokenizer_path, cache_dir=str(cache)).content_hash
        for paths in (
            [one, two],
            [str(tmp_path / "x*.jsonl")],
            [str(tmp_path / "z1.jsonl.gz"), str(tmp_path / "z2*")],
        )
    }
    assert len(hashes) == 1
    other = open_corpus([two, one], tokenizer_path, cache_dir=str(cache))
    assert other.content_hash not in hashes


def test_content_hash_knows_document_borders(tmp_path: Path, cache: Path) -> None:
    plain = make_tokenizer(tmp_path / "plain", bos=False, eos=False)
    hashes = set()
    for i, texts in enumerate((["xyz q", "xyz"], ["xyz", " qxyz"])):
        path = write_jsonl(tmp_path / f"{i}.jsonl", texts)
        hashes.add(open_corpus([path], plain, cache_dir=str(cache)).content_hash)
    assert len(hashes) == 2


def test_the_warm_store_is_opened_without_a_build(
    data: str, cache: Path, tokenizer_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_corpus([data], tokenizer_path, cache_dir=str(cache))
    monkeypatch.setattr(build, "load_tokenizer", lambda _: pytest.fail("tokenizer loaded"))
    second = open_corpus([data], tokenizer_path, cache_dir=str(cache))
    assert second.path == first.path


def test_a_change_of_anything_that_counts_rebuilds(
    tmp_path: Path, data: str, cache: Path, tokenizer_path: str
) -> None:
    def opened(**changes: Any) -> TokenStore:
        given = {"paths": [data], "tokenizer_path": tokenizer_path, **changes}
        return open_corpus(**given, cache_dir=str(cache))

    seen = [opened().path]
    with open(data, "a", encoding="utf-8") as file:
        file.write('{"text": "one more", "content": "other"}\n')
    assert opened().n_docs == len(TEXTS) + 1
    seen.append(opened().path)
    # As long as before, and another time.
    text = Path(data).read_text(encoding="utf-8")
    Path(data).write_text(text.replace("one more", "one less"), encoding="utf-8")
    os.utime(data, ns=(1, 1))
    assert decoded(opened(), tokenizer_path)[-1] == "one less"
    seen.append(opened().path)
    seen.append(opened(text_field="content").path)
    other = make_tokenizer(tmp_path / "other", vocab_size=310)
    assert opened(tokenizer_path=other).vocab_size == 310
    seen.append(opened(tokenizer_path=other).path)
    assert len(set(seen)) == 5
    assert len(stores(cache)) == 5


BAD = [
    (b"{broken", "invalid JSON"),
    (b'{"text": "\xc3\x28"}', "invalid UTF-8"),
    (b'{"other": "x"}', "no field 'text'"),
    (b'{"text": 7}', "not a string"),
    (b"[1]", "not an object"),
    (b'{"text": "  "}', "is empty"),
    (b'{"text": "a\\u0000"}', "NUL byte"),
    (b'{"text": "\\udc00"}', "lone surrogate"),
    (b'{"text": "' + b"x" * 5000 + b'"}', "line longer than 4000 bytes"),
]


def test_bad_rows_are_counted_listed_and_survived(
    tmp_path: Path,
    cache: Path,
    tokenizer_path: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(reader, "MAX_LINE_BYTES", 4000)
    good = write_jsonl(tmp_path / "good.jsonl", TEXTS)
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_bytes(b"".join(line + b'\n{"text": "fine"}\n' for line, _ in BAD))
    caplog.set_level(logging.WARNING)
    store = open_corpus([good, str(mixed)], tokenizer_path, cache_dir=str(cache))
    assert store.n_docs == len(TEXTS) + len(BAD)
    assert store.n_rejected == len(BAD)
    assert sum(store.reject_reasons.values()) == len(BAD)
    listed = list(store.rejected())
    for number, ((line, reason), row) in enumerate(zip(BAD, listed, strict=True)):
        assert row["file"] == str(mixed)
        assert row["line"] == 1 + 2 * number
        assert reason in row["reason"]
        assert row["preview"] == line.decode(errors="replace").strip()[:80]
    assert f"{len(BAD)} rows are unusable" in caplog.text
    assert str(store.path / "rejected.jsonl") in caplog.text


def test_max_bad_rows(tmp_path: Path, cache: Path, tokenizer_path: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "ok"}\n{"text": 1}\n{"text": 2}\n{"text": "ok"}\nrubbish\n')

    def opened(max_bad_rows: int) -> TokenStore:
        return open_corpus(
            [str(path)], tokenizer_path, cache_dir=str(cache), max_bad_rows=max_bad_rows
        )

    for attempt in range(2):  # when it is built, and when it is there already
        with pytest.raises(DataError) as raised:
            opened(2 if attempt else 0)
        message = str(raised.value)
        assert message.startswith(f"3 unusable rows, more than --max_bad_rows {2 * attempt}; ")
        assert f"{path}:2: field 'text' is a number, not a string" in message
        listed = Path(message.partition("(all: ")[2].rstrip(")"))
        assert [json.loads(line)["line"] for line in listed.read_text().splitlines()] == [2, 3, 5]
        assert "\n" not in message
        assert raised.value.exit_code == 2
    assert opened(3).n_docs == 2
    assert opened(-1).n_docs == 2


def test_no_usable_row(tmp_path: Path, cache: Path, tokenizer_path: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"text": 7}\n3\n')
    with pytest.raises(DataError) as raised:
        open_corpus([str(path)], tokenizer_path, cache_dir=str(cache))
    message = str(raised.value)
    assert f"{path}: none of the 2 rows is usable" in message
    assert f"{path}:2: field 'text' is a number" in message
    listed = Path(message.partition("(all: ")[2].rstrip(")"))
    assert len(listed.read_text().splitlines()) == 2
    assert stores(cache) == []


@pytest.mark.parametrize("text", ["", "\n\n  \n"])
def test_an_empty_file(tmp_path: Path, cache: Path, tokenizer_path: str, text: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match="empty: no row of text"):
        open_corpus([str(path)], tokenizer_path, cache_dir=str(cache))
    assert stores(cache) == []


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"missing.jsonl: no such file; check --data_path"),
        ("folder", r"is a folder with no files of text; name the files in it, e.g. '.*/\*.jsonl'"),
        ("fifo", "is not a regular file"),
        ("link", "is a link to a file that does not exist"),
        ("glob", r"no file matches; check --data_path"),
        ("nothing", "no data file is given"),
        ("sample", "data/sample/train.jsonl: no such file; run 'minimind data sample' to make it"),
        ("too long a name", "File name too long"),
        ("truncated", "t.jsonl.gz: damaged or incomplete compressed file"),
    ],
)
def test_input_that_cannot_be_read(
    tmp_path: Path,
    cache: Path,
    tokenizer_path: str,
    kind: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(os.urandom(9999))[:-20])
    paths = {
        "missing": [str(tmp_path / "missing.jsonl")],
        "folder": [str(tmp_path / "empty")],
        "fifo": [str(tmp_path / "fifo")],
        "link": [str(tmp_path / "link")],
        "glob": [str(tmp_path / "*.nothing")],
        "nothing": [],
        "sample": ["data/sample/train.jsonl"],
        "too long a name": ["x" * 5000],
        "truncated": ["t.jsonl.gz"],
    }[kind]
    with pytest.raises(DataError, match=message) as raised:
        open_corpus(paths, tokenizer_path, cache_dir=str(cache))
    assert "\n" not in str(raised.value)
    assert not cache.exists() or stores(cache) == []


def test_a_file_that_changes_meanwhile_is_noticed(
    data: str, cache: Path, tokenizer_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = build.read_chunks

    def growing(path: Path, *start: Any) -> Any:
        yield from real(path, *start)
        with open(path, "a", encoding="utf-8") as file:
            file.write('{"text": "late"}\n')

    monkeypatch.setattr(build, "read_chunks", growing)
    with pytest.raises(DataError, match="changed while it was being read"):
        open_corpus([data], tokenizer_path, cache_dir=str(cache))
    assert stores(cache) == []


@pytest.mark.parametrize(
    "damage", ["tokens cut", "tokens gone", "offsets cut", "meta cut", "meta gone", "format"]
)
def test_a_damaged_store_is_rebuilt(
    data: str, cache: Path, tokenizer_path: str, damage: str
) -> None:
    store = open_corpus([data], tokenizer_path, cache_dir=str(cache))
    before = content(store)
    folder = store.path
    name = {"tokens": "tokens.bin", "offsets": "offsets.npy"}.get(damage.split()[0], "meta.json")
    if damage == "format":
        meta = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**meta, "format_version": 0}))
    elif damage.endswith("gone"):
        (folder / name).unlink()
    else:
        with open(folder / name, "r+b") as file:
            file.truncate(os.path.getsize(folder / name) - 1)
    with pytest.raises(DamagedStoreError):
        TokenStore.open(folder)
    again = open_corpus([data], tokenizer_path, cache_dir=str(cache))
    assert again.path == folder
    assert content(again) == before
    assert stores(cache) == [folder.name]


@pytest.mark.worker_processes
def test_the_store_does_not_depend_on_the_number_of_workers(
    tmp_path: Path, tokenizer_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", 2000)
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": f"{i} " + text * (i % 7)}) for i in range(60) for text in TEXTS]
    lines[100] = "bad"
    lines[250] = "worse"
    path.write_text("\n".join(lines))
    contents = []
    for n_workers in (1, 2, 5):
        cache = str(tmp_path / str(n_workers))
        store = open_corpus([str(path)], tokenizer_path, cache_dir=cache, n_workers=n_workers)
        assert [row["line"] for row in store.rejected()] == [101, 251]
        contents.append((content(store), store.content_hash))
    assert contents[0] == contents[1] == contents[2]


def test_the_loser_of_a_race_takes_the_winners_store(
    data: str, cache: Path, tokenizer_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both build, as they do where locks do not work; the other one is done first."""
    real = build.build_store
    winners = []

    def slower(*args: Any, **options: Any) -> None:
        real(*args, **options)
        monkeypatch.setattr(build, "build_store", real)
        monkeypatch.setattr(stores_cache.FileLock, "acquire", no_locks)
        winners.append(open_corpus([data], tokenizer_path, cache_dir=str(cache)))

    def no_locks(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(build, "build_store", slower)
    mine = open_corpus([data], tokenizer_path, cache_dir=str(cache))
    inode = os.stat(mine.path).st_ino
    assert winners[0].path == mine.path
    assert os.stat(winners[0].path).st_ino == inode
    assert stores(cache) == [mine.path.name]


def test_a_store_that_appears_is_taken_though_the_lock_is_held(
    data: str, cache: Path, tokenizer_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from filelock import FileLock

    ready = open_corpus([data], tokenizer_path, cache_dir=str(cache)).path
    hidden = ready.rename(tmp_path / "hidden")
    monkeypatch.setattr(build, "build_store", lambda *_, **__: pytest.fail("built again"))
    appears = threading.Timer(0.3, hidden.rename, [ready])
    with FileLock(cache / f".{ready.name}.lock"):
        appears.start()
        assert open_corpus([data], tokenizer_path, cache_dir=str(cache)).path == ready
    appears.join()


def test_a_builder_that_is_stuck_is_not_waited_for(
    data: str,
    cache: Path,
    tokenizer_path: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from filelock import FileLock

    path = open_corpus([data], tokenizer_path, cache_dir=str(cache)).path
    (path / "meta.json").unlink()
    monkeypatch.setattr(stores_cache, "STALL_SECONDS", 0.5)
    with FileLock(cache / f".{path.name}.lock"):  # held by somebody who never writes
        store = open_corpus([data], tokenizer_path, cache_dir=str(cache))
    assert store.n_docs == len(TEXTS)
    assert "seems stuck" in caplog.text


def test_abandoned_builds_are_removed_and_live_ones_left(
    data: str, cache: Path, tokenizer_path: str
) -> None:
    from filelock import FileLock

    cache.mkdir()
    long_ago = time.time() - 10_000
    for name in ("dead", "held", "young"):
        folder = cache / f"tokens-{name}-host-1-x.building"
        folder.mkdir()
        (folder / "tokens.bin").write_bytes(b"half")
        if name != "young":
            os.utime(folder / "tokens.bin", (long_ago, long_ago))
    held = FileLock(cache / "tokens-held-host-1-x.building" / "owner.lock")
    with held:
        for folder in cache.glob("*-dead-*"), cache.glob("*-held-*"):
            for path in folder:
                for old in (*path.iterdir(), path):
                    os.utime(old, (long_ago, long_ago))
        open_corpus([data], tokenizer_path, cache_dir=str(cache))
        left = [name for name in stores(cache) if name.endswith(".building")]
    assert left == ["tokens-held-host-1-x.building", "tokens-young-host-1-x.building"]


def test_a_cache_that_cannot_be_written(tmp_path: Path, data: str, tokenizer_path: str) -> None:
    (tmp_path / "file").write_text("")
    for cache in (str(tmp_path / "file"), "/proc/cache"):
        with pytest.raises(DataError, match="point --cache_dir or"):
            open_corpus([data], tokenizer_path, cache_dir=cache)


def test_whoever_may_read_the_cache_may_read_its_stores(
    data: str, cache: Path, tokenizer_path: str
) -> None:
    from minimind.data.packing import plan_rows

    cache.mkdir()
    cache.chmod(0o755)
    store = open_corpus([data], tokenizer_path, cache_dir=str(cache))
    plan_rows(store, 32)
    for folder, _, files in os.walk(store.path):
        assert os.stat(folder).st_mode & 0o055 == 0o055
        assert all(os.stat(Path(folder, name)).st_mode & 0o044 == 0o044 for name in files)


@pytest.mark.worker_processes
def test_a_full_disk(
    data: str, cache: Path, tokenizer_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build.StoreWriter, "add_docs", full)
    before = psutil.Process().children()  # an earlier test's, such as multiprocessing's tracker
    with pytest.raises(DataError, match="No space left on device; free some space there"):
        open_corpus([data], tokenizer_path, cache_dir=str(cache))
    assert psutil.Process().children() == before, "the workers are gone"
    assert stores(cache) == []


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIMIND_CACHE", str(tmp_path / "env"))
    assert cache_folder() == tmp_path / "env"
    assert cache_folder(str(tmp_path / "flag")) == tmp_path / "flag"
    monkeypatch.delenv("MINIMIND_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "minimind"
