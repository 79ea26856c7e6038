"""ONNX: the model as one graph, for onnxruntime and all that reads what Optimum writes.

The graph takes any batch and length. With the key/value cache it also takes the keys and values of
the tokens before, none of them at first, and gives them back with those of the new tokens: one
graph reads the prompt and writes the text.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minimind.model import MiniMindForCausalLM
from minimind.model.layers import MiniMindSparseMoeBlock
from minimind.system.packages import require_package
from minimind.weights.foreign import ORIGIN
from minimind.weights.origin import UNKNOWN, Origin

LARGEST_FILE = 2_000_000_000
"""Bytes of weights that are in the graph's file: protobuf takes little more."""


class _DenseMoe(nn.Module):
    """Every expert on every token, weighted by the router: 0 for those not chosen.

    It computes what the sparse block does, at E/k times the work, in operators whose shapes do
    not depend on the router, which is what a graph compiler wants.
    """

    def __init__(self, block: MiniMindSparseMoeBlock) -> None:
        super().__init__()
        self.gate, self.experts = block.gate, block.experts
        self.top_k, self.norm_topk_prob = block.top_k, block.norm_topk_prob

    def forward(self, hidden_states: Tensor) -> Tensor:
        probs = self.gate(hidden_states).softmax(dim=-1, dtype=torch.float32)
        weights, chosen = probs.topk(self.top_k, dim=-1)
        if self.norm_topk_prob:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        # Not by a scatter into zeros: with it MNN 3.6 computes other logits.
        experts = torch.arange(probs.shape[-1], device=probs.device)
        weights = (weights[..., None] * (chosen[..., None] == experts)).sum(-2)
        weights = weights.to(hidden_states.dtype)
        outputs = torch.stack([expert(hidden_states) for expert in self.experts], dim=-1)
        return (outputs * weights[..., None, :]).sum(-1)


class _Graph(nn.Module):
    """The model with tensors alone as inputs and outputs."""

    def __init__(self, model: MiniMindForCausalLM, kv_cache: bool) -> None:
        super().__init__()
        self.model, self.lm_head = model.model, model.lm_head
        self.kv_cache = kv_cache

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past: list[Tensor]
    ) -> list[Tensor]:
        from transformers.cache_utils import DynamicCache

        cache = None
        if self.kv_cache:
            cache = DynamicCache(config=self.model.config)
            for layer, (key, value) in enumerate(zip(past[::2], past[1::2], strict=True)):
                cache.update(key, value, layer)
        hidden_states = self.model(
            input_ids=input_ids,
            attention_mask=causal_mask(attention_mask, input_ids.shape[1]),
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=self.kv_cache,
        ).last_hidden_state
        layers = cache.layers if cache is not None else []
        return [
            self.lm_head(hidden_states),
            *(part for layer in layers for part in (layer.keys, layer.values)),
        ]


def causal_mask(attention_mask: Tensor, length: int) -> Tensor:
    """Who may look at whom: bool [B, 1, T, S], for the last T of S tokens.

    Padding looks at itself, so that no row is empty: its softmax would be NaN, and the graph has
    nothing that looks for NaN.

    Args:
        attention_mask: [B, S], 0 for padding.
        length: T.
    """
    keys = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    queries = (torch.arange(length, device=keys.device) + (len(keys) - length))[:, None]
    real = attention_mask.bool()[:, None, :]
    return ((keys == queries) | ((keys < queries) & real))[:, None]


@contextlib.contextmanager
def _plain_operators(model: MiniMindForCausalLM) -> Iterator[None]:
    """Compute attention and experts in operators that every runtime has.

    Torch's fused attention is exported with a guard against rows without a key, IsNaN, which
    MNN does not know.
    """
    blocks = [layer.mlp for layer in model.model.layers]
    attention = model.config._attn_implementation
    try:
        model.config._attn_implementation = "eager"
        for layer, block in zip(model.model.layers, blocks, strict=True):
            if isinstance(block, MiniMindSparseMoeBlock):
                layer.mlp = _DenseMoe(block)
        yield
    finally:
        model.config._attn_implementation = attention
        for layer, block in zip(model.model.layers, blocks, strict=True):
            layer.mlp = block


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of operators of packages that nobody asked for."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def past_names(num_layers: int) -> list[str]:
    """The cache's inputs, in the graph's order; ``present`` for ``past_key_values`` in outputs."""
    return [f"past_key_values.{i}.{part}" for i in range(num_layers) for part in ("key", "value")]


def check_packages(run: bool) -> None:
    """Find out before the work whether a graph can be written, and run to check it.

    Raises:
        ConfigError: a package of the extra ``export`` is not installed.
    """
    for name in ("onnx", "onnxscript", *(["onnxruntime"] if run else [])):
        require_package(name)


