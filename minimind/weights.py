"""Reads weights from where they may come: our ``.pth`` and ``.pt``, upstream's ``.pth``, a
Hugging Face folder, GGUF or ONNX; and puts them into a model, or says which tensors do not fit.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minimind.errors import WeightsError
from minimind.foreign_weights import read_gguf, read_onnx
from minimind.model import MiniMindConfig

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SHOWN = 5

_WRAPPER = re.compile(r"(^|\.)((module|_orig_mod)\.)+")
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_FOLDER_SETTINGS = (
    "rope_parameters",
    "rope_theta",
    "rms_norm_eps",
    "num_experts_per_tok",
    "norm_topk_prob",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weight file, a checkpoint or a model folder, on the CPU.

    Prefixes that DDP and ``torch.compile`` leave in names are taken off. Nothing that the
    file holds is executed.

    Raises:
        WeightsError: the file is missing, damaged, holds no weights, or carries code.
    """
    return read_weights(path).state


def _tensors_of(found: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(found, Mapping) and isinstance(found.get("model"), Mapping):
        found = found["model"]
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path} holds no weights, but a {type(found).__name__}")
    foreign = [name for name, value in found.items() if not isinstance(value, Tensor)]
    if foreign or not found:
        what = f"but {_list(map(str, foreign))}" if foreign else "it is empty"
        raise WeightsError(f"{path} holds no weights (names and tensors), {what}")
    return {_WRAPPER.sub(r"\1", str(name)): tensor for name, tensor in found.items()}


@dataclass(frozen=True)
class StoredWeights:
    """Weights, and what is stored with them.

    Attributes:
        state: the tensors.
        settings: keyword arguments for ``infer_config``, as ``read_folder_settings`` gives them.
        flags: the run's flags, of a checkpoint.
        progress: ``epoch``, ``step``, ``global_step``, ``tokens`` … of a checkpoint.
    """

    state: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)


def read_weights(path: str | Path) -> StoredWeights:
    """Read weights of any form, on the CPU, with what is stored beside the tensors.

    Raises:
        ConfigError: a GGUF or ONNX file, and the package that reads it is not installed.
        WeightsError: as :func:`read_state_dict`, or a folder's ``config.json`` is damaged.
    """
    path = Path(path)
    if path.is_dir():
        graph = path / "model.onnx"
        state = read_onnx(graph) if _has_only(graph) else _tensors_of(_read_folder(path), path)
        return StoredWeights(state, read_folder_settings(path))
    if path.suffix == ".gguf":
        return StoredWeights(*read_gguf(path))
    if path.suffix == ".onnx":
        state = read_onnx(path)
        described = (path.parent / "config.json").is_file()
        return StoredWeights(state, read_folder_settings(path.parent) if described else {})
    return read_checkpoint(path) or StoredWeights(_tensors_of(_read_file(path), path))


def _has_only(graph: Path) -> bool:
    return graph.is_file() and not any(graph.parent.glob("*.safetensors"))


def read_checkpoint(path: str | Path) -> StoredWeights | None:
    """Read a checkpoint ``.pt``; None for a folder, or a file that holds plain weights.

    Raises:
        WeightsError: the file is missing, damaged, or carries code.
    """
    path = Path(path)
    if path.suffix != ".pt" or path.is_dir():
        return None
    found = _read_file(path)
    if not isinstance(found, Mapping) or not isinstance(found.get("model_config"), Mapping):
        return None
    plain = (int, float, str)
    return StoredWeights(
        state=_tensors_of(found, path),
        settings=_settings_of(found["model_config"]),
        flags=dict(found.get("config") or {}),
        progress={key: value for key, value in found.items() if isinstance(value, plain)},
    )


def _read_file(path: Path) -> Any:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from None
    with file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        # torch raises errors of many types on damaged files.
        except Exception as error:
            code = _GLOBAL.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
            if code:
                raise WeightsError(
                    f"refused: {path} carries code: it asks for the global {code[1]}, "
                    "which no weight file needs"
                ) from None
            raise WeightsError(
                f"{path} is damaged, or no weight file ({type(error).__name__})"
            ) from None


