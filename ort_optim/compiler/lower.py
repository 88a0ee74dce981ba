"""From layers to steps: layouts, memory, kernels and their arguments.

    Choice    a template and its tile, for one convolution
    lower     layers and choices -> Draft, or why there is none

Inside a region tensors are blocked. What comes in and goes out is NCHW: a convolution reads or
writes that itself where its template can and nobody else needs the value blocked; else a step of
its own converts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ort_optim.compiler import emit
from ort_optim.compiler.draft import Draft, DraftStep, Reference
from ort_optim.compiler.fuse import fuse, live
from ort_optim.compiler.layers import (
    Applied,
    Concat,
    Convolution,
    Layer,
    LayerGraph,
    Normal,
    Slice,
    Weight,
    Widen,
)
from ort_optim.compiler.placement import Placement, Target, exports, place
from ort_optim.compiler.scope import Refusal
from ort_optim.kernels.base import ConvTemplate, Launch, Tile
from ort_optim.kernels.borders import launch_clear_halo, launch_export, launch_import
from ort_optim.kernels.channels import launch_clear_channels, launch_copy_channels
from ort_optim.kernels.elementwise import launch_pack_channels
from ort_optim.kernels.epilogue import Epilogue
from ort_optim.kernels.isa import FLOAT_BYTES, Isa
from ort_optim.kernels.normalization import launch_pack_normalization
from ort_optim.kernels.sizes import Size
from ort_optim.kernels.tensors import Halo, Layout, blocked, nchw, no_halo


@dataclass(frozen=True)
class Choice:
    """How one convolution is computed."""

    template: ConvTemplate
    tile: Tile


MOST_LABEL = 100

Choices = Sequence[Choice]
"""One for each convolution of a region, in the body's order."""


def lower(graph: LayerGraph, choices: Choices, isa: Isa) -> Draft | str:
    """The steps of a region, or the reason why it can't be compiled.

    `graph` is as `parse` gave it; its size program grows.
    """
    convolutions = graph.convolutions
    if len(choices) != len(convolutions):
        return f"{len(choices)} choices for {len(convolutions)} convolutions"
    for layer in convolutions:
        assert isinstance(layer.op, Convolution)
        choice, spec = choices[layer.op.number], layer.op.spec
        reason = choice.template.supports(spec, isa) or choice.template.check(
            spec, choice.tile, isa
        )
        if reason is not None:
            return f"{layer.label}: {choice.template.name} {choice.tile}: {reason}"
    try:
        return _Lowering(fuse(graph), choices, isa).draft()
    except Refusal as error:
        return str(error)


@dataclass(frozen=True)
class _Tensor:
    """A view of a buffer: how it lies, and where it begins in bytes."""

    kind: Literal["input", "output", "arena"]
    index: int
    layout: Layout
    offset: Size

    @property
    def reference(self) -> Reference:
        return Reference(self.kind, self.index, self.offset)


@dataclass
class _Buffer:
    """Blocked memory of a value, with those that lie in it."""

    index: int
    layout: Layout
    is_begun: bool = False


