"""Cuts any set of nodes out of a model as a model of its own.

Extractor   the model: `extract` -> a valid model of some of its nodes
Recorder    the values that its tensors have on one input set, read when they are first needed

Names stay: a tensor of the part is the tensor of that name in the whole. What nodes read and none
of them makes becomes an input of the part, or, where a pass may want to know its value, a constant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, numpy_helper

from ort_optim.engine import Engine, EngineError, ModelSource, Value
from ort_optim.errors import WorkerError
from ort_optim.graph.skeleton import SKELETON_BYTES, copy_fields, skeleton_model
from ort_optim.graph.weights import is_external, size_bytes
from ort_optim.verify.replay import in_order, reads, tap

MOST_CONSTANT_ELEMENTS = (
    64  # a cut tensor of integers, a shape most likely, that becomes a constant
)


class Recorder:
    """Values of a model's tensors; `source` is what the engine opens, `feeds` what it is fed.

    A tensor that ONNX Runtime can't hand out has none.
    """

    def __init__(
        self, engine: Engine, model: ModelProto, source: ModelSource, feeds: Mapping[str, Value]
    ) -> None:
        self._engine = engine
        self._model = model, source
        self._feeds = feeds
        self._values: dict[str, Value] = dict(feeds)
        self._missing: set[str] = set()

    def values(self, names: Iterable[str]) -> dict[str, Value]:
        """Those of `names` that have a value."""
        wanted = list(dict.fromkeys(names))
        self._record([n for n in wanted if n not in self._values and n not in self._missing])
        return {name: self._values[name] for name in wanted if name in self._values}

    def feeds(self, part: ModelProto) -> dict[str, Value] | None:
        """What a part of the model is fed with; None where some value can't be had."""
        constant = {tensor.name for tensor in part.graph.initializer}
        names = [value.name for value in part.graph.input if value.name not in constant]
        found = self.values(names)
        return found if len(found) == len(set(names)) else None

    def _record(self, names: Sequence[str]) -> None:
        if not names:
            return
        try:
            self._values.update(tap(self._engine, self._model, self._feeds, names))
        except (EngineError, WorkerError):
            if len(names) == 1:
                self._missing.update(names)
                return
            half = len(names) // 2
            self._record(names[:half])
            self._record(names[half:])


