"""Conversations as text: what a tokenizer's chat template makes of a list of messages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minimind.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPEAKERS = {"human": "user", "gpt": "assistant"}
"""Roles of ShareGPT's messages (``from`` and ``value``), where they have another name."""


@dataclass(frozen=True)
class ChatTemplate:
    """A template and the special tokens that it writes; goes to the tokenising processes."""

    source: str
    special_tokens: Mapping[str, Any]

    @staticmethod
    def of(tokenizer: PreTrainedTokenizerFast) -> ChatTemplate:
        """The template that a tokenizer brings.

        Raises:
            DataError: it has none.
        """
        try:
            source = tokenizer.get_chat_template()
        except ValueError:
            raise DataError(
                "--render_chat: the tokenizer has no chat template; "
                "name one that has with --tokenizer_path"
            ) from None
        return ChatTemplate(source, dict(tokenizer.special_tokens_map))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all that decides what a conversation becomes."""
        parts = [self.source, {name: str(token) for name, token in self.special_tokens.items()}]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def render(self, conversation: Any) -> str:
        """The text of a conversation, with all special tokens that the template writes.

        Raises:
            ValueError: it is none, or the template refuses it; the message is a reason.
        """
        # Takes seconds to import: only where there are conversations.
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        messages = [_message(number, each) for number, each in _numbered(conversation)]
        try:
            rendered, _ = render_jinja_template(
                conversations=[messages], chat_template=self.source, **self.special_tokens
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise ValueError(f"the chat template refuses it: {error}") from None
        return str(rendered[0])


def _numbered(conversation: Any) -> enumerate[Any]:
    if not isinstance(conversation, list):
        raise ValueError("it is no list of messages")
    return enumerate(conversation, 1)


def _message(number: int, message: Any) -> dict[str, Any]:
    """A message as templates want it: ``role``, ``content``, and whatever else it has."""
    if not isinstance(message, dict):
        raise ValueError(f"message {number} is no object")
    # In a table, all rows have the fields of any.
    fields = {name: value for name, value in message.items() if value is not None}
    if "role" not in fields and "from" in fields:
        speaker = fields.pop("from")
        fields["role"] = SPEAKERS.get(str(speaker), speaker)
        fields["content"] = fields.pop("value", None)
    if not isinstance(fields.get("role"), str):
        raise ValueError(f"message {number} has no role")
    if not isinstance(fields.setdefault("content", ""), str):
        raise ValueError(f"message {number} has a content that is no text")
    return fields
