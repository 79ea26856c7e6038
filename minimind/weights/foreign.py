"""Reads weights back from what ``minimind export`` writes for other programs: GGUF and ONNX."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minimind.errors import MiniMindError, WeightsError
from minimind.system.packages import require_package

ARCHITECTURES = {False: "qwen3", True: "qwen3moe"}
"""Whether the model is a mixture of experts → what GGUF calls its architecture."""

ORIGIN = "minimind.origin"
"""Under this name GGUF and ONNX files hold what the weights say of themselves, as JSON."""

QUANTISED = "minimind.quantised"
"""Under this name a graph says how its weights were quantised, if they were."""

_EXPERT_PARTS = ("gate_proj", "up_proj", "down_proj")


def gguf_layout(num_layers: int, num_experts: int) -> dict[str, list[str]]:
    """GGUF's tensor names → ours; experts are one tensor there, [E, out, in].

    Args:
        num_layers: decoder layers.
        num_experts: experts a layer; 0 for a dense model.

    Raises:
        ConfigError: the package gguf is not installed.
    """
    gguf = require_package("gguf")
    architecture = {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[ARCHITECTURES[num_experts > 0]]
    known = gguf.get_tensor_name_map(architecture, num_layers)
    names = ["model.embed_tokens", "model.norm", "lm_head"]
    for layer in range(num_layers):
        names += [
            f"model.layers.{layer}.{part}"
            for part in (
                "input_layernorm",
                "post_attention_layernorm",
                *(f"self_attn.{p}_proj" for p in "qkvo"),
                *(f"self_attn.{p}_norm" for p in "qk"),
                *(f"mlp.{p}" for p in (["gate"] if num_experts else _EXPERT_PARTS)),
            )
        ]
    layout = {f"{known.get_name(name)}.weight": [f"{name}.weight"] for name in names}
    for layer in range(num_layers if num_experts else 0):
        mlp = f"model.layers.{layer}.mlp.experts"
        for part in _EXPERT_PARTS:
            layout[f"{known.get_name(f'{mlp}.{part}')}.weight"] = [
                f"{mlp}.{expert}.{part}.weight" for expert in range(num_experts)
            ]
    return layout


def yarn_magnitude(factor: float) -> float:
    """What llama.cpp multiplies the rotary cos and sin with unless told otherwise.

    1 + 0.1·ln(factor): arXiv:2309.00071, equation 22.
    """
    return 1.0 + 0.1 * math.log(factor)


def open_gguf(path: str | Path) -> Any:
    """The package's reader of a GGUF file: ``fields`` and ``tensors``.

    Raises:
        ConfigError: the package gguf is not installed.
        WeightsError: the file is missing or damaged.
    """
    gguf = require_package("gguf")

    class Reader(gguf.GGUFReader):  # type: ignore[name-defined]
        def _get(self, offset: int, dtype: Any, count: Any = 1, **order: Any) -> Any:
            found = super()._get(offset, dtype, count, **order)
            # The package would read on behind the end, for as many items as a list claims.
            if len(found) < int(count):
                raise ValueError("it ends in the middle of a value")
            return found

    with naming_damage(path):
        return Reader(path)


@contextlib.contextmanager
def naming_damage(path: str | Path) -> Iterator[None]:
    """Make a WeightsError of whatever fails in reading a GGUF file.

    Its package parses by offsets, and fails in many ways on a damaged file.
    """
    try:
        yield
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file or folder") from None
    except MiniMindError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise WeightsError(f"{path} is damaged, or no GGUF file ({reason})") from None


def read_gguf(
    path: str | Path, dequantise: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any], Any]:
    """The tensors of a GGUF file under our names, keyword arguments for ``infer_config``, and what
    the file says of itself (:data:`ORIGIN`; None: nothing).

    Args:
        dequantise: give what a quantised file computes with, in float32, rather than refuse it.

    Raises:
        ConfigError: the package gguf is not installed.
        WeightsError: the file is damaged, of another architecture, or quantised.
    """
    reader = open_gguf(path)
    with naming_damage(path):
        return _read_gguf(reader, path, dequantise)


def _read_gguf(
    reader: Any, path: str | Path, dequantise: bool
) -> tuple[dict[str, Tensor], dict[str, Any], Any]:
    values = {name: field.contents() for name, field in reader.fields.items()}
    architecture = str(values.get("general.architecture"))
    if architecture not in ARCHITECTURES.values():
        raise WeightsError(f"{path} holds a model of architecture {architecture}, not Qwen3")
    layers, experts = (
        int(values.get(f"{architecture}.{name}", 0)) for name in ("block_count", "expert_count")
    )
    rows = sum(int(tensor.shape[-1]) for tensor in reader.tensors)
    if not 0 <= layers <= len(reader.tensors) or not 0 <= experts <= rows:
        # Names are made for all of them: no more than there can be.
        raise WeightsError(
            f"{path} is damaged: it has no tensors for {layers} layers or {experts} experts"
        )
    layout = gguf_layout(layers, experts)
    state: dict[str, Tensor] = {}
    for tensor in reader.tensors:
        ours = layout.get(tensor.name)
        if ours is None:
            raise WeightsError(f"{path} holds a tensor {tensor.name}, which no MiniMind model has")
        whole = _gguf_tensor(tensor, path, dequantise)
        state.update(zip(ours, whole.unbind() if len(ours) > 1 else [whole], strict=True))
    return state, _gguf_settings(values, architecture), values.get(ORIGIN)


def _gguf_tensor(tensor: Any, path: str | Path, dequantise: bool) -> Tensor:
    kind = tensor.tensor_type.name
    if kind in ("F32", "F16"):
        return torch.from_numpy(tensor.data.copy())
    if kind == "BF16":
        return torch.from_numpy(tensor.data.copy()).view(torch.bfloat16)
    if dequantise:
        quants = require_package("gguf").quants
        try:
            return torch.from_numpy(quants.dequantize(tensor.data, tensor.tensor_type).copy())
        except NotImplementedError:
            raise WeightsError(f"{path} is quantised in a way ({kind}) that is not known") from None
    raise WeightsError(
        f"{path} is quantised ({kind}): its weights are not the ones that were trained; "
        "export with --dtype float32, bfloat16 or float16 to read them back"
    )


def _gguf_settings(values: dict[str, Any], architecture: str) -> dict[str, Any]:
    def get(name: str) -> Any:
        return values.get(f"{architecture}.{name}")

    rope: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": _shortest(get("rope.freq_base") or 10_000.0),
    }
    if get("rope.scaling.type") == "yarn":
        factor = _shortest(get("rope.scaling.factor"))
        magnitude = (get("rope.scaling.attn_factor") or 1.0) * yarn_magnitude(factor)
        rope |= {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": get("rope.scaling.original_context_length"),
            "attention_factor": _shortest(magnitude),
        }
        for name in ("beta_fast", "beta_slow"):
            value = get(f"rope.scaling.yarn_{name}")
            if value is not None:
                rope[name] = _shortest(value)
    settings = {
        "rope_parameters": rope,
        "max_position_embeddings": get("context_length"),
        "rms_norm_eps": _shortest(get("attention.layer_norm_rms_epsilon")),
        "num_experts_per_tok": get("expert_used_count"),
        "bos_token_id": values.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": values.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": values.get("tokenizer.ggml.padding_token_id"),
    }
    return {name: value for name, value in settings.items() if value is not None}


def _shortest(value: float) -> float:
    """The decimal number that a 32-bit one was written from: 1e-06, not 9.99999997e-07."""
    return float(f"{value:.6g}")


def read_onnx(path: str | Path) -> tuple[dict[str, Tensor], str]:
    """The weights of a graph that ``minimind export --format onnx`` wrote: its initialisers; and
    what it says of itself (:data:`ORIGIN`; "": nothing).

    Raises:
        ConfigError: the package onnx is not installed.
        WeightsError: the file is damaged, quantised, or its weights have other names.
    """
    onnx = require_package("onnx")
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file or folder")
    try:
        model = onnx.load(str(path))
        said = {entry.key: entry.value for entry in model.metadata_props}
        arrays = {i.name: i for i in model.graph.initializer if i.name.endswith(".weight")}
        state = {
            name: torch.from_numpy(
                onnx.numpy_helper.to_array(tensor, base_dir=str(path.parent)).copy()
            )
            for name, tensor in arrays.items()
        }
    # Protobuf and onnx raise errors of many types on damaged files.
    except Exception as error:
        raise WeightsError(f"{path} is damaged, or no ONNX file ({type(error).__name__})") from None
    if QUANTISED in said:
        raise WeightsError(
            f"{path} is quantised ({said[QUANTISED]}): its weights are not the ones that were "
            "trained; model.onnx beside it has them"
        )
    if not state:
        raise WeightsError(f"{path} holds no weights under their names; re-export it with minimind")
    return state, said.get(ORIGIN, "")
