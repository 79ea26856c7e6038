"""Makes MiniMind known to transformers' Auto classes when it is imported."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from .configuration_minimind import MiniMindConfig
from .modeling_minimind import MiniMindForCausalLM, MiniMindModel

__all__ = ["MiniMindConfig", "MiniMindForCausalLM", "MiniMindModel"]

AutoConfig.register(MiniMindConfig.model_type, MiniMindConfig)
AutoModel.register(MiniMindConfig, MiniMindModel)
AutoModelForCausalLM.register(MiniMindConfig, MiniMindForCausalLM)
# A saved folder then carries the code and the auto_map that load it where minimind is absent.
MiniMindConfig.register_for_auto_class("AutoConfig")
MiniMindModel.register_for_auto_class("AutoModel")
MiniMindForCausalLM.register_for_auto_class("AutoModelForCausalLM")
