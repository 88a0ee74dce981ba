"""Inner tensors that say what empty and jumping outputs can't.

A detector that finds nothing answers with empty tensors, and the index of the largest of many
numbers stays the same when all of them are a little wrong. Such outputs are *mute*: that they
agree proves little. What proves something are the float tensors before the ops that jump.

    mute_outputs    the outputs of one run that prove little
    find_frontier   the last float tensors before the jumps, with their counterparts
    Frontier        compares them, on the input sets whose outputs are mute
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from ort_optim.engine import Engine, EngineError, ModelSource, Value
from ort_optim.graph.walk import node_graphs
from ort_optim.verify.compare import SHAPE, OutputComparison, Tolerance, at_set, compare_outputs
from ort_optim.verify.metrics import is_float
from ort_optim.verify.origins import DATA_DEPENDENT_SHAPE_OPS, Origin, is_jumping
from ort_optim.verify.replay import (
    MOST_CUTS,
    Cut,
    counterpart,
    in_order,
    reads,
    tap_all,
    upstream_nodes,
)

Outputs = Mapping[str, Value]
Model = tuple[ModelProto, ModelSource]

EXACT_OPS = frozenset(
    {
        "Add",
        "And",
        "Cast",
        "CastLike",
        "Ceil",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Div",
        "Equal",
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "GatherElements",
        "GatherND",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "NonZero",
        "Not",
        "Or",
        "Pad",
        "Range",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Reshape",
        "Round",
        "Slice",
        "Split",
        "Squeeze",
        "Sub",
        "Tile",
        "Transpose",
        "Trilu",
        "Unsqueeze",
        "Where",
        "Xor",
    }
)
"""Ops whose results hold no rounding errors where their inputs hold none: integers and masks."""


MOST_SCALES = 8  # one for each axis, with room


def mute_outputs(outputs: Outputs, origins: Mapping[str, Origin]) -> list[str]:
    """The outputs without elements, and those of integers or booleans behind ops that jump."""
    return [
        name
        for name, value in outputs.items()
        if isinstance(value, np.ndarray)
        and (value.size == 0 or (not is_float(value.dtype) and origins[name].jumps))
    ]


def find_frontier(
    reference: GraphProto, candidate: GraphProto, outputs: Sequence[str]
) -> list[Cut]:
    """Computed tensors before the first jumps upstream of `outputs`, but for graph outputs.

    Jumps of integers and masks that hold no rounding errors (shape arithmetic, attention masks)
    don't count. Tensors without a counterpart in the candidate are left out.
    """
    makers = {name: node for node in reference.node for name in node.output if name}
    theirs = {name: node for node in candidate.node for name in node.output if name}
    given = {value.name for value in reference.output}
    inexact = _inexact_sources(reference)
    behind: set[str] = set()
    found: dict[str, Cut] = {}
    for node in in_order(upstream_nodes(makers, outputs)):
        names = reads(node)
        if node.op_type not in ("Shape", "Size") and (
            names & inexact or (node.op_type not in EXACT_OPS and node.op_type != "Constant")
        ):
            inexact.update(node.output)
        late = bool(names & behind) and node.op_type not in ("Shape", "Size")
        if not late and not _may_jump(node, inexact):
            continue
        behind.update(node.output)
        for position, name in enumerate([*node.input, *(names - set(node.input))]):
            if name not in makers or name in behind or name in given or name not in inexact:
                continue
            other = name if name in theirs else counterpart(node, position, theirs)
            if other is not None:
                found[name] = Cut(name, other)
    return list(found.values())[:MOST_CUTS]


def _inexact_sources(graph: GraphProto) -> set[str]:
    """Graph inputs and weights that are floats; a few numbers may scale shapes and masks."""
    weights = [t for t in graph.initializer if math.prod(t.dims) > MOST_SCALES]
    return {t.name for t in weights if _is_float_type(t.data_type)} | {
        value.name
        for value in graph.input
        if value.type.HasField("tensor_type") and _is_float_type(value.type.tensor_type.elem_type)
    }


def _is_float_type(element_type: int) -> bool:
    if element_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return False
    return is_float(onnx.helper.tensor_dtype_to_np_dtype(element_type))


def _may_jump(node: NodeProto, inexact: set[str]) -> bool:
    """Whether rounding errors in the node's inputs may change integers or extents behind it."""
    if node.op_type in ("If", "Loop"):
        steering = node.input[: 1 if node.op_type == "If" else 2]
        return not inexact.isdisjoint(steering) or any(
            is_jumping(inner) for inner in _inner_nodes(node)
        )
    jumping = is_jumping(node) or node.op_type in DATA_DEPENDENT_SHAPE_OPS
    return jumping and not inexact.isdisjoint(node.input)


