"""Conversations become what the tokenizer's chat template makes of them, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minimind.data.chunks import BadRow
from minimind.data.conversations import ChatTemplate
from minimind.data.rows import parse_rows
from minimind.data.tokenize.build import open_corpus
from minimind.data.tokenizer import load_tokenizer
from minimind.errors import DataError

TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hello 世界"},
    {"role": "assistant", "content": "yes"},
]
SHARED = [
    {"from": "system", "value": "be brief"},
    {"from": "human", "value": "hello 世界"},
    {"from": "gpt", "value": "yes"},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer()


@pytest.mark.parametrize("talk", [TALK, SHARED, [{**m, "tool_calls": None} for m in TALK]])
def test_a_document_is_what_the_template_makes(tokenizer: Any, tmp_path: Path, talk: Any) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": talk}) + "\n")
    store = open_corpus(
        [str(path)], text_field="messages", render_chat=True, cache_dir=str(tmp_path / "cache")
    )
    wanted = tokenizer.apply_chat_template(TALK, tokenize=True, return_dict=False)
    assert store.tokens[:].tolist() == wanted
    assert store.n_docs == 1


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("hello", "it is no list of messages"),
        (["hello"], "message 1 is no object"),
        ([{"content": "hello"}], "message 1 has no role"),
        ([*TALK, {"role": "user", "content": [1]}], "message 4 has a content that is no text"),
        ([{"role": "narrator", "content": "x"}], "the chat template refuses it: a message's role"),
    ],
)
def test_what_is_no_conversation_is_a_bad_row(tokenizer: Any, value: Any, reason: str) -> None:
    line = json.dumps({"messages": value}).encode()
    (row,) = parse_rows(line, 1, "messages", ChatTemplate.of(tokenizer))
    assert isinstance(row, BadRow)
    assert row.reason.startswith(f"field 'messages' holds no conversation: {reason}")


def test_an_empty_conversation_is_an_empty_text(tokenizer: Any) -> None:
    (row,) = parse_rows(b'{"messages": []}', 1, "messages", ChatTemplate.of(tokenizer))
    assert isinstance(row, BadRow)
    assert row.reason == "field 'messages' is empty"


def test_another_template_is_another_store(tmp_path: Path, tokenizer: Any) -> None:
    chat = ChatTemplate.of(tokenizer)
    assert chat.digest == ChatTemplate.of(tokenizer).digest
    assert chat.digest != ChatTemplate(chat.source + " ", chat.special_tokens).digest
    assert chat.digest != ChatTemplate(chat.source, {"bos_token": "x"}).digest


def test_a_tokenizer_without_a_template(tokenizer_path: str) -> None:
    with pytest.raises(DataError, match="the tokenizer has no chat template; name one"):
        ChatTemplate.of(load_tokenizer(tokenizer_path))
