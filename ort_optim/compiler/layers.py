"""A region as a list of layers on four-dimensional tensors: what `lower` makes steps of.

Shape        N, C, H, W of a value, C known, the others sizes
Weight       a constant input of the region
Normal       a constant made of the four of a BatchNormalization
Layer        one operation and what is applied to its result in passing
LayerGraph   layers in order; values are numbered, the region's activations first

Convolution, MaxPool, AveragePool, GlobalAveragePool, Elementwise, Concat, Slice, Pick, Widen,
Resize, Pad  the operations, plain data
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ort_optim.kernels.epilogue import Operation
from ort_optim.kernels.sizes import Size, Sizes
from ort_optim.kernels.spec import ConvSpec

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]
"""Top, left, bottom, right: ONNX's order."""


@dataclass(frozen=True)
class Shape:
    """The dimensions of a value. A size is the same as another if its row of the program is."""

    N: Size
    C: int
    H: Size
    W: Size

    @property
    def known(self) -> tuple[int | None, int, int | None, int | None]:
        """What is known before the region runs."""
        return self.N.known, self.C, self.H.known, self.W.known


@dataclass(frozen=True)
class Weight:
    """A constant input of the region: its number among the inputs, and its dimensions."""

    input: int
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Convolution:
    """Conv and ConvTranspose.

    Attributes:
        spec: What it computes; N, H and W are pinned where the model pins them.
        weight, bias: Its constants.
        number: Which of the region's convolutions it is, in the body's order.
    """

    spec: ConvSpec
    weight: Weight
    bias: Weight | None
    number: int


@dataclass(frozen=True)
class Window:
    """How a pooling goes over an image."""

    kernel: Pair
    strides: Pair
    pads: Pads
    dilations: Pair
    ceil_mode: bool


@dataclass(frozen=True)
class MaxPool:
    """The largest number of each window; padding does not count."""

    window: Window


@dataclass(frozen=True)
class AveragePool:
    """The mean of each window; padding counts where it is included."""

    window: Window
    count_include_pad: bool


@dataclass(frozen=True)
class GlobalAveragePool:
    """The mean of each channel of each image: (N, C, H, W) -> (N, C, 1, 1)."""


@dataclass(frozen=True)
class Elementwise:
    """Nothing by itself: all it does is in its epilogue."""


@dataclass(frozen=True)
class Concat:
    """Channels of all inputs, one behind the other."""


@dataclass(frozen=True)
class Slice:
    """Channels from `start` on, as many as the output has."""

    start: int


@dataclass(frozen=True)
class Pick:
    """Channel `channels[i]` of the input as channel i."""

    channels: tuple[int, ...]


@dataclass(frozen=True)
class Widen:
    """All channels of the input, and behind them zeros, for as many as the output has."""


@dataclass(frozen=True)
class Resize:
    """Another height and width.

    Attributes:
        mode: How numbers between pixels are found.
        coordinates: ONNX's `coordinate_transformation_mode`.
        nearest: ONNX's `nearest_mode`.
        scales: Vertical and horizontal, where they are given; else they are output / input size.
    """

    mode: Literal["nearest", "linear"]
    coordinates: str
    nearest: str
    scales: tuple[float, float] | None


@dataclass(frozen=True)
class Pad:
    """More rows and columns, or fewer where negative."""

    pads: Pads
    mode: Literal["constant", "edge", "reflect"]
    number: float


Op: TypeAlias = (
    Convolution
    | MaxPool
    | AveragePool
    | GlobalAveragePool
    | Elementwise
    | Concat
    | Slice
    | Pick
    | Widen
    | Resize
    | Pad
)


@dataclass(frozen=True)
class Normalization:
    """The constants of a BatchNormalization, which computes x * factor + shift per channel.

    factor = scale / sqrt(variance + epsilon), shift = bias - mean * factor
    """

    scale: Weight
    bias: Weight
    mean: Weight
    variance: Weight
    epsilon: float


@dataclass(frozen=True)
class Normal:
    """One of the two numbers per channel that a BatchNormalization comes down to."""

    of: Normalization
    part: Literal["factor", "shift"]


@dataclass(frozen=True)
class Applied:
    """An operation of an epilogue, with what it reads beside: a value's number or constants."""

    operation: Operation
    operand: int | Weight | Normal | None = None


@dataclass(frozen=True)
class Layer:
    """One operation.

    Attributes:
        op: What it computes from its inputs, which are values.
        inputs: Their numbers.
        output: The number of the value it makes, with the epilogue applied.
        label: The node it comes from, for people.
        epilogue: What is applied in passing.
    """

    op: Op
    inputs: tuple[int, ...]
    output: int
    label: str
    epilogue: tuple[Applied, ...] = ()

    @property
    def operands(self) -> tuple[int, ...]:
        """Values that the epilogue reads."""
        return tuple(each.operand for each in self.epilogue if isinstance(each.operand, int))

    @property
    def reads(self) -> tuple[int, ...]:
        """All values it reads."""
        return self.inputs + self.operands


@dataclass(frozen=True)
class LayerGraph:
    """The layers of a region, in order.

    Attributes:
        name: The region's.
        sizes: The size program, of which all shapes are rows.
        ranks: Rank of each input of the region.
        activations: Inputs of the region that are values; value i is input `activations[i]`.
        shapes: Shape of each value.
        layers: In an order in which they can be computed.
        outputs: Value of each output of the region.
        guards: Sizes that must be equal for the code to be right.
    """

    name: str
    sizes: Sizes
    ranks: tuple[int, ...]
    activations: tuple[int, ...]
    shapes: tuple[Shape, ...]
    layers: tuple[Layer, ...]
    outputs: tuple[int, ...]
    guards: tuple[tuple[Size, Size], ...] = field(default=())

    @property
    def convolutions(self) -> tuple[Layer, ...]:
        """Layers that a template is chosen for, in order."""
        return tuple(each for each in self.layers if isinstance(each.op, Convolution))