def _inner_nodes(node: NodeProto) -> list[NodeProto]:
    found: list[NodeProto] = []
    for graph in node_graphs(node):
        for inner in graph.node:
            found += [inner, *_inner_nodes(inner)]
    return found


class Frontier:
    """Compares what stands before the jumps of one reference with the same of candidates.

    The reference's tensors are kept: they are computed once. With `own_noise`, what ONNX
    Runtime's own optimizations do to them is looked at where they differ.
    """

    def __init__(
        self,
        engine: Engine,
        reference: Model,
        feeds: Sequence[Outputs],
        expected: Sequence[Outputs],
        tolerance: Tolerance,
        origins: Mapping[str, Origin],
        *,
        own_noise: bool,
    ) -> None:
        self._engine = engine
        self._reference = reference
        self._feeds = feeds
        self._tolerance = tolerance
        self._origins = origins
        self._own_noise = own_noise
        self._known: dict[tuple[tuple[str, ...], bool], list[dict[str, Value]] | None] = {}
        mute = [mute_outputs(outputs, origins) for outputs in expected]
        self._sets = [index for index, names in enumerate(mute) if names]
        self._mute = list(dict.fromkeys(name for names in mute for name in names))

    def compare(self, candidate: Model) -> list[list[OutputComparison]]:
        """Comparisons by tensor of the reference, one list per input set with mute outputs.

        A counterpart of another shape or type is taken for another tensor and left out. Empty
        where nothing can be compared. Raises WorkerError if the worker dies.
        """
        cuts = find_frontier(self._reference[0].graph, candidate[0].graph, self._mute)
        names = tuple(cut.reference for cut in cuts)
        expected = self._tapped(names) if cuts else None
        if expected is None:
            return []
        feeds = [self._feeds[index] for index in self._sets]
        try:
            found = tap_all(self._engine, candidate, feeds, [cut.candidate for cut in cuts])
        except EngineError:
            return []
        result = []
        for place, index in enumerate(self._sets):
            theirs = {cut.reference: found[place][cut.candidate] for cut in cuts}
            floats = {
                name: value
                for name, value in expected[place].items()
                if isinstance(value, np.ndarray) and is_float(value.dtype)
            }
            compared = self._compare(floats, theirs)
            if self._own_noise and not all(c.passed or c.decided_by == SHAPE for c in compared):
                own = self._tapped(names, optimize=True)
                compared = self._compare(floats, theirs, own[place] if own else None)
            kept = [c for c in compared if c.decided_by != SHAPE]
            result.append(at_set(kept, index))
        return result

    def _compare(
        self, expected: Outputs, found: Outputs, own: Outputs | None = None
    ) -> list[OutputComparison]:
        return compare_outputs(expected, found, self._tolerance, origins=self._origins, own=own)

    def _tapped(
        self, names: tuple[str, ...], *, optimize: bool = False
    ) -> list[dict[str, Value]] | None:
        """The reference's tensors on the sets with mute outputs; None where ORT can't give them."""
        key = (names, optimize)
        if key not in self._known:
            feeds = [self._feeds[index] for index in self._sets]
            try:
                self._known[key] = tap_all(
                    self._engine, self._reference, feeds, names, optimize=optimize
                )
            except EngineError:
                self._known[key] = None
        return self._known[key]
