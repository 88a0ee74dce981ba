"""`Target` to JSON and back. The other direction trusts nothing: it is a file a person may write.

Only `schema_version` and `arch` are required. A fact left out is unknown, except what follows
from others: vector unit and LLVM CPU from the features, CPU counts from `cores`, the triple from
the architecture.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

from ..errors import InputError
from . import isa
from .target import Cache, Gpu, Target

SCHEMA_VERSION = 1

# What one core, or one machine's memory, can't exceed or stay below.
MIN_FIGURE = 1e-3
MAX_GFLOPS = 1e5
MAX_BANDWIDTH_GBS = 1e5
_MAX_BYTES = 1 << 60
_MAX_CORES = 65536
_FEATURE = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,39}\Z")

# Takes a JSON value, gives the checked one or raises ValueError with what it must be.
Check = Callable[[Any], Any]


def to_json(target: Target) -> str:
    """The target as JSON text that `from_json` reads back to an equal one."""
    facts = dataclasses.asdict(target)
    facts["features"] = sorted(target.features)
    return json.dumps({"schema_version": SCHEMA_VERSION} | facts, indent=2, allow_nan=False)


def from_json(text: str | bytes, origin: str = "facts") -> Target:
    """The target written in `text`.

    Args:
        text: JSON; bytes may be UTF-8, UTF-16 or UTF-32.
        origin: What to call it in an error, usually the file's path.

    Raises:
        InputError: it is no JSON, has an unknown field, or a value that no machine has.
    """
    try:
        facts = json.loads(text, parse_constant=_reject_constant, object_pairs_hook=_unique)
    except RecursionError:
        raise InputError(f"{origin}: nested too deeply for hardware facts") from None
    except ValueError as error:  # JSON and Unicode errors are ValueErrors
        raise InputError(f"{origin}: not JSON: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(facts, dict) or "schema_version" not in facts:
        raise InputError(f"{origin}: no hardware facts; `ort_optim probe --json` writes some")
    version = facts.pop("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise InputError(
            f"{origin}: schema_version {version!r:.40} is not the {SCHEMA_VERSION} this version of "
            "ort_optim reads; write the facts again with its `probe --json`"
        )
    try:
        values = _checked(facts, _TARGET_CHECKS, required=("arch",))
        return _completed(values)
    except ValueError as error:
        raise InputError(f"{origin}: {error}") from None


def _completed(values: dict[str, Any]) -> Target:
    """The target of the checked `values`, with what follows from them filled in."""
    arch = values["arch"] = isa.canonical_arch(values["arch"])
    values["features"] = values.get("features", frozenset()) | isa.baseline_features(arch)
    unit = isa.vector_unit(arch, values["features"])
    values.setdefault("vector_bits", unit.bits)
    values.setdefault("vector_registers", unit.registers)
    values.setdefault("fma", unit.fma)
    values.setdefault("name", "facts")
    values.setdefault("triple", isa.triple(arch, "Linux"))
    values.setdefault("llvm_cpu", isa.llvm_cpu(arch, values["features"]))
    cores = values.setdefault("cores", 1)
    physical = values.setdefault("physical_cores", cores)
    values.setdefault("logical_cpus", physical * values.get("threads_per_core", 1))
    target = Target(**values)

    scalable = {"sve", "sve2", "sme", "v"} & target.features
    if arch in ("x86_64", "i686", "aarch64", "armv7", "riscv64") and not scalable:
        if target.vector_bits > unit.bits:
            raise ValueError(
                f"vector_bits {target.vector_bits}: the features named give {unit.bits} at most"
            )
        if target.vector_registers > max(unit.registers, 32 if unit.bits else 0):
            raise ValueError(f"vector_registers {target.vector_registers}: {arch} has fewer")
    if target.fma and not unit.fma and not scalable:
        raise ValueError("fma: no feature named gives a fused multiply-add")
    if not target.cores <= target.physical_cores <= target.logical_cpus:
        raise ValueError("cores <= physical_cores <= logical_cpus must hold")
    levels = [cache.level for cache in target.caches]
    if levels != sorted(set(levels)):
        raise ValueError("caches: each level once, L1 first")
    return target


def _checked(facts: Any, checks: dict[str, Check], required: tuple[str, ...]) -> dict[str, Any]:
    """`facts` with every value checked by its field's check; ValueError names the field."""
    if not isinstance(facts, dict):
        raise ValueError("must be an object")
    for field in facts:
        if field not in checks:
            near = difflib.get_close_matches(field, checks, n=1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise ValueError(f"unknown field {field[:60]!r}{hint}")
    for field in required:
        if field not in facts:
            raise ValueError(f"{field} is missing")
    values = {}
    for field, value in facts.items():
        try:
            values[field] = checks[field](value)
        except ValueError as error:
            raise ValueError(f"{field}: {error}") from None
    return values


def _whole(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}, not {_brief(value)}")
        return value

    return check


def _number(low: float, high: float) -> Check:
    def check(value: Any) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high or not math.isfinite(value):
            raise ValueError(f"must be a number from {low:g} to {high:g}, not {_brief(value)}")
        return float(value)

    return check


def _text(longest: int, shortest: int = 0) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not shortest <= len(value) <= longest:
            raise ValueError(f"must be text of {shortest} to {longest} characters")
        if not value.isprintable():
            raise ValueError("must be printable text")
        return value

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {_brief(value)}")
    return value


def _optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _list(check: Check, longest: int) -> Check:
    def check_list(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > longest:
            raise ValueError(f"must be a list of at most {longest}, not {_brief(value)}")
        return tuple(check(item) for item in value)

    return check_list


def _one_of(*allowed: int) -> Check:
    def check(value: Any) -> int:
        if isinstance(value, bool) or value not in allowed:
            raise ValueError(f"must be one of {', '.join(map(str, allowed))}, not {_brief(value)}")
        return int(value)

    return check


def _feature(value: Any) -> str:
    if not isinstance(value, str) or not _FEATURE.match(value):
        raise ValueError(f"{_brief(value)} is no LLVM feature name")
    return value


def _time(value: Any) -> str:
    try:
        return datetime.fromisoformat(value).isoformat(timespec="seconds")
    except (TypeError, ValueError):
        raise ValueError(f"must be an ISO 8601 time, not {_brief(value)}") from None


def _brief(value: Any) -> str:
    """A JSON value on one short line. (A huge number is not even printed: str() refuses it.)"""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return "a huge number"
    text = ascii(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 50 else text[:47] + "..."


_BYTES = _whole(1, _MAX_BYTES)
_CACHE_CHECKS: dict[str, Check] = {
    "level": _whole(1, 4),
    "size_bytes": _whole(1 << 10, 16 << 30),
    "line_bytes": _one_of(16, 32, 64, 128, 256, 512),
    "associativity": _optional(_whole(1, 1 << 20)),
    "shared_by": _whole(1, _MAX_CORES),
}
_GPU_CHECKS: dict[str, Check] = {
    "index": _whole(0, 1 << 16),
    "name": _text(200),
    "memory_bytes": _BYTES,
    "compute_capability": _optional(_text(10)),
}
_TARGET_CHECKS: dict[str, Check] = {
    "name": _text(100, shortest=1),
    "arch": _text(40, shortest=1),
    "triple": _text(100, shortest=1),
    "llvm_cpu": _text(40, shortest=1),
    "vendor": _text(200),
    "model": _text(400),
    "features": lambda value: frozenset(_list(_feature, 1000)(value)),
    "vector_bits": _one_of(0, 64, 128, 256, 512, 1024, 2048),
    "vector_registers": _whole(0, 256),
    "fma": _flag,
    "cores": _whole(1, _MAX_CORES),
    "cpu_quota": _optional(_number(0.01, _MAX_CORES)),
    "logical_cpus": _whole(1, _MAX_CORES),
    "physical_cores": _whole(1, _MAX_CORES),
    "threads_per_core": _whole(1, 64),
    "caches": _list(
        lambda v: Cache(**_checked(v, _CACHE_CHECKS, required=("level", "size_bytes"))), 4
    ),
    "memory_bytes": _optional(_BYTES),
    "memory_limit_bytes": _optional(_BYTES),
    "numa_nodes": _whole(1, 1024),
    "gpus": _list(
        lambda v: Gpu(**_checked(v, _GPU_CHECKS, required=("index", "name", "memory_bytes"))), 1024
    ),
    "peak_gflops": _optional(_number(MIN_FIGURE, MAX_GFLOPS)),
    "core_bandwidth_gbs": _optional(_number(MIN_FIGURE, MAX_BANDWIDTH_GBS)),
    "memory_bandwidth_gbs": _optional(_number(MIN_FIGURE, MAX_BANDWIDTH_GBS)),
    "measured_at": _optional(_time),
    "source": _text(2000),
    "warnings": _list(_text(2000), 1000),
}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    facts = dict(pairs)
    if len(facts) != len(pairs):
        raise ValueError("a field is given twice")
    return facts


def _reject_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")
