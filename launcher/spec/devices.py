"""How a site calls its accelerators, for each maker: the one table that Slurm's options, the
container flags and the counting of devices are made from.

A profile chooses with ``device`` and overrides single fields in ``[device_options]``. Standard
library only: a job's host side reads specs with whatever Python the node has.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_type_hints

from launcher.spec.checks import VARIABLE
from launcher.spec.options import CONTAINERS
from minimind.errors import ConfigError
from minimind.system.drivers import DRIVERS

GRES = re.compile(r"[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?")
DEVICE_FILE = re.compile(r"/dev/[A-Za-z0-9_./\[\]?*-]+")
"""A path or a shell's pattern, and nothing else that a shell would read."""


@dataclass(frozen=True, kw_only=True)
class Devices:
    """The accelerators of one maker. The names of the fields are those of a profile.

    Raises:
        ConfigError: a field that cannot work; the message names it.
    """

    name: str
    """One of them, as a person calls it."""

    kind: str
    """What torch calls them: the value of ``--device``."""

    gres: str = "gpu"
    """Slurm's generic resource, perhaps with a type: ``gpu`` or ``npu:910b``."""

    visible_devices: tuple[str, ...]
    """The variables that say which of a node's devices a process may use."""

    network_interface: str = "NCCL_SOCKET_IFNAME"
    """The variable that names the network interface between nodes."""

    device_files: tuple[str, ...] = ()
    """What docker and podman give to a container, each perhaps a pattern that the node expands."""

    driver_files: tuple[str, ...] = ()
    """Files and folders of the node that every container needs, read-only under their own paths."""

    container_flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Runtime → what else it needs to give a container the devices."""

    list_commands: tuple[str, ...] = ()
    """Commands that list the devices of a machine; the first that is there is asked."""

    listed: str = ""
    """Their line for a device: a regular expression whose group is the device's number."""

    def __post_init__(self) -> None:
        if not GRES.fullmatch(self.gres):
            raise ConfigError(f"gres {self.gres!r}: write NAME or NAME:TYPE, as in gres.conf")
        for name in (*self.visible_devices, self.network_interface):
            if not VARIABLE.fullmatch(name):
                raise ConfigError(f"{name!r}: not the name of an environment variable")
        for path in self.device_files:
            if not DEVICE_FILE.fullmatch(path):
                raise ConfigError(f"device_files {path!r}: write a path or a pattern below /dev")
        for path in self.driver_files:
            if not path.startswith("/") or not path.isprintable() or set(path) & set(":,"):
                raise ConfigError(
                    f"driver_files {path!r}: write an absolute path without colon and comma"
                )
        try:
            groups = re.compile(self.listed).groups
        except re.error:
            groups = -1
        if groups != bool(self.list_commands):
            raise ConfigError(f"listed {self.listed!r}: write a regular expression with one group")

    @property
    def unit(self) -> str:
        """What one of them is, whoever has made it: GPU or NPU."""
        return self.name.rpartition(" ")[2]


SMI_GPU = r"^GPU[ :\[]+(\d+)"
"""``GPU 0: …`` of nvidia-smi, ``GPU: 0`` of amd-smi, ``GPU[0] …`` of the older rocm-smi."""

MAKERS = {
    "nvidia": Devices(
        name=DRIVERS["nvidia"].device,
        kind="cuda",
        visible_devices=("CUDA_VISIBLE_DEVICES",),
        container_flags={
            "apptainer": ("--nv",),
            "docker": ("--gpus=all",),
            "podman": ("--device=nvidia.com/gpu=all",),
        },
        list_commands=("nvidia-smi -L",),
        listed=SMI_GPU,
    ),
    "amd": Devices(
        name=DRIVERS["amd"].device,
        # ROCm's torch and RCCL go by the names of CUDA and NCCL.
        kind="cuda",
        # ROCm applies it before HIP_VISIBLE_DEVICES and CUDA_VISIBLE_DEVICES, whose numbers then
        # count what is left: a container that gets two of them may see no device at all.
        visible_devices=("ROCR_VISIBLE_DEVICES",),
        device_files=("/dev/kfd", "/dev/dri"),
        container_flags={"apptainer": ("--rocm",)},
        list_commands=("amd-smi list", "rocm-smi --showid"),
        listed=SMI_GPU,
    ),
    "ascend": Devices(
        name=DRIVERS["ascend"].device,
        kind="npu",
        gres="npu",
        visible_devices=("ASCEND_RT_VISIBLE_DEVICES",),
        network_interface="HCCL_SOCKET_IFNAME",
        device_files=(
            "/dev/davinci[0-9]*",
            "/dev/davinci_manager",
            "/dev/devmm_svm",
            "/dev/hisi_hdc",
        ),
        driver_files=(
            "/usr/local/Ascend/driver",
            "/usr/local/dcmi",
            "/usr/local/bin/npu-smi",
            "/etc/ascend_install.info",
        ),
        # A chip's line has its logical number third; a card's own controller has a dash there.
        list_commands=("npu-smi info -m",),
        listed=r"^\s*\d+\s+\d+\s+(\d+)\s",
    ),
}
"""Value of a profile's ``device`` → what it means."""


def devices_of(maker: str, options: Mapping[str, Any]) -> Devices:
    """The maker's row, with a profile's own fields in place of the table's.

    Raises:
        ConfigError: an unknown maker or field, or a value that cannot work.
    """
    if maker not in MAKERS:
        raise ConfigError(f"device {maker!r}: choose {', '.join(MAKERS)}")
    hints = get_type_hints(Devices)
    known = {entry.name: hints[entry.name] for entry in fields(Devices)}
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"unknown key 'device_options.{key}'{hint}")
    row = MAKERS[maker]
    if not options:
        return row
    own = {key: _field(key, known[key], value, row) for key, value in options.items()}
    try:
        return replace(row, **own)
    except ConfigError as error:
        raise ConfigError(f"device_options: {error}") from None


def _field(key: str, hint: Any, value: Any, row: Devices) -> Any:
    """A profile's value as the field has it; flags of a runtime stand in place of its own alone."""
    if key == "container_flags":
        if not isinstance(value, dict):
            raise ConfigError(f"device_options.{key} must be a table of lists of strings")
        for name in value:
            if name not in CONTAINERS[1:]:
                choices = ", ".join(CONTAINERS[1:])
                raise ConfigError(f"device_options.{key}.{name}: choose {choices}")
        own = {name: _words(f"{key}.{name}", words) for name, words in value.items()}
        return {**row.container_flags, **own}
    if hint is not str:
        return _words(key, value)
    if not isinstance(value, str) or not value.isprintable():
        raise ConfigError(f"device_options.{key} must be one line of text")
    return value


def _words(key: str, value: Any) -> tuple[str, ...]:
    words = value if isinstance(value, (list, tuple)) else [None]
    if not all(isinstance(word, str) and word and word.isprintable() for word in words):
        raise ConfigError(f"device_options.{key} must be a list of strings")
    return tuple(words)
