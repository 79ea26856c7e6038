"""How the next token is chosen, and how text is handed on as it comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minimind.errors import require

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sampling:
    """How to continue a text.

    Attributes:
        max_new_tokens: most tokens to add.
        temperature: 0 takes the likeliest token each time.
        top_p: sample among the likeliest tokens of this total probability.
        top_k: sample among so many of the likeliest tokens (0: no limit).
        repetition_penalty: divides the score of tokens that occurred (arXiv:1909.05858); 1: none.
    """

    max_new_tokens: int = 64
    temperature: float = 0.8
    top_p: float = 0.9
    top_k: int = 0
    repetition_penalty: float = 1.0

    def check(self) -> None:
        """Raise ConfigError for a value out of its range."""
        for name, valid, wanted in (
            ("max_new_tokens", self.max_new_tokens >= 1, "1 or more"),
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0"),
        ):
            require(valid, f"--{name} must be {wanted}, but is {getattr(self, name)}")

    def settings(self) -> dict[str, Any]:
        """Keyword arguments for transformers' ``generate``."""
        chosen: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None}
        chosen["top_k"] = None
        if self.temperature > 0:
            chosen = {
                "do_sample": True,
                "temperature": self.temperature,
                "top_p": self.top_p,
                "top_k": self.top_k,
            }
        return {
            **chosen,
            "max_new_tokens": self.max_new_tokens,
            "repetition_penalty": self.repetition_penalty,
        }


class TextStream:
    """Hands text on as its tokens come; a streamer for transformers' ``generate``, one row.

    A character may take several tokens: it is held back until it is whole.
    """

    def __init__(self, tokenizer: Any, write: Callable[[str], None]) -> None:
        self._tokenizer = tokenizer
        self._write = write
        self._prompt_seen = False
        self._written = 0
        self.ids: list[int] = []

    @property
    def text(self) -> str:
        return self._tokenizer.decode(self.ids, skip_special_tokens=True)

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt [1, T] on the first call, then each new token [1]."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self.ids += value.flatten().tolist()
        text = self.text
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            self._hand_on(text)

    def end(self) -> None:
        self._hand_on(self.text)

    def _hand_on(self, text: str) -> None:
        if len(text) > self._written:
            self._write(text[self._written :])
            self._written = len(text)
