"""Writes text with trained weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from minimind.distributed.device import random_state_kept
from minimind.errors import ConfigError, require
from minimind.inference.decoding import continue_rows
from minimind.inference.sampling import Sampling, TextStream
from minimind.model.language_model import LanguageModel

MAX_PROMPT_BYTES = 1 << 26
"""Of a file of prompts, all of which are in memory; ``/dev/zero`` has no end."""


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int = 64,
    temperature: float = 0.8,
    top_p: float = 0.9,
    top_k: int = 0,
    seed: int = 0,
    device: torch.device | str | None = None,
    repetition_penalty: float = 1.0,
    stream: TextStream | None = None,
    goes_on: Callable[[], bool] = lambda: True,
) -> list[str]:
    """Continue each prompt; return the continuations, without the prompts.

    A prompt follows the beginning-of-text token, as documents do in pretraining. The caller's
    random state and the model's mode are left as they were.

    Args:
        model: a ``LanguageModel``, or a model of transformers'.
        temperature, top_p, top_k, repetition_penalty: see :class:`Sampling`.
        device: where the model is (default: asked of the model).
        stream: is given each token of the one prompt as it comes.
        goes_on: asked at each token; False ends all continuations there.

    Raises:
        ConfigError: a prompt is empty, and nothing comes before it either.
    """
    device = torch.device(device) if device is not None else next(model.parameters()).device
    pad = filler(tokenizer)
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    rows = [start + tokenizer(p, add_special_tokens=False)["input_ids"] for p in prompts]
    require(all(rows), "an empty prompt: this tokenizer names no token that begins a text")
    width = max(map(len, rows))
    input_ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    sampling = Sampling(max_new_tokens, temperature, top_p, top_k, repetition_penalty)

    was_training = model.training
    model.eval()
    try:
        with random_state_kept(device), torch.inference_mode():
            torch.manual_seed(seed)
            if isinstance(model, LanguageModel):
                output = continue_rows(
                    model,
                    input_ids,
                    mask.bool(),
                    sampling,
                    pad=pad,
                    end=tokenizer.eos_token_id,
                    on_tokens=stream.put if stream else lambda tokens: None,
                    goes_on=goes_on,
                )
                if stream:
                    stream.end()
            else:
                output = model.generate(
                    input_ids=input_ids,
                    attention_mask=mask,
                    pad_token_id=pad,
                    eos_token_id=tokenizer.eos_token_id,
                    streamer=stream,
                    stopping_criteria=[_while(goes_on)],
                    **sampling.settings(),
                )
    finally:
        model.train(was_training)
    return tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)


def filler(tokenizer: Any) -> int:
    """A token id to fill places with that the mask hides: any will do where none is named."""
    named = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(token for token in named if token is not None)


def _while(goes_on: Callable[[], bool]) -> Callable[..., torch.Tensor]:
    """A stopping criterion of transformers': True for each row that is to end."""
    return lambda input_ids, scores, **more: torch.full(
        (input_ids.shape[0],), not goes_on(), dtype=torch.bool, device=input_ids.device
    )


def read_prompts(file: Path, flag: str = "prompts_file") -> list[str]:
    """The prompts of a file, in order; empty lines are none. ``flag`` is what named the file.

    Raises:
        ConfigError: the file cannot be read, or a row has no prompt; the message says which.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_PROMPT_BYTES + 1)
        require(
            len(data) <= MAX_PROMPT_BYTES,
            f"--{flag} {file}: longer than {MAX_PROMPT_BYTES} bytes; split it",
        )
        lines = data.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"--{flag} {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"--{flag} {file}: not UTF-8 at byte {error.start}") from None
    except ValueError as error:  # a NUL in the name
        raise ConfigError(f"--{flag} {file}: {error}") from None
    if file.suffix != ".jsonl":
        return [line for line in lines if line.strip()]
    prompts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompt = row.get("prompt", row.get("text"))
            str(prompt).encode("utf-8")  # half a character is none
        except (ValueError, AttributeError, RecursionError):
            prompt = None
        if not isinstance(prompt, str):
            raise ConfigError(f'{file}:{number}: no JSON object with a text "prompt" or "text"')
        prompts.append(prompt)
    return prompts
