"""The first layer at which two models part.

    first_parting    finds it by bisection over the tensors that both models name alike
    Parting          the tensor, the node that makes it in either model, and the error

A run hands out only a few inner tensors at a time, so activations are never kept all together.
"First" is meant by dependence: the tensor differs, and the nearest named tensors that it is
computed from all agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx import ModelProto, NodeProto

from ort_optim.engine import Engine, EngineError, ModelSource, Value
from ort_optim.graph.walk import node_graphs
from ort_optim.verify.compare import OutputComparison, Tolerance, compare_outputs, worst
from ort_optim.verify.origins import trace_origins
from ort_optim.verify.replay import in_order, reads, tap

TAPS_PER_RUN = 12

Model = tuple[ModelProto, ModelSource]
"""A model's structure, and what the engine opens (with `proto`, not with `path`)."""


@dataclass(frozen=True)
class Parting:
    """Where two models part: `tensor` is made by these nodes (op type and name)."""

    tensor: str
    node_a: str
    node_b: str
    comparison: OutputComparison


@dataclass(frozen=True)
class LayerReport:
    """What was found. `parting` is None where all tensors of the same name agree.

    `matched` tensors have the same name in both models, `only_a` and `only_b` have not;
    `inner` nodes in subgraphs were not looked into; `unreadable` tensors ORT could not hand out;
    `runs` is the number of times each model was run.
    """

    parting: Parting | None
    matched: int
    only_a: int
    only_b: int
    inner: int
    unreadable: int
    runs: int

    def as_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found = self.parting
        return {
            "tensor": found.tensor if found else None,
            "node_a": found.node_a if found else None,
            "node_b": found.node_b if found else None,
            "comparison": found.comparison.as_plain() if found else None,
            "matched": self.matched,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "inner": self.inner,
            "unreadable": self.unreadable,
            "runs": self.runs,
        }


def first_parting(
    engine: Engine, a: Model, b: Model, feeds: Mapping[str, Value], tolerance: Tolerance
) -> LayerReport:
    """Where `b` first differs from `a` by more than `tolerance` on `feeds`.

    Raises EngineError if one of them cannot be run at all, WorkerError if the worker dies.
    """
    nodes_a, nodes_b = in_order(a[0].graph.node), in_order(b[0].graph.node)
    makers_a, makers_b = _makers(nodes_a), _makers(nodes_b)
    matched = [name for name in makers_a if name in makers_b]
    taps = _Taps(engine, a, b, feeds, tolerance)
    outputs = [value.name for value in a[0].graph.output if value.name in makers_b]
    for start in range(0, len(outputs), TAPS_PER_RUN):
        taps.look(outputs[start : start + TAPS_PER_RUN])
    differing = next((name for name in outputs if taps.differs(name)), None)
    suspects = matched if differing is None else _upstream(differing, makers_a, matched)
    found = _earliest(_search(taps, suspects), taps, makers_a, matched)
    parting = None
    if found is not None:
        comparison = taps.known[found]
        assert comparison is not None
        parting = Parting(found, _describe(makers_a[found]), _describe(makers_b[found]), comparison)
    return LayerReport(
        parting=parting,
        matched=len(matched),
        only_a=len(makers_a) - len(matched),
        only_b=len(makers_b) - len(matched),
        inner=max(_inner_nodes(nodes_a), _inner_nodes(nodes_b)),
        unreadable=sum(comparison is None for comparison in taps.known.values()),
        runs=taps.runs,
    )


