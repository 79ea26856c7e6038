from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from minimind.cli.eval import main
from minimind.data.packing import plan_rows
from minimind.data.tokenize.build import open_corpus
from minimind.errors import ConfigError, DataError
from minimind.weights.pretrained import load_weights
from tests.corpus import write_corpus
from tests.unit.export.helpers import make_model, write_weight


@pytest.fixture
def weight(tiny_tokenizer: Path, tmp_path: Path) -> Path:
    return write_weight(tmp_path / "run", make_model(), tiny_tokenizer)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "text.jsonl", count=9, seed=3)


def evaluate(capsys, *words):
    assert main([*map(str, words), "--json", "--device", "cpu"]) == 0
    return json.loads(capsys.readouterr().out)


@torch.inference_mode()
def nats_by_hand(weight, text, cache, max_seq_len):
    """Every piece of every row on its own: no packing, no mask, no batch."""
    model, _ = load_weights(weight)
    tokenizer = str(json.loads((weight.parent / "tok.json").read_text()))
    plan = plan_rows(open_corpus([str(text)], tokenizer, cache_dir=str(cache)), max_seq_len)
    nats, scored = 0.0, 0
    for start, length in zip(plan.layout.starts, plan.layout.lengths, strict=True):
        ids = torch.from_numpy(plan.store.tokens[start : start + length].astype(np.int64))[None]
        logits = model(input_ids=ids).logits[0, :-1].double()
        nats += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        scored += int(length) - 1
    return nats, scored


def test_loss_perplexity_and_bits_are_those_of_the_text(
    weight, text, tiny_tokenizer, tmp_path, capsys
):
    (weight.parent / "tok.json").write_text(json.dumps(str(tiny_tokenizer)))
    cache = tmp_path / "cache"
    (result,) = evaluate(
        capsys,
        "--weight", weight, "--data-path", text, "--cache_dir", cache, "--max_seq_len", 64,
    )  # fmt: skip
    nats, scored = nats_by_hand(weight, text, cache, 64)
    documents = [json.loads(line)["text"] for line in text.read_text("utf-8").splitlines()]
    n_bytes = sum(len(document.encode()) for document in documents)
    assert result["scored_tokens"] == scored
    assert result["bytes"] == n_bytes
    assert result["documents"] == len(documents)
    assert result["loss"] == pytest.approx(nats / scored, rel=1e-5)
    assert result["perplexity"] == pytest.approx(math.exp(nats / scored), rel=1e-4)
    assert result["bits_per_byte"] == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)


def test_several_weights_are_scored_on_the_same_rows(
    weight, text, tiny_tokenizer, tmp_path, capsys
):
    other = make_model()
    with torch.no_grad():
        other.lm_head.weight.mul_(0.0)  # knows nothing: every token is equally likely
    flat = write_weight(tmp_path / "flat", other, tiny_tokenizer)
    flat_bare = flat.rename(flat.with_name("bare.pth"))  # beside no configuration of its own
    words = ["--data_path", text, "--cache_dir", tmp_path / "cache", "--batch_size", 3]
    words += ["--tokenizer_path", tiny_tokenizer]
    first, second = evaluate(capsys, "--weight", weight, flat_bare, *words)
    assert first["max_seq_len"] == second["max_seq_len"] == 512
    assert second["loss"] == pytest.approx(math.log(384), rel=1e-5)
    assert first["loss"] != second["loss"]


def test_the_line_for_people(weight, text, tmp_path, capsys):
    words = ["--weight", weight, "--data_path", text, "--cache_dir", tmp_path / "cache"]
    assert main([*map(str, words), "--device", "cpu"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{weight}: loss ")
    assert "perplexity" in line
    assert "bits_per_byte" in line


@pytest.mark.parametrize(
    ("words", "error", "complaint"),
    [
        (["--batch_size", "0"], ConfigError, "--batch_size"),
        (["--max_seq_len", "2"], ConfigError, "--max_seq_len"),
        (["--dtype", "float16"], ConfigError, "float16"),
        (["--device", "toaster"], ConfigError, "--device"),
        (["--data_path", "absent.jsonl"], DataError, "absent.jsonl"),
    ],
)
def test_mistakes_are_named(words, error, complaint, weight, text):
    with pytest.raises(error, match=complaint):
        main(["--weight", str(weight), "--data_path", str(text), "--device", "cpu", *words])
