"""Smaller variants of an exported graph, under the names that transformers.js looks for."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from minimind.data.packing import RowPlan, plan_rows
from minimind.data.tokenize.build import open_corpus
from minimind.errors import MiniMindError
from minimind.export.about import About
from minimind.export.onnx import OnnxModel, apart_name
from minimind.system.packages import require_package
from minimind.weights.foreign import QUANTISED
from minimind.weights.pretrained import Pretrained

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILES = {"fp16": "model_fp16.onnx", "q8": "model_quantized.onnx", "q4": "model_q4.onnx"}
"""Variant, as transformers.js calls it (``dtype``) → its file beside ``model.onnx``."""

BLOCK = 32
"""Weights that share a scale in the variant of 4 bits."""

_TOKENS_AT_ONCE = 4096


def write_variant(graph: Path, variant: str) -> Path:
    """Write a variant of ``graph`` beside it, with onnxruntime's own tools.

    ``fp16`` computes in 16 bits, its inputs and outputs stay in float32. ``q8`` holds the matrices
    in 8 bits, a scale for each output, and rounds what they are multiplied with to 8 bits too.
    ``q4`` holds them in 4 bits, a scale for each :data:`BLOCK` weights. Embedding, norms and
    routers stay in float32 in both.

    Raises:
        ConfigError: onnx or onnxruntime is not installed.
    """
    onnx = require_package("onnx")
    require_package("onnxruntime")
    file = graph.parent / FILES[variant]
    with _quiet():
        {"fp16": _halve, "q8": _store_in_8_bits, "q4": _store_in_4_bits}[variant](graph, file)
    model = onnx.load(str(file))
    model.metadata_props.add(key=QUANTISED, value=variant)
    onnx.save(model, str(file))
    return file


def stored_apart(graphs: Sequence[Path]) -> dict[str, int]:
    """Graph → 1, of those whose weights are in a file of their own."""
    return {g.name: 1 for g in graphs if (g.parent / apart_name(g)).is_file()}


def _halve(graph: Path, file: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(str(graph)), keep_io_types=True), str(file))


def _store_in_8_bits(graph: Path, file: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(graph))
    routers = _turn_weights(model)
    quantize_dynamic(
        model,
        str(file),
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=routers,
        extra_options={"MatMulConstBOnly": True},
    )


def _store_in_4_bits(graph: Path, file: Path) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    model = onnx.load(str(graph))
    routers = _turn_weights(model)
    config = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True)
    quantizer = MatMulNBitsQuantizer(model, nodes_to_exclude=routers, algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(file), False)


def _turn_weights(model: Any) -> list[str]:
    """Store each matrix as it is multiplied with: the quantisers look for nothing else.

    Returns:
        the names of the nodes that compute routers, which are small and decide much.
    """
    onnx = require_package("onnx")
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    turned: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        if node.op_type != "Transpose" or node.input[0] not in stored:
            kept.append(node)
            continue
        weight = onnx.numpy_helper.to_array(stored[node.input[0]])
        turned[node.output[0]] = node.input[0]
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.ascontiguousarray(weight.T), node.output[0])
        )
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    unused = [tensor for tensor in model.graph.initializer if tensor.name not in used]
    for tensor in unused:
        model.graph.initializer.remove(tensor)
    routers = []
    for number, node in enumerate(kept):
        node.name = node.name or f"node_{number}"
        if any(turned.get(name, "").endswith(".mlp.gate.weight") for name in node.input):
            routers.append(node.name)
    return routers


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantisers log each node, and advice for other kinds of models."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)


def with_losses(
    about: About, graphs: Sequence[Path], source: Pretrained, data_path: Sequence[str]
) -> About:
    """Score each graph on held-out text, in rows as long as those of the training.

    Raises:
        DataError: the text cannot be used.
        MiniMindError: a graph gives no numbers.
    """
    store = open_corpus(data_path, str(source.tokenizer_folder), special=source.special)
    plan = plan_rows(store, source.context)
    losses = {graph.name: held_out_loss(OnnxModel(graph), plan) for graph in graphs}
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise MiniMindError(f"{name} has a loss of {loss} on the held-out text; leave it out")
    return replace(about, losses=losses, held_out=", ".join(Path(p).name for p in data_path))


@torch.inference_mode()
def held_out_loss(graph: OnnxModel, plan: RowPlan) -> float:
    """Nats per scored token of text, as ``minimind eval`` counts them.

    Each piece of a document is read by itself, as rows of training keep them apart.
    """
    starts, lengths = np.asarray(plan.layout.starts), np.asarray(plan.layout.lengths)
    order = np.argsort(lengths, kind="stable")
    nats, scored, first = 0.0, 0, 0
    while first < len(order):
        # The longest last: what a batch takes grows with it.
        rows = max(1, _TOKENS_AT_ONCE // int(lengths[order[min(first + 63, len(order) - 1)]]))
        pieces = order[first : first + min(rows, 64)]
        ids, mask = _padded(plan, starts[pieces], lengths[pieces])
        logits, _ = graph(ids, torch.ones_like(ids))
        targets = torch.where(mask, ids, -100)[:, 1:]
        nats += float(
            torch.nn.functional.cross_entropy(
                logits[:, :-1].transpose(1, 2).double(), targets, reduction="sum"
            )
        )
        scored += int((targets >= 0).sum())
        first += len(pieces)
    return nats / max(1, scored)


def _padded(
    plan: RowPlan, starts: NDArray[Any], lengths: NDArray[Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [B, T] of pieces, padded behind, where nothing is seen of it; and what is a token."""
    mask = np.arange(lengths.max())[None] < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    places = starts[:, None] + np.arange(lengths.max())[None]
    ids[mask] = plan.store.tokens[places[mask]]
    return torch.from_numpy(ids), torch.from_numpy(mask)
