"""Small corpora and tokenizers for the tests of ``minimind.data``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minimind.data.chunks import Chunk
from minimind.data.rows import read_chunks
from minimind.data.token_store import TokenStore
from tests.corpus import train_tokenizer

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "预训练脚本负责加载数据、训练模型并保存检查点。",
    "import numpy as np\n\nprint(np.arange(10))\n",
    "Line one\nLine two\n\tindented  line three",
    "一二三四五六七八九十，百千万亿。",
    "emoji 🙂 and ünïcödé",
]


def make_tokenizer(
    folder: Path, vocab_size: int = 300, bos: bool = True, eos: bool = True, texts: Any = TEXTS
) -> str:
    """Train a byte-level BPE tokenizer of its own names and save it as a Hugging Face folder."""
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    left_out = {"bos_token": not bos, "eos_token": not eos}
    kept = {role: name for role, name in names.items() if not left_out.get(role)}
    return str(train_tokenizer(folder, vocab_size, texts, list(names.values()), kept))


def write_jsonl(path: Path, texts: Sequence[str], field: str = "text") -> str:
    path.write_text(
        "".join(json.dumps({field: text}, ensure_ascii=False) + "\n" for text in texts),
        encoding="utf-8",
    )
    return str(path)


def chunks_from_anywhere(path: Path) -> list[Chunk]:
    """A file's chunks, once reading is seen to go on behind each of them with the next."""
    found = list(read_chunks(path, text_field="text"))
    for number, chunk in enumerate(found, 1):
        assert list(read_chunks(path, chunk.end, "text")) == found[number:]
    return found


def make_store(
    path: Path,
    docs: Sequence[Sequence[int]],
    *,
    bos_id: int | None = 1,
    eos_id: int | None = 2,
    pad_id: int | None = 0,
) -> TokenStore:
    """A store of given token ids, in memory but for its folder (where plans are kept)."""
    path.mkdir(parents=True, exist_ok=True)
    lengths = [len(doc) for doc in docs]
    tokens = np.array([token for doc in docs for token in doc], np.uint16)
    return TokenStore(
        path=path,
        tokens=tokens,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint64),
        doc_bytes=np.array(lengths, np.uint32),
        n_docs=len(docs),
        n_tokens=len(tokens),
        n_bytes=len(tokens),
        n_rejected=0,
        content_hash=str(hash((tokens.tobytes(), tuple(lengths)))),
        vocab_size=int(tokens.max(initial=0)) + 1,
        bos_id=bos_id,
        eos_id=eos_id,
        pad_id=pad_id,
        reject_reasons={},
    )
