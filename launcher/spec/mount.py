"""A folder of the host that the ranks see inside their container."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from launcher.spec.checks import check_path
from minimind.errors import ConfigError


@dataclass(frozen=True)
class Mount:
    """A folder or file of the host, ``source``, seen as ``target`` inside the container."""

    source: str
    target: str
    read_only: bool = False

    @classmethod
    def parse(cls, text: str) -> Mount:
        """Reads ``SRC:DST`` or ``SRC:DST:ro``.

        Raises:
            ConfigError: another shape, a relative path, or a character no runtime can carry.
        """
        parts = text.split(":")
        read_only = len(parts) == 3 and parts[2] == "ro"
        if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
            raise ConfigError(f"--mount {text!r}: write SRC:DST or SRC:DST:ro")
        for path in parts[:2]:
            check_path(path, "--mount")
            if "," in path:
                raise ConfigError(f"--mount {text!r}: a comma cannot be carried by all runtimes")
            if not PurePosixPath(path).is_absolute():
                raise ConfigError(f"--mount {text!r}: {path!r} must be an absolute path")
        return cls(parts[0], parts[1], read_only)

    def __str__(self) -> str:
        return f"{self.source}:{self.target}" + (":ro" if self.read_only else "")
