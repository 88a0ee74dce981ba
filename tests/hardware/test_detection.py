from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ort_optim.hardware import Cache, Target, detect, from_json, to_json, usable_cores

from .machines import CPU, HASWELL_FLAGS, FakeMachine, board, server


def assert_conservative(target: Target) -> None:
    """What may be said of a machine nothing can be read from."""
    assert (target.cores, target.logical_cpus, target.physical_cores) == (1, 1, 1)
    assert target.caches == ()
    assert target.memory_bytes is None
    assert target.gpus == ()


def test_server_is_read_in_full(tmp_path: Path) -> None:
    target = server(tmp_path).detect()
    assert (target.arch, target.llvm_cpu) == ("x86_64", "x86-64-v4")
    assert (target.vendor, target.model) == ("GenuineIntel", "Some(R) Xeon(R) @ 2.0GHz")
    assert (target.vector_bits, target.vector_registers, target.fma) == (512, 32, True)
    assert (target.cores, target.physical_cores, target.logical_cpus) == (4, 4, 8)
    assert (target.threads_per_core, target.numa_nodes) == (2, 1)
    assert target.caches == (
        Cache(1, 32 << 10, 64, 8, 1),
        Cache(2, 1 << 20, 64, 16, 1),
        Cache(3, 11 << 20, 64, 11, 4),
    )
    assert target.memory_bytes == 16 << 30
    assert target.cpu_quota is None
    assert target.memory_limit_bytes is None
    assert target.warnings == ()


@pytest.mark.parametrize(
    ("flags", "level", "unit"),
    [
        ("sse sse2", "x86-64", (128, 16, False)),
        ("sse sse2 pni ssse3 sse4_1 sse4_2 popcnt cx16 lahf_lm", "x86-64-v2", (128, 16, False)),
        ("sse sse2 avx", "x86-64", (256, 16, False)),
        (HASWELL_FLAGS, "x86-64-v3", (256, 16, True)),
        (HASWELL_FLAGS.replace(" movbe", ""), "x86-64-v2", (256, 16, True)),
        (f"{HASWELL_FLAGS} avx512f", "x86-64-v3", (512, 32, True)),
    ],
)
def test_flags_decide_level_and_vector_unit(
    tmp_path: Path, flags: str, level: str, unit: tuple[int, int, bool]
) -> None:
    target = server(tmp_path, flags=flags).detect()
    assert target.llvm_cpu == level
    assert (target.vector_bits, target.vector_registers, target.fma) == unit


def test_affinity_counts_not_the_host(tmp_path: Path) -> None:
    machine = server(tmp_path, cores=8)
    machine.write("proc/thread-self/status", "Cpus_allowed_list:\t0-1,8-9\n")
    target = machine.detect()
    assert (target.cores, target.physical_cores, target.logical_cpus) == (2, 2, 4)
    assert target.last_level_cache == Cache(3, 11 << 20, 64, 11, 8)  # shared with the others still


def test_affinity_ignores_cpus_that_are_offline(tmp_path: Path) -> None:
    machine = server(tmp_path, cores=2, threads_per_core=1)
    machine.write("proc/thread-self/status", "Cpus_allowed_list:\t0-127\n")
    assert machine.detect().logical_cpus == 2


def test_affinity_without_any_online_cpu_is_one_core(tmp_path: Path) -> None:
    machine = server(tmp_path, cores=4)
    machine.write("proc/thread-self/status", "Cpus_allowed_list:\t100-103\n")
    target = machine.detect()
    assert (target.cores, target.logical_cpus) == (1, 1)
    assert any("counted as one" in w for w in target.warnings)


def test_threads_are_paired_also_where_the_online_list_is_missing(tmp_path: Path) -> None:
    machine = server(tmp_path, cores=4)
    machine.remove(f"{CPU}/online")
    machine.remove("proc/cpuinfo")
    target = machine.detect()
    assert (target.physical_cores, target.logical_cpus) == (4, 8)


