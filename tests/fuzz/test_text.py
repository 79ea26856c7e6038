"""Corpus files and what the pipeline leaves of them."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import example
from hypothesis import strategies as st

from minimind.charts.loss_curve import plot_loss_curve
from minimind.data.chunks import BadRow, Place
from minimind.data.inputs import find_files
from minimind.data.packing import plan_rows
from minimind.data.rows import read_rows, read_texts
from minimind.data.token_store import DamagedStoreError, TokenStore
from minimind.data.tokenize.build import StoreWriter, open_corpus
from minimind.data.tokenize.cache import Mark
from minimind.data.tokenizer import load_tokenizer, tokenizer_fingerprint
from minimind.errors import DataError
from minimind.rundir.metrics import read_metrics
from tests.fuzz.damage import damaged_bytes, damaged_json, damaged_lines, fuzz, in_one_line

ROWS = [{"text": "The harbour was quiet."}, {"text": "清晨的港口很安静。"}, {"text": "x" * 300}]


@fuzz(data=damaged_lines(ROWS), packed=st.sampled_from(["", ".gz", ".zst"]), late=st.booleans())
@example(data=b"[" * 200_000, packed="", late=False)
@example(data=b'{"text": ' + b"9" * 5000 + b"}", packed="", late=False)
def test_jsonl(data: bytes, packed: str, late: bool) -> None:
    press = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[packed]
    blob = press(data)
    if late and packed:
        # Damage to what was compressed, too.
        blob = blob[: len(blob) // 2] + b"\0" + blob[len(blob) // 2 :]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, f"a.jsonl{packed}")
        path.write_bytes(blob)
        try:
            rows = list(read_texts(path))
        except DataError as error:
            # A plain file has bad rows, but no damage.
            wrong = not packed or str(path) not in str(error)
            assert not wrong, error  # noqa: PT017
            return
        for row in rows:
            if isinstance(row, BadRow):
                assert row.reason
                assert len(row.preview) <= 80
            else:
                assert row.encode("utf-8")


JSON_FORMS = [
    json.dumps(ROWS).encode(),
    b"\n".join(json.dumps(row, indent=1).encode() for row in ROWS),
]


def tables() -> dict[str, bytes]:
    """The rows as Parquet, as an Arrow file and as a stream."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"text": [row["text"] for row in ROWS], "n": [{"a": 1}] * len(ROWS)})
    found = {}
    for name, write in {
        "parquet": lambda out: pq.write_table(table, out, row_group_size=2),
        "arrow": lambda out: pa.ipc.new_file(out, table.schema),
        "stream": lambda out: pa.ipc.new_stream(out, table.schema),
    }.items():
        out = io.BytesIO()
        writer = write(out)
        if writer is not None:
            writer.write_table(table)
            writer.close()
        found[name] = out.getvalue()
    return found


def read_all(name: str, data: bytes) -> None:
    """Rows come, good and bad, or one line says what is wrong with the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        for whole in (False, True):
            try:
                for row in read_rows(path, whole=whole):
                    assert row.reason if isinstance(row, BadRow) else row.text.encode("utf-8")
            except DataError as error:
                in_one_line(error)
                assert str(path) in str(error)  # noqa: PT017


@fuzz(data=st.sampled_from(JSON_FORMS).flatmap(damaged_bytes))
@example(data=b"[{" + b"[" * 200_000)
@example(data=b'[{"a": "' + b"\\" * 100_001)
def test_json(data: bytes) -> None:
    read_all("a.json", data)


@fuzz(data=damaged_bytes(b'id,text\n1,"two\nlines"\n2,"a ""b"""\n3,\xe6\xb8\x85\n'))
def test_csv(data: bytes) -> None:
    read_all("a.csv", data)


@fuzz(data=st.data(), kind=st.sampled_from(["parquet", "arrow", "stream"]))
def test_tables(data: st.DataObject, kind: str) -> None:
    pytest.importorskip("pyarrow")
    read_all("a", data.draw(damaged_bytes(tables()[kind])))


