"""llama.cpp itself runs what ``minimind export --format gguf`` wrote.

Skipped where llama-cpp-python is not installed: it is built from source, which takes minutes.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from minimind.cli.export import main
from minimind.data.tokenizer import load_tokenizer, tokenizer_folder
from tests.corpus import SENTENCES
from tests.unit.export.helpers import make_model, write_checkpoint

llama_cpp = pytest.importorskip("llama_cpp")

REPOSITORY = Path(__file__).parents[2]
F32 = 0  # GGML_TYPE_F32, for the cache: llama.cpp's own default rounds it to 16 bits
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def export(tmp_path, tokenizer, *words, **architecture):
    """A model with weights large enough for differences to show; and as llama.cpp loads it."""
    settings = {"vocab_size": 6400, "hidden_size": 64, "intermediate_size": 96, "head_dim": 32}
    model = make_model(**{**settings, "moe_intermediate_size": 64, **architecture})
    checkpoint = write_checkpoint(tmp_path / "run.pt", model, tokenizer)
    out = tmp_path / "m.gguf"
    words = ["--weight", checkpoint, "--format", "gguf", "--out", out, *words]
    assert main([str(word) for word in words]) == 0
    llama = llama_cpp.Llama(
        str(out),
        n_ctx=256,
        n_threads=1,
        logits_all=True,
        type_k=F32,
        type_v=F32,
        flash_attn=False,
        verbose=False,
    )
    return model, llama


@torch.inference_mode()
@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param({}, id="dense"),
        pytest.param({"tie_word_embeddings": False}, id="untied"),
        pytest.param({"use_moe": True}, id="moe-top1"),
        pytest.param({"use_moe": True, "num_experts_per_tok": 2}, id="moe-top2"),
        pytest.param({"head_dim": 64, "inference_rope_scaling": True}, id="yarn"),
    ],
)
def test_logits_and_greedy_tokens_are_the_model_s(architecture, tmp_path):
    shipped = tokenizer_folder("")
    model, llama = export(tmp_path, shipped, "--dtype", "float32", **architecture)
    ids = [1, *random.Random(0).choices(range(3, 6400), k=60)]
    llama.eval(ids)
    theirs = torch.from_numpy(np.array(llama.scores[: len(ids)]))
    ours = model(input_ids=torch.tensor([ids])).logits[0]
    assert ours.abs().max() > 5
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)

    llama.reset()
    text = list(ids)
    llama.eval(text)
    for _ in range(24):
        text.append(int(np.argmax(llama.scores[len(text) - 1])))
        llama.eval(text[-1:])
    expected = model.generate(
        torch.tensor([ids]), max_new_tokens=24, do_sample=False, eos_token_id=[]
    )
    assert text == expected[0].tolist()


def texts():
    """Chinese, English and code of this repository, and what splitters stumble over."""
    files = ("README.md", "README.zh-CN.md", "minimind/model/modeling_minimind.py", "Makefile")
    yield from ((REPOSITORY / name).read_text(encoding="utf-8") for name in files)
    yield from SENTENCES
    yield from (
        "",
        " ",
        "  ",
        "\n\n\n",
        "a  b   c ",
        "\t\tx\r\n y",
        "don't we'll I'M it's",
        "3.14159",
    )
    yield from (
        "ｆｕｌｌ　ｗｉｄｔｈ",
        "é e\u0301 ß ſ",
        "👩‍👩‍👧 🇨🇳",
        "１２３ ⅷ ²",
        "\u00a0x\u2003y",
    )
    yield "<|im_start|>user\n你好<|im_end|>\n"
    letters = "ab 0\n\t'，。中文é👍_-(\u00a0"
    generator = random.Random(0)
    yield from ("".join(generator.choices(letters, k=40)) for _ in range(200))


def assert_same_tokens(llama, tokenizer):
    for text in texts():
        theirs = llama.tokenize(text.encode(), add_bos=False, special=True)
        assert theirs == tokenizer(text, add_special_tokens=False)["input_ids"], repr(text[:80])


def test_the_shipped_tokenizer_cuts_text_alike(tmp_path):
    shipped = tokenizer_folder("")
    _, llama = export(tmp_path, shipped, num_hidden_layers=1)
    tokenizer = load_tokenizer(str(shipped))
    assert_same_tokens(llama, tokenizer)
    # A prompt begins as a document does in pretraining.
    bos = tokenizer.bos_token_id
    assert llama.tokenize(b"The", add_bos=True)[0] == bos == llama.token_bos()
    assert llama.token_eos() == tokenizer.eos_token_id


def test_a_tokenizer_that_cuts_as_qwen2_does(tmp_path):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    folder = tmp_path / "tokenizer"
    names = dict(zip(("pad_token", "bos_token", "eos_token"), special, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.save_pretrained(folder)
    _, llama = export(tmp_path, folder, num_hidden_layers=1, vocab_size=len(fast))
    assert_same_tokens(llama, fast)