@dataclass
class _Taps:
    """Compares inner tensors of two models, each at most once."""

    engine: Engine
    a: Model
    b: Model
    feeds: Mapping[str, Value]
    tolerance: Tolerance
    known: dict[str, OutputComparison | None] = field(default_factory=dict)  # None: unreadable
    runs: int = 0

    def __post_init__(self) -> None:
        self.origins = trace_origins(self.a[0])

    def differs(self, name: str) -> bool:
        """Whether a tensor that was looked at differs; an unreadable one does not."""
        comparison = self.known[name]
        return comparison is not None and not comparison.passed

    def look(self, names: Iterable[str]) -> None:
        """Compare these tensors, all in one run of each model where that is possible."""
        wanted = [name for name in dict.fromkeys(names) if name not in self.known]
        if not wanted:
            return
        try:
            self.runs += 1
            in_a = tap(self.engine, self.a, self.feeds, wanted)
            in_b = tap(self.engine, self.b, self.feeds, wanted)
        except EngineError:
            if len(wanted) == 1:
                self.known[wanted[0]] = None
                return
            half = len(wanted) // 2
            self.look(wanted[:half])
            self.look(wanted[half:])
            return
        for name in wanted:
            compared = compare_outputs(
                {name: in_a[name]}, in_b, self.tolerance, origins=self.origins
            )
            self.known[name] = worst(compared)


def _search(taps: _Taps, matched: Sequence[str]) -> str | None:
    """A tensor that differs though some before it agree, by looking at a few at a time."""
    low, high = -1, len(matched)  # nothing differs at low; high differs, or is past the end
    while high - low > 1:
        step = max(1, -(-(high - low - 1) // TAPS_PER_RUN))
        places = list(range(low + step, high, step))
        if high == len(matched) and (not places or places[-1] != high - 1):
            places.append(high - 1)  # the end, in the first round: does anything differ at all?
        taps.look(matched[i] for i in places)
        first = next((i for i in places if taps.differs(matched[i])), None)
        if first is None:
            if high == len(matched) or step == 1:
                break
            low = places[-1]
        else:
            low = max((i for i in places if i < first), default=low)
            high = first
    return matched[high] if high < len(matched) else None


def _earliest(
    found: str | None, taps: _Taps, makers: Mapping[str, NodeProto], matched: Sequence[str]
) -> str | None:
    """From a tensor that differs back to one whose nearest named ancestors all agree."""
    position = {name: i for i, name in enumerate(matched)}
    while found is not None:
        ancestors = sorted(_nearest_named(found, makers, position), key=position.__getitem__)
        for start in range(0, len(ancestors), TAPS_PER_RUN):
            taps.look(ancestors[start : start + TAPS_PER_RUN])
        differing = next((name for name in ancestors if taps.differs(name)), None)
        if differing is None:
            return found
        found = differing
    return None


def _upstream(name: str, makers: Mapping[str, NodeProto], matched: Sequence[str]) -> list[str]:
    """The tensors of `matched` that `name` depends on, itself included, in the same order."""
    seen: set[str] = set()
    pending = [name]
    while pending:
        each = pending.pop()
        if each in makers and each not in seen:
            seen.add(each)
            pending.extend(reads(makers[each]))
    return [each for each in matched if each in seen]


def _nearest_named(
    name: str, makers: Mapping[str, NodeProto], matched: Mapping[str, int]
) -> set[str]:
    """The tensors of `matched` that `name` is computed from with no other of them in between."""
    found: set[str] = set()
    pending = list(reads(makers[name]))
    seen: set[str] = set()
    while pending:
        each = pending.pop()
        if each in seen or each not in makers:
            continue
        seen.add(each)
        if each in matched:
            found.add(each)
        else:
            pending.extend(reads(makers[each]))
    return found - {name}


def _makers(nodes: Sequence[NodeProto]) -> dict[str, NodeProto]:
    """The node behind each computed tensor, in order of execution; constants are left out."""
    return {
        name: node for node in nodes if node.op_type != "Constant" for name in node.output if name
    }


def _inner_nodes(nodes: Iterable[NodeProto]) -> int:
    total = 0
    for node in nodes:
        total += sum(len(graph.node) + _inner_nodes(graph.node) for graph in node_graphs(node))
    return total


def _describe(node: NodeProto) -> str:
    return f"{node.op_type} '{node.name}'" if node.name else f"{node.op_type} (without a name)"
