"""``minimind generate``: write text with trained weights."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from minimind.errors import EXIT_DONE, ConfigError
from minimind.pretrained import load_weights


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
) -> list[str]:
    """Continue each prompt; return the continuations, without the prompts.

    A prompt follows the beginning-of-text token, as documents do in pretraining. The caller's
    random state and the model's mode are left as they were.

    Args:
        temperature: 0 takes the likeliest token each time.
        top_p: sample among the likeliest tokens of this total probability.
        top_k: sample among so many of the likeliest tokens (0: no limit).
        device: where the model is (default: asked of the model).
    """
    device = torch.device(device) if device is not None else next(model.parameters()).device
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = tokenizer.eos_token_id
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    rows = [start + tokenizer(p, add_special_tokens=False)["input_ids"] for p in prompts]
    width = max(map(len, rows))
    input_ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)

    sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p}
    was_training = model.training
    model.eval()
    try:
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.inference_mode():
            torch.manual_seed(seed)
            output = model.generate(
                input_ids=input_ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                top_k=top_k if temperature > 0 else None,
                pad_token_id=pad,
                eos_token_id=tokenizer.eos_token_id,
                **sampling,
            )
    finally:
        model.train(was_training)
    return tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minimind generate",
        description="Write text with trained weights.",
        epilog='Example: minimind generate --weight out/pretrain_512.pth --prompt "The"',
    )

    def flag(name: str, **settings: Any) -> None:
        parser.add_argument(
            *dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")), **settings
        )

    flag("weight", required=True, help="a .pth, a checkpoint .pt or a Hugging Face folder")
    flag("prompt", required=True, action="append", help="text to continue; may be repeated")
    flag("max_new_tokens", type=int, default=64, help="length of the continuation (default: 64)")
    flag("temperature", type=float, default=0.8, help="0: no chance, else more (default: 0.8)")
    flag("top_p", type=float, default=0.9, help="probability to sample among (default: 0.9)")
    flag("top_k", type=int, default=0, help="tokens to sample among (default: 0, no limit)")
    flag("seed", type=int, default=0, help="seed of the sampling (default: 0)")
    flag("device", default="", help="cuda, cuda:N or cpu (default: cuda if there is one)")
    flag("tokenizer_path", default="", help="a tokenizer folder (default: the weights' own)")
    flag("num_experts_per_tok", type=int, help="experts that each token visits (MoE; default: 1)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Raises ConfigError, DataError or WeightsError where the command cannot be done."""
    args = build_parser().parse_args(list(argv))
    if args.max_new_tokens < 1:
        raise ConfigError(f"--max_new_tokens must be 1 or more, but is {args.max_new_tokens}")
    if args.temperature < 0:
        raise ConfigError(f"--temperature must be 0 or more, but is {args.temperature}")
    if not 0 < args.top_p <= 1:
        raise ConfigError(f"--top_p must be above 0 and at most 1, but is {args.top_p}")
    if args.top_k < 0:
        raise ConfigError(f"--top_k must be 0 or more, but is {args.top_k}")
    has_cuda = torch.cuda.is_available()
    device = args.device or ("cuda" if has_cuda else "cpu")
    if device != "cpu" and not has_cuda:
        raise ConfigError(f"--device {device}: torch finds no GPU here; use cpu")
    model, tokenizer = load_weights(
        args.weight, device, args.tokenizer_path, args.num_experts_per_tok
    )
    texts = generate(
        model,
        tokenizer,
        args.prompt,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        seed=args.seed,
        device=device,
    )
    for prompt, text in zip(args.prompt, texts, strict=True):
        print(f"{prompt}{text}\n", flush=True)
    return EXIT_DONE
