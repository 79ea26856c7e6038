"""``minimind plan`` as a process: a trial on this machine, and a refusal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.corpus import write_corpus

TINY = "--hidden_size 16 --num_hidden_layers 1 --num_attention_heads 2 --num_key_value_heads 1"


def test_a_plan_is_measured_and_writes_nothing(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", 20, seed=1)
    flags = f"{TINY} --max_seq_len 16 --batch_size 2 --compile off --json --data_path".split()
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-m", "minimind", "plan", *flags, str(corpus)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["estimated"] is False
    assert found["seconds_per_update"] > 0
    assert found["memory_bytes"]["measured"] > 100e6
    assert sorted(tmp_path.rglob("*")) == before
