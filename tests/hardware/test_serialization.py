from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ort_optim.errors import InputError
from ort_optim.hardware import Cache, Gpu, Target, from_json, to_json

FULL = Target(
    name="box",
    arch="x86_64",
    triple="x86_64-unknown-linux-gnu",
    llvm_cpu="x86-64-v3",
    vendor="GenuineIntel",
    model="Some CPU",
    features=frozenset({"sse", "sse2", "avx", "avx2", "fma"}),
    vector_bits=256,
    vector_registers=16,
    fma=True,
    cores=3,
    cpu_quota=3.5,
    logical_cpus=8,
    physical_cores=4,
    threads_per_core=2,
    caches=(Cache(1, 32768, 64, 8, 1), Cache(3, 8 << 20, 64, None, 4)),
    memory_bytes=16 << 30,
    memory_limit_bytes=2 << 30,
    numa_nodes=2,
    gpus=(Gpu(0, "Some GPU", 80 << 30, "9.0"), Gpu(1, "Old GPU", 1 << 30)),
    peak_gflops=117.5,
    core_bandwidth_gbs=20.0,
    memory_bandwidth_gbs=35.25,
    measured_at="2026-01-02T03:04:05+00:00",
    source="a test",
    warnings=("one", "two"),
)


def written(**changes: Any) -> str:
    """FULL as JSON with some fields changed; None for a field removes it."""
    facts = json.loads(to_json(FULL)) | changes
    return json.dumps({k: v for k, v in facts.items() if v is not ...})


def refusal(text: str | bytes) -> str:
    with pytest.raises(InputError) as caught:
        from_json(text, "f.json")
    message = str(caught.value)
    assert message.startswith("f.json: ")
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_every_field_survives_the_round_trip() -> None:
    assert from_json(to_json(FULL)) == FULL
    differs = {f for f in vars(FULL) if vars(FULL)[f] != vars(Target("native", "", ""))[f]}
    assert differs == set(vars(FULL)), "a field of FULL is at its default, so it is not tested"


def test_json_is_the_same_every_time() -> None:
    assert to_json(FULL) == to_json(from_json(to_json(FULL)))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_of_shell_redirections_are_read(encoding: str) -> None:
    assert from_json(to_json(FULL).encode(encoding)) == FULL


def test_what_follows_from_other_facts_may_be_left_out() -> None:
    target = from_json(
        '{"schema_version": 1, "arch": "arm64", "features": ["dotprod"], "cores": 6}'
    )
    assert (target.arch, target.triple) == ("aarch64", "aarch64-unknown-linux-gnu")
    assert target.features == {"neon", "fp-armv8", "dotprod"}
    assert (target.vector_bits, target.vector_registers, target.fma) == (128, 32, True)
    assert (target.cores, target.physical_cores, target.logical_cpus) == (6, 6, 6)
    assert (target.caches, target.memory_bytes) == ((), None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cores", 0),
        ("cores", -4),
        ("cores", 1.5),
        ("cores", True),
        ("cores", "4"),
        ("cores", None),
        ("cores", 10**400),
        ("logical_cpus", 2),
        ("vector_bits", 384),
        ("vector_bits", 512),
        ("vector_registers", 64),
        ("fma", 1),
        ("features", "avx2"),
        ("features", ["AVX2; rm"]),
        ("features", [["avx2"]]),
        ("features", ["sse", "sse2", "avx"]),
        ("cpu_quota", 0),
        ("cpu_quota", 1e308),
        ("memory_bytes", -1),
        ("memory_bytes", 1 << 61),
        ("memory_bytes", 1e9),
        ("peak_gflops", -3.0),
        ("peak_gflops", 1e9),
        ("measured_at", "yesterday"),
        ("measured_at", 5),
        ("name", ""),
        ("name", "a\nb"),
        ("model", "x" * 401),
        ("threads_per_core", 65),
        ("numa_nodes", 0),
        ("caches", {}),
        ("caches", [5]),
        ("caches", [{"level": 1}]),
        ("caches", [{"level": 9, "size_bytes": 32768}]),
        ("caches", [{"level": 1, "size_bytes": 12}]),
        ("caches", [{"level": 1, "size_bytes": 32768, "line_bytes": 48}]),
        ("caches", [{"level": 2, "size_bytes": 32768}, {"level": 1, "size_bytes": 32768}]),
        ("caches", [{"level": 1, "size_bytes": 32768, "ways": 8}]),
        ("gpus", [{"index": 0, "name": "x"}]),
        ("warnings", [1]),
    ],
)
def test_absurd_value_is_refused_by_name(field: str, value: Any) -> None:
    message = refusal(written(**{field: value}))
    assert field in message or field == "features"


def test_missing_architecture_is_named() -> None:
    assert "arch is missing" in refusal(written(arch=...))


def test_unknown_field_is_refused_with_a_hint() -> None:
    assert "did you mean memory_bytes?" in refusal(written(memory_byte=5))
    assert "unknown field" in refusal(written(colour="red"))


@pytest.mark.parametrize("version", [2, 0, "1", None, True, [1]])
def test_other_schema_version_is_refused(version: Any) -> None:
    assert "schema_version" in refusal(written(schema_version=version))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x00\x01\x02",
        b"\xff\xfe\xff",
        "null",
        "[]",
        "3",
        "{}",
        "{",
        "[" * 100_000,
        '{"schema_version": 1, "arch": "x86_64", "arch": "z80"}',
        '{"schema_version": 1, "arch": "x86_64", "peak_gflops": NaN}',
        '{"schema_version": 1, "arch": "x86_64", "cpu_quota": Infinity}',
        '{"schema_version": 1, "arch": "x86_64", "cores": ' + "9" * 10_000 + "}",
        "PK\x03\x04",
    ],
)
def test_what_is_no_facts_file_is_refused_in_one_line(text: str | bytes) -> None:
    refusal(text)


@given(
    st.dictionaries(
        st.sampled_from([*vars(FULL), "schema_version", "other"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["level", "size_bytes", "name"]), inner, max_size=3
                )
            ),
            max_leaves=5,
        ),
        max_size=4,
    )
)
def test_any_json_is_read_or_refused(changes: dict[str, Any]) -> None:
    text = written(**changes)
    try:
        target = from_json(text)
    except InputError:
        refusal(text)
    else:
        assert from_json(to_json(target)) == target
