"""Samples of text over training: what the model would write, every ``--sample_interval``.

A sample changes nothing in the run: it draws from generators of its own, leaves the model's mode
as it was, and calls the bare model, neither compiled nor wrapped, so that no other rank takes part.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from minimind.config import TrainConfig
from minimind.data.codec import load_codec
from minimind.data.tokenizer import special_tokens
from minimind.errors import ConfigError
from minimind.inference.generate import generate, read_prompts
from minimind.rundir.layout import OutputPaths
from minimind.system.jsonl import JsonLog
from minimind.telemetry.trackers.tracker import Tracker

DEFAULT_PROMPTS = ("The", "A good way to", "今天天气", "我们可以")
MAX_PROMPTS = 16
"""All prompts are one batch, while the other ranks wait."""
NEW_TOKENS = 48

log = logging.getLogger(__name__)


def sample_prompts(config: TrainConfig) -> list[str]:
    """The texts to continue: those of ``--sample_prompts``, or a few of our own.

    Raises:
        ConfigError: the file cannot be read, or has no prompt or too many.
    """
    if not config.sample_prompts:
        return list(DEFAULT_PROMPTS)
    path = Path(config.sample_prompts)
    prompts = read_prompts(path, flag="sample_prompts")
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise ConfigError(
            f"--sample_prompts {path} holds {len(prompts)} prompts; it takes 1 to {MAX_PROMPTS}"
        )
    return prompts


class SampleWriter:
    """Writes continuations of a few prompts to ``SAVE_DIR/samples.jsonl`` and the trackers."""

    def __init__(
        self, config: TrainConfig, prompts: Sequence[str], model: Any, tracker: Tracker
    ) -> None:
        self._prompts = list(prompts)
        self._model = model
        self._tracker = tracker
        self._seed = config.seed
        self._tokenizer = load_codec(config.tokenizer_path, special_tokens(config))
        self._file: JsonLog | None = JsonLog(OutputPaths(config.save_dir).samples)

    def write(
        self, *, goes_on: Callable[[], bool], micro_step: int, update: int, **place: Any
    ) -> None:
        """Sample now. What goes wrong is one warning, and the end of sampling; never raises.

        Args:
            goes_on: asked at each token; once it says no, nothing is written.
            micro_step, update: see ``NullTracker.log``.
            place: ``epoch``, ``step``, ``global_step`` … of the records.
        """
        if self._file is None or not goes_on():
            return
        try:
            texts = self._continue(goes_on)
            if not goes_on():
                return
            for prompt, text in zip(self._prompts, texts, strict=True):
                self._file.write({"time": time.time(), **place, "prompt": prompt, "text": text})
        except Exception as error:
            log.warning("no more samples of text: %s: %s", type(error).__name__, error)
            self.close()
            return
        self._tracker.log_text(
            {
                f"sample/{number}": f"{prompt}{text}"
                for number, (prompt, text) in enumerate(zip(self._prompts, texts, strict=True), 1)
            },
            micro_step=micro_step,
            update=update,
        )

    def _continue(self, goes_on: Callable[[], bool]) -> list[str]:
        # Each text has another length at every token: compiled, each would be compiled anew.
        # Block attention is for whole rows: flex_attention not compiled would build all scores, at
        # a warning a time, and the blockwise one knows no cache.
        attention = self._model.config._attn_implementation
        if attention in ("flex_attention", "blockwise"):
            self._model.set_attn_implementation("sdpa")
        try:
            with torch.compiler.set_stance("force_eager"):
                return generate(
                    self._model,
                    self._tokenizer,
                    self._prompts,
                    max_new_tokens=NEW_TOKENS,
                    seed=self._seed,
                    goes_on=goes_on,
                )
        finally:
            self._model.set_attn_implementation(attention)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
