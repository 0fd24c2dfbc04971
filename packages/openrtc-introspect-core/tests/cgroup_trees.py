"""Trees of control groups in a folder, as containers, pods and services see theirs."""

from __future__ import annotations

from pathlib import Path

MIB = 1024 * 1024
V2 = ("/", "/sys/fs/cgroup", "cgroup2", "rw,nsdelegate")
"""The usual mount of version 2."""

NAMES = {
    "quota_us": "cpu.cfs_quota_us",
    "period_us": "cpu.cfs_period_us",
    "limit_in_bytes": "memory.limit_in_bytes",
    "usage_in_bytes": "memory.usage_in_bytes",
    "oom_control": "memory.oom_control",
    "effective_cpus": "cpuset.effective_cpus",
}
"""The names of files of version 1 that have an underscore."""


class Tree:
    """A folder with `proc` and `sys`, to be handed over as the root of the file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/self").mkdir(parents=True)

    def process(self, *groups: str) -> None:
        """Put the process in these groups, each a line of /proc/self/cgroup."""
        (self.root / "proc/self/cgroup").write_text("".join(f"{line}\n" for line in groups))

    def mount(self, *mounts: tuple[str, str, str, str]) -> None:
        """Mount these: the group that is mounted, the mount point, the kind, its options."""
        lines = ["22 28 0:21 / /proc rw,nosuid - proc proc rw"]
        lines += [
            f"{30 + n} 23 0:2{n} {root} {at} ro - {kind} {kind} {how}" for n, (root, at, kind, how) in enumerate(mounts)
        ]
        (self.root / "proc/self/mountinfo").write_text("\n".join(lines) + "\n")

    def group(self, path: str, **files: str | int) -> str:
        """Make a directory with these files, `cpu_max` for cpu.max. Return its path."""
        folder = self.root / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / NAMES.get(name, name.replace("_", "."))).write_text(f"{text}\n")
        return str(folder)


def stat(**fields: int) -> str:
    """Return a file of `key value` lines."""
    return "\n".join(f"{key} {value}" for key, value in fields.items())


def docker_private(root: Path) -> Tree:
    """Docker, version 2, a cgroup namespace of its own: the container's group is the root of the mount."""
    tree = Tree(root)
    tree.process("0::/")
    tree.mount(V2)
    tree.group("/sys/fs/cgroup", cpu_max="150000 100000", memory_max=512 * MIB, memory_high="max")
    return tree


def docker_host(root: Path) -> Tree:
    """Docker, version 2, `--cgroupns=host`: the whole hierarchy is mounted."""
    tree = Tree(root)
    tree.process("0::/system.slice/docker-12ab.scope")
    tree.mount(V2)
    tree.group("/sys/fs/cgroup")
    tree.group("/sys/fs/cgroup/system.slice", cpu_max="max 100000", memory_max="max", memory_high="max")
    tree.group("/sys/fs/cgroup/system.slice/docker-12ab.scope", cpu_max="50000 100000", memory_max=512 * MIB)
    return tree


def pod(root: Path) -> Tree:
    """Kubernetes, version 2, seen from the node: the pod has a limit beside that of its container."""
    tree = Tree(root)
    tree.process("0::/kubepods.slice/kubepods-podab.slice/cri-containerd-12.scope")
    tree.mount(V2)
    tree.group("/sys/fs/cgroup")
    tree.group("/sys/fs/cgroup/kubepods.slice", cpu_max="max 100000", memory_max=30000 * MIB)
    slice_ = "/sys/fs/cgroup/kubepods.slice/kubepods-podab.slice"
    tree.group(slice_, cpu_max="100000 100000", memory_max=1024 * MIB)
    tree.group(f"{slice_}/cri-containerd-12.scope", cpu_max="200000 100000", memory_max=2048 * MIB)
    return tree


def service(root: Path) -> Tree:
    """A systemd service with CPUQuota=40% and MemoryHigh=, version 2."""
    tree = Tree(root)
    tree.process("0::/system.slice/voice.service")
    tree.mount(V2)
    tree.group("/sys/fs/cgroup")
    tree.group("/sys/fs/cgroup/system.slice", cpu_max="max 100000", memory_max="max", memory_high="max")
    tree.group(
        "/sys/fs/cgroup/system.slice/voice.service",
        cpu_max="40000 100000",
        memory_max=2048 * MIB,
        memory_high=1024 * MIB,
    )
    return tree


def version_1(root: Path) -> Tree:
    """Docker on a node of version 1: each controller's own group is mounted, under the path of the node's hierarchy."""
    tree = Tree(root)
    tree.process("5:memory:/docker/12ab", "4:cpu,cpuacct:/docker/12ab", "3:cpuset:/docker/12ab", "1:name=systemd:/x")
    controllers = ("memory", "cpu,cpuacct", "cpuset")
    tree.mount(*(("/docker/12ab", f"/sys/fs/cgroup/{name}", "cgroup", f"rw,{name}") for name in controllers))
    tree.group("/sys/fs/cgroup/cpu,cpuacct", quota_us=-1, period_us=100000)
    tree.group("/sys/fs/cgroup/memory")
    tree.group("/sys/fs/cgroup/cpuset")
    return tree


def hybrid(root: Path) -> Tree:
    """Version 1 for the controllers, version 2 for systemd's own bookkeeping."""
    tree = Tree(root)
    tree.process("4:memory:/system.slice/voice.service", "2:cpu:/", "0::/system.slice/voice.service")
    tree.mount(
        ("/", "/sys/fs/cgroup/unified", "cgroup2", "rw"),
        ("/", "/sys/fs/cgroup/memory", "cgroup", "rw,memory"),
        ("/", "/sys/fs/cgroup/cpu", "cgroup", "rw,cpu"),
    )
    for path in ("cpu", "memory/system.slice/voice.service", "unified/system.slice/voice.service"):
        tree.group(f"/sys/fs/cgroup/{path}")
    return tree


def nothing(root: Path) -> Tree:
    """A system without control groups."""
    return Tree(root)
