import sys
import types

import psutil
import pytest
import torch

from minimind.telemetry import monitor
from minimind.telemetry.monitor import Monitor, describe_memory

GPUS = {
    # NVML's own order: the other way round than CUDA shows them here.
    "GPU-aaaa": {"utilization": 11, "temperature": 31, "pci": "00000000:17:00.0"},
    "GPU-bbbb": {"utilization": 97, "temperature": 64, "pci": "00000000:65:00.0"},
}


class NvmlError(Exception):
    pass


def fake_nvml(**overrides):
    nvml = types.ModuleType("pynvml")
    nvml.NVML_TEMPERATURE_GPU = 0

    def by_uuid(uuid):
        if uuid not in GPUS:
            raise NvmlError("not found")
        return GPUS[uuid]

    def by_pci(address):
        return next(gpu for gpu in GPUS.values() if gpu["pci"] == address)

    nvml.nvmlInit = lambda: None
    nvml.nvmlDeviceGetHandleByUUID = by_uuid
    nvml.nvmlDeviceGetHandleByPciBusId = by_pci
    nvml.nvmlDeviceGetUtilizationRates = lambda h: types.SimpleNamespace(gpu=h["utilization"])
    nvml.nvmlDeviceGetTemperature = lambda h, sensor: h["temperature"]
    for name, value in overrides.items():
        setattr(nvml, name, value)
    return nvml


@pytest.fixture
def pretend_gpu(monkeypatch):
    """CUDA as torch would report it, with one GPU visible: the machine's second."""

    def install(nvml, uuid="bbbb", bus=0x65):
        properties = types.SimpleNamespace(
            uuid=uuid, pci_domain_id=0, pci_bus_id=bus, pci_device_id=0
        )
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3_000_000_000)
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 5_500_000_000)
        return Monitor("cuda:0").sample()

    return install


def fail(*_):
    raise NvmlError("driver not loaded")


def test_cpu_gives_host_memory_alone():
    sample = Monitor(torch.device("cpu")).sample()
    assert list(sample) == ["host_memory_gb"]
    assert sample["host_memory_gb"] == pytest.approx(psutil.Process().memory_info().rss / 1e9, 0.2)


def test_the_gpu_is_found_by_uuid_not_by_number(pretend_gpu):
    sample = pretend_gpu(fake_nvml())
    assert sample["gpu_utilization"] == 97.0
    assert sample["gpu_temperature"] == 64.0
    assert sample["gpu_memory_gb"] == pytest.approx(3.0)
    assert sample["gpu_memory_peak_gb"] == pytest.approx(5.5)


def test_the_gpu_is_found_by_pci_address_where_the_uuid_is_unknown(pretend_gpu):
    sample = pretend_gpu(fake_nvml(), uuid="unknown")
    assert (sample["gpu_utilization"], sample["gpu_temperature"]) == (97.0, 64.0)


@pytest.mark.parametrize(
    "nvml",
    [None, fake_nvml(nvmlInit=fail)],
    ids=["not installed", "no driver"],
)
def test_without_nvml_its_readings_are_left_out(pretend_gpu, nvml):
    sample = pretend_gpu(nvml)
    assert set(sample) == {"host_memory_gb", "gpu_memory_gb", "gpu_memory_peak_gb"}


def test_one_failing_sensor_leaves_the_other(pretend_gpu):
    sample = pretend_gpu(fake_nvml(nvmlDeviceGetUtilizationRates=fail))
    assert "gpu_utilization" not in sample
    assert sample["gpu_temperature"] == 64.0


def test_no_exception_escapes(monkeypatch):
    watcher = Monitor("cpu")
    monkeypatch.setattr(watcher, "_process", None)
    assert watcher.sample() == {}


def test_memory_is_described_within_the_cgroup(monkeypatch):
    monkeypatch.setattr(monitor, "cgroup_memory", lambda: (2_000_000_000, 1_500_000_000))
    assert describe_memory("cpu") == "host: 0.5 GB free of 2.0 GB (cgroup limit)"
    monkeypatch.setattr(monitor, "cgroup_memory", lambda: (None, 0))
    total = psutil.virtual_memory().total / 1e9
    assert describe_memory("cpu").endswith(f"GB free of {total:.1f} GB")


def test_gpu_memory_is_described(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda d: (1_200_000_000, 80_000_000_000))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda d: 78_000_000_000)
    text = describe_memory("cuda:0")
    assert text.startswith(
        "NVIDIA H100: 1.2 GB free of 80.0 GB, 78.0 GB held by this process; host:"
    )
