"""Constant folding: what depends on constants only is computed once, by ONNX Runtime itself.

    W -> Transpose -> Cast -> W' -> Conv   =>  W' -> Conv

Every node whose inputs, and what its subgraphs capture, are all constant is foldable, and so is
what follows from foldable nodes. Only the results that other nodes read, or the graph gives out,
are kept; the nodes before them are dead then. Not folded are

(1) random operators, and calls of functions and of operators that ORT has no kernel for;
(2) QuantizeLinear and DequantizeLinear, which ORT fuses with their neighbours: a dequantized
    weight is a float weight of four times the size and turns an integer kernel into a float one;
(3) results that grow the model: the bytes of a result less those of the constants that nobody
    reads any more must stay below `ctx.max_growth_bytes`, for one result and for all together
    (otherwise none of those that grow is folded, so that a second run finds the same answer).
    Results up to ALWAYS_KEPT_BYTES are free;
(4) results too large to be computed in passing, and results of unknown size of operators that
    make much from little;
(5) sequences, maps and optionals that something else still reads.
"""

from __future__ import annotations

from collections.abc import Iterator

from ort_optim.graph.view import Constant, Graph, Node, Tensor, Variable
from ort_optim.graph.weights import Array
from ort_optim.passes.base import Context, GraphPass
from ort_optim.passes.common.constants import materialize
from ort_optim.passes.common.evaluation import Evaluation, as_array, evaluate, reads
from ort_optim.passes.common.match import is_used, static_shape

NAME = "constant-folding"

ALWAYS_KEPT_BYTES = 4096
EVALUATED_BYTES = 1 << 28  # a larger tensor is not even computed

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")

NEVER = frozenset(
    {
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
        *("Bernoulli", "Multinomial", "Dropout", "BiasDropout", "BitmaskDropout"),
        *("BitmaskBiasDropout", "BeamSearch", "GreedySearch", "Sampling"),
        *("QuantizeLinear", "DequantizeLinear"),
    }
)

GROWERS = frozenset(
    {
        *("ConstantOfShape", "Expand", "Tile", "Range", "OneHot", "EyeLike", "Pad", "Resize"),
        *("Upsample", "MaxUnpool", "DepthToSpace", "Loop", "Scan", "HannWindow", "HammingWindow"),
        *("BlackmanWindow", "MelWeightMatrix", "CenterCropPad", "AffineGrid"),
    }
)
"""Operators whose output may be far larger than their inputs."""


def rewrite(root: Graph, ctx: Context) -> None:
    """Fold everything foldable in one go."""
    folding = _Folding(root, ctx)
    values = folding.settle_values()
    for node in folding.nodes:
        kept = folding.kept(node)
        if kept and ctx.fuel(NAME, node, "computed from constants: " + _describe(values[kept[0]])):
            materialize(node, values)