def test_core_of_absurdly_many_threads_is_taken_as_one_thread(tmp_path: Path) -> None:
    machine = server(tmp_path, cores=2, threads_per_core=1)
    machine.write(f"{CPU}/cpu0/topology/core_cpus_list", "0-999\n")
    target = machine.detect()
    assert (target.physical_cores, target.threads_per_core) == (2, 1)
    assert any("threads in its core" in w for w in target.warnings)


def test_two_threads_of_one_core_are_one_core(tmp_path: Path) -> None:
    machine = server(tmp_path, cores=4)
    machine.write("proc/thread-self/status", "Cpus_allowed_list:\t1,5\n")
    target = machine.detect()
    assert (target.cores, target.logical_cpus, target.threads_per_core) == (1, 2, 2)


@pytest.mark.parametrize(
    ("physical", "quota", "cores"),
    [(4, None, 4), (4, 1.5, 1), (4, 0.1, 1), (4, 3.99, 3), (4, 4.0, 4), (2, 64.0, 2), (0, None, 1)],
)
def test_quota_is_rounded_down_to_one_core_at_least(
    physical: int, quota: float | None, cores: int
) -> None:
    assert usable_cores(physical, quota) == cores


def test_quota_of_one_and_a_half_cpus_gives_one_core(tmp_path: Path) -> None:
    machine = server(tmp_path)
    machine.cgroup_v2()
    machine.write("sys/fs/cgroup/cpu.max", "150000 100000\n")
    target = machine.detect()
    assert (target.cores, target.cpu_quota, target.physical_cores) == (1, 1.5, 4)


def test_quota_above_the_affinity_does_not_count(tmp_path: Path) -> None:
    machine = server(tmp_path)
    machine.cgroup_v2()
    machine.write("sys/fs/cgroup/cpu.max", f"{10**25} 100000\n")
    target = machine.detect()
    assert (target.cores, target.cpu_quota) == (4, None)


def test_memory_limit_above_the_memory_does_not_count(tmp_path: Path) -> None:
    machine = server(tmp_path)
    machine.cgroup_v2()
    machine.write("sys/fs/cgroup/memory.max", str(64 << 30))
    assert machine.detect().memory_limit_bytes is None
    machine.write("sys/fs/cgroup/memory.max", str(2 << 30))
    target = machine.detect()
    assert target.memory_limit_bytes == target.usable_memory_bytes == 2 << 30


def test_hybrid_chip_is_counted_as_its_weakest_cores(tmp_path: Path) -> None:
    """Two performance cores of two threads (CPUs 0-3), one cluster of four efficiency cores."""
    machine = server(tmp_path, cores=4, threads_per_core=2, flags=HASWELL_FLAGS)
    for cpu in range(8):
        core = f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}" if cpu < 4 else str(cpu)
        machine.write(f"{CPU}/cpu{cpu}/topology/core_cpus_list", core)
        machine.add_cache(cpu, 0, 1, "Data", "48K" if cpu < 4 else "32K", core)
        machine.add_cache(cpu, 1, 1, "Instruction", "32K", core)
        machine.add_cache(
            cpu, 2, 2, "Unified", "2048K" if cpu < 4 else "4096K", core if cpu < 4 else "4-7"
        )
        machine.add_cache(cpu, 3, 3, "Unified", "30720K", "0-7")
    target = machine.detect()
    assert (target.cores, target.logical_cpus, target.threads_per_core) == (6, 8, 2)
    assert target.cache(1) == Cache(1, 32 << 10, 64, 8, 1)
    assert target.cache(2) == Cache(2, 4 << 20, 64, 8, 4)
    assert target.cache(3) == Cache(3, 30 << 20, 64, 8, 6)
    assert any("differ in their caches" in w for w in target.warnings)


