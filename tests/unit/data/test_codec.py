"""The plain tokenizer beside transformers': the same ids, and the same texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from minimind.data.codec import Codec, load_codec
from minimind.data.tokenizer import SHIPPED, SpecialTokens, load_tokenizer, tokenizer_identity
from minimind.errors import DataError

TEXT = "The harbour <|im_end|> was  quiet , I don't .\n清晨的港口 🙂 <|endoftext|>\tcafe\u0301"


def copy_of_shipped(folder: Path, **settings: Any) -> Path:
    """The shipped tokenizer with other settings; None takes one away."""
    shutil.copytree(SHIPPED, folder)
    file = folder / "tokenizer_config.json"
    found = {**json.loads(file.read_bytes()), **settings}
    kept = {name: value for name, value in found.items() if value is not None}
    file.write_text(json.dumps(kept))
    return folder


def test_it_encodes_and_decodes_like_transformers() -> None:
    ours, theirs = load_codec(), load_tokenizer()
    assert isinstance(ours, Codec)
    ids = ours(TEXT)["input_ids"]
    assert ids == theirs(TEXT, add_special_tokens=False)["input_ids"]
    rows = [ids, ids[:7], [], [1, *ids, 2, 0, 0]]
    for skip in (True, False):
        expected = [theirs.decode(row, skip_special_tokens=skip) for row in rows]
        assert ours.batch_decode(rows, skip_special_tokens=skip) == expected
    assert tokenizer_identity(ours) == tokenizer_identity(theirs)
    assert len(ours) == len(theirs)
    for role in ("bos", "eos", "pad"):
        assert getattr(ours, f"{role}_token_id") == getattr(theirs, f"{role}_token_id")
    assert ours.convert_ids_to_tokens(300) == theirs.convert_ids_to_tokens(300)


def test_a_trained_one_is_plain_too(tiny_tokenizer: Path) -> None:
    assert isinstance(load_codec(str(tiny_tokenizer)), Codec)


def test_tokens_of_the_flags_and_missing_ones(tmp_path: Path) -> None:
    folder = str(copy_of_shipped(tmp_path / "t", bos_token=None))
    ours = load_codec(folder)
    assert isinstance(ours, Codec)
    assert ours.bos_token_id is None
    assert load_codec(folder, SpecialTokens(bos="<|endoftext|>")).bos_token_id == 0
    with pytest.raises(DataError, match=r"--eos_token <nil>: the tokenizer .* has no such token"):
        load_codec(folder, SpecialTokens(eos="<nil>"))


@pytest.mark.parametrize(
    "settings",
    [
        {"eos_token": "<new>"},
        {"eos_token": "a"},
        {"eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "special": True}},
        {"tokenizer_class": "GPT2Tokenizer"},
        {"extra_special_tokens": ["a"]},
        {"added_tokens_decoder": {}},
        {"clean_up_tokenization_spaces": True},
        {"some_future_setting": 1},
    ],
    ids=str,
)
def test_what_transformers_would_change_is_left_to_it(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = copy_of_shipped(tmp_path / "t", **settings)
    loaded = load_codec(str(folder))
    assert not isinstance(loaded, Codec)
    assert loaded.eos_token_id == load_tokenizer(str(folder)).eos_token_id


def test_a_damaged_one_is_named(tmp_path: Path) -> None:
    folder = copy_of_shipped(tmp_path / "t")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_codec(str(folder))
