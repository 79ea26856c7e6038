"""``genai_config.json``: what onnxruntime-genai asks for beside a graph."""

from __future__ import annotations

import json
from pathlib import Path

from minimind.model import MiniMindConfig
from minimind.weights.onnx_layout import GRAPH

FILE = "genai_config.json"


def write_genai_config(config: MiniMindConfig, folder: Path) -> None:
    """Describe the graph of ``folder``, which has a cache, and how text is drawn from it."""
    past, present = "past_key_values.%d", "present.%d"
    decoder = {
        "session_options": {},
        "filename": GRAPH,
        "head_size": config.head_dim,
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "inputs": {
            **{name: name for name in ("input_ids", "attention_mask", "position_ids")},
            "past_key_names": f"{past}.key",
            "past_value_names": f"{past}.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": f"{present}.key",
            "present_value_names": f"{present}.value",
        },
    }
    described = {
        "model": {
            # Whatever a decoder computes: its graph is of one kind.
            "type": "qwen3",
            "vocab_size": config.vocab_size,
            "context_length": config.max_position_embeddings,
            "bos_token_id": config.bos_token_id,
            "eos_token_id": config.eos_token_id,
            "pad_token_id": config.pad_token_id,
            "decoder": decoder,
        },
        "search": {
            "max_length": config.max_position_embeddings,
            "do_sample": True,
            "temperature": 0.8,
            "top_p": 0.9,
            "past_present_share_buffer": False,
        },
    }
    (folder / FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
