"""Preparing text takes memory for each row, not for its text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """\
import sys, tracemalloc
from minimind.cli.data import main
main(["dedup", sys.argv[1], "--out", sys.argv[1] + ".warm", "--json", "--overwrite"])
tracemalloc.start()
main(sys.argv[2:])
print(tracemalloc.get_traced_memory()[1], file=sys.stderr)
"""


def peak(warm: Path, *words: str) -> tuple[dict[str, int], int]:
    """What a command says, and the most memory that it held, in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(warm), *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout[done.stdout.rindex("\n{") :]
    return json.loads(said), int(done.stderr)


def test_dedup_and_split_of_a_corpus_larger_than_their_memory(tmp_path: Path) -> None:
    small, large = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    small.write_text('{"text": "warm"}\n')
    n_rows = 12_000
    with open(large, "w") as file:
        for number in range(n_rows):
            file.write(json.dumps({"text": f"{number % 9_000} " + "word " * 1000}) + "\n")
    assert large.stat().st_size > 60e6
    unique, held_out = tmp_path / "unique.jsonl", tmp_path / "held_out.jsonl"
    found, memory = peak(small, "dedup", str(large), "--out", str(unique), "--json")
    assert (found["kept"], found["duplicates"]) == (9_000, 3_000)
    assert memory < 15e6
    words = ["split", str(large), "--train", str(unique), "--overwrite", "--eval", str(held_out)]
    found, memory = peak(small, *words, "--share", "0.25", "--json")
    assert found["train_rows"] + found["eval_rows"] == n_rows
    assert memory < 15e6
