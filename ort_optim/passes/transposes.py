"""Transposes that disappear when the operators between them work in the other layout.

    Transpose(x, p) -> Relu -> Transpose(., p^-1)     =>   Relu(x)
    Add(Transpose(x, p), Transpose(y, p))             =>   Transpose(Add(x, y), p)
    Transpose(x, p) -> ReduceMean over its last axes  =>   ReduceMean(x) over its first ones

Given p, every tensor t has a second form t' with t = Transpose(t', p). Each operator that
`layout.moved` knows either stays or moves: it reads and makes t or t'. A tensor costs one Transpose
if it is made in one form and read in the other. Transpose(x, p) makes its output in the second
form, free of cost (that is x); Transpose(t, p^-1) reads t in the second form. Which operators move
is a minimum cut (Network: source = second form): for tensor t, its maker P and its readers C,

    some C moves and P stays   costs 1     C -> any -> P,   capacity 1 into P
    P moves and some C stays   costs 1     P -> all -> C,   capacity 1 out of P

so the number of Transposes is the least possible for this p, over all branches and joins at once.
Of several minimum cuts the one with fewest moved operators is taken. The moved operators fall
apart into parts that share no tensor; each is one rewrite, made under the conditions

(1) it lowers the number of Transposes, and, where sizes are known, not by transposing more than
    twice as many elements;
(2) constants that are needed in both forms do not grow the model by more than allowed.

A Transpose that is its own inverse (p = p^-1) counts as the end of what is before it if that can
move, else as the start of what is after it.

Measured with all other passes on, one thread, ONNX Runtime optimizing: XFeat 194 nodes become 132,
GTCRN 337 become 331, a re-identification network with NHWC outputs 427 become 417, each as fast as
before or up to 2% faster: ONNX Runtime moves Transposes as well, one at a time. What it can't do is
fold what then stands beside a convolution.

Names used here
    _Region, _region   what could move for one p, found from its Transposes outwards
    _Use, _use         maker and readers of a tensor
    _cut, _parts       which operators move, and which of them together
    _Part, _move_part  one rewrite: what it gains, its conditions
    _apply, _replace   the rewrite itself
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ort_optim.graph.view import Constant, Graph, Node, Tensor, Variable
from ort_optim.passes.base import Context, GraphPass
from ort_optim.passes.common.edits import drop_unused
from ort_optim.passes.common.layout import Moved, Perm, elements, moved, moved_constant
from ort_optim.passes.common.match import producer
from ort_optim.passes.common.min_cut import INFINITE, Network
from ort_optim.passes.common.movement import inverse, permutation

NAME = "transposes"

_MAX_MORE_ELEMENTS = 2


@dataclass
class _Region:
    """Everything around the Transposes by p that could move, and the tensors there."""

    graph: Graph
    perm: Perm
    movable: dict[Node, Moved] = field(default_factory=dict)
    starts: dict[Node, None] = field(default_factory=dict)  # Transpose(x, p)
    ends: dict[Node, None] = field(default_factory=dict)  # Transpose(t, p^-1)
    tensors: dict[Variable, None] = field(default_factory=dict)


@dataclass(frozen=True)
class _Use:
    """A tensor's maker and readers. None stands for what reads or makes the first form only."""

    maker: Node | None
    readers: tuple[Node | None, ...]


def rewrite(root: Graph, ctx: Context) -> None:
    """Move what lowers the number of Transposes, for each permutation in the model."""
    for graph in list(root.walk()):
        transposes = [node for node in graph.nodes if node.is_op("Transpose")]
        if len(transposes) < 2:
            continue
        known = dict.fromkeys(given for node in transposes if (given := permutation(node)))
        for perm in dict.fromkeys(each for given in known for each in (given, inverse(given))):
            if list(perm) != sorted(perm):
                _move(graph, perm, ctx)
                graph.settle()


def _move(graph: Graph, perm: Perm, ctx: Context) -> None:
    region = _region(graph, perm)
    if len(region.starts) + len(region.ends) < 2 or not region.movable:
        return
    uses = {tensor: _use(tensor, region) for tensor in region.tensors}
    moving = _cut(region, uses)
    if not moving:
        return
    order = {node: index for index, node in enumerate(graph.nodes)}
    for part in _parts(moving, region, uses):
        _move_part(_Part(part, region, uses, order), ctx)


