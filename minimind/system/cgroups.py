"""The control groups that this process is in, of both versions. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MEMBERSHIP = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


def own_groups(
    controller: str, membership: Path = MEMBERSHIP, mount: Path = MOUNT
) -> Iterator[tuple[Path, int]]:
    """The folder of each group with ``controller``, and its version: 1 or 2.

    A limit on a group also binds the groups inside of it, so that every ancestor counts.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, inner = line.split(":", 2)
        if controllers == "":
            root, version = mount, 2
        elif controller in controllers.split(","):
            root, version = mount / controller, 1
        else:
            continue
        # In a container the path may be the host's, which is not mounted here: the walk
        # then ends at the mount point, which is the container's own group.
        folder = root / inner.strip("/")
        while True:
            yield folder, version
            if folder == root:
                break
            folder = folder.parent
