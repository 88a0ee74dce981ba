"""What a rewrite pass is, and what it is given.

A pass is one file with a `PASS` at its end and one line in the ordered tuple of `__init__.py`.
Most passes are a `NodePass`: a function that looks at one node, and either refuses with a reason
or rewrites. It asks for fuel after all its checks and immediately before it changes the graph:

    def rewrite(node: Node, graph: Graph, ctx: Context) -> None:
        ...checks, each `return ctx.refuse(NAME, node, "why not")` or a plain return
        if ctx.fuel(NAME, node, "what is done"):
            ...change the graph
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import onnx

from ort_optim.engine import Engine
from ort_optim.graph.view import Graph, Node


@dataclass(frozen=True)
class Rewrite:
    """One granted rewrite; `number` counts from 0 in the order of granting."""

    number: int
    pass_name: str
    node: str  # Node.key of the node at which it was applied
    op: str
    graph: str
    detail: str


@dataclass(frozen=True)
class Refusal:
    """One rewrite that was looked at and not made."""

    pass_name: str
    node: str
    op: str
    reason: str


@dataclass
class Context:
    """What the passes of one run share: the fuel, the log, and the way to compute constants.

    `limit` grants only the first so many rewrites (bisection); `denied` names rewrites found
    guilty, as (pass name, node key). `max_growth_bytes` bounds what folding may add to the model.
    """

    engine: Engine
    limit: int | None = None
    denied: frozenset[tuple[str, str]] = frozenset()
    max_growth_bytes: int = 1 << 20
    rewrites: list[Rewrite] = field(default_factory=list)
    refusals: dict[Refusal, None] = field(default_factory=dict)

    def fuel(self, pass_name: str, node: Node, detail: str) -> bool:
        """Whether this rewrite may be made. If so it is counted: the caller must make it."""
        if (pass_name, node.key) in self.denied:
            self.refuse(pass_name, node, "denied: it made the outputs differ or the model slower")
            return False
        if self.limit is not None and len(self.rewrites) >= self.limit:
            return False
        graph = node.graph.name if node.graph is not None else ""
        self.rewrites.append(
            Rewrite(len(self.rewrites), pass_name, node.key, node.op, graph, detail)
        )
        return True

    def refuse(self, pass_name: str, node: Node, reason: str) -> None:
        """Record why a rewrite that nearly matched is not made; told once per node and reason."""
        self.refusals[Refusal(pass_name, node.key, node.op, reason)] = None

    def evaluate(self, model: onnx.ModelProto) -> Mapping[str, Any]:
        """Run a small model without inputs and return its outputs. Raises EngineError."""
        handle = self.engine.open(model)
        try:
            return self.engine.run(handle, {})
        finally:
            self.engine.close(handle)


class Pass(Protocol):
    """A rewrite of the whole view. Each one is idempotent and can be turned off by name."""

    @property
    def name(self) -> str:
        """Lower case with hyphens, as `--disable` takes it."""

    @property
    def waits(self) -> bool:
        """Whether it runs only when those that don't wait have nothing left to do."""

    def run(self, root: Graph, ctx: Context) -> None:
        """Change the view as far as fuel allows."""


@dataclass(frozen=True)
class GraphPass:
    """A pass that needs to see the whole view at once."""

    name: str
    rewrite: Callable[[Graph, Context], None]
    waits: bool = False

    def run(self, root: Graph, ctx: Context) -> None:
        self.rewrite(root, ctx)
        for graph in root.walk():
            graph.settle()


@dataclass(frozen=True)
class NodePass:
    """A pass that looks at one node at a time, in the order of execution, subgraphs included."""

    name: str
    anchors: frozenset[str]
    rewrite: Callable[[Node, Graph, Context], None]
    waits: bool = False

    def run(self, root: Graph, ctx: Context) -> None:
        for graph in list(root.walk()):
            for node in graph.nodes:
                if not node.dead and node.is_op(*self.anchors):
                    self.rewrite(node, graph, ctx)
        for graph in root.walk():
            graph.settle()


def names(passes: Sequence[Pass]) -> tuple[str, ...]:
    """The passes' names, in order."""
    return tuple(each.name for each in passes)