def _region(graph: Graph, perm: Perm) -> _Region:
    """Explore from all Transposes by p and its inverse."""
    region = _Region(graph, perm)
    back = inverse(perm)
    stays: set[Node] = set()

    def can_move(node: Node | None) -> bool:
        if node is None or node.graph is not graph or node in stays:
            return False
        if node not in region.movable:
            found = moved(node, perm)
            if found is None:
                stays.add(node)
                return False
            region.movable[node] = found
        return True

    waiting: list[Variable] = []
    for node in graph.nodes:
        given = permutation(node) if node.is_op("Transpose") else None
        if given not in (perm, back):
            continue
        is_end = given == back and (given != perm or can_move(producer(node.inputs[0])))
        if is_end and isinstance(node.inputs[0], Variable):
            region.ends[node] = None
            waiting.append(node.inputs[0])
        elif given == perm:
            region.starts[node] = None
            waiting.append(node.outputs[0])
    while waiting:
        tensor = waiting.pop()
        if tensor in region.tensors:
            continue
        region.tensors[tensor] = None
        for node in [*tensor.inputs, *tensor.outputs]:
            if can_move(node):
                waiting.extend(_permuted(node, region.movable[node]))
    return region


def _permuted(node: Node, how: Moved) -> Iterator[Variable]:
    """The tensors that have the other form if the node moves."""
    for index in how.inputs:
        if isinstance(node.inputs[index], Variable):
            yield node.inputs[index]
    if not how.keeps_outputs:
        yield from (out for out in node.outputs if out.name)


def _use(tensor: Variable, region: _Region) -> _Use:
    maker = producer(tensor)
    if maker not in region.starts and (
        maker not in region.movable or region.movable[maker].keeps_outputs
    ):
        maker = None
    readers: dict[Node | None, None] = {}
    end_is_output = False
    for node in tensor.outputs:
        reader: Node | None = None
        if node in region.movable and all(
            index in region.movable[node].inputs
            for index, given in enumerate(node.inputs)
            if given is tensor
        ):
            reader = node
        elif node in region.ends:
            # An output of the graph can take the place of one tensor only.
            gives_out = node.outputs[0].is_output
            if not gives_out or not (end_is_output or maker in region.starts):
                reader = node
            end_is_output |= gives_out
        readers[reader] = None
    if tensor.is_output:
        readers[None] = None
    return _Use(maker, tuple(readers))


def _cut(region: _Region, uses: dict[Variable, _Use]) -> list[Node]:
    """The operators that move, in the order in which they were found."""
    network = Network()
    second, first = network.add_node(), network.add_node()
    number = {node: network.add_node() for node in region.movable}
    ends = dict.fromkeys([*region.starts, *region.ends], second)

    def at(node: Node | None) -> int:
        return first if node is None else number.get(node, ends.get(node, first))

    for use in uses.values():
        maker, readers = at(use.maker), [at(reader) for reader in use.readers]
        if maker != second:
            some = network.add_node()
            network.add_edge(some, maker, 1)
            for reader in readers:
                network.add_edge(reader, some, INFINITE)
        if maker != first:
            every = network.add_node()
            network.add_edge(maker, every, 1)
            for reader in readers:
                network.add_edge(every, reader, INFINITE)
    side = network.source_side(second, first)
    return [node for node, index in number.items() if index in side]


def _parts(moving: list[Node], region: _Region, uses: dict[Variable, _Use]) -> list[list[Node]]:
    """The moving operators, those that share a tensor together."""
    left = dict.fromkeys(moving)
    parts = []
    while left:
        part = [next(iter(left))]
        del left[part[0]]
        for node in part:  # grows while it is walked
            for tensor in _permuted(node, region.movable[node]):
                for near in (uses[tensor].maker, *uses[tensor].readers):
                    if near in left:
                        del left[near]
                        part.append(near)
        parts.append(part)
    return parts


class _Part:
    """Operators that move together."""

    def __init__(
        self,
        nodes: list[Node],
        region: _Region,
        uses: dict[Variable, _Use],
        order: dict[Node, int],
    ) -> None:
        self.region = region
        self.order = order
        self.nodes = sorted(nodes, key=order.__getitem__)
        self.moving = set(nodes)
        tensors = dict.fromkeys(t for node in nodes for t in _permuted(node, region.movable[node]))
        self.uses = {tensor: uses[tensor] for tensor in tensors}

    def readers(self, tensor: Variable) -> list[Node]:
        """Those that read the second form: moving operators, and Transposes that end here."""
        return [
            node
            for node in self.uses[tensor].readers
            if node is not None and (node in self.moving or node in self.region.ends)
        ]

    def is_made_moved(self, tensor: Variable) -> bool:
        """Whether the second form exists without a Transpose."""
        maker = self.uses[tensor].maker
        return maker in self.moving or maker in self.region.starts

    def is_read_unmoved(self, tensor: Variable) -> bool:
        """Whether something still reads the first form."""
        return len(self.readers(tensor)) < len(self.uses[tensor].readers)

    def transposes_before(self) -> Iterator[Variable]:
        """A tensor for each Transpose that there is, of the starts and ends of this part."""
        for tensor, use in self.uses.items():
            if use.maker in self.region.starts:
                yield tensor
            yield from (tensor for node in use.readers if node in self.region.ends)

    def transposes_after(self) -> Iterator[Variable]:
        """A tensor for each Transpose that there will be."""
        for tensor in self.uses:
            made = self.is_made_moved(tensor)
            if (made and self.is_read_unmoved(tensor)) or (not made and self.readers(tensor)):
                yield tensor