def write_onnx(
    model: MiniMindForCausalLM, file: Path, kv_cache: bool, origin: Origin = UNKNOWN
) -> None:
    """Write the graph to ``file``, in float32, and weights of over 2 GB to ``FILE_data``.

    Inputs: ``input_ids`` and ``position_ids`` int64 [batch, length], ``attention_mask`` int64
    [batch, past + length] (0 for padding), and with the cache ``past_key_values.N.key`` and
    ``.value`` [batch, heads, past, head_dim], past ≥ 0.
    Outputs: ``logits`` [batch, length, vocabulary], and ``present.N.key`` and ``.value``.
    The weights are initialisers under MiniMind's names; ``origin`` is in the metadata.

    Raises:
        ConfigError: as :func:`check_packages`.
    """
    check_packages(run=False)
    import onnx_ir

    file.parent.mkdir(exist_ok=True)
    config = model.config
    names = past_names(config.num_hidden_layers) if kv_cache else []
    # 2 tokens after 3: sizes of 0 and 1 would be taken for constants.
    shape = (2, config.num_key_value_heads, 3, config.head_dim)
    past = [torch.zeros(shape) for _ in names]
    total = 5 if kv_cache else 2
    ids = torch.zeros((2, 2), dtype=torch.int64)
    mask = torch.ones((2, total), dtype=torch.int64)
    dynamic = torch.export.Dim.DYNAMIC
    flat = {0: dynamic, 1: dynamic}
    with _quiet(), _plain_operators(model), torch.no_grad():
        program: Any = torch.onnx.export(
            _Graph(model, kv_cache).eval(),
            (ids, mask, ids.clone(), past),
            dynamo=True,
            dynamic_shapes=(flat, flat, flat, [{0: dynamic, 2: dynamic} for _ in names]),
            input_names=["input_ids", "attention_mask", "position_ids", *names],
            output_names=["logits", *(n.replace("past_key_values", "present") for n in names)],
            optimize=False,
            verbose=False,
        )
        _simplify(program.model)
        _name_axes(program.model.graph)
        program.model.metadata_props[ORIGIN] = origin.to_json()
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        onnx_ir.save(
            program.model, file, external_data=apart_name(file) if size > LARGEST_FILE else None
        )


def apart_name(file: Path) -> str:
    """What transformers.js calls the file with a graph's weights, if they are apart."""
    return f"{file.name}_data"


def _simplify(graph_model: Any) -> None:
    """Compute what is constant, sequences among it, which TensorRT does not take.

    The exporter's own optimiser does it too, but folds weights into new ones without names and
    merges equal ones, and then nobody could read them back.
    """
    from onnxscript import optimizer

    def may_fold(node: Any) -> bool | None:
        has_weight = any(value is not None and value.is_initializer() for value in node.inputs)
        return False if has_weight else None

    optimizer.inline(graph_model)
    for _ in range(2):
        optimizer.fold_constants(graph_model, should_fold=may_fold)
        optimizer.remove_unused_nodes(graph_model)
    # Stack traces, with the paths of this machine.
    for node in graph_model.graph:
        node.metadata_props.clear()


def _name_axes(graph: Any) -> None:
    """Name the free axes as Optimum does; the exporter numbers them.

    transformers.js makes an empty cache by these names: the rows by ``batch_size``, and 0 for
    any other.
    """
    import onnx_ir

    rows, length, past = "batch_size", "sequence_length", "past_sequence_length"
    total = f"{past} + {length}"
    for value in [*graph.inputs, *graph.outputs]:
        name = value.name
        if name.startswith("past_key_values"):
            axes = {0: rows, 2: past}
        elif name.startswith("present"):
            axes = {0: rows, 2: total}
        else:
            axes = {0: rows, 1: total if name == "attention_mask" else length}
        shape = list(value.shape)
        value.shape = onnx_ir.Shape([axes.get(i, size) for i, size in enumerate(shape)])


class OnnxModel:
    """The written graph in onnxruntime, on the CPU.

    Raises:
        ConfigError: onnxruntime is not installed.
    """

    def __init__(self, file: Path) -> None:
        runtime = require_package("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        self.session = runtime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        self.past_inputs = [i for i in self.session.get_inputs() if i.name.startswith("past_key")]

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor, past: list[Any] | None = None
    ) -> tuple[Tensor, list[Any]]:
        """Logits [B, T, V] of ``input_ids`` [B, T], and the cache to give to the next call.

        ``attention_mask`` [B, past + T] has a 0 for padding, which stands on the left.
        """
        positions = (attention_mask.cumsum(1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        feed = {
            "input_ids": input_ids.numpy(),
            "attention_mask": attention_mask.numpy(),
            "position_ids": positions.contiguous().numpy(),
        }
        if past is None:
            past = [
                torch.zeros((len(input_ids), i.shape[1], 0, i.shape[3])).numpy()
                for i in self.past_inputs
            ]
        feed.update(zip((i.name for i in self.past_inputs), past, strict=True))
        logits, *present = self.session.run(None, feed)
        return torch.from_numpy(logits), present


@torch.inference_mode()
def largest_onnx_difference(model: MiniMindForCausalLM, file: Path, kv_cache: bool) -> float:
    """The largest difference of logits between the model and its graph in onnxruntime.

    Two rows of random tokens, the second padded on the left; with the cache they are read in two
    parts, the last token by itself.
    """
    graph = OnnxModel(file)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (2, 48), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, :9] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    ours = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    if kv_cache:
        head, past = graph(ids[:, :-1], mask[:, :-1])
        tail, _ = graph(ids[:, -1:], mask, past)
        theirs = torch.cat((head, tail), dim=1)
    else:
        theirs, _ = graph(ids, mask)
    return float((ours - theirs)[mask.bool()].abs().max())
