"""Each kind of device, with the answers that torch would give on a machine that has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minimind.distributed import device
from minimind.errors import ConfigError

CPU, CUDA, MPS, XPU = (torch.device(kind) for kind in ("cpu", "cuda:0", "mps:0", "xpu:0"))

Install = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Install:
    """A machine with ``count`` accelerators of a kind, whose module in torch has ``parts``."""

    def install(kind: str, count: int = 1, *, built: bool = True, **parts: Any) -> None:
        module = SimpleNamespace(
            is_available=lambda: count > 0, device_count=lambda: count, **parts
        )
        found = SimpleNamespace(type=kind)
        monkeypatch.setattr(
            torch.accelerator,
            "current_accelerator",
            lambda check_available=False: (
                found if built and (count or not check_available) else None
            ),
        )
        monkeypatch.setattr(torch, "get_device_module", lambda wanted: module)

    return install


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    for cached in (device._has_page_locked_memory, device._has_timing_events):
        cached.cache_clear()


class TestPick:
    @pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
    def test_the_accelerator_is_taken_where_there_is_one(self, machine: Install, kind: str) -> None:
        machine(kind, 4)
        assert device.pick_device("", 2, False) == torch.device(kind, 0)
        assert device.pick_device("", 2, True) == torch.device(kind, 2)
        assert device.pick_device(f"{kind}:3", 0, False) == torch.device(kind, 3)
        assert device.pick_device("cpu", 0, False) == CPU

    def test_else_the_cpu(self, machine: Install) -> None:
        machine("cuda", 0)
        assert device.pick_device("", 0, False) == CPU
        machine("cuda", 0, built=False)
        assert device.pick_device("", 0, False) == CPU
        assert device.pick_device("cpu:0", 0, False) == CPU

    @pytest.mark.parametrize(
        ("wanted", "has", "says"),
        [
            ("cuda:3", ("cuda", 0), "--device cuda:3: torch sees no GPU here; use --device cpu"),
            ("cuda:3", ("cuda", 2), "--device cuda:3: this machine has 2 GPU(s)"),
            (
                "xpu",
                ("cuda", 1),
                "--device xpu: torch sees no xpu device here; use --device cuda or cpu",
            ),
            ("mps:1", ("mps", 1), "--device mps:1: this machine has 1 device(s) of the kind mps"),
            ("cpu:1", ("cuda", 0), "--device cpu:1: this machine has 1 device(s) of the kind cpu"),
            (
                "meta",
                ("cuda", 0),
                "--device meta: torch sees no meta device here; use --device cpu",
            ),
            (
                "tpu",
                ("cuda", 0),
                "--device tpu: this torch knows no tpu (does it need a plug-in, such as "
                "torch-npu?); use --device cpu",
            ),
        ],
    )
    def test_what_is_not_there_is_one_line(
        self, machine: Install, wanted: str, has: tuple[str, int], says: str
    ) -> None:
        machine(*has)
        with pytest.raises(ConfigError) as raised:
            device.pick_device(wanted, 0, False)
        assert str(raised.value) == says


class TestExchange:
    @pytest.mark.parametrize(
        ("kind", "backend"),
        [
            ("cpu", "gloo"),
            ("cuda", "cpu:gloo,cuda:nccl"),
            ("xpu", "cpu:gloo,xpu:xccl"),
            ("npu", "cpu:gloo,npu:hccl"),
        ],
    )
    def test_each_kind_has_its_own(self, kind: str, backend: str) -> None:
        assert device.process_group_backend(SimpleNamespace(type=kind)) == backend  # type: ignore[arg-type]

    def test_a_plug_in_enters_its_own_in_torchs_table(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = torch.distributed.Backend.default_device_backend_map
        monkeypatch.setitem(table, "hpu", "theirs")
        assert device.process_group_backend(torch.device("hpu")) == "cpu:gloo,hpu:theirs"

    @pytest.mark.parametrize("kind", ["mps", "vulkan"])
    def test_a_kind_without_one_is_one_line(self, kind: str) -> None:
        with pytest.raises(ConfigError, match=f"no exchange between {kind} devices; start one"):
            device.process_group_backend(torch.device(kind))

    def test_ddp_is_told_the_device_but_on_a_cpu(self) -> None:
        assert device.ddp_device_ids(CPU) is None
        assert device.ddp_device_ids(torch.device("xpu", 3)) == [3]


class TestCopiesAndTimes:
    def test_page_locked_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def allocate(size: int, pin_memory: bool) -> object:
            return object()

        monkeypatch.setattr(torch, "empty", allocate)
        assert [device.page_locks(kind) for kind in (CPU, MPS, CUDA, XPU)] == [0, 0, 1, 1]

    def test_a_backend_without_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(size: int, pin_memory: bool) -> object:
            raise NotImplementedError("no page-locked memory here")

        monkeypatch.setattr(torch, "empty", refuse)
        assert not device.page_locks(XPU)

    def test_events_where_the_backend_has_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        event = SimpleNamespace(record=lambda: None, elapsed_time=lambda other: 1.5)
        monkeypatch.setattr(torch, "Event", lambda kind, enable_timing: event)
        monkeypatch.setattr(torch.accelerator, "synchronize", lambda kind: None)
        assert device.timing_events(XPU) == (event, event)
        assert device.timing_events(CPU) is None

    def test_a_clock_where_it_has_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(kind: object, enable_timing: bool) -> object:
            raise RuntimeError("no events here")

        monkeypatch.setattr(torch, "Event", refuse)
        assert device.timing_events(XPU) is None

    def test_apples_gpus_have_no_float64(self) -> None:
        assert device.sum_dtype(MPS) == torch.float32
        assert {device.sum_dtype(kind) for kind in (CPU, CUDA, XPU)} == {torch.float64}

    def test_kernel_times(self) -> None:
        found = [device.kernel_times(kind) for kind in ("cpu", "cuda", "mps", "xpu", "npu")]
        assert found == [None, "CUDA", None, "XPU", None]


class TestMemory:
    def test_through_torch_accelerator(self, monkeypatch: pytest.MonkeyPatch) -> None:
        accelerator = torch.accelerator
        monkeypatch.setattr(accelerator, "get_memory_info", lambda kind: (6, 10))
        monkeypatch.setattr(accelerator, "memory_reserved", lambda kind: 3)
        monkeypatch.setattr(accelerator, "memory_allocated", lambda kind: 2)
        monkeypatch.setattr(accelerator, "max_memory_reserved", lambda kind: 4)
        assert device.memory_left(XPU) == (6, 10, 3)
        assert device.memory_used(XPU) == (2, 4)
        assert device.measures_peaks(XPU)

    def test_a_backend_that_does_not_say(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(kind: object) -> int:
            raise RuntimeError("device_allocator INTERNAL ASSERT FAILED")

        monkeypatch.setattr(torch.accelerator, "get_memory_info", refuse)
        monkeypatch.setattr(torch.accelerator, "memory_allocated", refuse)
        assert device.memory_left(XPU) is None
        assert device.memory_used(XPU) is None
        assert not device.measures_peaks(XPU)

    def test_apples_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 2)
        monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 3)
        monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 10)
        assert device.memory_used(MPS) == (2, 3)
        assert device.memory_left(MPS) == (7, 10, 3)
        assert not device.measures_peaks(MPS)

    def test_a_cpu_has_none_of_its_own(self) -> None:
        assert device.memory_used(CPU) is device.memory_left(CPU) is None
        assert not device.measures_peaks(CPU)

    @pytest.mark.parametrize(("kind", "module"), [(CUDA, torch.cuda), (XPU, torch.accelerator)])
    def test_the_peak_of_some_work(
        self, monkeypatch: pytest.MonkeyPatch, kind: torch.device, module: Any
    ) -> None:
        calls: list[str] = []
        monkeypatch.setattr(module, "reset_peak_memory_stats", lambda on: calls.append("reset"))
        monkeypatch.setattr(module, "max_memory_allocated", lambda on: len(calls))
        assert device.peak_memory_of(lambda: calls.append("work"), kind) == 2
        assert calls == ["reset", "work"]


class TestRandomState:
    @pytest.mark.parametrize("kind", ["cuda", "xpu"])
    def test_it_is_kept_under_the_kinds_name(self, machine: Install, kind: str) -> None:
        states = {0: torch.tensor([7])}
        machine(
            kind,
            get_rng_state=lambda of: states[of.index],
            set_rng_state=lambda state, of: states.update({of.index: state}),
        )
        saved = device.random_state(torch.device(kind, 0))
        assert saved == {kind: torch.tensor([7])}
        with device.random_state_kept(torch.device(kind, 0)):
            states[0] = torch.tensor([9])
        assert states[0] == torch.tensor([7])
        device.set_random_state({kind: torch.tensor([8])}, torch.device(kind, 0))
        assert states[0] == torch.tensor([8])
        device.set_random_state({"another": torch.tensor([1])}, torch.device(kind, 0))
        assert states[0] == torch.tensor([8])

    def test_apples_generator_has_no_number(self, machine: Install) -> None:
        states = [torch.tensor([7])]
        machine("mps", get_rng_state=lambda: states[-1], set_rng_state=states.append)
        device.set_random_state(device.random_state(MPS), MPS)
        assert states == [torch.tensor([7])] * 2

    def test_a_backend_without_one_is_named_once(
        self, machine: Install, caplog: pytest.LogCaptureFixture
    ) -> None:
        machine("xpu")
        device._warn_of_random_state.cache_clear()
        assert device.random_state(XPU) == device.random_state(XPU) == {}
        assert caplog.messages == [
            "torch.xpu does not give its random state: it is not in checkpoints"
        ]

    def test_a_cpu_has_torchs_own(self) -> None:
        assert device.random_state(CPU) == {}
        before = torch.get_rng_state()
        with device.random_state_kept(CPU):
            torch.rand(3)
        assert torch.equal(torch.get_rng_state(), before)


class TestPrecision:
    @pytest.mark.parametrize("has", [True, False])
    def test_bfloat16_of_each_kind(
        self, machine: Install, monkeypatch: pytest.MonkeyPatch, has: bool
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
        monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: has)
        machine("xpu", is_bf16_supported=lambda: has)
        assert [device.has_bfloat16(kind) for kind in (CUDA, MPS, XPU)] == [has] * 3

    @pytest.mark.parametrize("takes", [[], [torch.float16], [torch.float16, torch.bfloat16]])
    def test_a_plug_in_says_what_its_autocast_takes(
        self, machine: Install, monkeypatch: pytest.MonkeyPatch, takes: list[torch.dtype]
    ) -> None:
        monkeypatch.setattr(torch._C, "_get_privateuse1_backend_name", lambda: "xpu")
        machine("xpu", get_amp_supported_dtype=lambda: takes)
        assert device.autocast_takes(XPU, torch.float16) == (torch.float16 in takes)
        assert device.has_bfloat16(XPU) == (torch.bfloat16 in takes)
        machine("xpu")
        assert not device.autocast_takes(XPU, torch.float16)

    def test_a_kind_without_autocast(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.amp, "is_autocast_available", lambda kind: False)
        assert not device.autocast_takes(XPU, torch.float16)


class TestHowToCompute:
    def test_only_what_was_measured_is_compiled_by_itself(self) -> None:
        assert [device.compiling_pays(kind) for kind in ("cuda", "mps", "xpu", "npu")] == [
            1,
            0,
            0,
            0,
        ]

    def test_block_attention(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kinds = ("cpu", "cuda", "mps", "xpu", "npu")
        assert [device.has_block_attention(kind) for kind in kinds] == [0, 1, 0, 1, 0]
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda of: (9, 0))
        assert [device.block_attention_pays(kind) for kind in (CUDA, XPU, MPS)] == [1, 0, 0]
        monkeypatch.setattr(torch.version, "hip", "7.1")
        assert not device.block_attention_pays(CUDA)


def test_names(machine: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M4")
    assert device.device_name(MPS) == "Apple M4"
    machine("xpu", get_device_name=lambda of: f"Intel Arc {of.index}")
    assert device.device_name(XPU) == "Intel Arc 0"
    machine("xpu")
    assert device.device_name(XPU) == "xpu"


def test_versions_of_what_torch_was_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in (("cuda", None), ("hip", "7.1"), ("xpu", None)):
        monkeypatch.setattr(torch.version, name, version)
    assert device.toolkit_versions() == {"hip": "7.1"}


def test_nvml_is_asked_for_nvidias_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.management_ids(XPU) is device.management_ids(CPU) is None
    monkeypatch.setattr(torch.version, "hip", "7.1")
    assert device.management_ids(CUDA) is None


class TestOverlooked:
    @pytest.mark.parametrize(
        ("files", "says"),
        [
            (
                ["nvidiactl", "nvidia1", "nvidia0"],
                "NVIDIA GPU ({dev}/nvidia0); install torch's CUDA",
            ),
            (["kfd"], "AMD GPU ({dev}/kfd); install torch's ROCm build (https://"),
            (["davinci_manager", "davinci3"], "Ascend NPU ({dev}/davinci3); install torch-npu of"),
        ],
    )
    def test_a_torch_for_cpus_beside_a_driver(
        self,
        machine: Install,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        files: list[str],
        says: str,
    ) -> None:
        for name in files:
            (tmp_path / name).touch()
        monkeypatch.setattr(device, "DEVICE_FILES", tmp_path)
        machine("cuda", 0, built=False)
        line = device.overlooked()
        assert line is not None
        assert line.startswith("training on the CPU: torch ")
        assert says.format(dev=tmp_path) in line
        assert "\n" not in line
        machine("cuda", 0)
        assert device.overlooked() is None

    def test_a_machine_without_one(
        self, machine: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "nvidiactl").touch()
        monkeypatch.setattr(device, "DEVICE_FILES", tmp_path)
        machine("cuda", 0, built=False)
        assert device.overlooked() is None
