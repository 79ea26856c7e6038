"""A dialogue with a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from minimind.inference.generate import filler
from minimind.inference.sampling import Sampling, TextStream


@dataclass
class Conversation:
    """A dialogue with a model. What was read before is kept in its cache, not read again.

    Attributes:
        plain: no roles: the model continues one text, which both sides write.
        context: most tokens that the model is shown; the oldest turns are left out.
    """

    model: Any
    tokenizer: Any
    sampling: Sampling
    context: int
    plain: bool = False
    turns: list[dict[str, str]] = field(default_factory=list)
    _read: list[int] = field(default_factory=list)
    _cache: DynamicCache | None = None

    def answer(self, text: str, write: Callable[[str], None]) -> str:
        """Say ``text``, and hand the model's answer to ``write`` as it comes.

        A KeyboardInterrupt ends the answer where it is.
        """
        self.turns.append({"role": "user", "content": text})
        stream = TextStream(self.tokenizer, write)
        try:
            self._generate(self._fitting_ids(), stream)
        except KeyboardInterrupt:
            stream.end()
            self._forget()
        self.turns.append({"role": "assistant", "content": stream.text})
        return stream.text

    def reset(self) -> None:
        self.turns.clear()
        self._forget()

    def _forget(self) -> None:
        self._read, self._cache = [], None

    def _fitting_ids(self) -> list[int]:
        """The prompt, without the oldest turns where they do not fit."""
        room = max(1, self.context - self.sampling.max_new_tokens)
        turns = list(self.turns)
        ids = self._ids(turns)
        first = 1 if turns[0]["role"] == "system" else 0
        while len(ids) > room and len(turns) > first + 1:
            del turns[first]
            ids = self._ids(turns)
        return ids[-room:]

    def _ids(self, turns: list[dict[str, str]]) -> list[int]:
        if self.plain:
            bos = self.tokenizer.bos_token_id
            text = "".join(turn["content"] for turn in turns)
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            return ([] if bos is None else [bos]) + ids
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.inference_mode()
    def _generate(self, ids: list[int], stream: TextStream) -> None:
        shared = 0
        while shared < min(len(ids) - 1, len(self._read)) and ids[shared] == self._read[shared]:
            shared += 1
        if self._cache is None:
            self._cache = DynamicCache(config=self.model.config)
        elif shared < self._cache.get_seq_length():
            self._cache.crop(shared - self._cache.get_seq_length())
        device = next(self.model.parameters()).device
        input_ids = torch.tensor([ids], device=device)
        output = self.model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            past_key_values=self._cache,
            pad_token_id=filler(self.tokenizer),
            eos_token_id=self.tokenizer.eos_token_id,
            streamer=stream,
            **self.sampling.settings(),
        )
        # The last token was written, not read.
        self._read = output[0].tolist()[: self._cache.get_seq_length()]
