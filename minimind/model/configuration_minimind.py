"""The configuration of MiniMind as transformers knows it."""

from __future__ import annotations

from typing import Any

from transformers.activations import ACT2FN
from transformers.configuration_utils import PretrainedConfig

from .architecture import Architecture

YARN_PARAMETERS: dict[str, Any] = {
    "rope_type": "yarn",
    "factor": 16.0,
    "original_max_position_embeddings": 2048,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "attention_factor": 1.0,
}
"""YaRN (arXiv:2309.00071) with the values that upstream MiniMind uses: 2,048 → 32,768 tokens."""


class MiniMindConfig(Architecture, PretrainedConfig):
    """An :class:`Architecture` that transformers can save, load and register.

    Args:
        rope_theta: base wavelength of RoPE (1e6); stored in ``rope_parameters``.
        inference_rope_scaling: extend the context with YaRN (``YARN_PARAMETERS``); stored in
            ``rope_parameters``. Meant for inference with weights trained on up to 2,048 tokens.

    Raises:
        ValueError: if values contradict each other or are out of range.
    """

    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 (the base class's own shape)
    # The base class's property, which the plain attribute would hide.
    _attn_implementation = PretrainedConfig._attn_implementation

    def __post_init__(self, inference_rope_scaling: bool | None = None, **kwargs: Any) -> None:
        self._derive_sizes()
        # The base class would write into the caller's dictionary.
        self.rope_parameters = dict(self.rope_parameters or {})
        PretrainedConfig.__post_init__(self, **kwargs)
        if inference_rope_scaling is not None:
            self.inference_rope_scaling = inference_rope_scaling
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {self.hidden_act!r} is unknown to transformers")
        self._validate_architecture()

    @property
    def inference_rope_scaling(self) -> bool:
        """Whether ``rope_parameters`` extends the context with YaRN; assign to switch it."""
        return (self.rope_parameters or {}).get("rope_type") == "yarn"

    @inference_rope_scaling.setter
    def inference_rope_scaling(self, enabled: bool) -> None:
        if bool(enabled) == self.inference_rope_scaling:
            return
        scaling = YARN_PARAMETERS if enabled else {"rope_type": "default"}
        self.rope_parameters = {"rope_theta": self.rope_theta, **scaling}
