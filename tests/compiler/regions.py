"""Whole graphs as one region, run by the executor and by ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ort_optim.compiler.build import compile_all
from ort_optim.compiler.cache import CodeCache
from ort_optim.compiler.draft import Draft, finish
from ort_optim.compiler.layers import Convolution, LayerGraph
from ort_optim.compiler.lower import Choice, lower
from ort_optim.compiler.parse import Input, parse
from ort_optim.compiler.plan import RegionPlan
from ort_optim.compiler.scope import TensorFact
from ort_optim.graph.regions.region import PARAMETERS
from ort_optim.kernels.base import Tile
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.templates import TEMPLATES
from tests.compiler.executor import Executor
from tests.compiler.plain import Plain

Array = NDArray[np.float32]
Chooser = Callable[[ConvSpec, Isa], Choice]


@cache
def code_cache() -> CodeCache:
    """One for all tests of this run."""
    held = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    _HELD.append(held)
    return CodeCache(Path(held.name) / "code")


_HELD: list[tempfile.TemporaryDirectory[str]] = []


def prefer(*names: str) -> Chooser:
    """The first of these templates that can, with its first tile; else the first of all others."""

    def choose(spec: ConvSpec, isa: Isa) -> Choice:
        order = [t for name in names for t in TEMPLATES if t.name == name]
        for template in (*order, *TEMPLATES[::-1]):
            if template.supports(spec, isa) is None:
                return Choice(template, next(iter(template.tiles(spec, isa))))
        raise AssertionError(f"no template for {spec}")

    return choose


def plainly(spec: ConvSpec, isa: Isa) -> Choice:
    """The plain template, which reads and writes NCHW."""
    return Choice(Plain(), Tile())


def all_blocked(spec: ConvSpec, isa: Isa) -> Choice:
    """The plain template on blocked tensors alone."""
    return Choice(Plain(nchw=False), Tile())


def layers_of(model: ModelProto) -> LayerGraph | str:
    """The main graph as one region; initializers are its weights."""
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = node.attribute[0].t
    body = [node for node in graph.node if node.op_type != "Constant"]
    weights = [name for name in constants if _is_weight(name, constants, body)]
    inputs = []
    for info in graph.input:
        dims = tuple(
            d.dim_value if d.HasField("dim_value") else None
            for d in info.type.tensor_type.shape.dim
        )
        inputs.append(Input(info.name, TensorFact(info.type.tensor_type.elem_type, dims), False))
    for name in weights:
        tensor = constants.pop(name)
        inputs.append(Input(name, TensorFact(tensor.data_type, tuple(tensor.dims)), True))
    outputs = [info.name for info in graph.output]
    return parse("R_test", body, constants, inputs, outputs, model.opset_import[0].version)


def _is_weight(name: str, constants: Mapping[str, TensorProto], body: Sequence[NodeProto]) -> bool:
    tensor = constants[name]
    if tensor.data_type != TensorProto.FLOAT:
        return False
    places = [(n.op_type, i) for n in body for i, each in enumerate(n.input) if each == name]
    if any(op in ("Resize", "Upsample") for op, _ in places):
        return False
    return int(np.prod(tensor.dims)) > 1 or any(op in PARAMETERS for op, _ in places)


def draft_of(model: ModelProto, isa: Isa, choose: Chooser) -> Draft:
    """The steps of a model that is one region."""
    graph = layers_of(model)
    assert isinstance(graph, LayerGraph), graph
    specs = [each.op.spec for each in graph.convolutions if isinstance(each.op, Convolution)]
    found = lower(graph, [choose(spec, isa) for spec in specs], isa)
    assert isinstance(found, Draft), found
    return found


def plan_of(model: ModelProto, isa: Isa, choose: Chooser) -> RegionPlan:
    """The plan of a model that is one region."""
    draft = draft_of(model, isa, choose)
    found = finish(draft, compile_all(draft.kernels, isa, code_cache(), workers=0))
    assert isinstance(found, RegionPlan), found
    return found


def weights_of(model: ModelProto) -> list[Array]:
    """The weights of `layers_of`, in order."""
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    body = [node for node in graph.node if node.op_type != "Constant"]
    return [
        numpy_helper.to_array(t) for n, t in constants.items() if _is_weight(n, constants, body)
    ]


def run_plan(plan: RegionPlan, model: ModelProto, *inputs: Array, threads: int = 1) -> list[Array]:
    """The outputs of the region."""
    constants = [None] * len(inputs) + weights_of(model)
    return Executor(plan, constants, threads).run(*inputs)


def run_ort(model: ModelProto, *inputs: Array) -> list[Array]:
    """The outputs of the model in ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = dict(zip((i.name for i in session.get_inputs()), inputs, strict=True))
    found: list[Array] = session.run(None, feeds)
    return found


class Net:
    """A small model, written node by node: methods add a node and give its output's name."""

    def __init__(self, seed: int = 0, opset: int = 18) -> None:
        self.random = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.constants: list[TensorProto] = []

    def input(self, *dims: int | str | None) -> str:
        name = f"x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
        return name

    def constant(self, array: np.ndarray | float) -> str:
        name = f"c{len(self.constants)}"
        array = np.asarray(array, np.float32) if isinstance(array, float) else array
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def weights(self, *dims: int, scale: float = 1.0) -> str:
        return self.constant(scale * self.random.standard_normal(dims).astype(np.float32))

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"t{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(
            helper.make_node(op, inputs, names, name=f"n{len(self.nodes)}", **attributes)
        )
        return names[0]

    def conv(
        self,
        x: str,
        cin: int,
        cout: int,
        k: int = 1,
        group: int = 1,
        bias: bool = True,
        **attributes: object,
    ) -> str:
        scale = (cin // group * k * k) ** -0.5
        given = [x, self.weights(cout, cin // group, k, k, scale=scale)]
        if bias:
            given.append(self.weights(cout))
        attributes.setdefault("pads", [k // 2] * 4)
        return self.add("Conv", *given, group=group, **attributes)

    def model(self, *outputs: str) -> ModelProto:
        infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
        graph = helper.make_graph(self.nodes, "g", self.inputs, infos, self.constants)
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8
        )
        return onnx.shape_inference.infer_shapes(made)


def check(
    model: ModelProto,
    isa: Isa,
    choose: Chooser,
    *shapes: tuple[int, ...],
    rtol: float = 1e-4,
    threads: int = 1,
    plan: RegionPlan | None = None,
) -> RegionPlan:
    """The region gives what ONNX Runtime gives, within `rtol` of the largest number."""
    random = np.random.default_rng(1)
    plan = plan or plan_of(model, isa, choose)
    inputs = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    expected = run_ort(model, *inputs)
    found = run_plan(plan, model, *inputs, threads=threads)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        if b.size:
            assert np.abs(a - b).max() <= rtol * max(1.0, float(np.abs(b).max()))
    return plan