@dataclass
class _Lowering:
    """One region on its way from layers to steps."""

    graph: LayerGraph
    choices: Choices
    isa: Isa
    packed_bytes: list[int] = field(default_factory=list)
    pack_steps: list[DraftStep] = field(default_factory=list)
    steps: list[DraftStep] = field(default_factory=list)
    tensor_bytes: list[Size] = field(default_factory=list)

    def __post_init__(self) -> None:
        graph = self.graph
        self.sizes = graph.sizes
        self.reads = Counter(value for layer in graph.layers for value in layer.reads)
        self.exports = exports(graph, lambda value: self.reads[value])
        self.layers = live(graph.layers, self.exports)
        self.reads = Counter(value for layer in self.layers for value in layer.reads)
        self.made_nchw = {layer.output for layer in self.layers if self._writes_nchw(layer)}
        self.read_nchw = self._inputs_read_as_they_are()
        self.packed: dict[object, Reference] = {}
        self.buffers: dict[int, _Buffer] = {}
        self.placement: Placement = place(
            replace(graph, layers=tuple(self.layers)),
            self.isa.lanes,
            lambda value: value not in self.made_nchw | self.read_nchw,
        )
        self.halos = self._halos()
        self.imported: set[int] = set()

    def draft(self) -> Draft:
        """All steps, in order."""
        graph = self.graph
        for layer in self.layers:
            self._add_layer(layer)
            self._export(layer.output)
        for value in range(len(graph.activations)):
            if value in self.exports:
                self._export(value)
        shapes = [graph.shapes[value] for value in graph.outputs]
        return Draft(
            name=graph.name,
            sizes=self.sizes,
            ranks=graph.ranks,
            outputs=tuple((s.N, self.sizes.const(s.C), s.H, s.W) for s in shapes),
            guards=graph.guards,
            packed_bytes=tuple(self.packed_bytes),
            pack_steps=tuple(self.pack_steps),
            tensor_bytes=tuple(self.tensor_bytes),
            steps=tuple(self.steps),
        )

    # Who reads and writes what how

    def _layouts(self, layer: Layer) -> tuple[frozenset[str], frozenset[str]]:
        """Layouts in which a layer can read its input, and write its output."""
        if not isinstance(layer.op, Convolution):
            return frozenset({"blocked"}), frozenset({"blocked"})
        choice = self.choices[layer.op.number]
        return choice.template.layouts(layer.op.spec, choice.tile, self.isa)

    def _writes_nchw(self, layer: Layer) -> bool:
        """Whether its output goes out of the region only, and it can well write it there itself."""
        return (
            not self.reads[layer.output]
            and len(self.exports.get(layer.output, ())) == 1
            and "nchw" in self._layouts(layer)[1]
        )

    def _inputs_read_as_they_are(self) -> set[int]:
        """Inputs of the region of which no blocked copy is needed."""
        found = set(range(len(self.graph.activations))) - self.exports.keys()
        for layer in self.layers:
            readable = layer.inputs if "nchw" in self._layouts(layer)[0] else ()
            found -= set(layer.reads) - set(readable)
            found -= set(layer.operands)
        return found

    def _halos(self) -> dict[int, Halo]:
        """The halo of each memory: wide enough for all who read what lies in it."""
        found: dict[int, Halo] = {}
        for layer in self.layers:
            for value in layer.inputs:
                if value in self.read_nchw:
                    continue
                root, _ = self.placement.root(value)
                halo = self._halo(layer, value)
                found[root] = halo.join(found[root]) if root in found else halo
        return found

    def _halo(self, layer: Layer, value: int) -> Halo:
        shape = self.graph.shapes[value]
        if isinstance(layer.op, Convolution):
            choice = self.choices[layer.op.number]
            return choice.template.halo(layer.op.spec, choice.tile, shape.H, shape.W)
        return no_halo(self.sizes)

    # Where values are

    def _buffer(self, root: int) -> _Buffer:
        if root not in self.buffers:
            shape = self.graph.shapes[root]
            halo = self.halos.get(root, no_halo(self.sizes))
            layout = blocked(shape.N, shape.C, shape.H, shape.W, self.isa.lanes, halo)
            self.buffers[root] = _Buffer(len(self.tensor_bytes), layout)
            self.tensor_bytes.append(layout.floats * FLOAT_BYTES)
        return self.buffers[root]

    def _blocked(self, value: int) -> _Tensor:
        """A value in blocked memory."""
        root, channel = self.placement.root(value)
        buffer, shape = self._buffer(root), self.graph.shapes[value]
        whole = buffer.layout
        layout = replace(whole, N=shape.N, C=shape.C, H=shape.H, W=shape.W)
        offset = whole.origin + whole.plane * (channel // self.isa.lanes)
        return _Tensor("arena", buffer.index, layout, offset * FLOAT_BYTES)

    def _nchw_input(self, value: int) -> _Tensor:
        shape = self.graph.shapes[value]
        layout = nchw(shape.N, shape.C, shape.H, shape.W)
        return _Tensor("input", self.graph.activations[value], layout, self.sizes.const(0))

    def _nchw_output(self, value: int, target: Target) -> _Tensor:
        whole = self.graph.shapes[self.graph.outputs[target.output]]
        shape = self.graph.shapes[value]
        layout = nchw(whole.N, whole.C, whole.H, whole.W)
        offset = layout.plane * (target.channel * FLOAT_BYTES)
        view = replace(layout, N=shape.N, C=shape.C, H=shape.H, W=shape.W)
        return _Tensor("output", target.output, view, offset)

    def _read(self, value: int) -> _Tensor:
        """A value that a step reads blocked; an input of the region is converted first."""
        tensor = self._blocked(value)
        if value < len(self.graph.activations) and value not in self.imported:
            self.imported.add(value)
            source = self._nchw_input(value)
            root, _ = self.placement.root(value)
            if root == value:
                self.buffers[root].is_begun = True  # this conversion clears the halo
            self._begin(value)
            launch = launch_import(self.isa, source.layout, tensor.layout)
            self._step(launch, {"x": source, "y": tensor}, "Import")
        return tensor

    def _write(self, value: int) -> _Tensor:
        """A value that a step is about to make."""
        if value in self.made_nchw:
            return self._nchw_output(value, self.exports[value][0])
        self._begin(value)
        return self._blocked(value)

    def _begin(self, value: int) -> None:
        """Clear the halo of the memory that a value lies in, before the first step that writes."""
        root, _ = self.placement.root(value)
        buffer = self._buffer(root)
        if buffer.is_begun:
            return
        buffer.is_begun = True
        halo = buffer.layout.halo
        if any(side.known != 0 for side in (halo.top, halo.left, halo.bottom, halo.right)):
            tensor = self._blocked(root)
            self._step(launch_clear_halo(self.isa, tensor.layout), {"x": tensor}, "ClearHalo")

    def _export(self, value: int) -> None:
        """Write a value to the outputs of the region that it goes to."""
        if value in self.made_nchw:
            return
        for target in self.exports.get(value, ()):
            source, output = self._read(value), self._nchw_output(value, target)
            launch = launch_export(self.isa, source.layout, output.layout)
            self._step(launch, {"x": source, "y": output}, "Export")

    # Steps

    def _step(
        self,
        launch: Launch,
        tensors: Mapping[str, _Tensor],
        label: str,
        packed: Mapping[str, Reference] | None = None,
    ) -> None:
        pointers = {name: tensor.reference for name, tensor in tensors.items()}
        pointers |= packed or {}
        values: dict[str, Size] = {}
        for name, tensor in tensors.items():
            values |= tensor.layout.values(name)
        arguments = values | dict(launch.values)
        self.steps.append(DraftStep(launch, pointers, arguments, _label(label, launch)))

    def _add_layer(self, layer: Layer) -> None:
        if isinstance(layer.op, Concat):
            self._add_concat(layer)
        elif isinstance(layer.op, Slice):
            self._add_slice(layer)
        elif isinstance(layer.op, Widen):
            self._add_widened(layer)
        else:
            self._add_computation(layer)

    def _add_concat(self, layer: Layer) -> None:
        channel = 0
        for number, part in enumerate(layer.inputs):
            count = self.graph.shapes[part].C
            source = self._read(part)
            if not self.placement.is_at(part, layer.output, channel):
                whole = self._write(layer.output)
                last = number == len(layer.inputs) - 1
                launch = launch_copy_channels(
                    self.isa, source.layout, whole.layout, count, 0, channel, last=last
                )
                self._step(launch, {"x": source, "y": whole}, layer.label)
            channel += count

    def _add_slice(self, layer: Layer) -> None:
        assert isinstance(layer.op, Slice)
        source = self._read(layer.inputs[0])
        if self.placement.is_at(layer.output, layer.inputs[0], layer.op.start):
            return
        part = self._write(layer.output)
        count = self.graph.shapes[layer.output].C
        launch = launch_copy_channels(
            self.isa, source.layout, part.layout, count, layer.op.start, 0, last=True
        )
        self._step(launch, {"x": source, "y": part}, layer.label)

    def _add_widened(self, layer: Layer) -> None:
        part = layer.inputs[0]
        source, first = self._read(part), self.graph.shapes[part].C
        whole = self._write(layer.output)
        if not self.placement.is_at(part, layer.output, 0):
            launch = launch_copy_channels(
                self.isa, source.layout, whole.layout, first, 0, 0, last=True
            )
            self._step(launch, {"x": source, "y": whole}, layer.label)
            first = source.layout.planes * self.isa.lanes
        if first < whole.layout.C:
            launch = launch_clear_channels(self.isa, whole.layout, first)
            self._step(launch, {"x": whole}, layer.label)

    def _add_computation(self, layer: Layer) -> None:
        value = layer.inputs[0]
        x = self._nchw_input(value) if value in self.read_nchw else self._read(value)
        tensors = {"x": x}
        packed: dict[str, Reference] = {}
        for number, applied in enumerate(layer.epilogue):
            if isinstance(applied.operand, int):
                tensors[f"e{number}"] = self._read(applied.operand)
            elif applied.operand is not None:
                packed[f"e{number}"] = self._packed_constant(applied.operand)
        tensors["y"] = y = self._write(layer.output)
        epilogue = _epilogue(layer.epilogue)
        if isinstance(layer.op, Convolution):
            choice = self.choices[layer.op.number]
            packed["w"] = self._packed_weights(layer, layer.op, choice)
            launch = choice.template.launch(
                layer.op.spec, choice.tile, self.isa, epilogue, x.layout, y.layout
            )
        else:
            launch = emit.launch(layer.op, epilogue, x.layout, y.layout)
        self._step(launch, tensors, layer.label, packed)

    def _packed_weights(self, layer: Layer, op: Convolution, choice: Choice) -> Reference:
        packing = choice.template.packing(
            op.spec, choice.tile, self.isa, bias=op.bias is not None, sizes=self.sizes
        )
        inputs = {"w": op.weight} | ({} if op.bias is None else {"b": op.bias})
        return self._pack(packing.launch, inputs, packing.bytes, layer.label)

    def _packed_constant(self, constant: Weight | Normal) -> Reference:
        if isinstance(constant, Weight):
            launch, size = launch_pack_channels(self.isa, max(constant.dims), self.sizes)
            return self._pack(launch, {"x": constant}, size, "Constant")
        of = constant.of
        C, epsilon = of.scale.dims[0], of.epsilon
        launch, size = launch_pack_normalization(self.isa, C, epsilon, self.sizes)
        inputs = {"scale": of.scale, "bias": of.bias, "mean": of.mean, "variance": of.variance}
        found = self._pack(launch, inputs, size, "BatchNormalization")
        half = self.sizes.const(size // 2)
        return found if constant.part == "factor" else replace(found, offset=half)

    def _pack(
        self, launch: Launch, inputs: Mapping[str, Weight], size: int, label: str
    ) -> Reference:
        """The packed weights that a launch makes; equal ones are made once."""
        key = (launch.kernel, tuple(weight.input for weight in inputs.values()), size)
        if key not in self.packed:
            zero = self.sizes.const(0)
            found = Reference("packed", len(self.packed_bytes), zero)
            pointers = {name: Reference("input", w.input, zero) for name, w in inputs.items()}
            pointers["packed"] = found
            text = _label(label, launch)
            self.pack_steps.append(DraftStep(launch, pointers, launch.values, text))
            self.packed_bytes.append(size)
            self.packed[key] = found
        return self.packed[key]


def _label(layer: str, launch: Launch) -> str:
    """The layer and its kernel, cut short: the native library takes up to 255 bytes."""
    name = layer.encode("ascii", "replace").decode()
    return f"{name[-MOST_LABEL:]}: {launch.kernel.name}"[: 2 * MOST_LABEL]


def _epilogue(applied: Sequence[Applied]) -> Epilogue:
    return Epilogue(tuple(each.operation for each in applied))
