"""Text to ids and back by the Rust library alone: transformers takes seconds to import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minimind.data.tokenizer import (
    MOST_IDS,
    OWN_TOKENS,
    SpecialTokens,
    load_tokenizer,
    names_plain_class,
    tokenizer_folder,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenizers import Tokenizer

ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")
UNDERSTOOD = {
    *ROLES,
    "backend",
    "chat_template",
    "is_local",
    "local_files_only",
    "model_input_names",
    "model_max_length",
    "name_or_path",
    "padding_side",
    "tokenizer_class",
    "truncation_side",
}
"""Settings of tokenizer_config.json that leave encoding and decoding to tokenizer.json."""

OTHER_FILES = ("special_tokens_map.json", "added_tokens.json")
"""Files that may change what tokenizer.json says."""

LARGEST = 100_000
"""transformers looks into larger vocabularies, and repairs some."""


class Codec:
    """What encoding, decoding and comparing need of a tokenizer of transformers', by its names.

    It has no chat template and cannot be saved: ``load_tokenizer`` gives one that can.
    """

    def __init__(self, backend: Tokenizer, settings: dict[str, Any]) -> None:
        self._backend = backend
        self.bos_token, self.eos_token, self.pad_token, self.unk_token = map(settings.get, ROLES)

    @property
    def bos_token_id(self) -> int | None:
        return self._id(self.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        return self._id(self.eos_token)

    @property
    def pad_token_id(self) -> int | None:
        return self._id(self.pad_token)

    def _id(self, token: str | None) -> int | None:
        return None if token is None else self._backend.token_to_id(token)

    def __len__(self) -> int:
        return self._backend.get_vocab_size()

    def get_vocab(self) -> dict[str, int]:
        """Token → id."""
        return self._backend.get_vocab()

    def convert_ids_to_tokens(self, index: int) -> str | None:
        """The token of an id."""
        return self._backend.id_to_token(index)

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        """The ids of a text, without anything before or after."""
        assert not add_special_tokens
        return {"input_ids": self._backend.encode(text, add_special_tokens=False).ids}

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """The text of ids."""
        return self._backend.decode(list(map(int, ids)), skip_special_tokens=skip_special_tokens)

    def batch_decode(
        self, rows: Iterable[Iterable[int]], skip_special_tokens: bool = False
    ) -> list[str]:
        """The text of each row of ids."""
        return [self.decode(row, skip_special_tokens) for row in rows]


def load_codec(path: str = "", special: SpecialTokens = OWN_TOKENS) -> Any:
    """A ``Codec`` of the tokenizer folder, or transformers' tokenizer if it says more than that.

    Raises:
        DataError: as :func:`minimind.data.tokenizer.load_tokenizer`.
    """
    folder = tokenizer_folder(path)
    codec = _plain_codec(folder)
    if codec is None:
        return load_tokenizer(path, special)
    special.put_on(codec, folder)
    return codec


def _plain_codec(folder: Path) -> Codec | None:
    """None for what transformers has to decide, or to name as damaged."""
    if not names_plain_class(folder) or any((folder / name).exists() for name in OTHER_FILES):
        return None
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_bytes())
        if settings.pop("clean_up_tokenization_spaces", False) or not set(settings) <= UNDERSTOOD:
            return None
        from tokenizers import Tokenizer

        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # Damage can be a panic of the Rust side, which is no Exception.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return None
    return Codec(backend, settings) if _says_all(backend, settings) else None


def _says_all(backend: Tokenizer, settings: dict[str, Any]) -> bool:
    """Whether transformers would add nothing to the tokenizer."""
    if backend.truncation or backend.padding or backend.get_vocab_size() > LARGEST:
        return False
    special = {
        token.content for token in backend.get_added_tokens_decoder().values() if token.special
    }
    named = [settings[role] for role in ROLES if settings.get(role) is not None]
    largest = max(backend.get_vocab().values(), default=-1)
    # A token may be an object that says more of it.
    plain = all(isinstance(token, str) and token in special for token in named)
    return plain and 0 <= largest < MOST_IDS