class _Folding:
    """Which nodes can be computed, which of them are folded, and which results are kept.

    A node that is refused for the size of its result is still computed for what follows from it.
    """

    def __init__(self, root: Graph, ctx: Context) -> None:
        self.root = root
        self.ctx = ctx
        self.failed_before = {
            refusal.node: refusal.reason
            for refusal in ctx.refusals
            if refusal.pass_name == NAME and refusal.reason.startswith("ONNX Runtime")
        }
        self.nodes: list[Node] = []  # all that can be computed, in the order of execution
        self.folded: set[Node] = set()  # of these, and of the nodes in their subgraphs
        self.computed: set[Node] = set()
        self._share_bytes: dict[Tensor, float] = {}
        self._collect(root)
        self._refuse_growth(_growth_bytes(root))

    def _collect(self, graph: Graph) -> None:
        for node in graph.nodes:
            if node.dead or node.is_op("Constant"):
                continue
            if self._is_foldable(node):
                self.nodes.append(node)
                self.computed.add(node)
                self.folded.add(node)
                self.folded.update(_nodes_below(node))
                continue
            for below in node.subgraphs():
                self._collect(below)

    def _is_foldable(self, node: Node) -> bool:
        if node.op in NEVER or not all(self._is_known(tensor) for tensor in reads(node)):
            return False
        if reason := self._objection(node):
            self.ctx.refuse(NAME, node, reason)
            return False
        # Wait a round for the shapes of what is folded now.
        return node.op not in GROWERS or all(known_bytes(out) is not None for out in _used(node))

    def _is_known(self, tensor: Tensor) -> bool:
        if isinstance(tensor, Constant):
            return True
        if not tensor.inputs:
            return False
        producer = tensor.inputs[0]
        return producer in self.computed or producer.is_op("Constant")

    def _objection(self, node: Node) -> str | None:
        if (NAME, node.key) in self.ctx.denied:
            return "denied: it made the outputs differ or the model slower"
        if node.key in self.failed_before:
            return self.failed_before[node.key]
        domain = node.domain or ""
        if domain not in DOMAINS or (domain, node.op) in self.root.model.functions:
            return f"an operator of {domain or 'the model itself'} is not computed here"  # (1)
        if any(inner.op in NEVER for inner in _nodes_below(node)):
            return "its subgraph has a random or quantizing operator"
        sizes_bytes = [known_bytes(out) for out in _used(node)]
        if any(size is not None and size > EVALUATED_BYTES for size in sizes_bytes):
            return "its result is too large to be computed in passing"  # (4)
        if node.op in GROWERS and None in sizes_bytes and self._inputs_are_constants(node):
            return "the size of its result is not known"
        return None

    def _inputs_are_constants(self, node: Node) -> bool:
        return all(isinstance(tensor, Constant) for tensor in reads(node))

    def kept(self, node: Node) -> list[Variable]:
        """The outputs that remain when the node is folded, because something not folded needs one.

        Then all used ones remain: fuel may end before the nodes that read the others are folded.
        """
        used = _used(node) if node in self.folded else []
        is_needed = any(
            out.is_output or any(user not in self.folded for user in out.outputs) for out in used
        )
        return used if is_needed else []

    def _drop(self, node: Node, reason: str) -> None:
        self.ctx.refuse(NAME, node, reason)
        self.folded.discard(node)
        self.folded.difference_update(_nodes_below(node))

    def _refuse_growth(self, grown_bytes: float) -> None:
        """(3), from the last node to the first, as a refusal makes the inputs be kept instead."""
        released_bytes = {node: self._released_bytes(node) for node in self.nodes}
        limit_bytes: float = self.ctx.max_growth_bytes
        while True:
            total_bytes = grown_bytes
            for node in reversed(self.nodes):
                kept_bytes = sum(known_bytes(out) or 0 for out in self.kept(node))
                growth_bytes = kept_bytes - released_bytes[node]
                if kept_bytes <= ALWAYS_KEPT_BYTES or growth_bytes <= 0:
                    continue
                if growth_bytes > limit_bytes:
                    self._drop(node, f"the model would grow by {int(growth_bytes)} bytes")
                else:
                    total_bytes += growth_bytes
            if total_bytes <= self.ctx.max_growth_bytes or limit_bytes == 0:
                return
            limit_bytes = 0

    def _released_bytes(self, node: Node) -> float:
        """Bytes of constants that only this node keeps alive, shared out over its results' users.

        Visited in the order of execution, so the shares of the inputs are known.
        """
        total = 0.0
        for tensor in dict.fromkeys(reads(node)):
            if isinstance(tensor, Constant):
                users = dict.fromkeys(tensor.outputs)
                if all(user in self.folded for user in users):
                    total += tensor.nbytes / max(1, len(users))
            else:
                total += self._share_bytes.get(tensor, 0.0)
        users_of_all = sum(len(out.outputs) + out.is_output for out in node.outputs)
        for out in node.outputs:
            self._share_bytes[out] = total / max(1, users_of_all)
        return total

    def settle_values(self) -> dict[Variable, Array]:
        """The values of all kept results, after leaving out the nodes that have none."""
        values: dict[Variable, Array] = {}
        while True:
            missing = {out for node in self.nodes for out in self.kept(node) if out not in values}
            if not missing:
                return values
            found = evaluate(self.nodes, missing, self.root, self.ctx)
            lost: set[Tensor] = set()
            for node in self.nodes:
                if node in found.failures:
                    self._drop(node, f"ONNX Runtime: {found.failures[node]}")
                    lost.update(node.outputs)
                elif any(tensor in lost for tensor in reads(node)):
                    self._drop(node, "an input could not be computed")
                    lost.update(node.outputs)
                else:
                    self._accept(node, found, values)
            self.nodes = [node for node in self.nodes if lost.isdisjoint(node.outputs)]

    def _accept(self, node: Node, found: Evaluation, values: dict[Variable, Array]) -> None:
        """Take over the values found for a node, or refuse it for what they are."""
        for out in self.kept(node):
            if out in values:
                continue
            value = as_array(found.values.get(out))
            if value is None:
                self._drop(node, "its result is not a tensor")  # (5)
            elif known_bytes(out) is None and value.nbytes > max(
                ALWAYS_KEPT_BYTES, self.ctx.max_growth_bytes
            ):
                self._drop(node, f"the model would grow by {value.nbytes} bytes")
            else:
                values[out] = value


def known_bytes(tensor: Variable) -> int | None:
    """Bytes of a tensor whose type and shape are known."""
    shape = static_shape(tensor)
    if shape is None or tensor.dtype is None:
        return None
    size_bytes = int(tensor.dtype.itemsize)
    for dim in shape:
        size_bytes *= dim
    return size_bytes


def _used(node: Node) -> list[Variable]:
    return [out for out in node.outputs if is_used(out)]


def _nodes_below(node: Node) -> Iterator[Node]:
    for below in node.subgraphs():
        for graph in below.walk():
            yield from graph.nodes


def _growth_bytes(root: Graph) -> float:
    """By how much all constants together have grown since the model was loaded, at least 0."""
    now = before = 0
    for graph in root.walk():
        before += sum(constant.nbytes for constant in graph.imported_constants)
        now += sum(constant.nbytes for constant in graph.constants.values() if constant.outputs)
        before += sum(_constant_node_bytes(node) for node in graph.imported_nodes)
        now += sum(_constant_node_bytes(node) for node in graph.nodes)
    return max(0, now - before)


def _constant_node_bytes(node: Node) -> int:
    value = node.attrs.get("value")
    return value.nbytes if node.op == "Constant" and isinstance(value, Constant) else 0


def _describe(value: Array) -> str:
    return f"{value.dtype}{list(value.shape)}"


PASS = GraphPass(NAME, rewrite)
