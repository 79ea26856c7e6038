"""Hugging Face's Trainer with Qwen3, at its own best settings for the device.

Packed rows without padding, bf16 (where the device has it), torch.compile, the fused AdamW that
is its default; no evaluation, no saving.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.common import print_result
from benchmarks.peers.clock import UpdateClock
from benchmarks.peers.settings import (
    make_clock,
    packed_rows,
    parse,
    peak_memory_gb,
    qwen3,
)
from minimind.distributed.device import has_bfloat16, page_locks, pick_device


class Rows(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(self.rows[index].astype("int64"))
        return {"input_ids": ids, "labels": ids}


class Timing(TrainerCallback):
    """Stops the Trainer when its time is up."""

    def __init__(self, clock: UpdateClock, tokens_per_update: int) -> None:
        self.clock = clock
        self.tokens_per_update = tokens_per_update

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = self.clock.update(self.tokens_per_update)


def main() -> None:
    args = parse(__doc__)
    rows = packed_rows(args)
    device = pick_device()
    on_gpu = device.type != "cpu"
    if on_gpu:
        torch.set_float32_matmul_precision("high")
    clock = make_clock(args, device)
    tokens = args.batch_size * args.accumulation_steps * args.max_seq_len
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=qwen3(args),
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=args.batch_size,
                gradient_accumulation_steps=args.accumulation_steps,
                learning_rate=args.learning_rate,
                num_train_epochs=1000,
                bf16=has_bfloat16(device),
                use_cpu=not on_gpu,
                torch_compile=bool(args.compile),
                dataloader_num_workers=1,
                dataloader_drop_last=True,
                dataloader_pin_memory=page_locks(device),
                logging_steps=100,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Rows(rows),
            callbacks=[Timing(clock, tokens)],
        )
        trainer.train()
    print_result({**clock.result(), "memory_gb": peak_memory_gb()})


if __name__ == "__main__":
    main()
