"""What one `optimize` did, as plain frozen data. The writers of this folder only read it.

Report          the whole; `to_dict`, `from_dict`, `to_json`, `from_json`
ModelFacts      size, opset, ops and weights of one file
PassSummary     what one pass did in all;  Rewrite, Refusal: node by node
Verification    did the outputs agree?     OutputResult per output, Culprit per rewrite at fault
Timing          original beside result
Tiling          the regions that the native library runs; TiledLayer per convolution
Decision        was the result kept?

docs/report-schema.md explains every field for readers of the JSON. Fields may be added within a
schema version; the version is raised when one goes or changes its meaning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ort_optim.errors import InputError
from ort_optim.report.codec import DecodeError, JsonValue, decode, encode

SCHEMA_VERSION = 1

VerificationStatus = Literal["passed", "failed", "unverified", "skipped"]
"""passed, failed: compared. unverified: ORT cannot run the model. skipped: nothing to compare."""

TimingVerdict = Literal["faster", "same", "slower", "not timed"]
"""Judged beyond noise: `same` means that no difference could be shown."""


@dataclass(frozen=True)
class ToolFacts:
    """Which program wrote the report: versions of ort_optim, Python and the libraries."""

    version: str
    python: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFacts:
    """One model file. Bytes include external data; ops are named `Conv` or `domain.Op`."""

    path: str
    sha256: str
    size_bytes: int
    ir_version: int
    opset: Mapping[str, int]
    node_count: int
    op_histogram: Mapping[str, int]
    weights_bytes: int
    parameter_count: int


@dataclass(frozen=True)
class TargetFacts:
    """The machine that was optimized for: its name, one line about it, and the facts."""

    name: str
    description: str = ""
    facts: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class PassSummary:
    """One pass: rewrites applied, nodes refused, rounds until nothing changed."""

    name: str
    applied: int
    refused: int
    seconds: float
    rounds: int


@dataclass(frozen=True)
class Rewrite:
    """One rewrite that was applied. `graph` is "" for the main graph, else the subgraph's path."""

    number: int
    pass_name: str
    graph: str
    node: str
    op: str
    detail: str


@dataclass(frozen=True)
class Refusal:
    """A rewrite that was not applied, and why. `count` nodes share the reason; `node` is one."""

    pass_name: str
    node: str
    op: str
    reason: str
    count: int = 1


@dataclass(frozen=True)
class OutputResult:
    """How far one output of the result is from the original's, over all input sets.

    The error figures are None where they make no sense (strings, exact integers that are equal,
    random ops). `decided_by` names the rule that decided, such as "rtol/atol", "exact" or "SNR";
    `bound` is what that rule allows: an absolute error, for SNR dB, for top-1 a fraction.
    `p50`, `p90` and `p99` are quantiles of the absolute error. All figures are those of the worst
    input set, number `set_index`.
    """

    name: str
    passed: bool
    dtype: str = ""
    shape: tuple[int, ...] = ()
    max_abs: float | None = None
    max_rel: float | None = None
    mean_abs: float | None = None
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    cosine: float | None = None
    snr_db: float | None = None
    top1: float | None = None
    decided_by: str = ""
    bound: float | None = None
    reason: str = ""
    set_index: int = 0


@dataclass(frozen=True)
class Culprit:
    """A rewrite that bisection found at fault; it was undone. `max_abs` is the error it made."""

    pass_name: str
    node: str
    number: int
    max_abs: float | None = None


@dataclass(frozen=True)
class Verification:
    """Whether the outputs agree, on how many input sets, and on which input shapes.

    `inner` has the tensors that were compared as well because the outputs say too little by
    themselves: they are empty, or integers that follow from floats by comparison.
    """

    status: VerificationStatus
    sets: int = 0
    shapes: tuple[Mapping[str, tuple[int, ...]], ...] = ()
    outputs: tuple[OutputResult, ...] = ()
    inner: tuple[OutputResult, ...] = ()
    culprits: tuple[Culprit, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Timing:
    """Latency of the original beside the result's, interleaved in one process, in ms.

    `ratio` is original / result: above 1 the result is faster. `ratio_low` and `ratio_high` bound
    it at 95% (paired bootstrap). `undone_passes` were taken back because they made it slower.
    """

    verdict: TimingVerdict
    original_ms: tuple[float, ...] = ()
    result_ms: tuple[float, ...] = ()
    median_original_ms: float | None = None
    median_result_ms: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    runs: int = 0
    threads: int = 0
    undone_passes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weighed:
    """A template that the rule weighed: what it demands of the machine, and what came of it."""

    template: str
    tile: str
    demand: str
    verdict: str


@dataclass(frozen=True)
class TiledLayer:
    """One convolution: its region and template, or why ONNX Runtime computes it.

    `layer_class` is what the rule takes it for; `region` and `template` are "" where it stays.
    """

    node: str
    op: str
    layer_class: str = ""
    region: str = ""
    template: str = ""
    tile: str = ""
    reason: str = ""
    weighed: tuple[Weighed, ...] = ()


@dataclass(frozen=True)
class Tiling:
    """Regions, which ort_optim's library computes in sessions that have it.

    `kept` says whether OUT has them. `timing` is the original beside the result with the library;
    `gain` is the result without it over the result with it. `machine` is what the rule went by.
    """

    kept: bool = False
    reason: str = ""
    regions: int = 0
    machine: str = ""
    layers: tuple[TiledLayer, ...] = ()
    timing: Timing = Timing("not timed")
    gain: float | None = None


@dataclass(frozen=True)
class Decision:
    """Whether OUT is the result (`kept`) or the original byte for byte, and why."""

    kept: bool
    reason: str


@dataclass(frozen=True)
class StageSeconds:
    """Wall time of each stage of `optimize`, in seconds."""

    load: float = 0.0
    rewrite: float = 0.0
    verify: float = 0.0
    time: float = 0.0
    tile: float = 0.0
    save: float = 0.0


@dataclass(frozen=True)
class Report:
    """Everything that one run of `ort_optim optimize` found, did and decided."""

    tool: ToolFacts
    input: ModelFacts
    output: ModelFacts
    verification: Verification
    timing: Timing
    decision: Decision
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    target: TargetFacts = TargetFacts("native")
    repairs: tuple[str, ...] = ()
    passes: tuple[PassSummary, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: StageSeconds = StageSeconds()
    tiling: Tiling = Tiling()
    taken_over: tuple[str, ...] = ()  # steps that an earlier run in the same work folder had done
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, JsonValue]:
        """Plain JSON data, `schema_version` first. Raises TypeError where `options` or
        `target.facts` hold what JSON cannot.
        """
        plain = encode(self)
        return {"schema_version": plain.pop("schema_version"), **plain}

    @classmethod
    def from_dict(cls, data: JsonValue) -> Report:
        """The report that `to_dict` wrote.

        Raises InputError, in one line that names the place, if `data` is not a report or is of
        another schema version.
        """
        version = data.get("schema_version") if isinstance(data, Mapping) else None
        if version != SCHEMA_VERSION:
            raise InputError(
                f"not a report of schema version {SCHEMA_VERSION} (found {version!r}): "
                "write it again with this version of ort_optim"
            )
        try:
            return decode(cls, data)
        except DecodeError as error:
            raise InputError(f"not a valid report: {error}") from None

    def to_json(self) -> str:
        """`to_dict` as indented JSON text that any JSON parser reads."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """The report that `to_json` wrote; raises InputError as `from_dict` does."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise InputError(f"not a valid report: not JSON: {error}") from None
        return cls.from_dict(data)
