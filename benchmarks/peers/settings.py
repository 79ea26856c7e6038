"""What every peer program is told, and the rows that packed peers train on."""

from __future__ import annotations

import argparse
import resource
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.peers.clock import UpdateClock

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def parse(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--data_path", required=True, metavar="FILE", help="jsonl")
    parser.add_argument("--cache_dir", default="", metavar="DIR", help="tokenised data")
    parser.add_argument("--hidden_size", type=int, required=True)
    parser.add_argument("--num_hidden_layers", type=int, required=True)
    parser.add_argument("--max_seq_len", type=int, required=True)
    parser.add_argument("--use_moe", type=int, default=0)
    parser.add_argument("--batch_size", type=int, required=True, help="rows of a micro-step")
    parser.add_argument("--accumulation_steps", type=int, default=1)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--warmup_seconds", type=float, default=20.0, help="not measured")
    parser.add_argument("--seconds", type=float, default=60.0, help="measured")
    parser.add_argument("--compile", type=int, default=1)
    return parser.parse_args()


def make_clock(args: argparse.Namespace, device: torch.device) -> UpdateClock:
    from minimind.distributed.device import synchronize

    wait = partial(synchronize, device)
    return UpdateClock(args.warmup_seconds, args.seconds, synchronize=wait)


def packed_rows(args: argparse.Namespace) -> NDArray[Any]:
    """The corpus as one stream of tokens, cut into rows of shape [n_rows, max_seq_len].

    Every position is a real token; documents run into each other, as in most simple loops.
    """
    from minimind.data.tokenize.build import open_corpus

    tokens = open_corpus([args.data_path], cache_dir=args.cache_dir).tokens
    n_rows = len(tokens) // args.max_seq_len
    return tokens[: n_rows * args.max_seq_len].reshape(n_rows, args.max_seq_len)


def row_order(n_rows: int, count: int, seed: int = 42) -> NDArray[np.int64]:
    """Row ids for ``count`` rows of training: epoch after epoch, each in an order of its own."""
    generator = np.random.default_rng(seed)
    epochs = [generator.permutation(n_rows) for _ in range(-(-count // n_rows))]
    return np.concatenate(epochs)[:count]


def qwen3(args: argparse.Namespace) -> Any:
    """transformers' own Qwen3 (or Qwen3-MoE) of the same size, with random weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from minimind.export.hf import qwen3_config
    from minimind.model import MiniMindConfig

    torch.manual_seed(42)
    config = qwen3_config(
        MiniMindConfig(
            hidden_size=args.hidden_size,
            num_hidden_layers=args.num_hidden_layers,
            use_moe=bool(args.use_moe),
        )
    )
    config.use_cache = False
    if args.use_moe:
        config.output_router_logits = True  # its balance loss is part of the training
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


def peak_memory_gb() -> float:
    """The most memory this process had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
