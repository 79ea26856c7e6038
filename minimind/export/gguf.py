"""GGUF: one file with weights and tokenizer, for llama.cpp and what is built on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minimind.errors import ConfigError, MiniMindError
from minimind.model import MiniMindConfig, MiniMindForCausalLM
from minimind.system.packages import require_package
from minimind.weights.foreign import ARCHITECTURES, ORIGIN, gguf_layout, yarn_magnitude
from minimind.weights.pretrained import Pretrained
from minimind.weights.state_dict import HEAD

TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}
"""``--dtype`` → GGUF's name of the precision."""

_FILE_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16", "Q8_0": "MOSTLY_Q8_0"}
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def check_gguf(config: MiniMindConfig, dtype: str) -> None:
    """Find out before the work whether llama.cpp can run such a model.

    Raises:
        ConfigError: it cannot; the message says why.
    """
    require_package("gguf")
    if config.hidden_act != "silu":
        raise ConfigError(f"llama.cpp's Qwen3 has the activation silu, not {config.hidden_act}")
    if config.use_moe and not config.norm_topk_prob:
        raise ConfigError("llama.cpp's Qwen3-MoE always scales expert weights to sum to 1")
    if config.rope_parameters.get("rope_type", "default") not in ("default", "yarn"):
        raise ConfigError(f"RoPE type {config.rope_parameters['rope_type']} has no GGUF form here")
    width = config.moe_intermediate_size if config.use_moe else config.intermediate_size
    heads = config.num_attention_heads * config.head_dim
    if dtype == "q8_0" and any(size % 32 for size in (config.hidden_size, width, heads)):
        raise ConfigError("--dtype q8_0 packs 32 weights, which must divide every layer's width")


def write_gguf(source: Pretrained, model: MiniMindForCausalLM, file: Path, dtype: str) -> None:
    """Write ``file``; norms and routers stay in float32, as llama.cpp wants them.

    Raises:
        ConfigError: as :func:`pre_tokenizer_name`.
    """
    gguf = require_package("gguf")
    config = model.config
    kind = gguf.GGMLQuantizationType[TYPES[dtype]]
    writer = gguf.GGUFWriter(file, ARCHITECTURES[config.use_moe])
    _add_shape(writer, gguf, source, config)
    writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[kind.name]])
    _add_tokenizer(writer, gguf, source)
    for name, tensor in gguf_tensors(model).items():
        stored = gguf.GGMLQuantizationType.F32 if _stays_wide(name, tensor) else kind
        data = gguf.quants.quantize(tensor.float().numpy(), stored)
        writer.add_tensor(name, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _stays_wide(name: str, tensor: Tensor) -> bool:
    return tensor.ndim == 1 or name.endswith("ffn_gate_inp.weight")


def largest_gguf_difference(model: MiniMindForCausalLM, file: Path, dtype: str) -> float:
    """The largest difference between the model's weights and those that ``file`` holds.

    Raises:
        MiniMindError: tensors are missing or of another shape, or differ by more than the
            precision explains.
    """
    gguf = require_package("gguf")
    expected = gguf_tensors(model)
    largest = 0.0
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    if set(stored) != set(expected):
        raise MiniMindError(f"{file} holds other tensors than the model")
    for name, ours in expected.items():
        values = gguf.quants.dequantize(stored[name].data, stored[name].tensor_type)
        theirs = torch.from_numpy(values.copy()).view_as(ours)
        difference = float((ours - theirs).abs().max())
        wide = dtype == "float32" or _stays_wide(name, ours)
        # An 8-bit block has 127 steps up to its largest weight.
        step = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "q8_0": 1 / 127}.get(dtype, 0.0)
        allowed = 0.0 if wide else step * float(ours.abs().max()) + 2.0**-24
        if not difference <= allowed:
            raise MiniMindError(f"{name} differs by {difference:.3g} from the model in {file}")
        largest = max(largest, difference)
    return largest


def gguf_tensors(model: MiniMindForCausalLM) -> dict[str, Tensor]:
    """The weights under GGUF's names, experts stacked; a tied head is left out."""
    config = model.config
    state = model.state_dict()
    if config.tie_word_embeddings:
        del state[HEAD]
    layout = gguf_layout(config.num_hidden_layers, config.num_experts if config.use_moe else 0)
    return {
        name: torch.stack([state[o] for o in ours]) if len(ours) > 1 else state[ours[0]]
        for name, ours in layout.items()
        if all(o in state for o in ours)
    }


def _add_shape(writer: Any, gguf: Any, source: Pretrained, config: MiniMindConfig) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(source.path.resolve().stem)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if config.use_moe:
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") == "yarn":
        factor = rope["factor"]
        magnitude = rope.get("attention_factor") or yarn_magnitude(factor)
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(factor)
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        # llama.cpp multiplies with its own magnitude: give what is left.
        writer.add_rope_scaling_attn_factors(magnitude / yarn_magnitude(factor))
        writer.add_rope_scaling_yarn_beta_fast(rope.get("beta_fast") or 32.0)
        writer.add_rope_scaling_yarn_beta_slow(rope.get("beta_slow") or 1.0)


def _add_tokenizer(writer: Any, gguf: Any, source: Pretrained) -> None:
    folder = source.tokenizer_folder
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    texts = {token: text for text, token in source.tokenizer.get_vocab().items()}
    kinds = gguf.TokenType
    tokens, types = [], []
    for token in range(source.config.vocab_size):
        tokens.append(texts.get(token, f"[PAD{token}]"))
        if token not in texts:
            types.append(kinds.UNUSED)
        elif token in added:
            types.append(kinds.CONTROL if added[token]["special"] else kinds.USER_DEFINED)
        else:
            types.append(kinds.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer_name(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    # Others do not look at it; two tokenizers of one size are told apart by nothing else.
    writer.add_string(ORIGIN, source.origin.to_json())
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=len(tokens))
    # In pretraining every document begins with this token, and so should every prompt.
    special.add_special_token = {"bos": source.tokenizer.bos_token_id is not None, "eos": False}
    special.add_to_gguf(writer, quiet=True)


def pre_tokenizer_name(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for the way in which a ``tokenizer.json`` cuts text before BPE.

    A byte-level pre-tokenizer with its own expression is ``gpt-2``: that is the shipped tokenizer
    and every one that ``minimind tokenizer`` trains.

    Raises:
        ConfigError: it is one that llama.cpp has under no name known here.
    """
    if tokenizer["model"].get("type") != "BPE":
        raise ConfigError("--format gguf takes a BPE tokenizer")
    parts = tokenizer.get("pre_tokenizer") or {}
    steps = parts.get("pretokenizers", [parts])
    normaliser = tokenizer.get("normalizer")
    byte_level = steps[-1].get("type") == "ByteLevel" and not steps[-1].get("add_prefix_space")
    if byte_level and normaliser is None and len(steps) == 1 and steps[0].get("use_regex", True):
        return "gpt-2"
    split = steps[0].get("pattern", {}).get("Regex")
    qwen2 = len(steps) == 2 and split == _QWEN2_SPLIT and not steps[1].get("use_regex", True)
    if byte_level and qwen2 and normaliser in (None, {"type": "NFC"}):
        return "qwen2"
    raise ConfigError(
        "this tokenizer cuts text before BPE in a way that llama.cpp may not know; "
        "--format gguf knows GPT-2's byte level and Qwen2's"
    )
