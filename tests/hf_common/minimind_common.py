"""MiniMind under transformers' common model and configuration tests (see ``run.py``)."""

from __future__ import annotations

import unittest
from typing import Any, ClassVar

import torch
from hf_tests.generation.test_utils import GenerationTesterMixin
from hf_tests.test_configuration_common import ConfigTester
from hf_tests.test_modeling_common import ModelTesterMixin
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)
from transformers.testing_utils import torch_device

from minimind.model import MiniMindConfig, MiniMindForCausalLM, MiniMindModel

# Many common tests look a class up by name here, and skip one that they do not find.
MODEL_MAPPING_NAMES["minimind"] = "MiniMindModel"
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["minimind"] = "MiniMindForCausalLM"


class MiniMindTester:
    """Makes the small configurations and inputs that the common tests ask for."""

    batch_size = 13
    seq_length = 7
    is_training = True
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4

    def __init__(self, **config: Any) -> None:
        self.config = config

    def get_config(self) -> MiniMindConfig:
        return MiniMindConfig(
            vocab_size=99,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=2,
            intermediate_size=40,
            max_position_embeddings=512,
            **self.config,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[MiniMindConfig, dict[str, Any]]:
        shape = (self.batch_size, self.seq_length)
        inputs = {
            "input_ids": torch.randint(3, 99, shape, device=torch_device),
            "attention_mask": torch.ones(shape, dtype=torch.long, device=torch_device).tril(),
        }
        return self.get_config(), inputs


class Common(ModelTesterMixin, GenerationTesterMixin):
    all_model_classes = (MiniMindModel, MiniMindForCausalLM)
    tester_config: ClassVar[dict[str, Any]] = {}

    def setUp(self) -> None:
        self.model_tester = MiniMindTester(**self.tester_config)

    def test_config(self) -> None:
        ConfigTester(self, config_class=MiniMindConfig, **self.tester_config).run_common_tests()


class DenseTest(Common, unittest.TestCase):
    pass


class MoeTest(Common, unittest.TestCase):
    tester_config: ClassVar[dict[str, Any]] = {"use_moe": True, "num_experts_per_tok": 2}


class MoeTopOneTest(Common, unittest.TestCase):
    tester_config: ClassVar[dict[str, Any]] = {"use_moe": True, "num_experts_per_tok": 1}


del Common  # pytest would collect it
