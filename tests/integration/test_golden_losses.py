"""Losses of a short run on a small text of our own, so that a change of the numbers is seen.

Write them anew, on purpose, with ``python -m tests.integration.test_golden_losses``.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from minimind.config import TrainConfig
from tests.corpus import write_corpus

GOLDEN = Path(__file__).with_name("golden_losses.json")

VARIANTS: dict[str, dict[str, Any]] = {
    "dense": {},
    "moe": {"use_moe": 1, "num_experts_per_tok": 2},
    "unpacked": {"pack": "none"},
    "muon": {"optimizer": "muon"},
}


def losses(folder: Path, variant: str) -> list[float]:
    """Losses of 30 optimiser steps in float32, with the shipped tokenizer."""
    import torch

    from minimind.rundir.metrics import read_metrics
    from minimind.train_pretrain import pretrain

    torch.set_num_threads(1)
    result = pretrain(
        TrainConfig(
            **VARIANTS[variant],
            device="cpu",
            dtype="float32",
            data_path=[str(write_corpus(folder / "corpus.jsonl", 80, seed=3))],
            cache_dir=str(folder / "cache"),
            save_dir=str(folder / "out"),
            checkpoint_dir=str(folder / "checkpoints"),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_seq_len=64,
            batch_size=2,
            accumulation_steps=2,
            learning_rate=3e-3,
            max_steps=30,
            epochs=3,
            log_interval=10,
            num_workers=0,
            log_level="error",
        )
    )
    return [p["loss"] for p in read_metrics(result.metrics_file) if "loss" in p]


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_are_the_golden_ones(tmp_path: Path, variant: str) -> None:
    expected = json.loads(GOLDEN.read_text())[variant]
    assert losses(tmp_path, variant) == pytest.approx(expected, rel=2e-3)


def write() -> None:
    golden = {}
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            golden[variant] = [round(loss, 6) for loss in losses(Path(folder), variant)]
    GOLDEN.write_text(json.dumps(golden, indent=2) + "\n")


if __name__ == "__main__":
    write()
