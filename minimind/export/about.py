"""What a model card says of weights that no tensor shows: licence, languages, data, figures."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from minimind.data.inputs import find_files
from minimind.data.rows import read_texts
from minimind.errors import MiniMindError
from minimind.rundir.data_path import parse_sources
from minimind.rundir.layout import OutputPaths
from minimind.rundir.metrics import read_metrics
from minimind.weights.pretrained import Pretrained

SCRIPTS = {"en": re.compile("[A-Za-z]"), "zh": re.compile("[\u4e00-\u9fff]")}
"""Language → the letters by which it is recognised."""

_LOOKED_AT = 200
"""Texts of a file whose letters are counted."""
_FILES = 8
"""Files of a source that are looked at: a folder may have thousands."""
_LEAST_SHARE = 0.05
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class About:
    """What is known of a model besides its tensors.

    Attributes:
        licence: an identifier as the Hugging Face hub has them.
        languages: ISO 639-1 codes.
        data: the texts it was trained on, as they were named.
        losses: file of weights → nats per token of held-out text.
        held_out: which text that was.
    """

    licence: str = "unknown"
    languages: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    losses: dict[str, float] = field(default_factory=dict)
    held_out: str = ""

    @property
    def datasets(self) -> list[str]:
        """Those of the texts that are data sets of the hub."""
        return [name for name in self.data if _HUB_NAME.fullmatch(name) and not Path(name).exists()]


UNKNOWN = About()


def describe(source: Pretrained, licence: str, languages: Sequence[str]) -> About:
    """What the run of the weights left about them, where it can still be read.

    Args:
        licence: what the user says; only the user knows.
        languages: what the user says; empty: by the letters in the first texts of the data.
    """
    data = _texts(source, "data_path")
    losses, held_out = _held_out(source)
    return About(
        licence=licence,
        languages=tuple(languages) or _languages(data),
        data=tuple(map(_shown, data)),
        losses=losses,
        held_out=held_out,
    )


def _texts(source: Pretrained, flag: str) -> list[str]:
    """The paths that a flag of the run named, without their weights."""
    words = source.flags.get(flag) or []
    words = [words] if isinstance(words, str) else list(map(str, words))
    with contextlib.suppress(MiniMindError):
        return [s.path for s in parse_sources(words) or []] or words
    return words


def _shown(path: str) -> str:
    """A hub's name as it is; of a path the last part alone: the rest is about a machine."""
    return path if _HUB_NAME.fullmatch(path) and not Path(path).exists() else Path(path).name


def _languages(paths: Sequence[str]) -> tuple[str, ...]:
    counts = dict.fromkeys(SCRIPTS, 0)
    # The data of a run may be elsewhere by now.
    with contextlib.suppress(MiniMindError, OSError):
        for file in chain.from_iterable(find_files([path])[:_FILES] for path in paths):
            for text in islice(read_texts(file), _LOOKED_AT):
                if isinstance(text, str):
                    for language, letters in SCRIPTS.items():
                        counts[language] += len(letters.findall(text))
    least = _LEAST_SHARE * sum(counts.values())
    return tuple(language for language, count in counts.items() if count > least)


def _held_out(source: Pretrained) -> tuple[dict[str, float], str]:
    """The loss that the run itself measured on the weights, or on its way to them."""
    step: int | None
    folder: str | Path
    if source.progress is not None:
        step, folder = source.progress.global_step, source.flags.get("save_dir", "")
    else:
        step, folder = source.origin.step, source.path.parent
    if not step or not folder:
        return {}, ""
    try:
        points = read_metrics(OutputPaths(Path(folder)).metrics)
    except OSError:
        return {}, ""
    known = [p for p in points if "eval_loss" in p and p.get("global_step", step + 1) <= step]
    if not known:
        return {}, ""
    named = ", ".join(map(_shown, _texts(source, "eval_data_path")))
    return {source.path.name: known[-1]["eval_loss"]}, named
