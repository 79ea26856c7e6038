"""Reads weights from where they may come: our ``.pth`` and ``.pt``, upstream's ``.pth``, a
Hugging Face folder, GGUF or ONNX; and puts them into a model, or says which tensors do not fit.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from minimind.checkpoint.state import Progress, SavedModel
from minimind.errors import WeightsError
from minimind.model.architecture import Architecture
from minimind.weights.foreign import read_gguf, read_onnx
from minimind.weights.onnx_layout import folder_of, graph_of
from minimind.weights.origin import UNKNOWN, Origin, origin_of
from minimind.weights.torch_file import load_torch_file, plain_tensor

if TYPE_CHECKING:
    from minimind.model import MiniMindConfig

Made = TypeVar("Made")

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SHOWN = 5

_WRAPPER = re.compile(r"(^|\.)((module|_orig_mod)\.)+")


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e12


def _id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _ids(value: Any) -> bool:
    return _id(value) or (isinstance(value, list) and all(map(_id, value)))


def _rope(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    plain = all(isinstance(item, (str, bool)) or _positive(item) for item in value.values())
    return plain and (_positive(value.get("rope_theta", 1.0)))


_FOLDER_SETTINGS: dict[str, Callable[[Any], bool]] = {
    "rope_parameters": _rope,
    "rope_theta": _positive,
    "max_position_embeddings": lambda value: _id(value) and value > 0,
    "rms_norm_eps": _positive,
    "num_experts_per_tok": lambda value: _id(value) and value > 0,
    "norm_topk_prob": lambda value: isinstance(value, bool),
    "bos_token_id": _id,
    "eos_token_id": _ids,
    "pad_token_id": _id,
}
"""Setting → whether a value makes sense for it."""


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weight file, a checkpoint or a model folder, on the CPU.

    Prefixes that DDP and ``torch.compile`` leave in names are taken off. Nothing that the
    file holds is executed.

    Raises:
        WeightsError: the file is missing, damaged, holds no weights, or carries code.
    """
    return read_weights(path).state


def _tensors_of(found: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path} holds no weights, but a {type(found).__name__}")
    foreign = [name for name, value in found.items() if not isinstance(value, Tensor)]
    if foreign or not found:
        what = f"but {_list(map(str, foreign))}" if foreign else "it is empty"
        raise WeightsError(f"{path} holds no weights (names and tensors), {what}")
    odd = [name for name, value in found.items() if not _is_weight(value)]
    if odd:
        raise WeightsError(f"{path}: these are no plain tensors of numbers: {_list(map(str, odd))}")
    return {_WRAPPER.sub(r"\1", str(name)): tensor for name, tensor in found.items()}


def _is_weight(value: Tensor) -> bool:
    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    return value.dtype in kinds and plain_tensor(value)


@dataclass(frozen=True)
class StoredWeights:
    """Weights, and what is stored with them.

    Attributes:
        state: the tensors.
        settings: keyword arguments for ``infer_config``, as ``read_folder_settings`` gives them.
        flags: the run's flags, of a checkpoint.
        progress: how far the run was, of a checkpoint.
        origin: what the weights say of themselves.
    """

    state: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)
    progress: Progress | None = None
    origin: Origin = UNKNOWN


def read_weights(path: str | Path) -> StoredWeights:
    """Read weights of any form, on the CPU, with what is stored beside the tensors.

    Raises:
        ConfigError: a GGUF or ONNX file, and the package that reads it is not installed.
        WeightsError: as :func:`read_state_dict`, or a folder's ``config.json`` is damaged.
    """
    path = Path(path)
    if path.is_dir():
        graph = None if any(path.glob("*.safetensors")) else graph_of(path)
        found = read_onnx(graph)[0] if graph is not None else _read_folder(path)
        return StoredWeights(_tensors_of(found, path), read_folder_settings(path))
    if path.suffix == ".gguf":
        found, settings, said = read_gguf(path)
        origin = Origin.from_json(said)
        return StoredWeights(_tensors_of(found, path), settings_of(settings, path), origin=origin)
    if path.suffix == ".onnx":
        found, said = read_onnx(path)
        folder = folder_of(path)
        described = (folder / "config.json").is_file()
        return StoredWeights(
            _tensors_of(found, path),
            read_folder_settings(folder) if described else {},
            origin=Origin.from_json(said),
        )
    return stored_weights(load_torch_file(path), path)


