from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from minimind.data.chunks import Chunk
from minimind.data.tokenize import encoder
from minimind.data.tokenize.encoder import ChunkEncoder, EncoderSpec, encode_in_order, segments
from minimind.errors import MiniMindError
from tests.unit.data.helpers import TEXTS


@pytest.fixture
def spec(tokenizer_path: str) -> EncoderSpec:
    content = (Path(tokenizer_path) / "tokenizer.json").read_text(encoding="utf-8")
    return EncoderSpec(content, bos_id=1, eos_id=2, dtype="uint16", text_field="text")


def rows(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def test_a_document_is_bos_tokens_eos(spec: EncoderSpec) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(spec.tokenizer_json)
    encoded = ChunkEncoder(spec).encode(rows(TEXTS), 1)
    assert encoded.doc_bytes.tolist() == [len(text.encode()) for text in TEXTS]
    ends = np.cumsum(encoded.lengths)
    for text, length, end in zip(TEXTS, encoded.lengths, ends, strict=True):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert encoded.tokens[end - length : end].tolist() == [1, *ids, 2]


def test_long_texts_are_encoded_in_segments(
    spec: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["short", "first line\nsecond line\n" * 20, "x" * 200, "short again"]
    whole = ChunkEncoder(spec).encode(rows(texts), 1)
    sizes = []
    real = ChunkEncoder._batch

    def watched(self: ChunkEncoder, batch: list[str]) -> object:
        sizes.append(sum(map(len, batch)))
        return real(self, batch)

    monkeypatch.setattr(encoder, "SEGMENT_CHARS", 50)
    monkeypatch.setattr(ChunkEncoder, "_batch", watched)
    cut = ChunkEncoder(spec).encode(rows(texts), 1)
    assert max(sizes) <= 2 * 50
    assert len(sizes) > 10
    # A cut after a line's end changes no token; the run of x has no place to cut.
    assert cut.lengths[[0, 1, 3]].tolist() == whole.lengths[[0, 1, 3]].tolist()
    first_two = int(whole.lengths[:2].sum())
    assert cut.tokens[:first_two].tolist() == whole.tokens[:first_two].tolist()


def test_segments_lose_nothing() -> None:
    text = "a line\nanother\n" + "z" * 90 + "\nlast"
    parts = list(segments(text, 30))
    assert "".join(parts) == text
    assert max(map(len, parts)) <= 30
    assert parts[0] == "a line\nanother\n"


@pytest.mark.worker_processes
@pytest.mark.parametrize("n_workers", [1, 3])
def test_results_come_in_order(spec: EncoderSpec, n_workers: int) -> None:
    # Work of very different size, so that a later chunk is done sooner.
    sizes = [3000, 1, 1, 1500, 1, 1, 1, 1]
    chunks = [(i, Chunk(1, rows([f"document {i}"] * n), 0)) for i, n in enumerate(sizes)]
    results = list(encode_in_order(chunks, spec, n_workers))
    assert [key for key, _, _ in results] == list(range(len(sizes)))
    assert [len(encoded.lengths) for _, _, encoded in results] == sizes


@pytest.mark.worker_processes
def test_a_failing_worker_is_an_error_not_a_hang(spec: EncoderSpec) -> None:
    broken = EncoderSpec("{}", None, None, "uint16", "text")
    with pytest.raises(MiniMindError, match="tokenising process ended with code 1"):
        list(encode_in_order([(0, Chunk(1, rows(["a"]), 0))], broken, 1))
    # A mistake of ours within a chunk: the traceback comes along.
    odd = EncoderSpec(spec.tokenizer_json, None, None, "no such type", "text")
    with pytest.raises(MiniMindError, match="Traceback"):
        list(encode_in_order([(0, Chunk(1, rows(["a"]), 0))], odd, 1))
