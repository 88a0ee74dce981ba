from __future__ import annotations

from pathlib import Path

import pytest

from ort_optim.hardware.cgroup import Limits, read_limits
from ort_optim.hardware.files import Tree

from .machines import FakeMachine


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


def limits(machine: FakeMachine, *, warnings: int = 0) -> Limits:
    tree = Tree(machine.root)
    found = read_limits(tree)
    assert len(tree.warnings) == warnings, tree.warnings
    return found


def test_no_cgroup_is_no_limit(machine: FakeMachine) -> None:
    assert limits(machine) == Limits(None, None)


def test_v2_limits_of_the_own_group(machine: FakeMachine) -> None:
    machine.cgroup_v2("/user/app")
    machine.write("sys/fs/cgroup/user/app/cpu.max", "150000 100000\n")
    machine.write("sys/fs/cgroup/user/app/memory.max", "1073741824\n")
    assert limits(machine) == Limits(1.5, 1 << 30)


def test_v2_max_is_no_limit(machine: FakeMachine) -> None:
    machine.cgroup_v2("/app")
    machine.write("sys/fs/cgroup/app/cpu.max", "max 100000\n")
    machine.write("sys/fs/cgroup/app/memory.max", "max\n")
    assert limits(machine) == Limits(None, None)


def test_v2_quota_without_period_takes_the_kernels_default(machine: FakeMachine) -> None:
    machine.cgroup_v2()
    machine.write("sys/fs/cgroup/cpu.max", "250000\n")
    assert limits(machine).cpu_quota == 2.5


def test_v2_memory_high_counts_too(machine: FakeMachine) -> None:
    machine.cgroup_v2()
    machine.write("sys/fs/cgroup/memory.max", "2000000\n")
    machine.write("sys/fs/cgroup/memory.high", "1000000\n")
    assert limits(machine).memory_bytes == 1_000_000


def test_tightest_group_on_the_way_up_wins(machine: FakeMachine) -> None:
    machine.cgroup_v2("/a/b/c")
    machine.write("sys/fs/cgroup/a/cpu.max", "200000 100000\n")
    machine.write("sys/fs/cgroup/a/b/cpu.max", "50000 10000\n")
    machine.write("sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n")
    machine.write("sys/fs/cgroup/a/memory.max", "3000000\n")
    machine.write("sys/fs/cgroup/a/b/c/memory.max", "4000000\n")
    machine.write("sys/fs/cgroup/other/cpu.max", "1000 100000\n")
    assert limits(machine) == Limits(2.0, 3_000_000)


def test_v1_limits(machine: FakeMachine) -> None:
    machine.cgroup_v1("/user/app")
    machine.write("sys/fs/cgroup/cpu,cpuacct/user/app/cpu.cfs_quota_us", "300000\n")
    machine.write("sys/fs/cgroup/cpu,cpuacct/user/app/cpu.cfs_period_us", "100000\n")
    machine.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    machine.write("sys/fs/cgroup/memory/user/memory.limit_in_bytes", "5000000\n")
    machine.write("sys/fs/cgroup/memory/user/app/memory.limit_in_bytes", "9223372036854771712\n")
    assert limits(machine) == Limits(3.0, 5_000_000)


def test_v1_container_sees_its_group_as_the_mounts_root(machine: FakeMachine) -> None:
    machine.cgroup_v1("/docker/abc", mount_root="/docker/abc")
    machine.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n")
    machine.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    machine.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "7000000\n")
    assert limits(machine) == Limits(0.5, 7_000_000)


def test_group_outside_the_namespace_counts_as_the_mount_point(machine: FakeMachine) -> None:
    machine.cgroup_v2("/../elsewhere")
    machine.write("sys/fs/cgroup/cpu.max", "100000 100000\n")
    assert limits(machine).cpu_quota == 1.0


def test_another_containers_mount_does_not_count(machine: FakeMachine) -> None:
    machine.cgroup_v1("/mine")
    text = (machine.root / "proc/self/mountinfo").read_text()
    machine.write(
        "proc/self/mountinfo", text + "90 31 0:31 /theirs /mnt/x ro - cgroup cgroup rw,cpu\n"
    )
    machine.write("mnt/x/cpu.cfs_quota_us", "10000\n")
    machine.write("sys/fs/cgroup/cpu,cpuacct/mine/cpu.cfs_quota_us", "200000\n")
    assert limits(machine).cpu_quota == 2.0


def test_v1_and_v2_side_by_side_both_count(machine: FakeMachine) -> None:
    machine.write("proc/self/cgroup", "4:cpu:/a\n0::/b\n")
    machine.write(
        "proc/self/mountinfo",
        "36 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    )
    machine.write("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "200000\n")
    machine.write("sys/fs/cgroup/unified/b/memory.max", "6000000\n")
    assert limits(machine) == Limits(2.0, 6_000_000)


def test_mount_point_with_a_space(machine: FakeMachine) -> None:
    machine.write("proc/self/cgroup", "0::/\n")
    machine.write("proc/self/mountinfo", "1 1 0:1 / /my\\040groups rw - cgroup2 none rw\n")
    machine.write("my groups/cpu.max", "200000 100000\n")
    assert limits(machine).cpu_quota == 2.0


@pytest.mark.parametrize(
    ("version", "file", "controller"),
    [(2, "cpu.max", ""), (1, "cpu.cfs_quota_us", "cpu/")],
)
def test_usual_places_are_tried_when_proc_says_nothing(
    machine: FakeMachine, version: int, file: str, controller: str
) -> None:
    machine.write(f"sys/fs/cgroup/{controller}{file}", "400000")
    assert limits(machine).cpu_quota == 4.0, version


@pytest.mark.parametrize(
    "text", ["", "-5 100000", "0 100000", "150000 0", "150000 -1", "x y", "9" * 40, "\0\xff", "1.5"]
)
def test_quota_that_makes_no_sense_counts_as_one_cpu(machine: FakeMachine, text: str) -> None:
    machine.cgroup_v2()
    machine.write("sys/fs/cgroup/cpu.max", text)
    assert limits(machine, warnings=1).cpu_quota == 1.0


@pytest.mark.parametrize(("quota", "period"), [("-2", "100000"), ("0", "100000"), ("1", "junk")])
def test_v1_quota_that_makes_no_sense_counts_as_one_cpu(
    machine: FakeMachine, quota: str, period: str
) -> None:
    machine.cgroup_v1()
    machine.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", quota)
    machine.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", period)
    assert limits(machine, warnings=1).cpu_quota == 1.0


@pytest.mark.parametrize("text", ["", "-1", "0", "lots", "\xff\xfe"])
def test_memory_limit_that_makes_no_sense_counts_as_the_available_memory(
    machine: FakeMachine, text: str
) -> None:
    machine.cgroup_v2()
    machine.write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    machine.write("sys/fs/cgroup/memory.max", text)
    assert limits(machine, warnings=1).memory_bytes == 4000 * 1024
