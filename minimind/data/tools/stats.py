"""What a corpus holds, and what rows it would make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minimind.data.chunks import BadRow
from minimind.data.conversations import ChatTemplate
from minimind.data.rows import read_rows, row_place
from minimind.data.tools.digests import DigestTable
from minimind.data.tools.scripts import script_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from minimind.data.token_store import TokenStore

DEFAULT_LENGTHS = (256, 512, 1024, 2048)
PERCENTILES = (10, 25, 50, 75, 90, 99)


def stats(
    paths: Sequence[str],
    *,
    max_seq_lens: Sequence[int] = DEFAULT_LENGTHS,
    text_field: str = "text",
    render_chat: bool = False,
    max_bad_rows: int = -1,
    tokenizer_path: str = "",
    cache_dir: str = "",
    progress: bool = False,
    bos_token: str = "",
    eos_token: str = "",
) -> dict[str, Any]:
    """Count what is in the files; the memory is about 10 MB for a million documents.

    Raises:
        DataError: the data cannot be used, as in a run.
    """
    from minimind.data.inputs import find_files
    from minimind.data.tokenize.build import open_corpus
    from minimind.data.tokenizer import SpecialTokens, load_tokenizer

    files, special = find_files(paths), SpecialTokens(bos_token, eos_token)
    store = open_corpus(
        [str(file) for file in files],
        tokenizer_path,
        text_field=text_field,
        render_chat=render_chat,
        cache_dir=cache_dir,
        max_bad_rows=max_bad_rows,
        progress=progress,
        special=special,
    )
    chat = ChatTemplate.of(load_tokenizer(tokenizer_path, special)) if render_chat else None
    lengths = np.diff(store.offsets).astype(np.int64)
    return {
        "files": [str(file) for file in files],
        "documents": store.n_docs,
        "tokens": store.n_tokens,
        "bytes": store.n_bytes,
        "bytes_per_token": store.n_bytes / store.n_tokens,
        "special_tokens": {"begin": store.bos_id, "end": store.eos_id},
        "lengths": _lengths(lengths),
        "rows": [_rows(store, lengths, length) for length in max_seq_lens],
        **_texts(files, text_field, chat, store.n_docs),
        "rejected": _rejected(store),
    }


def _lengths(lengths: NDArray[np.int64]) -> dict[str, Any]:
    """Tokens a document: extremes, percentiles, and a histogram in powers of two."""
    power = np.frexp(lengths.astype(np.float64))[1] - 1  # 2**power <= length < 2**(power + 1)
    documents = np.bincount(power)
    tokens = np.bincount(power, weights=lengths).astype(np.int64)
    return {
        "min": int(lengths.min()),
        "mean": float(lengths.mean()),
        "max": int(lengths.max()),
        "percentiles": {
            str(p): float(value)
            for p, value in zip(PERCENTILES, np.percentile(lengths, PERCENTILES), strict=True)
        },
        "histogram": [
            {"from": 2**p, "to": 2 ** (p + 1) - 1, "documents": int(d), "tokens": int(t)}
            for p, (d, t) in enumerate(zip(documents, tokens, strict=True))
            if p >= power.min()
        ],
    }


def _rows(store: TokenStore, lengths: NDArray[np.int64], max_seq_len: int) -> dict[str, Any]:
    from minimind.data.packing import plan_rows

    packed = plan_rows(store, max_seq_len)
    kept = np.minimum(lengths, max_seq_len)
    return {
        "max_seq_len": max_seq_len,
        "packed": {"rows": packed.n_rows, "fill": packed.fill},
        "padded": {
            "rows": len(lengths),
            "fill": float(kept.sum()) / (len(lengths) * max_seq_len),
            "truncated_documents": float((lengths > max_seq_len).mean()),
            "truncated_tokens": 1 - float(kept.sum()) / float(lengths.sum()),
        },
    }


def _texts(
    files: Sequence[Path], text_field: str, chat: ChatTemplate | None, n_docs: int
) -> dict[str, Any]:
    """What only the text itself tells: repeats and scripts."""
    from minimind.data.tools.lines import scratch_folder

    scripts: Counter[str] = Counter()
    with scratch_folder() as scratch, DigestTable(scratch) as table:
        number = 0
        for file in files:
            for row in read_rows(file, text_field, chat=chat):
                if isinstance(row, BadRow):
                    continue
                table.add(row.text, number)
                scripts[script_of(row.text)] += 1
                number += 1
        repeats = int(table.repeats(number).sum())
    return {
        "duplicates": {"documents": repeats, "share": repeats / n_docs},
        "scripts": {name: count / number for name, count in scripts.most_common()},
    }


def _rejected(store: TokenStore) -> dict[str, Any]:
    from minimind.data.token_store import REJECTED

    first = next(store.rejected(), None)
    return {
        "count": store.n_rejected,
        "reasons": store.reject_reasons,
        "first": first and row_place(first),
        "list": str(store.path / REJECTED) if first else None,
    }
