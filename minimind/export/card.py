"""The model card: what an exported model is, and how to use it."""

from __future__ import annotations

from typing import Any

from minimind import __version__
from minimind.export.about import About
from minimind.system.terminal import count_text
from minimind.weights.pretrained import Pretrained

GRAPH_FORMS = ("onnx", "tensorrt", "web")
"""What holds ONNX graphs."""

_HF = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER"REMOTE)
# In pretraining every document began with this token.
text = tokenizer.bos_token + "The"
inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))
"""

_ONNX = """\
import numpy as np
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
session = onnxruntime.InferenceSession("FOLDER/onnx/model.onnx")
cache = {
    i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32)
    for i in session.get_inputs()
    if i.name.startswith("past_key_values")
}
# In pretraining every document began with this token.
text = ids = tokenizer(tokenizer.bos_token + "The", add_special_tokens=False)["input_ids"]
for _ in range(40):
    feed = {
        "input_ids": np.array([ids]),
        "attention_mask": np.ones((1, len(text)), np.int64),
        "position_ids": np.arange(len(text))[None, -len(ids) :],
        **cache,
    }
    logits, *present = session.run(None, feed)
    cache = dict(zip(cache, present))
    text = [*text, int(logits[0, -1].argmax())]
    # A graph without a cache reads the whole text again.
    ids = text[-1:] if cache else text
print(tokenizer.decode(text))
"""


_WEB = """\
# FOLDER is the one with index.html; http://localhost:8000/ then is the page.
python3 -m http.server --directory FOLDER
"""


def model_card(source: Pretrained, model: Any, form: str, about: About) -> str:
    """The ``README.md`` of an exported folder, in the Hugging Face hub's format."""
    config = model.config
    rows = [
        ("parameters", count_text(sum(p.numel() for p in model.parameters()))),
        ("layers, width", f"{config.num_hidden_layers}, {config.hidden_size}"),
        ("heads (query, key/value)", f"{config.num_attention_heads}, {config.num_key_value_heads}"),
        ("vocabulary", f"{config.vocab_size}"),
        ("embeddings", "tied" if config.tie_word_embeddings else "untied"),
        ("RoPE", _rope(config)),
    ]
    if config.use_moe:
        experts = f"{config.num_experts}, {config.num_experts_per_tok} a token"
        rows.insert(3, ("experts", experts))
    rows += _training(source)
    if about.data:
        rows.append(("data", ", ".join(about.data)))
    family = "Qwen3-MoE" if config.use_moe else "Qwen3"
    shape = {
        "hf": f"The architecture is {family}: it loads without remote code.",
        "hf-minimind": f"The folder carries MiniMind's own code (the architecture is {family}'s).",
    }.get(form, f"The architecture is {family}, as one ONNX graph.")
    use = _HF if form not in GRAPH_FORMS else _WEB if form == "web" else _ONNX
    language = "bash" if form == "web" else "python"
    remote = ", trust_remote_code=True" if form == "hf-minimind" else ""
    return f"""---
{_metadata(config, form, about)}
---

# MiniMind, {rows[0][1]} parameters

A base language model, pretrained with MiniMind {__version__}. {shape}

| | |
|---|---|
{chr(10).join(f"| {name} | {value} |" for name, value in rows)}
{_losses(about)}
```{language}
{use.replace("REMOTE", remote)}```

It continues text. It was not trained to follow instructions or to be safe, and what it writes
may be wrong.
"""


def _metadata(config: Any, form: str, about: About) -> str:
    """What the hub reads, as its own library writes it: that refuses what the hub would."""
    from huggingface_hub import EvalResult, ModelCardData

    browser = dict.fromkeys(("onnx", "web"), "transformers.js")
    library = {**browser, "tensorrt": "onnx"}.get(form, "transformers")
    figures = [
        EvalResult(
            task_type="text-generation",
            dataset_type="text",
            dataset_name=about.held_out or "held-out text",
            metric_type="loss",
            metric_name=f"nats per token, {file}",
            metric_value=round(loss, 4),
        )
        for file, loss in about.losses.items()
    ]
    data = ModelCardData(
        language=list(about.languages) or None,
        license=about.licence,
        library_name=library,
        pipeline_tag="text-generation",
        tags=["minimind", "qwen3_moe" if config.use_moe else "qwen3", "pretrained"],
        datasets=about.datasets or None,
        model_name="MiniMind" if figures else None,
        eval_results=figures or None,
    )
    return str(data.to_yaml())


def _losses(about: About) -> str:
    """A table of what each file of weights loses on held-out text; "" where nobody measured."""
    if not about.losses:
        return ""
    rows = [f"| {file} | {loss:.4f} |" for file, loss in about.losses.items()]
    of = f" ({about.held_out})" if about.held_out else ""
    return "\n".join(
        ["", f"| weights | nats per token of held-out text{of} |", "|---|---|", *rows, ""]
    )


def _rope(config: Any) -> str:
    parameters = config.rope_parameters
    text = f"theta {parameters['rope_theta']:g}"
    if parameters.get("rope_type", "default") != "default":
        original = parameters.get("original_max_position_embeddings")
        text += f", {parameters['rope_type']} × {parameters.get('factor'):g} from {original} tokens"
    return text


def _training(source: Pretrained) -> list[tuple[str, str]]:
    rows = []
    if source.progress is not None:
        rows.append(("optimiser steps", f"{source.progress.global_step:,}"))
        rows.append(("tokens trained", count_text(source.progress.tokens)))
    flags = source.flags
    if flags:
        rows.append(("row length in training", f"{flags.get('max_seq_len')} tokens"))
        peak = f"{flags.get('optimizer')}, peak rate {flags.get('learning_rate'):g}"
        rows.append(("optimiser", peak))
    return rows
