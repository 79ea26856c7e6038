import logging
import re
import shutil
import sysconfig
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from minimind.config import TrainConfig
from minimind.errors import ConfigError
from minimind.training import execution
from minimind.training.execution import (
    CPU_COMPILE_FLOPS,
    FLEX_TOKENS,
    MATMUL_ATTENTION_TOKENS,
    check_machine,
    choose_dtype,
    choose_execution,
    missing_for_compile,
    warn_of_idle_accelerator,
)
from tests.checkpoints import train_state

CPU = torch.device("cpu")
LITTLE, MUCH = CPU_COMPILE_FLOPS / 2, CPU_COMPILE_FLOPS * 2


class OneRank:
    device = CPU

    def gather(self, value):
        return [value]


class TwoRanks(OneRank):
    def gather(self, value):
        return [value, False]


@pytest.fixture(autouse=True)
def a_compiler(monkeypatch):
    monkeypatch.setattr(execution, "missing_for_compile", lambda device: None)


def choose(flops=MUCH, world=None, saved=None, dtype="bfloat16", **flags):
    return choose_execution(
        TrainConfig(**flags), world or OneRank(), dtype=dtype, planned_flops=flops, saved=saved
    )


def checkpoint(made, **flags):
    return train_state(execution=made, config=TrainConfig(**flags).to_dict())


class TestOnACpu:
    def test_a_long_run_is_compiled_with_attention_by_matrix_products(self):
        made = choose(MUCH)
        assert (made.compile, made.attention) == (True, "blockwise")

    def test_a_short_run_is_not(self):
        made = choose(LITTLE)
        assert (made.compile, made.attention) == (False, "sdpa")

    def test_long_rows_keep_the_fused_kernel(self):
        assert choose(max_seq_len=MATMUL_ATTENTION_TOKENS).attention == "blockwise"
        assert choose(max_seq_len=MATMUL_ATTENTION_TOKENS + 1).attention == "sdpa"

    def test_in_float32_the_fused_kernel_is_kept(self):
        made = choose(MUCH, dtype="float32")
        assert (made.compile, made.attention) == (True, "sdpa")

    def test_flags_win(self):
        made = choose(LITTLE, compile="on", attention="sdpa")
        assert (made.compile, made.attention) == (True, "sdpa")
        made = choose(MUCH, compile="off", attention="eager")
        assert (made.compile, made.attention) == (False, "eager")

    def test_every_rank_must_be_able_to_compile(self, caplog):
        made = choose(world=TwoRanks())
        assert (made.compile, made.attention) == (False, "sdpa")
        assert "not compiling" in caplog.text


class TestOnAGpu:
    @pytest.fixture
    def gpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        monkeypatch.setattr(torch.version, "hip", None)
        return SimpleNamespace(device=torch.device("cuda"), gather=lambda value: [value])

    def test_every_run_is_compiled_with_block_attention(self, gpu):
        made = choose(0.0, world=gpu, max_seq_len=512)
        assert (made.device, made.compile, made.attention) == ("cuda", True, "flex_attention")

    def test_not_compiled_or_in_float32_it_takes_the_fused_kernel(self, gpu):
        assert choose(world=gpu, max_seq_len=512, compile="off").attention == "sdpa"
        assert choose(world=gpu, max_seq_len=512, dtype="float32").attention == "sdpa"

    def test_so_do_short_rows(self, gpu):
        assert choose(world=gpu, max_seq_len=FLEX_TOKENS).attention == "flex_attention"
        assert choose(world=gpu, max_seq_len=FLEX_TOKENS - 1).attention == "sdpa"

    def test_so_do_small_heads(self, gpu):
        assert choose(world=gpu, hidden_size=8 * 16).attention == "flex_attention"
        assert choose(world=gpu, hidden_size=8 * 8).attention == "sdpa"

    def test_so_does_an_old_gpu(self, gpu, monkeypatch):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        assert choose(world=gpu, max_seq_len=512).attention == "sdpa"

    def test_a_run_that_began_with_the_fused_kernel_keeps_it(self, gpu):
        made = choose(world=gpu, max_seq_len=512)
        saved = checkpoint(replace(made, attention="sdpa"))
        assert choose(world=gpu, saved=saved, max_seq_len=512).attention == "sdpa"


class TestResumed:
    def test_the_choice_is_kept_though_the_plan_has_grown(self):
        made = choose(LITTLE)
        assert choose(MUCH, saved=checkpoint(made)) == made
        made = choose(MUCH)
        assert choose(LITTLE, saved=checkpoint(made)) == made

    def test_flags_win_over_what_was_chosen(self):
        saved = checkpoint(choose(MUCH))
        made = choose(MUCH, saved=saved, compile="off")
        assert (made.compile, made.attention) == (False, "sdpa")

    def test_a_checkpoint_from_before_such_choices(self):
        assert choose(MUCH, saved=train_state(execution=None)) == choose(MUCH)

    def test_on_another_kind_of_device_the_choice_is_made_anew(self):
        saved = checkpoint(replace(choose(LITTLE), device="cuda"))
        assert choose(MUCH, saved=saved).compile

    def test_where_nothing_compiles_any_more_the_run_goes_on_and_says_so(self, monkeypatch, caplog):
        saved = checkpoint(choose(MUCH))
        monkeypatch.setattr(execution, "missing_for_compile", lambda device: "a C++ compiler (g++)")
        assert not choose(MUCH, saved=saved).compile
        assert "a C++ compiler (g++) is missing; the resumed run is not bit for bit" in caplog.text

    def test_another_precision_is_said(self, caplog):
        saved = checkpoint(choose(dtype="bfloat16"))
        assert choose(dtype="float32", saved=saved).dtype == "float32"
        assert "computing in float32 after bfloat16" in caplog.text


