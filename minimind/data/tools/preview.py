"""Rows as the model sees them, decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minimind.config import TrainConfig
from minimind.errors import ConfigError

if TYPE_CHECKING:
    from minimind.data.mixture import Plan


def plan_of(config: TrainConfig) -> Plan:
    """The rows that a run with these flags trains on."""
    from minimind.data.mixture import open_plan
    from minimind.data.tokenizer import special_tokens

    return open_plan(
        config.data_path,
        config.tokenizer_path,
        max_seq_len=config.max_seq_len,
        pack=config.pack,
        text_field=config.text_field,
        render_chat=config.render_chat,
        cache_dir=config.cache_dir,
        max_bad_rows=config.max_bad_rows,
        progress=True,
        special=special_tokens(config),
    )


def first_rows(plan: Plan, seed: int, epoch: int, count: int) -> list[int]:
    """The ids of the rows that an epoch (from 0) begins with."""
    from minimind.data.sampler import SkipBatchSampler

    sampler = SkipBatchSampler(
        plan.n_rows, batch_size=count, rank=0, world_size=1, seed=seed, epoch=epoch, mix=plan.mix
    )
    return [int(row) for row in sampler.global_rows(0)]


def describe_row(plan: Plan, row: int, tokenizer_path: str = "") -> dict[str, Any]:
    """Take a row apart into its documents.

    Returns:
        ``row``, ``source`` (of a mix, else None), ``tokens``, ``padding``, and ``documents``:
        for each its number in the source, the place of its tokens in the row and in the
        document, whether the document is cut before or after them, their ids, and text.

    Raises:
        ConfigError: there is no such row.
    """
    from minimind.data.mixture import MixedPlan
    from minimind.data.tokenizer import load_tokenizer

    if not 0 <= row < plan.n_rows:
        raise ConfigError(f"--row {row}: there are rows 0 to {plan.n_rows - 1}")
    source, own_row, part = None, row, plan
    if isinstance(part, MixedPlan):
        number, own_row = part.locate(row)
        source, part = part.names[number], part.parts[number]
    tokenizer = load_tokenizer(tokenizer_path)
    batch = part.build(np.array([own_row]), 1)
    layout, offsets = part.layout, part.store.offsets
    documents = []
    place = 0
    for piece in range(int(layout.row_ptr[own_row]), int(layout.row_ptr[own_row + 1])):
        start, length = int(layout.starts[piece]), int(layout.lengths[piece])
        document = int(np.searchsorted(offsets, start, side="right")) - 1
        begin, end = int(offsets[document]), int(offsets[document + 1])
        ids = batch["input_ids"][0, place : place + length].tolist()
        documents.append(
            {
                "document": document,
                "position": place,
                "tokens": length,
                "from_token": start - begin,
                "cut_before": start > begin,
                "cut_after": start + length < end,
                "ids": ids,
                "text": tokenizer.decode(ids, clean_up_tokenization_spaces=False),
            }
        )
        place += length
    return {
        "row": row,
        "source": source,
        "tokens": place,
        "padding": plan.max_seq_len - place,
        "documents": documents,
    }
