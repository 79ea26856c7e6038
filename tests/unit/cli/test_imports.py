"""What a command loads before it does anything: torch alone takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.corpus import write_corpus

HEAVY = ("torch", "transformers", "tokenizers", "matplotlib", "swanlab", "tensorboard", "onnx")

RUN_ALL = f"""
import contextlib, io, json, sys
from minimind.cli import main

loaded = {{}}
for name, argv in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = main(argv)
    loaded[name] = [code, *(module for module in {HEAVY} if module in sys.modules)]
print(json.dumps(loaded))
"""


def test_commands_that_need_no_model_load_no_torch(
    tmp_path: Path, tiny_tokenizer: Path, tiny_corpus: Path
) -> None:
    """In one process, one after another: what one of them loads stays for the next."""
    data, folder = str(tiny_corpus), str(tmp_path)
    tokenising = ["--tokenizer_path", str(tiny_tokenizer), "--cache_dir", folder]
    size = ["--vocab_size", "300", "--out", f"{folder}/tokenizer"]
    other = str(write_corpus(tmp_path / "other.jsonl", 5, seed=1))
    split = ["--train", f"{folder}/train.jsonl", "--eval", f"{folder}/eval.jsonl", "--count", "3"]
    commands = [
        ("pretrain, a wrong flag", ["pretrain", "--batch_size", "0"]),
        ("report, no run", ["report", folder]),
        ("data dedup", ["data", "dedup", data, "--out", f"{folder}/dedup.jsonl"]),
        ("data split", ["data", "split", data, *split]),
        ("data stats", ["data", "stats", data, *tokenising]),
        ("data stats, again", ["data", "stats", data, *tokenising]),
        ("data mix", ["data", "mix", *tokenising, "--data_path", f"{data}:0.5", f"{other}:0.5"]),
        ("data preview", ["data", "preview", "--data_path", data, *tokenising]),
        ("inspect", ["inspect", str(tiny_tokenizer)]),
        ("tokenizer train", ["tokenizer", "train", data, *size]),
    ]
    run = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(commands)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    text = ["transformers", "tokenizers"]
    assert json.loads(run.stdout) == {
        "pretrain, a wrong flag": [2],
        "report, no run": [2],
        "data dedup": [0],
        "data split": [0],
        "data stats": [0, *text],
        "data stats, again": [0, *text],
        "data mix": [0, *text],
        "data preview": [0, *text],
        "inspect": [0, *text],
        "tokenizer train": [0, *text],
    }
