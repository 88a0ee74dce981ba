"""Machines made of files: /proc, /sys and control groups in a folder of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ort_optim.hardware import Target, detect

CPU = "sys/devices/system/cpu"

HASWELL_FLAGS = (
    "fpu mmx sse sse2 ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c lahf_lm abm "
    "bmi1 avx2 bmi2 pni pclmulqdq"
)
SKYLAKE_SERVER_FLAGS = f"{HASWELL_FLAGS} avx512f avx512dq avx512cd avx512bw avx512vl"


@dataclass(frozen=True)
class FakeMachine:
    """A root folder to write system files into."""

    root: Path
    machine: str = "x86_64"

    def write(self, path: str, content: str | bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def detect(self) -> Target:
        return detect(self.root, machine=self.machine)

    def add_cache(
        self, cpu: int, index: int, level: int, kind: str, size: str, shared: str, ways: str = "8"
    ) -> None:
        folder = f"{CPU}/cpu{cpu}/cache/index{index}"
        for name, text in {
            "level": f"{level}\n",
            "type": f"{kind}\n",
            "size": f"{size}\n",
            "coherency_line_size": "64\n",
            "ways_of_associativity": f"{ways}\n",
            "shared_cpu_list": f"{shared}\n",
        }.items():
            self.write(f"{folder}/{name}", text)

    def cgroup_v2(self, group: str = "/") -> None:
        """Mount a v2 hierarchy at its usual place and put this process into `group`."""
        self.write("proc/self/cgroup", f"0::{group}\n")
        self.write(
            "proc/self/mountinfo",
            "22 1 0:20 / /proc rw - proc proc rw\n"
            "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
        )

    def cgroup_v1(self, group: str = "/", mount_root: str = "/") -> None:
        """Mount v1 hierarchies of cpu,cpuacct and memory, which show `mount_root` and below."""
        self.write("proc/self/cgroup", f"5:memory:{group}\n4:cpu,cpuacct:{group}\n1:name=x:/\n")
        self.write(
            "proc/self/mountinfo",
            f"36 31 0:31 {mount_root} /sys/fs/cgroup/cpu,cpuacct ro shared:9 - "
            "cgroup cgroup rw,cpu,cpuacct\n"
            f"37 31 0:32 {mount_root} /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
        )


def server(
    root: Path, cores: int = 4, threads_per_core: int = 2, flags: str = SKYLAKE_SERVER_FLAGS
) -> FakeMachine:
    """An x86-64 server: CPU c and c + cores are the threads of core c; one L3 for all."""
    machine = FakeMachine(root)
    cpus = range(cores * threads_per_core)
    last = cpus[-1]
    machine.write(f"{CPU}/online", f"0-{last}\n")
    machine.write("proc/thread-self/status", f"Name:\tx\nCpus_allowed_list:\t0-{last}\n")
    machine.write("proc/meminfo", "MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n")
    machine.write("sys/devices/system/node/node0/cpulist", f"0-{last}\n")
    blocks = []
    for cpu in cpus:
        core = cpu % cores
        siblings = ",".join(str(core + cores * t) for t in range(threads_per_core))
        machine.write(f"{CPU}/cpu{cpu}/topology/core_cpus_list", f"{siblings}\n")
        machine.add_cache(cpu, 0, 1, "Data", "32K", siblings)
        machine.add_cache(cpu, 1, 1, "Instruction", "32K", siblings)
        machine.add_cache(cpu, 2, 2, "Unified", "1024K", siblings, ways="16")
        machine.add_cache(cpu, 3, 3, "Unified", "11264K", f"0-{last}", ways="11")
        blocks.append(
            f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\n"
            f"model name\t: Some(R) Xeon(R) @ 2.0GHz\nflags\t\t: {flags}\n"
        )
    machine.write("proc/cpuinfo", "\n".join(blocks))
    return machine


def board(root: Path, parts: list[str], features: str = "fp asimd evtstrm crc32") -> FakeMachine:
    """An AArch64 board, one CPU per part number, without cache files."""
    machine = FakeMachine(root, "aarch64")
    last = len(parts) - 1
    machine.write(f"{CPU}/online", f"0-{last}\n")
    machine.write("proc/self/status", f"Cpus_allowed_list:\t0-{last}\n")
    machine.write("proc/meminfo", "MemTotal:         948304 kB\n")
    machine.write("proc/device-tree/model", "Some Board 3\0")
    blocks = [
        f"processor\t: {cpu}\nBogoMIPS\t: 38.40\nFeatures\t: {features}\n"
        f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {part}\n"
        for cpu, part in enumerate(parts)
    ]
    machine.write("proc/cpuinfo", "\n".join([*blocks, "Serial\t: 00\n"]))
    return machine
