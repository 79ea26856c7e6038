"""Hugging Face folders: vanilla Qwen3 (``hf``), or MiniMind with its own code (``hf-minimind``)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, Qwen3Config, Qwen3MoeConfig

from minimind.data.tokenizer import SpecialTokens
from minimind.export.about import UNKNOWN, About
from minimind.export.card import model_card
from minimind.model import MiniMindConfig, MiniMindForCausalLM
from minimind.weights.pretrained import Pretrained
from minimind.weights.state_dict import HEAD

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
_SHARED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_parameters",
    "tie_word_embeddings",
    "attention_dropout",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
_OF_EXPERTS = (
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "norm_topk_prob",
    "router_aux_loss_coef",
)


def qwen3_config(config: MiniMindConfig) -> Qwen3Config | Qwen3MoeConfig:
    """The same model, as Qwen3 or Qwen3-MoE describes it."""
    values = {name: getattr(config, name) for name in _SHARED}
    if config.use_moe:
        values |= {name: getattr(config, name) for name in _OF_EXPERTS}
        return Qwen3MoeConfig(**values, architectures=["Qwen3MoeForCausalLM"])
    return Qwen3Config(**values, architectures=["Qwen3ForCausalLM"])


def write_qwen3(
    source: Pretrained,
    model: MiniMindForCausalLM,
    folder: Path,
    dtype: torch.dtype,
    max_shard_size: str,
    about: About = UNKNOWN,
) -> None:
    """Write a folder that plain transformers, vLLM and llama.cpp load without our code."""
    from huggingface_hub import save_torch_state_dict

    write_qwen3_config(model.config, folder, dtype)
    # Qwen3's files name every tensor as MiniMind does, experts included.
    save_torch_state_dict(
        weights_to_save(model, dtype), folder, max_shard_size=max_shard_size, metadata=None
    )
    write_companions(source, model, folder, "hf", about)


def write_qwen3_config(
    config: MiniMindConfig, folder: Path, dtype: torch.dtype, apart: dict[str, int] | None = None
) -> None:
    """Write the ``config.json`` that describes the model as Qwen3 or Qwen3-MoE.

    Args:
        apart: graph → how many files beside it hold its weights, for transformers.js.
    """
    theirs = qwen3_config(config)
    theirs.dtype = dtype
    if apart:
        setattr(theirs, "transformers.js_config", {"use_external_data_format": apart})
    theirs.save_pretrained(folder)
    _add_older_names(folder / "config.json", theirs)


def write_minimind(
    source: Pretrained,
    model: MiniMindForCausalLM,
    folder: Path,
    dtype: torch.dtype,
    max_shard_size: str,
    about: About = UNKNOWN,
) -> None:
    """Write a folder that carries MiniMind's own code, for ``trust_remote_code=True``."""
    model.config.dtype = dtype
    model.save_pretrained(
        folder, state_dict=weights_to_save(model, dtype), max_shard_size=max_shard_size
    )
    write_companions(source, model, folder, "hf-minimind", about)


def round_weights(model: MiniMindForCausalLM, dtype: torch.dtype) -> None:
    """Round the weights to what ``dtype`` can hold, and keep the model in float32.

    Casting the model itself would round its rotary tables too.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype))


def weights_to_save(model: MiniMindForCausalLM, dtype: torch.dtype) -> dict[str, Tensor]:
    """The state dict in ``dtype``; a tied head is left out, as Hugging Face folders do."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        del state[HEAD]
    return {name: tensor.to(dtype).contiguous() for name, tensor in state.items()}


def _add_older_names(file: Path, config: Any) -> None:
    """Say in the words of transformers 4 too what it would otherwise take from Qwen3's defaults.

    vLLM, llama.cpp's converter and others read these names as well.
    """
    stored = json.loads(file.read_text(encoding="utf-8"))
    parameters = dict(config.rope_parameters)
    stored["rope_theta"] = parameters.pop("rope_theta")
    if parameters.get("rope_type", "default") != "default":
        if parameters["rope_type"] == "yarn" and parameters.get("attention_factor") == 1.0:
            # mlx-lm knows no attention_factor; with a mscale of 0 it has the same, 1.
            parameters["mscale"] = 0.0
        stored["rope_scaling"] = parameters
    if isinstance(config, Qwen3MoeConfig):
        stored["num_experts"] = config.num_experts
    stored["torch_dtype"] = stored["dtype"]
    file.write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_companions(
    source: Pretrained,
    model: MiniMindForCausalLM,
    folder: Path,
    form: str,
    about: About = UNKNOWN,
) -> None:
    """Write what goes with weights in a folder: tokenizer, generation settings, model card."""
    copy_tokenizer(
        source.tokenizer_folder, folder, source.special, model.config.max_position_embeddings
    )
    GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
        do_sample=True,
        temperature=0.8,
        top_p=0.9,
    ).save_pretrained(folder)
    (folder / "README.md").write_text(model_card(source, model, form, about), encoding="utf-8")


def copy_tokenizer(
    tokenizer_folder: Path, folder: Path, special: SpecialTokens, context: int
) -> None:
    """Copy a tokenizer's files, under a class name that transformers 4 and 5 both know.

    The copy pads on the left, where a batch that is to be continued has its padding. It has the
    chat template in its settings too: transformers.js and older programs look nowhere else.

    Args:
        special: the begin and end tokens that it is used with, which the copy names.
        context: tokens of the longest text that the model is meant for.
    """
    for name in _TOKENIZER_FILES:
        if (tokenizer_folder / name).is_file():
            shutil.copyfile(tokenizer_folder / name, folder / name)
    file = folder / "tokenizer_config.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    settings = dict(found)
    if not settings and (tokenizer_folder / "tokenizer.json").is_file():
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    named = {"bos_token": special.bos, "eos_token": special.eos}
    settings |= {role: token for role, token in named.items() if token}
    settings |= {"padding_side": "left", "model_max_length": context}
    template = tokenizer_folder / "chat_template.jinja"
    if template.is_file():
        settings["chat_template"] = template.read_text(encoding="utf-8")
    if settings != found:
        file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", "utf-8")


def load_exported(folder: Path) -> Any:
    """The exported model as transformers itself loads it: float32, on the CPU."""
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    ).eval()


@torch.inference_mode()
def largest_logit_difference(ours: Any, theirs: Any) -> float:
    """The largest difference of two models' logits over two rows of random tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, ours.config.vocab_size, (2, 48), generator=generator)
    return float((ours(input_ids=ids).logits - theirs(input_ids=ids).logits).abs().max())
