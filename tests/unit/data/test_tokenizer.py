from __future__ import annotations

import functools
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from minimind.data.tokenizer import SHIPPED, load_tokenizer, tokenizer_fingerprint
from minimind.errors import DataError
from tests.unit.data.helpers import make_tokenizer


@functools.cache
def load_once() -> Any:
    return load_tokenizer()


@pytest.fixture
def shipped() -> Any:
    return load_once()


def test_the_shipped_tokenizer(shipped: Any) -> None:
    assert len(shipped) == 6400
    assert sorted(shipped.get_vocab().values()) == list(range(6400))
    ids = shipped.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    assert ids == [0, 1, 2]
    assert shipped.bos_token_id == 1
    assert shipped.eos_token_id == 2
    assert shipped.pad_token_id == 0


def test_the_recipe_names_this_tokenizer() -> None:
    checksum = hashlib.sha256((SHIPPED / "tokenizer.json").read_bytes()).hexdigest()
    assert checksum in (SHIPPED / "RECIPE.md").read_text(encoding="utf-8")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@settings(max_examples=300, deadline=None)
@given(texts)
@example(" leading and  double  spaces \r\n\t. , ' n't ")
@example("<|im_start|>user\n<|im_end|>")
@example("数学：𝔄𝔅 👩‍👩‍👧 é é \u200b\ufeff\u2028\x00\x1f")
def test_decoding_what_was_encoded_loses_nothing(text: str) -> None:
    shipped = load_once()
    assert shipped.decode(shipped.encode(text, add_special_tokens=False)) == text


def test_it_compresses_chinese_and_english(shipped: Any) -> None:
    # Lines that are not from the training text; bytes a token.
    for text, least in (
        ("今天上午，我们在会议室讨论了新系统的设计方案，并决定下周开始编写代码。", 3.0),
        ("The committee met on Tuesday to discuss how the new system should be tested.", 3.0),
    ):
        assert len(text.encode()) / len(shipped.encode(text)) > least


def test_chat_template(shipped: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "Hi!"},
    ]
    text = shipped.apply_chat_template(messages, tokenize=False)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n你好<|im_end|>\n"
        "<|im_start|>assistant\nHi!<|im_end|>\n"
    )
    prompt = shipped.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
    with pytest.raises(Exception, match="role is system, user or assistant, not robot"):
        shipped.apply_chat_template([{"role": "robot", "content": "x"}], tokenize=False)


def test_nothing_is_asked_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*args: Any, **_: Any) -> None:
        pytest.fail(f"network: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load_tokenizer()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such folder; --tokenizer_path takes a Hugging Face tokenizer folder"),
        ("a file", "no such folder"),
        ("empty", "holds no tokenizer.json"),
        ("broken tokenizer.json", "cannot be loaded"),
        ("broken config", "cannot be loaded"),
        ("hub name", "no such folder"),
    ],
)
def test_a_folder_without_tokenizer(tmp_path: Path, kind: str, message: str) -> None:
    folder = tmp_path / "t"
    if kind == "a file":
        folder.write_text("")
    elif kind == "empty":
        folder.mkdir()
    elif kind.startswith("broken"):
        make_tokenizer(folder)
        name = "tokenizer.json" if "json" in kind else "tokenizer_config.json"
        (folder / name).write_text('{"model": ')
    path = "jingyaogong/MiniMind2" if kind == "hub name" else str(folder)
    with pytest.raises(DataError, match=message) as raised:
        load_tokenizer(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["shipped", "trained", "without BOS", "name of transformers 5"])
def test_a_plain_folder_is_loaded_as_autotokenizer_would(tmp_path: Path, kind: str) -> None:
    folder = SHIPPED if kind == "shipped" else Path(make_tokenizer(tmp_path, bos="BOS" not in kind))
    if "transformers 5" in kind:
        change_settings(folder, tokenizer_class="TokenizersBackend")
    ours, theirs = load_tokenizer(str(folder)), AutoTokenizer.from_pretrained(folder)
    assert type(ours) is type(theirs)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours.chat_template == theirs.chat_template
    assert ours.model_max_length == theirs.model_max_length


@pytest.mark.parametrize("kind", ["a class", "a model", "code", "no settings", "no tokenizer.json"])
def test_the_class_of_any_other_folder_is_autotokenizers_choice(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(make_tokenizer(tmp_path / "t"))
    if kind == "a class":
        change_settings(folder, tokenizer_class="Qwen2Tokenizer")
    elif kind == "a model":
        (folder / "config.json").write_text('{"model_type": "qwen3"}')
    elif kind == "code":
        change_settings(folder, auto_map={"AutoTokenizer": ["mine.Tokenizer", None]})
    elif kind == "no settings":
        (folder / "tokenizer_config.json").unlink()
    else:
        (folder / "tokenizer.json").rename(folder / "vocab.json")
    chosen = load_once()
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: chosen)
    assert load_tokenizer(str(folder)) is chosen


def change_settings(folder: Path, **changes: Any) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_bare_tokenizer_json_is_enough(tmp_path: Path) -> None:
    folder = Path(make_tokenizer(tmp_path / "t"))
    (folder / "tokenizer_config.json").unlink()
    assert load_tokenizer(str(folder)).encode("abc")


def test_fingerprint_of_folder_and_of_object_agree(shipped: Any, tmp_path: Path) -> None:
    assert tokenizer_fingerprint() == tokenizer_fingerprint(shipped)
    shipped.save_pretrained(tmp_path)
    assert tokenizer_fingerprint(str(tmp_path)) == tokenizer_fingerprint()


def test_fingerprint_follows_what_changes_ids(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    shutil.copytree(SHIPPED, folder)
    before = tokenizer_fingerprint(folder)
    assert before == tokenizer_fingerprint()

    config_file = folder / "tokenizer_config.json"
    config = json.loads(config_file.read_text())
    config_file.write_text(json.dumps({**config, "model_max_length": 7, "padding_side": "left"}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert tokenizer_fingerprint(folder) == before

    config_file.write_text(json.dumps({**config, "eos_token": "<|endoftext|>"}))
    assert tokenizer_fingerprint(folder) != before
    config_file.write_text(json.dumps(config))
    assert tokenizer_fingerprint(folder) == before

    model = json.loads((folder / "tokenizer.json").read_text())
    model["model"]["merges"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(model))
    assert tokenizer_fingerprint(folder) != before


def test_fingerprint_of_a_broken_folder(tmp_path: Path) -> None:
    folder = Path(make_tokenizer(tmp_path / "t"))
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        tokenizer_fingerprint(folder)
