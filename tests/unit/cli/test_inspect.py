from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from minimind.cli.export import main as export
from minimind.cli.inspect import inspect, main
from minimind.data.tokenize.build import open_corpus
from tests.unit.export.helpers import make_model, write_checkpoint, write_weight


@pytest.fixture
def checkpoint(tiny_tokenizer: Path, tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "run.pt", make_model(), tiny_tokenizer)


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 0xFF
    file.write_bytes(data)


def test_a_checkpoint(checkpoint):
    found = inspect(checkpoint)
    assert found.kind == "checkpoint"
    assert found.problems == []
    assert found.facts["global_step"] == 20
    assert found.facts["tokens"] == 12345
    assert "2 layers of 32" in found.facts["shape"]
    assert "float32" in found.facts["parameters"]
    assert len(found.lines()) <= 12


def test_a_damaged_checkpoint_is_told(checkpoint):
    flip(checkpoint, checkpoint.stat().st_size // 2)
    assert any("checksum" in problem for problem in inspect(checkpoint).problems)


def test_weights_and_what_is_wrong_with_them(tiny_tokenizer, tmp_path):
    model = make_model(use_moe=True)
    weight = write_weight(tmp_path / "run", model, tiny_tokenizer)
    found = inspect(weight)
    assert (found.kind, found.problems) == ("weights", [])
    assert "4 experts" in found.facts["shape"]
    assert found.facts["parameters"].endswith("float16")
    state = torch.load(weight, weights_only=True)
    state["model.norm.weight"][3] = float("nan")
    del state["model.layers.1.mlp.gate.weight"]
    torch.save(state, weight)
    problems = " ".join(inspect(weight).problems)
    assert "model.norm.weight" in problems
    assert "model.layers.1.mlp.gate.weight" in problems


def test_a_file_that_carries_code_is_not_run(tmp_path):
    torch.save({"model": print}, tmp_path / "bad.pth")
    assert any("refused" in problem for problem in inspect(tmp_path / "bad.pth").problems)


def test_a_model_folder_and_its_tokenizer(checkpoint, tmp_path):
    export(["--weight", str(checkpoint), "--format", "hf", "--out", str(tmp_path / "hf")])
    found = inspect(tmp_path / "hf")
    assert (found.kind, found.problems) == ("Hugging Face model folder", [])
    assert found.facts["architecture"] == "Qwen3ForCausalLM"
    assert found.facts["tokenizer"].startswith("384 entries, bos 1, eos 2, pad 0")
    file = tmp_path / "hf" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert any("damaged" in problem for problem in inspect(tmp_path / "hf").problems)


@pytest.mark.parametrize(
    ("dtype", "precision", "model"),
    [
        ("float16", "F16", {}),
        ("q8_0", "Q8_0", {"intermediate_size": 64}),
        ("float32", "F32", {"use_moe": True}),
    ],
)
def test_a_gguf_file(dtype, precision, model, tiny_tokenizer, tmp_path):
    pytest.importorskip("gguf")
    checkpoint = write_checkpoint(tmp_path / "run.pt", make_model(**model), tiny_tokenizer)
    file = tmp_path / "m.gguf"
    words = ["--weight", checkpoint, "--format", "gguf", "--out", file, "--dtype", dtype]
    export(list(map(str, words)))
    found = inspect(file)
    assert (found.kind, found.problems) == ("GGUF model", [])
    moe = "moe" if model.get("use_moe") else ""
    assert found.facts["architecture"] == f"qwen3{moe}, named run"
    assert found.facts["parameters"].endswith(f" in {precision}")
    assert "2 layers of 32, 4/2 heads" in found.facts["shape"]
    assert found.facts["tokenizer"] == "384 entries, bos 1, eos 2; gpt2, cut as gpt-2"
    assert len(found.lines()) <= 10


def test_what_is_wrong_with_a_gguf_file(checkpoint, tmp_path):
    gguf = pytest.importorskip("gguf")
    file = tmp_path / "m.gguf"
    words = ["--weight", checkpoint, "--format", "gguf", "--out", file, "--dtype", "float32"]
    export(list(map(str, words)))
    tensors = {t.name: int(t.data_offset) for t in gguf.GGUFReader(file).tensors}
    whole = file.read_bytes()
    place = tensors["blk.1.ffn_up.weight"]
    file.write_bytes(whole[:place] + b"\xff" * 4 + whole[place + 4 :])
    assert any("NaN" in p and "layers.1.mlp.up_proj" in p for p in inspect(file).problems)
    file.write_bytes(whole[:-100])
    assert any("damaged" in problem for problem in inspect(file).problems)
    file.write_bytes(b"GGUF nonsense")
    assert any("no GGUF file" in problem for problem in inspect(file).problems)
    file.unlink()
    assert inspect(file).problems == ["no such file or folder"]


def test_a_tokenizer(tiny_tokenizer, tmp_path):
    found = inspect(tiny_tokenizer)
    assert (found.kind, found.problems) == ("tokenizer", [])
    (tmp_path / "tokenizer.json").write_text("{}")
    assert inspect(tmp_path).problems


def test_a_token_store(tiny_tokenizer, tiny_corpus, tmp_path):
    store = open_corpus([str(tiny_corpus)], str(tiny_tokenizer), cache_dir=str(tmp_path))
    found = inspect(store.path)
    assert (found.kind, found.problems) == ("token store", [])
    assert (found.facts["documents"], found.facts["tokens"]) == (store.n_docs, store.n_tokens)
    np.memmap(store.path / "tokens.bin", np.uint16, "r+")[5] ^= 1
    assert any("block 0 (bytes 0 to" in problem for problem in inspect(store.path).problems)
    with open(store.path / "tokens.bin", "ab") as file:
        file.write(b"\0\0")
    assert any("tokens.bin" in problem for problem in inspect(store.path).problems)


def test_a_run_folder_and_everything_in_it(tiny_tokenizer, tmp_path):
    run = tmp_path / "run"
    write_weight(run / "out", make_model(), tiny_tokenizer)
    (run / "checkpoints").mkdir()
    newest = write_checkpoint(run / "checkpoints" / "pretrain_32.pt", make_model(), tiny_tokenizer)
    points = [
        {"time": 1.0, "epoch": 0, "step": s, "global_step": s, "total_steps": 9, "loss": 5.0 - s}
        for s in (1, 2)
    ]
    (run / "out" / "metrics.jsonl").write_text("\n".join(map(json.dumps, points)))
    (run / "DONE").write_text('{"cause": "done", "exit_code": 0, "reason": "all epochs"}')
    found = inspect(run)
    assert (found.kind, found.problems) == ("run folder", [])
    assert found.facts["place"] == "epoch 1, optimiser step 2 of 9"
    assert found.facts["ended"] == "done: all epochs"
    assert set(found.files) == {"out/pretrain_32.pth", "checkpoints/pretrain_32.pt"}
    flip(newest, newest.stat().st_size // 2)
    assert [p.partition(":")[0] for p in inspect(run).problems] == ["checkpoints/pretrain_32.pt"]


def test_a_run_folder_whose_records_are_elsewhere(tiny_tokenizer, checkpoint, tmp_path):
    run, out, saved = tmp_path / "run", tmp_path / "mine", tmp_path / "saved"
    write_weight(out, make_model(), tiny_tokenizer)
    (out / "metrics.jsonl").write_text(
        '{"time": 1.0, "epoch": 0, "step": 2, "global_step": 2, "total_steps": 9, "loss": 5.0}\n'
    )
    (out / "config.toml").write_text(f"checkpoint_dir = '{saved}'\n")
    saved.mkdir()
    shutil.copy(checkpoint, saved)
    run.mkdir()
    (run / "spec.json").write_text(json.dumps({"save_dir": str(out)}))
    found = inspect(run)
    assert (found.kind, found.problems) == ("run folder", [])
    assert found.facts["place"] == "epoch 1, optimiser step 2 of 9"
    assert set(found.files) == {str(out / "pretrain_32.pth"), str(saved / checkpoint.name)}
    assert set(found.checked) == set(found.files)


def test_the_command_prints_and_tells_scripts(checkpoint, tmp_path, capsys):
    assert main([str(checkpoint)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{checkpoint}: checkpoint\n")
    assert "verified" in out
    assert main([str(checkpoint), str(tmp_path / "absent"), "--json"]) == 2
    good, bad = json.loads(capsys.readouterr().out)
    assert good["verified"] is True
    assert bad["verified"] is False
    assert bad["problems"] == ["no such file or folder"]
