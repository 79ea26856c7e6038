"""What ``minimind inspect`` finds out about a file or folder, and what it says of any model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minimind.system.terminal import count_text, size_text


@dataclass
class Finding:
    """What something is. ``problems`` is empty when everything that could be checked is right."""

    path: str
    kind: str
    facts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    checked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "verified": not self.problems}

    def lines(self) -> list[str]:
        """For people."""
        verdict = [f"  {'PROBLEM':<12} {problem}" for problem in self.problems]
        if not self.problems:
            verdict = [f"  {'verified':<12} {', '.join(self.checked)}"]
        facts = [f"  {name.replace('_', ' '):<12} {_text(v)}" for name, v in self.facts.items()]
        files = [f"  {name}: {what}" for name, what in self.files.items()]
        return [f"{self.path}: {self.kind}", *facts, *files, *verdict]


def add_model_facts(
    state: Any, settings: dict[str, Any], finding: Finding, precision: str = ""
) -> None:
    """Shape and size of a model, and whether its tensors are all there and finite.

    Args:
        state: the tensors, under MiniMind's names.
        settings: keyword arguments for ``infer_config``; empty where nothing is on record.
        precision: how the weights are stored, where the tensors do not tell.

    Raises:
        WeightsError: it is no MiniMind model.
    """
    import torch

    from minimind.model import MiniMindForCausalLM
    from minimind.weights.state_dict import EMBEDDING, HEAD, infer_config

    config = infer_config(state, **settings)
    with torch.device("meta"):
        expected = MiniMindForCausalLM(config).state_dict()
    tied = config.tie_word_embeddings
    parameters = sum(t.numel() for n, t in expected.items() if not (tied and n == HEAD))
    precision = precision or str(state[EMBEDDING].dtype).removeprefix("torch.")
    finding.facts["parameters"] = f"{count_text(parameters)} in {precision}"
    experts = ""
    if config.use_moe:
        known = f", {config.num_experts_per_tok} a token" if settings else ""
        experts = f", {config.num_experts} experts{known}"
    finding.facts["shape"] = (
        f"{config.num_hidden_layers} layers of {config.hidden_size}, "
        f"{config.num_attention_heads}/{config.num_key_value_heads} heads{experts}, "
        f"vocabulary {config.vocab_size}, {'tied' if tied else 'untied'}"
    )
    missing = [n for n in expected if n not in state and not (tied and n == HEAD)]
    extra = [n for n in state if n not in expected]
    wrong = [n for n in expected if n in state and state[n].shape != expected[n].shape]
    for word, names in (("missing", missing), ("unexpected", extra), ("misshapen", wrong)):
        if names:
            finding.problems.append(f"{len(names)} tensors {word}: {', '.join(names[:3])}")
    bad = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        finding.problems.append(f"{len(bad)} tensors hold NaN or infinity: {', '.join(bad[:3])}")
    finding.checked += ["every tensor there and finite"]


def written(path: Path) -> str:
    """When a file was written, and its size."""
    modified = path.stat().st_mtime
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(modified))
    return f"{stamp}, {size_text(path.stat().st_size)}"


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
