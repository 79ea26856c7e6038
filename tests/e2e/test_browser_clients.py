"""What is exported for JavaScript, in a real Chromium and in node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from minimind.cli.export import main
from minimind.data.tokenizer import load_tokenizer, tokenizer_folder
from minimind.export.web import PACKAGES
from tests.e2e.conftest import apt_install
from tests.e2e.lab import poll
from tests.look.browser import Page
from tests.look.static import served
from tests.needs import lacks
from tests.unit.export.helpers import make_model, write_checkpoint

PROMPTS = ["The function returns", "清晨的港口很安静。", "def f(x):\n    return x ** 2", "3.14159"]
PROGRAM = Path(__file__).parents[1] / "clients" / "transformers_js.mjs"


def write_weights(folder: Path) -> tuple[Path, torch.nn.Module]:
    model = make_model(vocab_size=6400, hidden_size=64, intermediate_size=96, head_dim=16)
    return write_checkpoint(folder / "run.pt", model, tokenizer_folder("")), model


@pytest.fixture(autouse=True)
def npm() -> None:
    """Installed where that is possible; in CI its absence is a failure."""
    if shutil.which("npm") is None and shutil.which("apt-get"):
        apt_install("nodejs", "npm")
    if shutil.which("npm") is None:
        lacks("no npm")


def test_the_page_chats_in_english_and_in_chinese(chromium: Page, tmp_path: Path) -> None:
    weights, _ = write_weights(tmp_path)
    words = ["--weight", weights, "--format", "web", "--out", tmp_path / "web"]
    assert main([str(word) for word in words]) == 0
    # Let it say little.
    settings = json.loads((tmp_path / "web" / "settings.json").read_text())
    settings["answer"] = 12
    (tmp_path / "web" / "settings.json").write_text(json.dumps(settings))

    def state() -> str:
        return str(chromium.run("document.getElementById('state')?.dataset.state"))

    def is_ready() -> bool:
        assert state() != "failed", chromium.run("document.getElementById('state').textContent")
        return state() == "ready"

    with served(tmp_path / "web") as link:
        chromium.open(link)
        poll(is_ready, "the model", 120)
        for number, (language, send, text) in enumerate(
            [("en", "Send", "Hello"), ("zh", "发送", "你好")], 1
        ):
            chromium.run(
                f"language.value = '{language}', language.dispatchEvent(new Event('change'))"
            )
            assert chromium.run("send.textContent") == send
            chromium.run(f"text.value = '{text}', form.requestSubmit()")
            poll(is_ready, "an answer", 60)
            turns = "[...document.querySelectorAll('.turn')].map((turn) => turn.textContent)"
            said = chromium.run(turns)
            assert len(said) == 2 * number
            assert said[-2] == text
            assert said[-1].strip()


def test_transformers_js_gives_the_model_s_logits_and_tokens(tmp_path: Path) -> None:
    """In node; its scripts are not run at installation, since one fetches a program."""
    package = next(p for p in PACKAGES if p.name.startswith("@huggingface"))
    words = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefix", tmp_path / "npm"]
    wanted = f"{package.name}@{package.version}"
    subprocess.run(["npm", "install", *words, wanted], check=True, capture_output=True)
    weights, model = write_weights(tmp_path)
    out = tmp_path / "onnx"
    words = ["--weight", weights, "--format", "onnx", "--out", out]
    assert main([str(word) for word in words]) == 0

    shutil.copy(PROGRAM, tmp_path / "npm" / PROGRAM.name)
    (tmp_path / "prompts.json").write_text(json.dumps(PROMPTS), encoding="utf-8")
    command = ["node", PROGRAM.name, out, tmp_path / "prompts.json"]
    done = subprocess.run(command, cwd=tmp_path / "npm", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    tokenizer = load_tokenizer(str(out))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        assert answer["text"] == text
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        assert answer["ids"] == ids[0].tolist()
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, -1]
            tokens = model.generate(ids, max_new_tokens=24, do_sample=False, eos_token_id=[])
        assert torch.tensor(answer["logits"]).sub(logits).abs().max() < 1e-4
        assert answer["tokens"] == tokens[0, ids.shape[1] :].tolist()
