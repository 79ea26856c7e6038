"""Flags that several commands share."""

from __future__ import annotations

from typing import Any

from minimind.config import DEVICE, DEVICE_HELP
from minimind.errors import ConfigError
from minimind.system.command_line import Parser


def add_weight_flags(parser: Parser, weight: bool = True) -> None:
    """The flags of every command that reads trained weights."""
    if weight:
        parser.flag("weight", required=True, help="a .pth, a .pt, a .gguf or a model folder")
    parser.flag("tokenizer_path", default="", help="a tokenizer folder (default: the weights' own)")
    parser.flag(
        "allow_other_tokenizer",
        action="store_true",
        help="use a tokenizer that differs from the one that the weights were trained with",
    )
    parser.flag(
        "num_experts_per_tok",
        type=int,
        metavar="N",
        help="experts that each token visits (MoE; default: what the weights' run had, or 1)",
    )


def add_device_flag(parser: Parser) -> None:
    parser.flag("device", default="", help=DEVICE_HELP)


def add_json_flag(parser: Parser) -> None:
    parser.flag("json", action="store_true", help="print JSON, for scripts")


def find_device(wanted: str) -> Any:
    """The torch device that ``--device`` means.

    Raises:
        ConfigError: it is not there, or no device at all.
    """
    from minimind.distributed.device import pick_device

    check, complaint = DEVICE
    if not check(wanted):
        raise ConfigError(f"--device {complaint}, but is {wanted!r}")
    return pick_device(wanted, local_rank=0, distributed=False)
