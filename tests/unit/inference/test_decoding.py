"""Text from the plain network: the tokens that transformers' ``generate`` chooses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minimind.inference.generate import generate
from minimind.model import MiniMindConfig, MiniMindForCausalLM
from minimind.model.architecture import Architecture
from minimind.model.language_model import LanguageModel

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}


class Bytes:
    """A tokenizer whose ids are letters."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) % 97 for letter in text]}

    def batch_decode(self, rows: torch.Tensor, skip_special_tokens: bool) -> list[list[int]]:
        return rows.tolist()


class Tokens:
    """A stream that keeps what it is given."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def put(self, value: torch.Tensor) -> None:
        self.got.append(value.tolist())

    def end(self) -> None:
        self.got.append("end")


def both(**more: Any) -> list[Any]:
    models: list[Any] = []
    for kind, config in ((LanguageModel, Architecture), (MiniMindForCausalLM, MiniMindConfig)):
        torch.manual_seed(0)
        models.append(kind(config(**{**SIZES, **more})))
    return models


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0},
        {"temperature": 0, "repetition_penalty": 1.7},
        {"temperature": 0.7, "top_p": 0.8},
        {"temperature": 3.0, "top_p": 1.0, "top_k": 5},
        {"temperature": 0.9, "top_k": 200, "repetition_penalty": 1.3},
    ],
    ids=str,
)
@pytest.mark.parametrize("prompts", [["a"], ["abc", "xyz"], ["a", "", "long enough"]], ids=str)
def test_the_tokens_are_transformers(how: dict[str, Any], prompts: list[str]) -> None:
    ours, theirs = (
        generate(model, Bytes(), prompts, max_new_tokens=24, seed=5, **how) for model in both()
    )
    assert ours == theirs


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_experts_and_untied_heads_too(attention: str) -> None:
    found = []
    for model in both(use_moe=True, num_experts_per_tok=2, tie_word_embeddings=False):
        model.set_attn_implementation(attention)
        found.append(generate(model, Bytes(), ["a", "bcd"], max_new_tokens=16, temperature=0))
    assert found[0] == found[1]


def test_rows_end_by_themselves_and_the_stream_sees_it() -> None:
    """Sampled at random, the end token comes to each row at another turn."""
    how: dict[str, Any] = {"max_new_tokens": 400, "temperature": 50.0, "top_p": 1.0, "seed": 3}
    ours, theirs = (generate(model, Bytes(), ["a", "b", "c"], **how) for model in both())
    assert ours == theirs
    assert len({row.index(2) for row in map(list, ours)}) == 3
    streams = [Tokens(), Tokens()]
    for model, stream in zip(both(), streams, strict=True):
        generate(model, Bytes(), ["a"], stream=stream, **how)  # type: ignore[arg-type]
    assert streams[0].got == streams[1].got
    assert streams[0].got[-2:] == [[2], "end"]


def test_it_ends_when_told() -> None:
    asked = SimpleNamespace(times=0)

    def goes_on() -> bool:
        asked.times += 1
        return asked.times < 4

    (row,) = generate(both()[0], Bytes(), ["a"], goes_on=goes_on, temperature=0)
    assert len(row) == asked.times == 4
