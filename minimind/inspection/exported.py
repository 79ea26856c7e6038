"""What ``minimind inspect`` says of GGUF and ONNX files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from minimind.errors import WeightsError
from minimind.inspection.finding import Finding, add_model_facts, written
from minimind.system.packages import require_package


def add_gguf_facts(path: Path, finding: Finding) -> None:
    """A GGUF file: model and tokenizer in one.

    Raises:
        MiniMindError: the package gguf is not installed, or the file holds no MiniMind model.
    """
    from minimind.weights.foreign import naming_damage, open_gguf, read_gguf

    reader = open_gguf(path)
    with naming_damage(path):
        values = {name: field.contents() for name, field in reader.fields.items()}
    architecture = str(values.get("general.architecture"))
    finding.facts["written"] = written(path)
    finding.facts["architecture"] = f"{architecture}, named {values.get('general.name')}"
    matrices = Counter(t.tensor_type.name for t in reader.tensors if len(t.shape) > 1)
    precision = ", ".join(kind for kind, _ in matrices.most_common())
    state, settings, _ = read_gguf(path, dequantise=True)
    finding.checked.append("header and sizes")
    add_model_facts(state, settings, finding, precision)
    finding.facts["context"] = f"{values.get(f'{architecture}.context_length')} tokens"
    tokens = values.get("tokenizer.ggml.tokens") or []
    ids = [f"{name} {values.get(f'tokenizer.ggml.{name}_token_id')}" for name in ("bos", "eos")]
    kind = f"{values.get('tokenizer.ggml.model')}, cut as {values.get('tokenizer.ggml.pre')}"
    finding.facts["tokenizer"] = f"{len(tokens)} entries, {', '.join(ids)}; {kind}"
    rows = len(state["model.embed_tokens.weight"])
    if len(tokens) != rows:
        finding.problems.append(f"{len(tokens)} tokens in its tokenizer, {rows} in its embedding")


def add_onnx_facts(path: Path, finding: Finding) -> None:
    """An ONNX graph; what its tensors do not show comes from ``config.json`` beside it.

    Raises:
        MiniMindError: the package onnx is not installed, or the graph holds no MiniMind model.
    """
    from minimind.weights.state_dict import read_weights

    onnx = require_package("onnx")
    stored = read_weights(path)
    finding.facts["written"] = written(path)
    model = onnx.load(str(path), load_external_data=False)
    opsets = ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import)
    finding.facts["made_by"] = f"{model.producer_name} {model.producer_version}".strip()
    finding.facts["operators"] = f"{opsets}, {len(model.graph.node):,} nodes"
    finding.facts["inputs"] = ", ".join(_axes(v) for v in model.graph.input[:3])
    cached = sum(v.name.startswith("past_key_values") for v in model.graph.input)
    finding.facts["cache"] = f"keys and values of {cached // 2} layers" if cached else "none"
    add_model_facts(stored.state, stored.settings, finding)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    # The checker and the shape inference have their own errors, of no common type.
    except Exception as error:
        raise WeightsError(f"onnx finds the graph invalid: {_first_line(error)}") from None
    finding.checked.append("the graph, by onnx's checker")


def _axes(value: Any) -> str:
    shape = value.type.tensor_type.shape.dim
    return f"{value.name} [{', '.join(d.dim_param or str(d.dim_value) for d in shape)}]"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
