"""Loads a tokenizer from a folder, and tells whether two tokenizers give the same ids."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minimind.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from minimind.config import TrainConfig

SHIPPED = Path(__file__).parent / "tokenizer"
"""The folder of the tokenizer that comes with MiniMind."""

MOST_IDS = 1 << 22
"""A larger vocabulary would be a damaged file: the embedding has a row for every id up to the
largest, whether an entry has it or not."""

_VOCABULARY_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "added_tokens.json",
    "special_tokens_map.json",
)
# Settings of tokenizer_config.json that cannot change the ids of a text. All others count:
# an unknown one costs a rebuild at worst, a forgotten one would train on wrong tokens.
_HARMLESS_SETTINGS = {
    "backend",
    "chat_template",
    "clean_up_tokenization_spaces",
    "is_local",
    "local_files_only",
    "model_input_names",
    "model_max_length",
    "name_or_path",
    "padding_side",
    "processor_class",
    "truncation_side",
}
# Two names for "what tokenizer.json says", of transformers 4 and 5.
_PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")


@dataclass(frozen=True)
class SpecialTokens:
    """What begins and ends a document, where the tokenizer itself does not say or says otherwise.

    Attributes:
        bos, eos: tokens of the vocabulary; "": what the tokenizer says, if it does.
    """

    bos: str = ""
    eos: str = ""

    def put_on(self, tokenizer: Any, folder: Path) -> None:
        """Let ``tokenizer``, which is from ``folder``, have them.

        Raises:
            DataError: its vocabulary has no such token.
        """
        vocabulary = tokenizer.get_vocab() if self.bos or self.eos else {}
        for role, token in (("bos", self.bos), ("eos", self.eos)):
            if not token:
                continue
            if token not in vocabulary:
                raise DataError(f"--{role}_token {token}: the tokenizer {folder} has no such token")
            setattr(tokenizer, f"{role}_token", token)


OWN_TOKENS = SpecialTokens()
"""The tokenizer's own."""


def special_tokens(config: TrainConfig) -> SpecialTokens:
    """What ``--bos_token`` and ``--eos_token`` say."""
    return SpecialTokens(config.bos_token, config.eos_token)


def tokenizer_folder(path: str = "") -> Path:
    """Return the folder that ``--tokenizer_path`` means (empty: the shipped one).

    Raises:
        DataError: there is no such folder, or no tokenizer in it.
    """
    folder = Path(path).expanduser() if path else SHIPPED
    if not folder.is_dir():
        raise DataError(
            f"tokenizer {folder}: no such folder; "
            "--tokenizer_path takes a Hugging Face tokenizer folder"
        )
    if not any((folder / name).is_file() for name in _VOCABULARY_FILES[:4]):
        raise DataError(
            f"tokenizer {folder}: holds no tokenizer.json; "
            "--tokenizer_path takes a Hugging Face tokenizer folder"
        )
    return folder


def load_tokenizer(path: str = "", special: SpecialTokens = OWN_TOKENS) -> PreTrainedTokenizerFast:
    """Load a tokenizer from a folder, never from the network.

    Raises:
        DataError: the folder is missing, or what it holds is no usable tokenizer, or one without
            the tokens that ``special`` names.
    """
    folder = tokenizer_folder(path)
    try:
        tokenizer = _class_of(folder).from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    # Damaged files surface as many types, among them plain Exception from the Rust side, whose
    # panics are no Exception at all.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"tokenizer {folder}: cannot be loaded: {reason[0]}") from error
    if not tokenizer.is_fast:
        raise DataError(f"tokenizer {folder}: has no fast (tokenizer.json) form")
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if not 0 <= largest < MOST_IDS:
        raise DataError(f"tokenizer {folder}: its ids go up to {largest}; 0 to {MOST_IDS} can be")
    special.put_on(tokenizer, folder)
    return tokenizer


def _class_of(folder: Path) -> Any:
    """The class that loads ``folder``.

    AutoTokenizer imports torch, which takes seconds. A folder that says nothing but "what
    tokenizer.json says" gets the class that it would choose; the choice for all others is its own.
    """
    if names_plain_class(folder):
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def names_plain_class(folder: Path) -> bool:
    """Whether the folder means "what tokenizer.json says", and nothing else."""
    # With a model beside it, AutoTokenizer goes by the model's type, too.
    if (folder / "config.json").exists() or not (folder / "tokenizer.json").is_file():
        return False
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_bytes())
        return settings.get("tokenizer_class") in _PLAIN_CLASSES and "auto_map" not in settings
    except (OSError, ValueError, RecursionError, AttributeError, TypeError):
        return False


PROBE = (
    "The harbour was quiet. I don't, I'LL, WE'VE. 清晨的港口很安静。\n\n\tdef f(x):\r\n"
    "    return x**2 + 3.14159  # 2026-11-30 １２３ Ünïcödé cafe\u0301 カタカナ 한국어 Привет 🙂 "
    '{"a": [1, 2]} <tag/> https://example.org/?q=1&r=2   '
)
"""Text that two ways of cutting, normalising or merging are likely to treat differently."""


def tokenizer_identity(tokenizer: Any) -> str:
    """SHA-256 (hex) of what a model knows of a tokenizer: which token each id is, and which ids a
    text becomes.

    Unlike :func:`tokenizer_fingerprint` it says the same of a tokenizer that another version has
    saved anew. Begin and end tokens are left out: they are stored beside it.
    """
    ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    known = json.dumps([sorted(tokenizer.get_vocab().items()), ids])
    return hashlib.sha256(known.encode()).hexdigest()


def tokenizer_fingerprint(tokenizer: Any = "", special: SpecialTokens = OWN_TOKENS) -> str:
    """Return a SHA-256 (hex) over all that decides which ids a text becomes.

    Args:
        tokenizer: a folder (``""``: the shipped one), which is hashed without being loaded,
            or a loaded tokenizer, which is hashed as it would be saved.
        special: with which a folder's tokenizer is used.

    Raises:
        DataError: the folder is missing or cannot be read.
    """
    if not isinstance(tokenizer, (str, Path)):
        with tempfile.TemporaryDirectory() as saved:
            tokenizer.save_pretrained(saved)
            return tokenizer_fingerprint(saved)
    folder = tokenizer_folder(str(tokenizer))
    digest = hashlib.sha256()
    try:
        for name in _VOCABULARY_FILES:
            if (folder / name).is_file():
                _add(digest, name, (folder / name).read_bytes())
        config = folder / "tokenizer_config.json"
        settings = json.loads(config.read_bytes()) if config.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"tokenizer {folder}: cannot be read: {error}") from None
    if not isinstance(settings, dict):
        raise DataError(f"tokenizer {folder}: {config.name} is no JSON object")
    kept = {key: value for key, value in settings.items() if key not in _HARMLESS_SETTINGS}
    if str(kept.get("tokenizer_class")) in _PLAIN_CLASSES:
        del kept["tokenizer_class"]
    _add(digest, "settings", json.dumps(kept, sort_keys=True).encode())
    if special != OWN_TOKENS:
        _add(digest, "special", json.dumps(asdict(special)).encode())
    return digest.hexdigest()


def _add(digest: Any, name: str, content: bytes) -> None:
    digest.update(f"{name} {len(content)}\n".encode())
    digest.update(content)
