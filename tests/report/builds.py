"""Reports for the tests: one that looks like a real run, and a hypothesis strategy of any."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from ort_optim.report import (
    SCHEMA_VERSION,
    Culprit,
    Decision,
    ModelFacts,
    OutputResult,
    PassSummary,
    Refusal,
    Report,
    Rewrite,
    StageSeconds,
    TargetFacts,
    Timing,
    ToolFacts,
    Verification,
)


def model_facts(**changes: Any) -> ModelFacts:
    """A small convolutional classifier."""
    facts = ModelFacts(
        path="in.onnx",
        sha256="ab" * 32,
        size_bytes=3_712_345,
        ir_version=8,
        opset={"": 17},
        node_count=178,
        op_histogram={"Conv": 66, "BatchNormalization": 27, "Mul": 42, "Sigmoid": 42, "Add": 1},
        weights_bytes=3_650_000,
        parameter_count=912_000,
    )
    return replace(facts, **changes)


def report(**changes: Any) -> Report:
    """A run that went well: verified, 1.21 times as fast, kept."""
    original = (15.6, 15.4, 15.9, 15.5, 15.5, 16.8, 15.4, 15.5)
    result = (12.8, 12.7, 12.9, 12.8, 13.6, 12.7, 12.8, 12.8)
    built = Report(
        tool=ToolFacts("0.1.0", "3.11.2", {"onnx": "1.23.2", "onnxruntime": "1.32.0"}),
        options={"threads": 1, "shape": ["images:1x3x416x416"], "disable": []},
        input=model_facts(),
        output=model_facts(
            path="out.onnx",
            sha256="cd" * 32,
            size_bytes=3_612_345,
            node_count=110,
            op_histogram={"Conv": 66, "HardSwish": 42, "LayerNormalization": 1, "Add": 1},
            weights_bytes=3_560_000,
            parameter_count=890_000,
        ),
        target=TargetFacts("native", "2 cores, AVX-512, 32 GiB", {"cores": 2, "isa": ["avx512f"]}),
        repairs=("nodes were not in topological order",),
        passes=(
            PassSummary("fold_batchnorm", 27, 1, 0.012, 2),
            PassSummary("fold_constants", 14, 2, 0.055, 2),
            PassSummary("eliminate_identity", 0, 0, 0.001, 1),
        ),
        rewrites=tuple(
            Rewrite(i, "fold_batchnorm", "", f"/stem/bn{i}", "BatchNormalization", "into Conv")
            for i in range(1, 28)
        )
        + tuple(
            Rewrite(i, "fold_constants", "", f"Shape_{i}", "Shape", "8 B constant")
            for i in range(28, 42)
        ),
        refusals=(
            Refusal("fold_batchnorm", "/head/bn", "BatchNormalization", "Conv has 2 consumers"),
            Refusal("fold_constants", "Expand_3", "Expand", "would grow the model by 9.5 MiB", 2),
        ),
        verification=Verification(
            status="passed",
            sets=3,
            shapes=({"images": (1, 3, 416, 416)},),
            outputs=(
                OutputResult(
                    name="scores",
                    passed=True,
                    dtype="float32",
                    shape=(1, 3549, 85),
                    max_abs=3.1e-6,
                    max_rel=1.2e-4,
                    mean_abs=2.2e-7,
                    p50=1e-7,
                    p90=6e-7,
                    p99=1.4e-6,
                    cosine=1.0,
                    snr_db=118.2,
                    decided_by="rtol/atol",
                    bound=8.0e-3,
                ),
                OutputResult("labels", True, "int64", (1, 3549), max_abs=0.0, decided_by="exact"),
            ),
            culprits=(Culprit("fuse_pad", "Pad_7", 96, 0.31),),
        ),
        timing=Timing(
            verdict="faster",
            original_ms=original,
            result_ms=result,
            median_original_ms=15.5,
            median_result_ms=12.8,
            ratio=1.211,
            ratio_low=1.195,
            ratio_high=1.223,
            runs=8,
            threads=1,
            undone_passes=("normalize_gemm",),
        ),
        decision=Decision(True, "faster beyond noise, and 97.7 KiB smaller"),
        warnings=("value info of 'x' contradicts shape inference and was left out",),
        seconds=StageSeconds(0.05, 0.2, 0.9, 1.1, 0.02),
    )
    return replace(built, **changes)


def unverified_report() -> Report:
    """A run that gave the original back, as ORT cannot run the model."""
    facts = model_facts()
    return Report(
        tool=ToolFacts("0.1.0"),
        input=facts,
        output=replace(facts, path="out.onnx"),
        verification=Verification("unverified", reason="no kernel for custom::Foo"),
        timing=Timing("not timed"),
        decision=Decision(False, "could not be verified"),
    )


any_text = st.text(st.characters(), max_size=30)  # surrogates and control characters too
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    Any: json_values,
    str: any_text,
    int: st.integers(min_value=0, max_value=2**63 - 1),
    float: st.floats(),
    bool: st.booleans(),
    type(None): st.none(),
}


def reports() -> st.SearchStrategy[Report]:
    """Any valid report, however unlikely: strange names, NaN, infinities, empty parts."""
    return _values(Report)


def _values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type, for the types that reports are made of."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in SCALARS:
        return SCALARS[hint]
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        fixed = {"schema_version": st.just(SCHEMA_VERSION)}
        return st.builds(hint, **{name: fixed.get(name, _values(h)) for name, h in hints.items()})
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is types.UnionType:
        return st.one_of(*map(_values, arguments))
    if origin is tuple:
        return st.lists(_values(arguments[0]), max_size=3).map(tuple)
    return st.dictionaries(_values(arguments[0]), _values(arguments[1]), max_size=3)
