"""A store says what it holds, and nothing else is trained on."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimind.data.dataloader import make_loader
from minimind.data.packing import plan_rows
from minimind.data.sampler import SkipBatchSampler
from minimind.data.sealed import BLOCK_BYTES, DamagedFileError
from minimind.data.token_store import DamagedStoreError, TokenStore
from minimind.data.tokenize.build import open_corpus
from minimind.errors import DataError
from tests.unit.data.helpers import TEXTS, write_jsonl

SEALED = ("tokens.bin", "offsets.npy", "bytes.npy", "rejected.jsonl", "sources.jsonl", "meta.json")


@pytest.fixture(scope="module")
def made(tokenizer_path: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    data = write_jsonl(folder / "a.jsonl", [f"{text} {i}" for i in range(300) for text in TEXTS])
    return open_corpus([data], tokenizer_path, cache_dir=str(folder), n_workers=1).path


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    copy = tmp_path / made.name
    shutil.copytree(made, copy)
    return copy


def overwrite(path: Path, begin: int, size: int) -> None:
    """As a program does that has the wrong file: in place, and as long as it was."""
    with open(path, "r+b") as file:
        file.seek(begin)
        file.write(b"\x05" * size)


def test_all_of_it_is_sealed_in_a_standard_way(folder: Path) -> None:
    subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder, check=True)
    listed = [line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert sorted(listed) == sorted([*SEALED, "digests.bin"])


def test_a_reader_in_another_language_finds_all_it_needs(folder: Path) -> None:
    store, meta = TokenStore.open(folder), json.loads((folder / "meta.json").read_text())
    assert meta["format_version"] == 2
    for name, array in (
        ("tokens.bin", store.tokens),
        ("offsets.npy", store.offsets),
        ("bytes.npy", store.doc_bytes),
    ):
        form, data = meta["arrays"][name], (folder / name).read_bytes()
        mapped = np.frombuffer(data, form["dtype"], form["length"], form["offset"])
        assert np.array_equal(mapped, np.asarray(array))
    expected = [
        zlib.crc32(data[at : at + BLOCK_BYTES])
        for data in ((folder / name).read_bytes() for name in meta["digests"]["arrays"])
        for at in range(0, len(data), BLOCK_BYTES)
    ]
    assert np.fromfile(folder / "digests.bin", "<u4").tolist() == expected
    assert len(expected) > 4
    (source,) = store.sources()
    text = Path(source["path"]).read_bytes()
    assert (source["size"], source["sha256"]) == (len(text), hashlib.sha256(text).hexdigest())


def test_what_was_overwritten_in_place_is_not_trained_on(folder: Path) -> None:
    """In a worker process too it is one line, not torch's own account of it."""
    overwrite(folder / "tokens.bin", BLOCK_BYTES + 1000, 30_000)
    plan = plan_rows(TokenStore.open(folder), 64)
    sampler = SkipBatchSampler(plan.n_rows, batch_size=64, rank=0, world_size=1, seed=0, epoch=0)
    for workers in (0, 1):
        loader = make_loader(plan, sampler, num_workers=workers, pin_memory=False)
        with pytest.raises(DataError, match=r"tokens.bin: block 1 .*remove .*made anew") as raised:
            list(loader)
        assert str(folder) in str(raised.value)
        assert "\n" not in str(raised.value)
        assert raised.value.exit_code == 2


@pytest.mark.parametrize("name", ["meta.json", "digests.bin", "offsets.npy", "SHA256SUMS"])
def test_what_is_found_when_it_is_opened_is_damage(folder: Path, name: str) -> None:
    if name == "meta.json":
        text = (folder / name).read_text().replace('"eos_id": 2', '"eos_id": 1')
        (folder / name).write_text(text)
    else:
        overwrite(folder / name, 500 if name == "offsets.npy" else 0, 400)
    with pytest.raises(DamagedStoreError):
        TokenStore.open(folder)


def test_a_store_does_not_become_one_of_an_older_format(folder: Path) -> None:
    text = (folder / "meta.json").read_text()
    (folder / "meta.json").write_text(text.replace('"format_version": 2', '"format_version": 1'))
    with pytest.raises(DamagedStoreError, match=r"meta.json is not what SHA256SUMS says"):
        TokenStore.open(folder)


@pytest.mark.parametrize("name", ["starts", "lengths", "row_ptr", "tokens_per_row"])
def test_a_plan_that_was_overwritten_is_not_followed(
    folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = TokenStore.open(folder)
    plan = plan_rows(store, 4)
    rows = np.arange(plan.n_rows)
    expected = plan.build(rows, plan.n_rows)
    (kept,) = (folder / "plans").iterdir()
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=kept).returncode == 0
    size = (kept / f"{name}.npy").stat().st_size
    assert size > BLOCK_BYTES, "the damage is not in the block that is looked at first"
    overwrite(kept / f"{name}.npy", size - 64, 64)
    damaged = plan_rows(store, 4)
    with pytest.raises(DamagedFileError, match=rf"{name}.npy: block .*remove {kept}"):
        damaged.build(rows, plan.n_rows)
    # What is seen at once costs a plan, and is said.
    overwrite(kept / f"{name}.npy", 200, 64)
    again = plan_rows(store, 4)
    assert f"the row plan {kept} is damaged; it is replaced" in caplog.text
    for key, array in again.build(rows, plan.n_rows).items():
        assert np.array_equal(expected[key], array)


def test_another_process_gets_the_same_store_or_an_error(folder: Path, tmp_path: Path) -> None:
    pickled = pickle.dumps(TokenStore.open(folder))
    meta = json.loads((folder / "meta.json").read_text())
    for name in ("SHA256SUMS", "digests.bin"):
        (folder / name).unlink()
    other = {**meta, "format_version": 1, "content_hash": "another", "sources": []}
    (folder / "meta.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="another text was tokenised there meanwhile; start again"):
        pickle.loads(pickled)  # noqa: S301 - our own bytes
    shutil.rmtree(folder)
    with pytest.raises(DataError, match="it was changed while in use; start again"):
        pickle.loads(pickled)  # noqa: S301 - our own bytes


def test_an_older_store_is_read_as_it_is(
    made: Path, tokenizer_path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Version 1: no digests, the sources in meta.json, and another rule for its name."""
    source = TokenStore.open(made).sources()[0]
    given: dict[str, Any] = {
        "paths": [source["path"]],
        "tokenizer_path": tokenizer_path,
        "cache_dir": str(tmp_path),
    }
    from minimind.data.inputs import Source
    from minimind.data.tokenize.cache import store_folder
    from minimind.data.tokenizer import tokenizer_fingerprint

    sources = [Source.of(Path(source["path"]))]
    fingerprint = tokenizer_fingerprint(tokenizer_path)
    old = store_folder(str(tmp_path), sources, "text", fingerprint, 1)
    shutil.copytree(made, old)
    for name in ("SHA256SUMS", "digests.bin", "sources.jsonl"):
        (old / name).unlink()
    meta = json.loads((old / "meta.json").read_text())
    for name in ("arrays", "digests"):
        del meta[name]
    del meta["files"]["sources.jsonl"]
    meta |= {"format_version": 1, "sources": [source]}
    (old / "meta.json").write_text(json.dumps(meta))
    caplog.set_level(logging.INFO)
    store = open_corpus(**given)
    assert store.path == old
    assert store.sources() == [source]
    assert caplog.text.count("is of an older format: its content is not checked") == 1
    assert store.content_hash == TokenStore.open(made).content_hash
    assert plan_rows(store, 64).fingerprint == plan_rows(TokenStore.open(made), 64).fingerprint
