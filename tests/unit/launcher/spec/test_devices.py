"""How a site calls its accelerators, and what a profile may say about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.spec.devices import MAKERS, devices_of
from launcher.spec.job_spec import JobSpec
from launcher.spec.options import CONTAINERS, DEFAULT_DEVICE
from minimind.errors import ConfigError
from minimind.system.drivers import DRIVERS


def test_every_driver_has_its_row() -> None:
    assert list(MAKERS) == list(DRIVERS)
    assert DEFAULT_DEVICE in MAKERS
    for devices in MAKERS.values():
        assert set(devices.container_flags) <= set(CONTAINERS)


def test_a_profile_overrides_single_fields() -> None:
    own = {
        "gres": "gpu:910b",
        "visible_devices": ["ASCEND_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES"],
        "device_files": [],
        "container_flags": {"docker": ["--runtime=ascend", "--env=ASCEND_VISIBLE_DEVICES=0-7"]},
    }
    devices = devices_of("ascend", own)
    assert (devices.gres, devices.kind, devices.unit) == ("gpu:910b", "npu", "NPU")
    assert devices.visible_devices == ("ASCEND_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES")
    assert devices.device_files == ()
    assert devices.driver_files == MAKERS["ascend"].driver_files


def test_the_flags_of_one_runtime_leave_those_of_the_others() -> None:
    devices = devices_of("nvidia", {"container_flags": {"docker": ["--gpus=all", "--cap-add=X"]}})
    assert devices.container_flags == {
        **MAKERS["nvidia"].container_flags,
        "docker": ("--gpus=all", "--cap-add=X"),
    }


@pytest.mark.parametrize(
    "options, said",
    [
        ({"gress": "npu"}, "unknown key 'device_options.gress'; did you mean 'gres'?"),
        ({"gres": 8}, "device_options.gres must be one line of text"),
        ({"gres": "npu\n#SBATCH --x"}, "device_options.gres must be one line of text"),
        ({"gres": "npu:910b:8"}, "device_options: gres 'npu:910b:8': write NAME or NAME:TYPE"),
        ({"visible_devices": "X"}, "device_options.visible_devices must be a list of strings"),
        ({"visible_devices": ["A B"]}, "device_options: 'A B': not the name of an environment"),
        ({"network_interface": "a-b"}, "device_options: 'a-b': not the name of an environment"),
        ({"device_files": ["/dev/x; rm -r"]}, "device_options: device_files '/dev/x; rm -r':"),
        ({"device_files": ["/etc/passwd"]}, "device_options: device_files '/etc/passwd':"),
        ({"driver_files": ["lib"]}, "device_options: driver_files 'lib': write an absolute path"),
        ({"driver_files": ["/a:/b"]}, "device_options: driver_files '/a:/b': write an absolute"),
        ({"container_flags": ["--nv"]}, "container_flags must be a table of lists of strings"),
        ({"container_flags": {"dokcer": []}}, "container_flags.dokcer: choose pyxis, enroot"),
        ({"container_flags": {"docker": "-x"}}, "container_flags.docker must be a list"),
        ({"container_flags": {"docker": [""]}}, "container_flags.docker must be a list"),
        ({"listed": "("}, "device_options: listed '(': write a regular expression"),
        ({"listed": "GPU"}, "device_options: listed 'GPU': write a regular expression"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    options: dict[str, Any], said: str, make_spec: Callable[..., JobSpec]
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as error:
        make_spec(device="amd", device_options=options)
    assert "\n" not in str(error.value)


def test_a_spec_keeps_its_devices(make_spec: Callable[..., JobSpec]) -> None:
    own = {"gres": "npu:910b", "container_flags": {"podman": ["--x"]}}
    spec = make_spec(device="ascend", device_options=own)
    again = JobSpec.from_json(spec.to_json())
    assert (again, again.devices) == (spec, spec.devices)


LISTS = {
    "nvidia": (
        "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-0)\n"
        "  MIG 1g.5gb     Device  0: (UUID: MIG-0)\n"
        "GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-1)\n"
    ),
    "amd": "GPU: 0\n    BDF: 0000:c1:00.0\n    UUID: ff\n\nGPU: 1\n    BDF: 0000:c2:00.0\n",
    "ascend": (
        "\tNPU ID           Chip ID          Chip Logic ID    Chip Name\n"
        "\t0                0                0                Ascend xxx\n"
        "\t0                1                1                Ascend xxx\n"
        "\t0                2                -                Mcu\n"
        "\t-1               0                2                Ascend xxx\n"
    ),
}
OLDER_AMD = "GPU[0]\t\t: Device Name: x\nGPU[0]\t\t: Device ID: 0x1\nGPU[1]\t\t: Device ID: 0x1\n"


@pytest.mark.parametrize("maker, text", [*LISTS.items(), ("amd", OLDER_AMD)])
def test_the_lines_of_two_devices(maker: str, text: str) -> None:
    assert len(set(re.findall(MAKERS[maker].listed, text, re.MULTILINE))) == 2


def test_the_documents_table_is_this_one() -> None:
    page = (Path(__file__).resolve().parents[4] / "docs/slurm.md").read_text(encoding="utf-8")
    table = page.partition("### AMD GPUs, Ascend NPUs")[2].partition("\n\nWhat your site calls")[0]
    rows = [line.split("|")[2:-1] for line in table.splitlines() if line.startswith("|")]
    for column, (maker, devices) in enumerate(MAKERS.items()):
        cells = " ".join(row[column] for row in rows)
        flags = [word for words in devices.container_flags.values() for word in words]
        asked = "--gpus-per-node=8" if devices.gres == "gpu" else f"--gres={devices.gres}:8"
        commands = (devices.kind, asked, *devices.list_commands)
        files = (*devices.device_files, *devices.driver_files)
        variables = (*devices.visible_devices, devices.network_interface)
        for word in (maker, *commands, *variables, *files, *flags):
            assert f"`{word}`" in cells