class Extractor:
    """A model whose nodes are numbered in the order of execution, from 0 to `count` - 1.

    Without a `recorder`, types that can't be inferred are not known, and no cut is a constant.
    """

    def __init__(self, model: ModelProto, recorder: Recorder | None = None) -> None:
        self._model = model
        self._recorder = recorder
        self._nodes = in_order(model.graph.node)
        self.count = len(self._nodes)
        graph = model.graph
        self._reads = [reads(node) for node in self._nodes]
        self._made = {name for node in self._nodes for name in node.output}
        self._used = set().union(*self._reads) | {value.name for value in graph.output}
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._sparse = {each.values.name: each for each in graph.sparse_initializer}
        self._inputs = {value.name: value for value in graph.input}
        self._outputs = {value.name for value in graph.output}
        self._types = _types(model)
        self._is_checked = is_valid(model)

    def extract(
        self, kept: Sequence[int], *, all_outputs: bool = False, constants: bool = False
    ) -> ModelProto | None:
        """The model of the nodes `kept`; None where a type is not known or it would not be valid.

        Its outputs are what none of these nodes reads; with `all_outputs` also what the whole model
        gives out. With `constants`, small tensors of integers that are cut become initializers.
        """
        model, graph = self._model, self._model.graph
        part = ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
        part.opset_import.extend(model.opset_import)
        part.functions.extend(model.functions)
        part.metadata_props.extend(model.metadata_props)
        part.graph.name = graph.name or "graph"
        part.graph.node.extend(self._nodes[i] for i in kept)
        made = [name for i in kept for name in self._nodes[i].output if name]
        read = dict.fromkeys(name for i in kept for name in sorted(self._reads[i]))
        cut = [n for n in read if n not in set(made) and self._is_outer(n)]
        values = self._constants(cut) if constants else {}
        for name, value in values.items():
            part.graph.initializer.append(numpy_helper.from_array(value, name))
        part.graph.initializer.extend(t for t in graph.initializer if t.name in read)
        part.graph.sparse_initializer.extend(s for n, s in self._sparse.items() if n in read)
        names = [n for n in self._inputs if n in read]
        names += [n for n in cut if n not in self._inputs and n not in values]
        infos = [self._info(name) for name in names]
        outputs = [n for n in made if n in self._used and n not in read]
        outputs += [n for n in made if all_outputs and n in self._outputs and n not in outputs]
        results = [self._info(name) for name in outputs or made[-1:]]
        if None in infos or None in results:
            return None
        part.graph.input.extend(info for info in infos if info is not None)
        part.graph.output.extend(info for info in results if info is not None)
        return part if not self._is_checked or is_valid(part) else None

    @property
    def has_inner_outputs(self) -> bool:
        """Whether the model gives out what its own nodes read."""
        return any(name in each for each in self._reads for name in self._outputs)

    def _is_outer(self, name: str) -> bool:
        """Whether a name that nodes read is a tensor of the main graph, and not a constant."""
        if name in self._initializers or name in self._sparse:
            return False
        return name in self._inputs or name in self._made

    def _constants(self, cut: Sequence[str]) -> dict[str, np.ndarray]:
        inner = [name for name in cut if name not in self._inputs]
        found = self._recorder.values(inner) if self._recorder else {}
        return {
            name: value
            for name, value in found.items()
            if isinstance(value, np.ndarray)
            and value.dtype.kind in "iub"
            and value.size <= MOST_CONSTANT_ELEMENTS
        }

    def _info(self, name: str) -> ValueInfoProto | None:
        """A tensor's type as it is declared or inferred, else as it was recorded."""
        if name not in self._types and self._recorder:
            value = self._recorder.values([name]).get(name)
            if isinstance(value, np.ndarray):
                text = value.dtype.kind in "OSU"
                element = TensorProto.STRING if text else _element_type(value)
                self._types[name] = onnx.helper.make_tensor_value_info(name, element, value.shape)
        return self._types.get(name)


def is_valid(model: ModelProto) -> bool:
    """Whether onnx's checker accepts the model; large weights are taken for inputs."""
    try:
        onnx.checker.check_model(_without_weights(model))
    except (onnx.checker.ValidationError, ValueError):
        return False
    return True


def _without_weights(model: ModelProto) -> ModelProto:
    """A copy in which large and external initializers are inputs instead."""
    bare = ModelProto()
    copy_fields(model, bare, skip=frozenset({"graph"}))
    copy_fields(model.graph, bare.graph, skip=frozenset({"initializer"}))
    taken = {value.name for value in bare.graph.input}
    for tensor in model.graph.initializer:
        if not is_external(tensor) and size_bytes(tensor) <= SKELETON_BYTES:
            bare.graph.initializer.append(tensor)
        elif tensor.name not in taken:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            bare.graph.input.append(info)
    return bare


def _types(model: ModelProto) -> dict[str, ValueInfoProto]:
    """What is declared and what onnx infers, by name."""
    bare = skeleton_model(model)
    try:
        bare = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError):
        bare = model
    infos: Collection[ValueInfoProto] = [
        *bare.graph.value_info,
        *model.graph.input,
        *model.graph.output,
    ]
    return {info.name: info for info in infos if _is_known(info)}


def _is_known(info: ValueInfoProto) -> bool:
    kind = info.type.WhichOneof("value")
    return kind is not None and (kind != "tensor_type" or info.type.tensor_type.elem_type != 0)


def _element_type(value: np.ndarray) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(value.dtype))
