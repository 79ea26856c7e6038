"""Control groups as files: what a machine that has them shows."""

from __future__ import annotations

from pathlib import Path


def cgroup(tmp_path: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    """The membership of a process and the mount point, with ``files`` below it."""
    mount = tmp_path / "mount"
    for name, text in files.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(text + "\n")
    (tmp_path / "cgroup").write_text(membership)
    return tmp_path / "cgroup", mount
