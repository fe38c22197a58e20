"""What the kernel tells in files: of this process's control groups, above all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def read_told(path: Path) -> str:
    """A file's text; empty where there is no such file, or it can't be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def own_groups() -> str:
    """The text of /proc/self/cgroup; empty where there are no control groups."""
    return read_told(Path("/proc/self/cgroup"))


def group_folders(groups: str, mount: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """Where a process's limits stand, from its own group up to the root, and whether that is of version 2.

    groups: as `own_groups` gives them. mount: /sys/fs/cgroup. controller: cpu or memory. In a container the
    path may be the host's; what isn't there sets no limit, and the root's own file is then the container's.
    """
    for line in groups.splitlines():
        _, controllers, group = line.split(":", 2)
        is_unified = not controllers
        if not is_unified and controller not in controllers.split(","):
            continue
        root = mount if is_unified else mount / controller
        folder = root / group.lstrip("/")
        for place in (folder, *folder.parents):
            yield place, is_unified
            if place == root:
                break