def stored_weights(found: Any, path: Path) -> StoredWeights:
    """The weights in what a torch file holds: a checkpoint, or weights alone.

    Raises:
        WeightsError: there are none, or the model's configuration is damaged.
    """
    saved = SavedModel.of(found)
    state = _tensors_of(saved.weights, path)
    if saved.model_config is None:
        return StoredWeights(state, origin=origin_of(saved.weights))
    return StoredWeights(
        state,
        settings_of(saved.model_config, path),
        saved.config,
        saved.progress,
        Origin.from_dict(saved.origin),
    )


def _read_folder(folder: Path) -> dict[str, Tensor]:
    """The tensors of a Hugging Face folder: safetensors, or else the pickles of older ones."""
    if not any(folder.glob("*.safetensors*")) and any(folder.glob("pytorch_model*.bin")):
        return _read_shards(folder, "pytorch_model.bin", load_torch_file)
    return _read_shards(folder, "model.safetensors", _load_safetensors)


def _load_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    # A type that this torch lacks is a KeyError, a size that does not fit a RuntimeError.
    except (SafetensorError, OSError, LookupError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{file} is damaged: {error}") from None


def _read_shards(folder: Path, whole: str, load: Callable[[Path], Any]) -> dict[str, Tensor]:
    """What ``folder`` has in the file ``whole``, or in several that an index beside it names."""
    index = folder / f"{whole}.index.json"
    names = [whole]
    try:
        if index.exists():
            names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WeightsError(f"{index} is damaged") from None
    tensors: dict[str, Tensor] = {}
    for name in names:
        file = folder / Path(str(name)).name
        if not file.is_file():
            raise WeightsError(f"{folder} is no Hugging Face model folder: it lacks {file.name}")
        tensors.update(_tensors_of(load(file), file))
    return tensors


def read_folder_settings(path: str | Path) -> dict[str, Any]:
    """What a Hugging Face folder's ``config.json`` says that its tensors do not show.

    Keyword arguments for ``infer_config``: RoPE, positions, norm epsilon, experts a token, special
    ids. Empty for a file.

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
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{folder / 'config.json'} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise WeightsError(f"{folder / 'config.json'} is damaged: no JSON object")
    return settings_of(config, folder)


def settings_of(config: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """What of a model's configuration its tensors do not show.

    Raises:
        WeightsError: a value is of a type that it cannot have.
    """
    found = {key: config[key] for key in _FOLDER_SETTINGS if config.get(key) is not None}
    for key, value in found.items():
        if not _FOLDER_SETTINGS[key](value):
            raise WeightsError(f"{source}: {key} cannot be {reprlib.repr(value)}")
    return found


def older_generation(state_dict: Mapping[str, Tensor]) -> str:
    """Which older model of upstream MiniMind these weights are of, and what to do; "" for none.

    They compute something else than today's model, whatever their names are changed to.
    """
    remedy = "use the version of upstream that trained them, or train anew"
    if any(name.startswith(("tok_embeddings.", "layers.0.attention.")) for name in state_dict):
        return (
            "weights of upstream MiniMind from before 26 April 2025 (tok_embeddings, wq): its "
            f"attention has another rotary embedding and no norms; {remedy}"
        )
    attention = "model.layers.0.self_attn."
    if f"{attention}q_proj.weight" not in state_dict or f"{attention}q_norm.weight" in state_dict:
        return ""
    shared = any(".mlp.shared_experts." in name for name in state_dict)
    return (
        f"weights without q_norm and k_norm{' and with shared experts' if shared else ''}, as of "
        "upstream MiniMind from 26 April 2025 to 23 March 2026, or of a Llama: attention without "
        f"these norms is another model; {remedy}"
    )


def infer_config(state_dict: Mapping[str, Tensor], **settings: Any) -> MiniMindConfig:
    """As :func:`infer_architecture`, for transformers."""
    # Takes seconds, and much does without.
    from minimind.model import MiniMindConfig

    return _configured(MiniMindConfig, infer_sizes(state_dict, **settings))


def infer_architecture(state_dict: Mapping[str, Tensor], **settings: Any) -> Architecture:
    """The shape of the model that these weights are of: a ``MiniMindConfig`` if RoPE is scaled.

    Everything that has a tensor is read from it; ``settings`` gives what has none, such as
    ``num_experts_per_tok`` (default 1).

    Raises:
        WeightsError: tensors are missing, or their shapes contradict each other.
    """
    sizes = infer_sizes(state_dict, **settings)
    plain = _configured(Architecture.plain, sizes)
    return plain or infer_config(state_dict, **settings)


def _configured(kind: Callable[..., Made], sizes: dict[str, Any]) -> Made:
    try:
        return kind(**sizes)
    # transformers checks the values too, and says so with types of its own.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"these weights make no MiniMind model: {reason}") from None


def infer_sizes(state_dict: Mapping[str, Tensor], **settings: Any) -> dict[str, Any]:
    """Keyword arguments for the configuration of these weights, ``settings`` among them.

    Raises:
        WeightsError: tensors are missing, or their shapes contradict each other.
    """
    first = "model.layers.0."
    if generation := older_generation(state_dict):
        raise WeightsError(f"these are {generation}")
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
        query_heads, key_heads = query_rows // head_dim, key_rows // head_dim
    except KeyError as error:
        raise WeightsError(f"these are no MiniMind weights: no {error.args[0]}") from None
    except (ValueError, IndexError, ZeroDivisionError):
        raise WeightsError("these weights make no MiniMind model: a shape is impossible") from None
    numbers = (re.match(r"model\.layers\.([0-9]{1,6})\.", name) for name in state_dict)
    layers = {int(match[1]) for match in numbers if match}
    if max(layers) + 1 != len(layers):
        raise WeightsError("these weights make no MiniMind model: a layer is missing")
    if use_moe and settings["num_experts"] > len(state_dict):
        raise WeightsError("these weights make no MiniMind model: it has fewer experts than gates")
    head = state_dict.get(HEAD)
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": max(layers) + 1,
        "num_attention_heads": query_heads,
        "num_key_value_heads": key_heads,
        "head_dim": head_dim,
        "intermediate_size": width,
        "moe_intermediate_size": width,
        "use_moe": use_moe,
        "tie_word_embeddings": head is None or torch.equal(head, state_dict[EMBEDDING]),
        **settings,
    }


def load_state_into(
    model: torch.nn.Module, state_dict: Mapping[str, Tensor], source: str | Path
) -> None:
    """Copy weights into a model, in the model's precision.

    ``lm_head.weight`` may be absent where the model ties it to the embedding.

    Raises:
        WeightsError: tensors are missing, unexpected or of another shape; the message names
            the first few of each. The model is unchanged then.
    """
    if fault := misfit(model, state_dict, source):
        raise WeightsError(fault)
    model.load_state_dict(dict(state_dict), strict=False)


def misfit(model: torch.nn.Module, state_dict: Mapping[str, Tensor], source: str | Path) -> str:
    """What of some weights does not fit a model, which may be one without values; "": all fits."""
    if generation := older_generation(state_dict):
        return f"the weights in {source} are {generation}"
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
        return f"the weights in {source} do not fit this model: {'; '.join(faults)}"
    return ""


def _list(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
