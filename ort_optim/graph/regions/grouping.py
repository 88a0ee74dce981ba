"""Which nodes of a model become regions.

group      the regions, and why other anchors are left out
Grouping   both together

A region is a convex group of eligible nodes that hang together, as large as can be, without the
fringes that gain nothing from it.
    (1) leading: a node that no anchor of the group leads to. It works on what the region takes
        from outside, in a layout that is not the region's.
    (2) trailing: a node after the last anchor stays if it works on what the region makes alone
        (an activation, a pooling, a concat of two branches), or element by element (the sum with
        a residual from outside), as such fuse with what is before them. Others go, and with them
        what comes after.
Without its fringes a group may fall apart, or may be merged with others, so this is repeated
until no node goes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from ort_optim.graph.regions.naming import operator_sets, plain_domain, unfit
from ort_optim.graph.regions.partition import components, convex_groups, fringes
from ort_optim.graph.regions.region import Region, make_region
from ort_optim.graph.regions.wiring import Wiring, is_constant
from ort_optim.graph.walk import STANDARD_DOMAINS, node_graphs, subgraphs

Eligible = Callable[[NodeProto], str | None]
"""Why a node may not be in a region, None if it may."""

IsAnchor = Callable[[NodeProto], bool]
"""Whether a region may be made for the sake of this node."""

ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Min", "Max", "Pow", "PRelu", "Sum", "Mean"})
"""Operators of several inputs that fuse with what makes one of them."""

MOST_ROUNDS = 16  # then what is left of the groups is taken as it is
OLDEST_IR = 4

INSIDE_SUBGRAPH = "inside a subgraph"
UNREAD = "nothing reads what it makes"
CYCLE = "the graph has a cycle"
OLD_INPUTS = "the weights are inputs of the graph too: freeze them first"


@dataclass(frozen=True)
class LeftOut:
    """An anchor that no region holds, and why."""

    node: NodeProto
    reason: str


@dataclass(frozen=True)
class Grouping:
    """The regions in the order of their first nodes, and the anchors that none of them holds."""

    regions: tuple[Region, ...]
    left_out: tuple[LeftOut, ...]


def group(model: ModelProto, eligible: Eligible, is_anchor: IsAnchor) -> Grouping:
    """Find the regions of a model's main graph.

    Deterministic, and near to linear in time. The regions refer to the model's own nodes.
    """
    wiring = Wiring(model.graph)
    general = _general_reason(model, wiring)
    imports = operator_sets(model.opset_import)
    functions = {(plain_domain(f.domain), f.name) for f in model.functions}
    reasons: dict[int, str] = {}
    members: set[int] = set()
    anchors = {i for i, node in enumerate(wiring.nodes) if is_anchor(node)}
    for i, node in enumerate(wiring.nodes):
        reason = general or eligible(node) or _reason(node, imports, functions)
        if reason is None:
            members.add(i)
        else:
            reasons[i] = reason
    regions = []
    for found in _groups(wiring, members, anchors):
        region = make_region(wiring, found, anchors, imports.get("", 0))
        if region.outputs:
            regions.append(region)
        else:
            reasons |= dict.fromkeys(anchors.intersection(found), UNREAD)
    left_out = [LeftOut(wiring.nodes[i], reasons[i]) for i in sorted(anchors & reasons.keys())]
    if wiring.has_cycle:
        left_out += [LeftOut(node, CYCLE) for node in model.graph.node if is_anchor(node)]
    _, *inner = subgraphs(model.graph)
    left_out += [LeftOut(n, INSIDE_SUBGRAPH) for g in inner for n in g.node if is_anchor(n)]
    return Grouping(tuple(regions), tuple(left_out))


def _general_reason(model: ModelProto, wiring: Wiring) -> str | None:
    """Why no node of the model may be in a region."""
    if model.ir_version < OLDEST_IR and model.graph.initializer:
        inputs = {value.name for value in model.graph.input}
        if any(tensor.name in inputs for tensor in model.graph.initializer):
            return OLD_INPUTS
    return None


def _reason(
    node: NodeProto, imports: Collection[str], functions: Collection[tuple[str, str]]
) -> str | None:
    """Why no region can hold the node, whatever code there is for it."""
    if is_constant(node):
        return "it is a constant"
    if any(True for _ in node_graphs(node)):
        return "it holds a subgraph"
    if plain_domain(node.domain) not in imports:
        return f"no one operator set is imported of '{node.domain}'"
    if (plain_domain(node.domain), node.op_type) in functions:
        return "it calls a function"
    return unfit(node)


def _groups(wiring: Wiring, members: set[int], anchors: Collection[int]) -> list[list[int]]:
    """Sorted groups without fringes, each with an anchor."""
    after, before = wiring.successors, wiring.predecessors

    def may_trail(number: int, kept: Collection[int]) -> bool:
        node = wiring.nodes[number]
        if node.domain in STANDARD_DOMAINS and node.op_type in ELEMENTWISE:
            return True
        return all(
            wiring.producer.get(name) in kept or name in wiring.constants
            for name in node.input
            if name
        )

    members = _led_to(wiring, members, anchors)
    for _ in range(MOST_ROUNDS):
        groups = convex_groups(after, members)
        dropped: set[int] = set()
        for found in groups:
            dropped |= fringes(after, before, found, anchors.__contains__, may_trail)
        if not dropped:
            return groups
        members = members - dropped
    return [part for found in groups for part in components(after, members.intersection(found))]


def _led_to(wiring: Wiring, members: set[int], anchors: Collection[int]) -> set[int]:
    """The members that are anchors or that anchors lead to through members."""
    found: set[int] = set()
    for number in sorted(members):
        if number in anchors or not found.isdisjoint(wiring.predecessors[number]):
            found.add(number)
    return found
