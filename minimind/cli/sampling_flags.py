"""The flags that ``generate`` and ``chat`` share: how the next token is chosen."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from minimind.inference.sampling import Sampling
from minimind.system.command_line import Parser


def add_sampling_flags(
    parser: Parser, derived: Mapping[str, str] | None = None, **defaults: Any
) -> None:
    """Flags for every field of :class:`Sampling`, and ``--seed``.

    ``derived``: fields that are None unless given, each with how the command finds its value.
    """
    preset, derived = Sampling(**defaults), derived or {}
    for name, kind, text in (
        ("max_new_tokens", int, "most tokens to add"),
        ("temperature", float, "0: the likeliest token each time; more: more chance"),
        ("top_p", float, "sample among the likeliest tokens of this total probability"),
        ("top_k", int, "sample among so many of the likeliest tokens; 0: no limit"),
        ("repetition_penalty", float, "above 1: less likely to repeat what was written"),
    ):
        default = None if name in derived else getattr(preset, name)
        said = derived.get(name, default)
        parser.flag(name, type=kind, default=default, help=f"{text} (default: {said})")
    parser.flag("seed", type=int, default=0, help="seed of the sampling (default: 0)")


def read_sampling(args: argparse.Namespace) -> Sampling:
    """What the command line says.

    Raises:
        ConfigError: a value is out of its range.
    """
    values = {f.name: getattr(args, f.name) for f in dataclasses.fields(Sampling)}
    sampling = Sampling(**{name: value for name, value in values.items() if value is not None})
    sampling.check()
    return sampling
