"""lm-evaluation-harness scores an exported folder as ``minimind eval`` scores the weights."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from minimind.cli.export import main
from minimind.training.evaluate import score
from tests.corpus import documents, write_corpus
from tests.unit.export.helpers import make_model, write_checkpoint

HARNESS = all(map(importlib.util.find_spec, ("lm_eval", "accelerate")))
GUIDE = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.fixture
def exported(tiny_tokenizer, tmp_path):
    """The folder, some text, and bits per byte as we see them."""
    checkpoint = write_checkpoint(tmp_path / "run.pt", make_model(), tiny_tokenizer)
    out = tmp_path / "hf"
    assert main(["--weight", str(checkpoint), "--format", "hf", "--out", str(out)]) == 0
    write_corpus(tmp_path / "held_out.jsonl", count=12, seed=3)
    # One row, so that no document is cut.
    ours = score(
        checkpoint,
        torch.device("cpu"),
        data_path=[str(tmp_path / "held_out.jsonl")],
        max_seq_len=2560,
        cache_dir=str(tmp_path / "cache"),
    )
    return out, ours["bits_per_byte"]


@torch.inference_mode()
def test_transformers_gives_the_same_bits_per_byte(exported):
    """As the harness does it: begin-of-text before each document, and the text's tokens scored."""
    folder, ours = exported
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    nats, n_bytes = 0.0, 0
    for text in documents(12, seed=3):
        target = tokenizer.encode(text + tokenizer.eos_token)
        # The tokenizer adds no token of its own: a chat template's text has them already.
        assert target[0] != tokenizer.bos_token_id
        assert target[-1] == tokenizer.eos_token_id
        ids = torch.tensor([[tokenizer.bos_token_id, *target]])
        logits = model(input_ids=ids[:, :-1]).logits[0].double()
        nats += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        n_bytes += len(text.encode())
    assert nats / 0.6931471805599453 / n_bytes == pytest.approx(ours, rel=1e-5)


@pytest.mark.skipif(not HARNESS, reason="needs lm_eval and accelerate")
def test_the_guide_s_task_gives_the_same_bits_per_byte(exported, tmp_path, monkeypatch):
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    folder, ours = exported
    guide = GUIDE.read_text(encoding="utf-8")
    (task,) = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    (functions,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "bits.yaml").write_text(task, encoding="utf-8")
    (tmp_path / "task" / "bits.py").write_text(functions, encoding="utf-8")
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={folder},dtype=float32",
        tasks=["minimind_bits"],
        task_manager=TaskManager(include_path=str(tmp_path / "task")),
        device="cpu",
    )
    theirs = found["results"]["minimind_bits"]["bits_per_byte,none"]
    assert theirs == pytest.approx(ours, rel=1e-5)
