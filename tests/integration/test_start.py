"""What the start of a process leaves out: packages that take seconds to import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minimind.data.mixture import open_plan
from minimind.data.tokenize.cache import cache_folder
from minimind.model.architecture import Architecture
from minimind.model.language_model import LanguageModel

HEAVY = {"transformers", "torch._dynamo", "torch._inductor", "sympy"}

REPORT = """
import json, runpy, sys, atexit
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
sys.argv[0] = "minimind"
from minimind.cli import main
sys.exit(main())
"""


def modules_after(*words: object) -> set[str]:
    """What a process of ``minimind`` with these words has imported by its end."""
    command = [sys.executable, "-c", REPORT, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_training_and_sampling_need_neither_transformers_nor_the_compiler(
    tiny_corpus: Path, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    data, tokenizer = ["--data_path", tiny_corpus], ["--tokenizer_path", tiny_tokenizer]
    # The store is warm, as in every start but the first.
    open_plan(
        [str(tiny_corpus)], str(tiny_tokenizer), max_seq_len=32, cache_dir=str(cache_folder(""))
    )
    size = ["--hidden_size", 32, "--num_hidden_layers", 1, "--num_attention_heads", 4]
    rows = ["--max_seq_len", 32, "--batch_size", 2, "--max_steps", 2, "--accumulation_steps", 1]
    run = [*data, *tokenizer, *size, *rows, "--device", "cpu", "--num_workers", 0]
    places = ["--save_dir", tmp_path / "out", "--checkpoint_dir", tmp_path / "checkpoints"]
    loaded = modules_after("pretrain", *run, *places)
    assert "torch" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("command", ["generate", "eval"])
def test_using_weights_needs_neither(
    command: str, tiny_corpus: Path, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    model = LanguageModel(Architecture(vocab_size=400, hidden_size=32, num_hidden_layers=1))
    torch.save(model.state_dict(), tmp_path / "w.pth")
    words = {
        "generate": ["--prompt", "The", "--max_new_tokens", 3],
        "eval": ["--data_path", tiny_corpus, "--max_seq_len", 32, "--cache_dir", tmp_path],
    }[command]
    if command == "eval":
        open_plan([str(tiny_corpus)], str(tiny_tokenizer), max_seq_len=32, cache_dir=str(tmp_path))
    given = ["--weight", tmp_path / "w.pth", "--tokenizer_path", tiny_tokenizer, "--device", "cpu"]
    loaded = modules_after(command, *given, *words)
    assert "torch" in loaded
    assert not loaded & HEAVY