def _read_folder(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    try:
        if index.exists():
            names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{index} is damaged") from None
    tensors: dict[str, Tensor] = {}
    for name in names:
        file = folder / Path(str(name)).name
        if not file.is_file():
            raise WeightsError(f"{folder} is no Hugging Face model folder: it lacks {file.name}")
        try:
            tensors.update(load_file(file))
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{file} is damaged: {error}") from None
    return tensors


def read_folder_settings(path: str | Path) -> dict[str, Any]:
    """What a Hugging Face folder's ``config.json`` says that its tensors do not show.

    Keyword arguments for ``infer_config``: RoPE, norm epsilon, experts a token, special ids.
    Empty for a file.

    Raises:
        WeightsError: ``config.json`` is missing or damaged.
    """
    folder = Path(path)
    if not folder.is_dir():
        return {}
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        raise WeightsError(f"{folder} is no Hugging Face model folder: no config.json") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder / 'config.json'} cannot be read: {error}") from None
    return _settings_of(config)


def _settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in _FOLDER_SETTINGS if config.get(key) is not None}


def infer_config(state_dict: Mapping[str, Tensor], **settings: Any) -> MiniMindConfig:
    """The shape of the model that these weights are of.

    Everything that has a tensor is read from it; ``settings`` gives what has none, such as
    ``num_experts_per_tok`` (default 1).

    Raises:
        WeightsError: tensors are missing, or their shapes contradict each other.
    """
    first = "model.layers.0."
    try:
        vocab_size, hidden_size = state_dict[EMBEDDING].shape
        head_dim = state_dict[f"{first}self_attn.q_norm.weight"].shape[0]
        query_rows = state_dict[f"{first}self_attn.q_proj.weight"].shape[0]
        key_rows = state_dict[f"{first}self_attn.k_proj.weight"].shape[0]
        use_moe = f"{first}mlp.gate.weight" in state_dict
        expert = "experts.0." if use_moe else ""
        width = state_dict[f"{first}mlp.{expert}gate_proj.weight"].shape[0]
        if use_moe:
            settings["num_experts"] = state_dict[f"{first}mlp.gate.weight"].shape[0]
    except KeyError as error:
        raise WeightsError(f"these are no MiniMind weights: no {error.args[0]}") from None
    layers = {int(m[1]) for m in (re.match(r"model\.layers\.(\d+)\.", k) for k in state_dict) if m}
    head = state_dict.get(HEAD)
    try:
        return MiniMindConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=max(layers) + 1,
            num_attention_heads=query_rows // head_dim,
            num_key_value_heads=key_rows // head_dim,
            head_dim=head_dim,
            intermediate_size=width,
            moe_intermediate_size=width,
            use_moe=use_moe,
            tie_word_embeddings=head is None or torch.equal(head, state_dict[EMBEDDING]),
            **settings,
        )
    except ValueError as error:
        raise WeightsError(f"these weights make no MiniMind model: {error}") from None


def load_state_into(
    model: torch.nn.Module, state_dict: Mapping[str, Tensor], source: str | Path
) -> None:
    """Copy weights into a model, in the model's precision.

    ``lm_head.weight`` may be absent where the model ties it to the embedding.

    Raises:
        WeightsError: tensors are missing, unexpected or of another shape; the message names
            the first few of each. The model is unchanged then.
    """
    expected = model.state_dict()
    tied = bool(getattr(getattr(model, "config", None), "tie_word_embeddings", False))
    missing = [k for k in expected if k not in state_dict and not (tied and k == HEAD)]
    unexpected = [k for k in state_dict if k not in expected]
    mismatched = [
        f"{k} {list(state_dict[k].shape)} for {list(expected[k].shape)}"
        for k in expected
        if k in state_dict and state_dict[k].shape != expected[k].shape
    ]
    faults = [
        f"{len(names)} {word}: {_list(names)}"
        for word, names in (
            ("of another shape", mismatched),
            ("missing", missing),
            ("unexpected", unexpected),
        )
        if names
    ]
    head = state_dict.get(HEAD)
    if not faults and tied and head is not None and not torch.equal(head, state_dict[EMBEDDING]):
        faults.append(f"{HEAD} differs from {EMBEDDING}, which this model ties")
    if faults:
        raise WeightsError(f"the weights in {source} do not fit this model: {'; '.join(faults)}")
    model.load_state_dict(dict(state_dict), strict=False)


def _list(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
