"""Detection on machines whose files hold anything at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ort_optim.hardware import from_json, to_json

from .machines import CPU, server

JUNK = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"",
            b"-1",
            b"0",
            b"9" * 5000,
            b"0-999999999999",
            b"3-1",
            b"0-3,8-11",
            b"max",
            b"max max",
            b"\xff\xfe\0\0",
            b"-150000 100000",
            b"150000 0",
            b"1_0",
            "\u0663".encode(),
            b"32K",
            b"Cpus_allowed_list: 5-2\n",
            b"processor : -1\nflags : \n\n",
            b"processor : 99999999999999999999\nflags : avx\n",
            b"0::/../..\n5:cpu:\n:::\n",
            b"36 31 0:31 /\\000 /sys/../.. ro - cgroup2 x rw,cpu\n",
        ]
    ),
)
FILES = [
    "proc/cpuinfo",
    "proc/meminfo",
    "proc/thread-self/status",
    "proc/self/cgroup",
    "proc/self/mountinfo",
    "proc/device-tree/model",
    f"{CPU}/online",
    f"{CPU}/cpu0/topology/core_cpus_list",
    *(
        f"{CPU}/cpu0/cache/index3/{name}"
        for name in (
            "level",
            "type",
            "size",
            "coherency_line_size",
            "ways_of_associativity",
            "shared_cpu_list",
        )
    ),
    "sys/devices/system/node/node0/cpulist",
    "sys/fs/cgroup/cpu.max",
    "sys/fs/cgroup/memory.max",
    "sys/fs/cgroup/memory.high",
]


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    junk=st.dictionaries(st.sampled_from(FILES), st.none() | JUNK, min_size=1),
    arch=st.sampled_from(["x86_64", "aarch64", "armv7l", "riscv64", "s390x", ""]),
)
def test_nothing_in_any_file_makes_detection_raise(
    tmp_path_factory: pytest.TempPathFactory, junk: dict[str, bytes | None], arch: str
) -> None:
    machine = replace(server(tmp_path_factory.mktemp("machine"), 1, 2), machine=arch)
    machine.cgroup_v2()
    for path, content in junk.items():
        if content is None:
            (machine.root / path).unlink(missing_ok=True)
        else:
            machine.write(path, content)
    target = machine.detect()
    assert 1 <= target.cores <= target.physical_cores <= target.logical_cpus
    assert from_json(to_json(target)) == target