def test_compile_on_without_a_compiler_is_an_error(monkeypatch):
    monkeypatch.setattr(execution, "missing_for_compile", lambda device: "a C++ compiler (g++)")
    with pytest.raises(ConfigError, match=r"--compile on needs a C\+\+ compiler"):
        check_machine(TrainConfig(compile="on"), CPU)
    check_machine(TrainConfig(), CPU)


def test_block_attention_on_a_cpu_is_an_error():
    with pytest.raises(ConfigError, match="flex_attention cannot train on a CPU"):
        check_machine(TrainConfig(attention="flex_attention"), CPU)
    check_machine(TrainConfig(attention="flex_attention"), torch.device("cuda"))


@pytest.mark.parametrize(("device", "named"), [("cpu", r"C\+\+ compiler"), ("cuda", "C compiler")])
def test_a_missing_compiler_is_named(monkeypatch, device, named):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert re.search(named, str(missing_for_compile(device)))


def test_missing_headers_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert "Python.h" in str(missing_for_compile("cpu"))
    (tmp_path / "Python.h").touch()
    assert missing_for_compile("cpu") is None


class TestPrecision:
    @pytest.mark.parametrize("instructions", ["avx512_bf16", "amx_bf16", "bf16"])
    def test_bfloat16_where_the_cpu_has_it(self, monkeypatch, instructions):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True})
        assert choose_dtype(TrainConfig(), OneRank()) == "bfloat16"

    def test_float32_where_it_would_be_emulated_in_one_line(self, monkeypatch, caplog):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False}
        )
        with caplog.at_level(logging.INFO):
            assert choose_dtype(TrainConfig(), OneRank()) == "float32"
        assert caplog.messages == [
            "--dtype bfloat16: this CPU has no bfloat16 instructions, float32 is faster here"
        ]


class Accelerators:
    """Ranks that each have an accelerator; the first of them is this one's."""

    device = torch.device("cuda", 0)

    def __init__(self, monkeypatch, bfloat16=(True,), float16=True):
        self.bfloat16 = list(bfloat16)
        self.asked = 0
        monkeypatch.setattr(execution, "has_bfloat16", lambda device: self.bfloat16[0])
        monkeypatch.setattr(execution, "autocast_takes", lambda device, dtype: float16)
        monkeypatch.setattr(execution, "device_name", lambda device: "Tesla V100-SXM2-32GB")

    def gather(self, value):
        self.asked += 1
        return self.bfloat16 if self.asked == 1 else [value]


class TestPrecisionOnAnAccelerator:
    def test_bfloat16_where_all_ranks_have_it(self, monkeypatch):
        assert choose_dtype(TrainConfig(), Accelerators(monkeypatch, [True, True])) == "bfloat16"

    @pytest.mark.parametrize("has", [[False], [True, False]])
    def test_else_float16_with_the_scaler_in_one_line(self, monkeypatch, caplog, has):
        with caplog.at_level(logging.INFO):
            assert choose_dtype(TrainConfig(), Accelerators(monkeypatch, has)) == "float16"
        assert caplog.messages == [
            "--dtype bfloat16: not all of the GPUs (Tesla V100-SXM2-32GB here) have it, so float16 "
            "with loss scaling"
        ]

    def test_else_float32(self, monkeypatch, caplog):
        world = Accelerators(monkeypatch, [False], float16=False)
        with caplog.at_level(logging.INFO):
            assert choose_dtype(TrainConfig(), world) == "float32"
        assert caplog.messages == [
            "--dtype bfloat16: torch has no mixed precision for Tesla V100-SXM2-32GB, so float32"
        ]

    @pytest.mark.parametrize("asked", ["float16", "float32"])
    def test_another_dtype_is_taken_as_asked(self, monkeypatch, asked):
        assert choose_dtype(TrainConfig(dtype=asked), Accelerators(monkeypatch, [False])) == asked

    def test_a_resume_keeps_what_its_run_had(self, monkeypatch):
        saved = checkpoint(execution.Execution("cuda", "bfloat16", False, "sdpa"))
        assert choose_dtype(TrainConfig(), Accelerators(monkeypatch, [False]), saved) == "bfloat16"
        of_cpu = checkpoint(execution.Execution("cpu", "float32", False, "sdpa"))
        assert choose_dtype(TrainConfig(), Accelerators(monkeypatch, [False]), of_cpu) == "float16"


def test_other_accelerators_do_not_compile_by_themselves():
    world = SimpleNamespace(device=torch.device("xpu", 0), gather=lambda value: [value])
    made = choose(MUCH, world=world, max_seq_len=FLEX_TOKENS)
    assert (made.device, made.compile, made.attention) == ("xpu", False, "sdpa")
    assert choose(MUCH, world=world, compile="on").compile


def test_block_attention_is_refused_where_torch_has_none():
    check_machine(TrainConfig(attention="flex_attention"), torch.device("xpu"))
    with pytest.raises(ConfigError, match="cannot train on mps devices; leave it out"):
        check_machine(TrainConfig(attention="flex_attention"), torch.device("mps"))


@pytest.mark.parametrize(
    ("device", "rank", "says"), [("", 0, ["a line"]), ("", 1, []), ("cpu", 0, [])]
)
def test_an_idle_accelerator_is_named_once_unless_a_cpu_was_asked_for(
    monkeypatch, caplog, device, rank, says
):
    monkeypatch.setattr(execution, "overlooked", lambda: "a line")
    warn_of_idle_accelerator(TrainConfig(device=device), SimpleNamespace(is_main=rank == 0))
    assert caplog.messages == says