def test_cpus_that_differ_in_features_give_the_common_ones(tmp_path: Path) -> None:
    machine = server(tmp_path, cores=2, threads_per_core=1)
    text = (tmp_path / "proc/cpuinfo").read_text()
    machine.write("proc/cpuinfo", text.replace(" avx512f", "", 1))
    target = machine.detect()
    assert "avx512f" not in target.features
    assert target.vector_bits == 256
    assert any("ISA features" in w for w in target.warnings)
    machine.write("proc/thread-self/status", "Cpus_allowed_list:\t1\n")
    assert machine.detect().vector_bits == 512


def test_arm_board_names_its_cores(tmp_path: Path) -> None:
    target = board(tmp_path, ["0xd03"] * 4).detect()
    assert (target.vendor, target.llvm_cpu, target.cores) == ("Arm", "cortex-a53", 4)
    assert target.model == "cortex-a53 (Some Board 3)"
    assert target.features == {"fp-armv8", "neon", "crc"}
    assert (target.vector_bits, target.vector_registers, target.fma) == (128, 32, True)
    assert target.warnings == ("cache sizes can't be read, counted as unknown",)


def test_big_little_has_no_single_cpu_name(tmp_path: Path) -> None:
    target = board(tmp_path, ["0xd03"] * 4 + ["0xd08"] * 2).detect()
    assert target.llvm_cpu == "generic"
    assert target.model.startswith("cortex-a53 + cortex-a72")


def test_unknown_arm_part_is_generic(tmp_path: Path) -> None:
    target = board(tmp_path, ["0xfff"], "fp asimd asimddp atomics asimdhp i8mm sve").detect()
    assert (target.llvm_cpu, target.model) == ("generic", "part 0xfff (Some Board 3)")
    assert {"dotprod", "lse", "fullfp16", "i8mm", "sve"} <= target.features
    assert target.vector_bits == 128  # what any SVE machine has


def test_armv7_takes_fma_from_vfpv4(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "armv7l")
    machine.write(
        "proc/cpuinfo",
        "Processor\t: ARMv7 Processor rev 4 (v7l)\nprocessor\t: 0\n\nprocessor\t: 1\n\n"
        "Features\t: swp half thumb fastmult vfp neon vfpv3 vfpv4\nHardware\t: Some SoC\n",
    )
    target = machine.detect()
    assert (target.arch, target.cores, target.model) == ("armv7", 2, "Some SoC")
    assert (target.vector_bits, target.vector_registers, target.fma) == (128, 16, True)
    assert target.triple == "armv7-unknown-linux-gnueabihf"


def test_riscv_vectors_count_as_128_bits(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path, "riscv64")
    machine.write("proc/cpuinfo", "processor\t: 0\nisa\t\t: rv64imafdcv_zicsr_zba\n")
    target = machine.detect()
    assert {"v", "d", "zba"} <= target.features
    assert (target.vector_bits, target.vector_registers) == (128, 32)


def test_unknown_architecture_has_no_vector_unit(tmp_path: Path) -> None:
    target = FakeMachine(tmp_path, "z80").detect()
    assert (target.arch, target.vector_bits, target.features) == ("z80", 0, frozenset())
    assert any("no vector unit" in w for w in target.warnings)


def test_empty_root_gives_the_conservative_answer(tmp_path: Path) -> None:
    target = FakeMachine(tmp_path).detect()
    assert_conservative(target)
    assert target.features == {"sse", "sse2"}
    assert target.vector_bits == 128
    assert len(target.warnings) == 4  # CPUs, features, caches, memory


def test_absent_sys_leaves_what_proc_says(tmp_path: Path) -> None:
    """As in a container that hides /sys."""
    machine = FakeMachine(tmp_path)
    machine.write("proc/self/status", "Cpus_allowed_list:\t0,2\n")
    machine.write(
        "proc/cpuinfo", "".join(f"processor : {n}\nflags : avx2 avx\n\n" for n in range(4))
    )
    machine.write("proc/meminfo", "MemTotal: 2048000 kB\n")
    target = machine.detect()
    assert (target.cores, target.logical_cpus) == (2, 2)
    assert target.caches == ()