@fuzz(data=damaged_lines(ROWS), press=st.sampled_from([bz2.compress, lzma.compress]))
def test_compressed(data: bytes, press: Any) -> None:
    blob = press(data)
    read_all("a", blob)
    read_all("a", blob[: len(blob) // 2] + b"\0" + blob[len(blob) // 2 :])


def test_a_compressed_file_of_a_thousandth_of_its_size(tmp_path: Path) -> None:
    """Nothing of it is held but a line's part; the fixture watches the memory."""
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(150):
            file.write(b"a" * (1 << 20))
    assert path.stat().st_size < 2 << 20
    (row,) = read_texts(path)
    assert isinstance(row, BadRow)


@fuzz(name=st.binary(min_size=1, max_size=20).filter(lambda b: b"/" not in b and b"\0" not in b))
@example(name=b"\xff.jsonl")
@example(name=b"\x1b[31m\n.jsonl")
@example(name=b"[a-")
def test_hostile_file_names(name: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name.decode("utf-8", "surrogateescape")
        if path.name in ("", ".", ".."):
            return
        try:
            path.write_bytes(b'{"text": "a"}\n')
        except OSError:
            return
        for given_path in (str(path), f"{folder}/*"):
            with contextlib.suppress(DataError):
                assert [found.name for found in find_files([given_path])] == [path.name]


TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@fuzz(data=st.data(), which=st.sampled_from(TOKENIZER_FILES))
def test_tokenizer_folders(data: st.DataObject, which: str, tiny_tokenizer: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "tokenizer")
        shutil.copytree(tiny_tokenizer, folder)
        valid = json.loads((folder / which).read_text())
        (folder / which).write_bytes(data.draw(damaged_json(valid)))
        (folder / "tokenization_evil.py").write_text("open('executed', 'w')\n")
        with contextlib.suppress(DataError):
            tokenizer_fingerprint(str(folder))
        with contextlib.suppress(DataError):
            load_tokenizer(str(folder))
        assert not Path("executed").exists()


@pytest.fixture(scope="module")
def store(
    tiny_tokenizer: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> TokenStore:
    cache = tmp_path_factory.mktemp("cache")
    return open_corpus([str(tiny_corpus)], str(tiny_tokenizer), cache_dir=str(cache), n_workers=1)


@fuzz(data=st.data(), which=st.sampled_from(["meta.json", "offsets.npy", "bytes.npy"]))
def test_token_stores(data: st.DataObject, which: str, store: TokenStore) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "store")
        shutil.copytree(store.path, folder)
        whole = (folder / which).read_bytes()
        damage = damaged_json(json.loads(whole)) if which == "meta.json" else damaged_bytes(whole)
        (folder / which).write_bytes(data.draw(damage))
        try:
            opened = TokenStore.open(folder)
        except DamagedStoreError:
            return
        assert opened.tokens.dtype in (np.uint16, np.uint32)
        assert opened.offsets[-1] == len(opened.tokens)


def test_a_store_of_objects_is_refused(store: TokenStore, tmp_path: Path) -> None:
    """numpy would take the bytes of the file for addresses in memory."""
    folder = tmp_path / "store"
    shutil.copytree(store.path, folder)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "dtype": "O"}))
    with pytest.raises(DamagedStoreError, match="tokens of type O"):
        TokenStore.open(folder)


def test_an_array_with_a_broken_header_is_damage(store: TokenStore, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    shutil.copytree(store.path, folder)
    whole = (folder / "offsets.npy").read_bytes()
    place = whole.index(b"(") + 1
    (folder / "offsets.npy").write_bytes(whole[:place] + b"((" + whole[place + 2 :])
    with pytest.raises(DamagedStoreError):
        TokenStore.open(folder)


@fuzz(data=st.data())
def test_row_plans(data: st.DataObject, store: TokenStore) -> None:
    plan = plan_rows(store, 64)
    (kept,) = (store.path / "plans").iterdir()
    original = (kept / "plan.json").read_bytes()
    (kept / "plan.json").write_bytes(data.draw(damaged_json(json.loads(original))))
    again = plan_rows(store, 64)
    (kept / "plan.json").write_bytes(original)
    assert np.array_equal(again.layout.starts, plan.layout.starts)
    assert np.array_equal(again.tokens_per_row, plan.tokens_per_row)


@fuzz(data=st.data())
def test_marks_of_interrupted_builds(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with StoreWriter(folder, "uint16", None) as writer:
            lengths = np.array([2, 3], np.uint64)
            writer.add_docs(np.arange(5, dtype=np.uint16), lengths, 2 * lengths)
            writer.mark(0, Place(2, 40))
        whole = Mark.read(folder)
        path = folder / "mark.json"
        path.write_bytes(data.draw(damaged_json(json.loads(path.read_bytes()))))
        with StoreWriter(folder, "uint16", Mark.read(folder)) as again:
            assert again.begins_at in (None, whole)
            assert again.n_docs == (2 if again.begins_at else 0)


POINTS: list[Any] = [
    {"time": 3.0, "epoch": 0, "step": 1, "iters": 9, "global_step": 1, "total_steps": 9,
     "loss": 5.0, "logits_loss": 5.0, "aux_loss": 0.0, "learning_rate": 1e-3, "tokens": 64},
    {"event": "resumed", "time": 4.0, "epoch": 0, "step": 1, "global_step": 1},
    {"time": 5.0, "epoch": 0, "step": 2, "global_step": 2, "loss": "NaN", "learning_rate": 1e-3},
    {"time": 6.0, "epoch": 0, "step": 2, "global_step": 2, "eval_loss": 4.0},
]  # fmt: skip


@fuzz(data=damaged_lines(POINTS))
def test_metrics(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "metrics.jsonl")
        path.write_bytes(data)
        for record in read_metrics(path):
            assert isinstance(record, dict)


@pytest.mark.parametrize("value", [10**400, [], "x", True, {"a": 1}, -1])
def test_a_point_of_another_type_is_left_out(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [POINTS[0], {**POINTS[0], "step": 2, "global_step": value}]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert read_metrics(path) == [POINTS[0]]
    plot_loss_curve(path, tmp_path / "loss.png")
