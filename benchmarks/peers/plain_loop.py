"""A plain PyTorch loop as a competent engineer writes it in an afternoon.

transformers' Qwen3, documents run together and cut into full rows, bf16 autocast (where
the device has it), torch.compile, fused AdamW, gradient clipping. No checkpoints, no log, no
resume.
"""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.common import print_result
from benchmarks.peers.settings import (
    make_clock,
    packed_rows,
    parse,
    peak_memory_gb,
    qwen3,
    row_order,
)
from minimind.distributed.device import has_bfloat16, page_locks, pick_device


def main() -> None:
    args = parse(__doc__)
    device = pick_device()
    torch.set_float32_matmul_precision("high")
    rows = packed_rows(args)
    model = qwen3(args).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, fused=True)
    if args.compile:
        model.compile(dynamic=False)
    clock = make_clock(args, device)
    mixed = has_bfloat16(device)

    batch_size, steps = args.batch_size, args.accumulation_steps
    order = row_order(len(rows), 50 * len(rows))
    micro_steps = len(order) // batch_size
    loss = torch.zeros(())
    for micro_step in range(micro_steps):
        ids = rows[order[micro_step * batch_size : (micro_step + 1) * batch_size]]
        batch = torch.from_numpy(ids.astype("int64"))
        batch = batch.pin_memory() if page_locks(device) else batch
        batch = batch.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = model(input_ids=batch, labels=batch).loss / steps
        loss.backward()
        if (micro_step + 1) % steps == 0:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if clock.update(batch_size * steps * args.max_seq_len):
                break
    result = clock.result()
    print_result({**result, "loss": float(loss) * steps, "memory_gb": peak_memory_gb()})


if __name__ == "__main__":
    main()