def _move_part(part: _Part, ctx: Context) -> None:
    before, after = list(part.transposes_before()), list(part.transposes_after())
    if len(after) >= len(before):  # (1)
        return None
    anchor = part.nodes[0]
    sizes = _elements(before), _elements(after)
    if sizes[0] is not None and sizes[1] is not None and sizes[1] > _MAX_MORE_ELEMENTS * sizes[0]:
        return ctx.refuse(NAME, anchor, "fewer Transposes would move more elements")
    if _growth_bytes(part) > ctx.max_growth_bytes:  # (2)
        return ctx.refuse(NAME, anchor, "constants needed in both layouts would grow the model")
    detail = f"{len(part.nodes)} nodes change layout: {len(before)} Transposes become {len(after)}"
    if ctx.fuel(NAME, anchor, detail):
        _apply(part)
    return None


def _elements(tensors: Iterable[Variable]) -> int | None:
    sizes = [elements(tensor) for tensor in tensors]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _constants(part: _Part) -> Iterator[tuple[Node, Constant]]:
    for node in part.nodes:
        for index in part.region.movable[node].inputs:
            if isinstance(node.inputs[index], Constant):
                yield node, node.inputs[index]


def _growth_bytes(part: _Part) -> int:
    shared = dict.fromkeys(
        constant
        for _, constant in _constants(part)
        if any(reader not in part.moving for reader in constant.outputs)
    )
    return sum(constant.nbytes for constant in shared)


def _apply(part: _Part) -> None:
    """Rewrite the operators of the part, and the Transposes around it."""
    region, graph = part.region, part.region.graph
    back = inverse(region.perm)
    second: dict[Tensor, Tensor] = {}
    for tensor, use in part.uses.items():
        if use.maker in region.starts and use.maker is not None:
            second[tensor] = use.maker.inputs[0]
            continue
        made = second[tensor] = _second_form(tensor, region)
        if use.maker not in part.moving:
            at = min(part.readers(tensor), key=part.order.__getitem__)
            graph.insert([_transpose(tensor, made, back, graph)], at=at)
    constants: dict[Constant, Constant] = {}
    for _, constant in _constants(part):
        if constant not in constants:
            values = moved_constant(constant, region.perm)
            constants[constant] = graph.constant(values, f"{constant.name}_transposed")
            second[constant] = constants[constant]
    old: list[Tensor] = list(constants)
    for node in part.nodes:
        old.extend(node.inputs)
        _replace(node, part, second)
    ends = [node for use in part.uses.values() for node in use.readers if node in region.ends]
    for node in sorted(ends, key=lambda end: end is not None and end.outputs[0].is_output):
        if node is not None:
            source = second[node.inputs[0]]
            second[node.inputs[0]] = node.outputs[0] if node.outputs[0].is_output else source
            graph.bypass(node, source)
    for tensor, use in part.uses.items():
        if (
            use.maker in region.starts
            and use.maker is not None
            and not part.is_read_unmoved(tensor)
        ):
            graph.remove(use.maker)
    drop_unused(graph, old)


def _replace(node: Node, part: _Part, second: dict[Tensor, Tensor]) -> None:
    region, graph = part.region, part.region.graph
    how = region.movable[node]
    inputs: list[Tensor] = [
        second[tensor] if index in how.inputs else tensor
        for index, tensor in enumerate(node.inputs)
    ]
    for index, values in how.constants.items():
        made = graph.constant(values, f"{node.key}_{index}")
        inputs[index : index + 1] = [made]  # or appended, where the input was omitted
    outputs = list(node.outputs)
    attrs = {**node.attrs, **how.attrs}
    graph.remove(node)
    transposes = []
    if not how.keeps_outputs:
        for index, out in enumerate(outputs):
            if not out.name:
                continue
            other = second[out]
            assert isinstance(other, Variable)
            outputs[index] = other
            if part.is_read_unmoved(out):
                transposes.append(_transpose(other, out, region.perm, graph))
    graph.insert([graph.make(node.op, inputs, outputs, attrs, like=node), *transposes], at=node)


def _second_form(tensor: Variable, region: _Region) -> Variable:
    made = region.graph.variable(f"{tensor.name}_moved")
    made.dtype = tensor.dtype
    if tensor.shape is not None:
        made.shape = [tensor.shape[axis] for axis in inverse(region.perm)]
    return made


def _transpose(source: Variable, out: Variable, perm: Perm, graph: Graph) -> Node:
    return Node(
        "Transpose", [source], [out], {"perm": perm}, graph.fresh_name(f"{out.name}_transpose")
    )


PASS = GraphPass(NAME, rewrite)