@pytest.mark.parametrize("size", ["-32K", "0K", "", "32Q", "1e9K", "99999999999G", "\0\1"])
def test_absurd_cache_size_drops_that_cache(tmp_path: Path, size: str) -> None:
    machine = server(tmp_path, cores=1, threads_per_core=1)
    machine.write(f"{CPU}/cpu0/cache/index2/size", size)
    target = machine.detect()
    assert [c.level for c in target.caches] == [1, 3]
    assert any("cache size" in w for w in target.warnings)


def test_unknown_line_size_and_ways_have_a_plain_answer(tmp_path: Path) -> None:
    machine = server(tmp_path, cores=1, threads_per_core=1)
    machine.write(f"{CPU}/cpu0/cache/index0/coherency_line_size", "77")
    machine.write(f"{CPU}/cpu0/cache/index0/ways_of_associativity", "0")
    machine.remove(f"{CPU}/cpu0/cache/index0/shared_cpu_list")
    assert machine.detect().cache(1) == Cache(1, 32 << 10, 64, None, 1)


def test_cache_of_unknown_sharers_is_shared_by_all(tmp_path: Path) -> None:
    machine = server(tmp_path, cores=4, threads_per_core=1)
    for cpu in range(4):
        machine.remove(f"{CPU}/cpu{cpu}/cache/index3/shared_cpu_list")
    cache = machine.detect().cache(3)
    assert cache is not None
    assert cache.shared_by == 4


def test_cache_list_with_gaps_is_counted_in_cores(tmp_path: Path) -> None:
    machine = server(tmp_path, cores=8, threads_per_core=2)
    for cpu in range(16):
        shared = "0-3,8-11" if cpu % 8 < 4 else "4-7,12-15"
        machine.write(f"{CPU}/cpu{cpu}/cache/index3/shared_cpu_list", shared)
    cache = machine.detect().last_level_cache
    assert cache is not None
    assert cache.shared_by == 4


def test_numa_counts_the_nodes_of_this_process(tmp_path: Path) -> None:
    machine = server(tmp_path, cores=4, threads_per_core=1)
    machine.write("sys/devices/system/node/node0/cpulist", "0-1\n")
    machine.write("sys/devices/system/node/node1/cpulist", "2-3\n")
    machine.write("sys/devices/system/node/node2/cpulist", "\n")  # memory only
    assert machine.detect().numa_nodes == 2
    machine.write("proc/thread-self/status", "Cpus_allowed_list:\t3\n")
    assert machine.detect().numa_nodes == 1


@pytest.mark.parametrize("total", ["0", "-5", "9" * 20, "many", ""])
def test_absurd_memory_is_unknown(tmp_path: Path, total: str) -> None:
    machine = server(tmp_path)
    machine.write("proc/meminfo", f"MemTotal:       {total} kB\n")
    target = machine.detect()
    assert target.memory_bytes is None
    assert any("MemTotal" in w for w in target.warnings)


def test_a_folder_in_place_of_a_file_is_survived(tmp_path: Path) -> None:
    for path in ("proc/cpuinfo", "proc/meminfo", "proc/self/status", f"{CPU}/online"):
        (tmp_path / path).mkdir(parents=True)
    assert_conservative(FakeMachine(tmp_path).detect())


def test_this_machine_is_read_and_round_trips() -> None:
    target = detect()
    assert target.name == "native"
    assert target.vector_bits >= 128
    assert target.memory_bytes is not None
    assert from_json(to_json(target)) == target


def test_detection_imports_nothing_heavy() -> None:
    program = (
        "import sys, ort_optim.hardware as h; h.detect();"
        "print([m for m in ('numpy', 'psutil', 'rich', 'onnx', 'onnxruntime', 'pynvml') "
        "if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    if sys.platform == "linux":
        assert result.stdout.strip() == "[]"
