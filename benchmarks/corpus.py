"""The text that benchmarks train on, and what its lengths mean for a trainer that pads."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minimind.data.sample_corpus import make_sample
from minimind.data.tokenize.build import open_corpus

CHARS_PER_TOKEN = 2.74
"""Of the sample corpus under the shipped tokenizer, line ends and document marks included."""

MEAN_TOKENS, SIGMA = 304, 0.6
"""A log-normal with these has the mean length of upstream's own pretraining text, and its
share of real tokens in padded rows: 83 % at 256 and 55 % at 512."""


def benchmark_corpus(work: Path) -> tuple[Path, Path]:
    """Training and held-out text: the sample corpus, cut into documents of usual lengths.

    The sample's own documents are short (124 tokens on average), which would flatter a
    trainer that packs over one that pads.
    """
    folder = work / "corpus"
    made = folder / "train.jsonl", folder / "eval.jsonl"
    if not all(path.exists() for path in made):
        folder.mkdir(parents=True, exist_ok=True)
        sample = make_sample(work / "sample")
        for path in made:
            with open(sample[path.stem][0], encoding="utf-8") as file:
                texts = [json.loads(line)["text"] for line in file]
            lines = (json.dumps({"text": text}, ensure_ascii=False) for text in regroup(texts))
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return made


def regroup(texts: Iterable[str], seed: int = 0) -> Iterator[str]:
    """Cut the lines of all texts, in their order, into documents of the lengths above."""
    generator = random.Random(seed)

    def next_target() -> float:
        median = MEAN_TOKENS / math.exp(SIGMA**2 / 2)
        return CHARS_PER_TOKEN * generator.lognormvariate(math.log(median), SIGMA)

    lines: list[str] = []
    size, target = 0, next_target()
    for text in texts:
        for line in [*text.split("\n"), ""]:
            lines.append(line)
            size += len(line) + 1
            if size >= target:
                yield "\n".join(lines).strip("\n")
                lines, size, target = [], 0, next_target()
    if size:
        yield "\n".join(lines).strip("\n")


@dataclass(frozen=True)
class Padding:
    """What becomes of the documents where each is cut to, and padded to, one row."""

    documents: int
    mean_tokens: float
    fill: float
    """Share of positions that hold a real token."""
    lost: float
    """Share of the text's tokens that are cut off."""

    @staticmethod
    def of(lengths: Sequence[int] | np.ndarray, max_seq_len: int) -> Padding:
        tokens = np.asarray(lengths, np.int64)
        kept = np.minimum(tokens, max_seq_len).sum()
        return Padding(
            documents=len(tokens),
            mean_tokens=float(tokens.mean()),
            fill=float(kept / (len(tokens) * max_seq_len)),
            lost=float(1 - kept / tokens.sum()),
        )

    def __str__(self) -> str:
        return (
            f"{self.documents:,} documents of {self.mean_tokens:.0f} tokens on average; padded "
            f"rows are {self.fill:.0%} text and cut off {self.lost:.0%} of it"
        )


def padding(path: Path, max_seq_len: int, cache_dir: str) -> Padding:
    """Of a jsonl file under the shipped tokenizer."""
    store = open_corpus([str(path)], cache_dir=cache_dir)
    return Padding.of(np.diff(np.asarray(store.offsets, np.int64)), max_seq_len)
