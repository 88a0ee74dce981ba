"""`ConvSpec`: one 2-D float32 convolution, as plain data for templates, rule and cost models.

Letters, here and in every template:

    N               batch
    Cin, Cout       input and output channels, all groups together
    H, W            height and width of the input, without padding
    OH, OW          height and width of the output
    KH, KW          height and width of the kernel, without dilation
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConvSpec:
    """A Conv or ConvTranspose as ONNX defines them, float32, with two spatial dimensions.

    What the generated code depends on is always known: channels, kernel, strides, dilations, pads
    (with `auto_pad` resolved) and groups. The sizes N, H and W may be None: given at run time.

    Attributes:
        Cin, Cout: Channels in and out, all groups together.
        kernel: (KH, KW).
        strides, dilations: (vertical, horizontal).
        pads: (top, left, bottom, right), ONNX's order. Zeros around the input; in a transposed
            convolution what is cut from the output.
        group: Groups; divides Cin and Cout.
        N, H, W: Batch, height and width of the input, each None where not known.
        transposed: Whether this is a ConvTranspose.
        output_padding: (vertical, horizontal) rows and columns added below and to the right of the
            output of a ConvTranspose.

    Raises:
        ValueError: a field is out of its range, or the groups do not divide the channels.
    """

    Cin: int
    Cout: int
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    group: int = 1
    N: int | None = None
    H: int | None = None
    W: int | None = None
    transposed: bool = False
    output_padding: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        positive = (self.Cin, self.Cout, self.group, *self.kernel, *self.strides, *self.dilations)
        if min(positive) < 1:
            raise ValueError(f"channels, group, kernel, strides and dilations start at 1: {self!r}")
        known = [size for size in (self.N, self.H, self.W) if size is not None]
        if min((*self.pads, *self.output_padding, *known)) < 0:
            raise ValueError(f"a negative padding or size: {self!r}")
        if self.Cin % self.group or self.Cout % self.group:
            raise ValueError(f"{self.group} groups do not divide the channels: {self!r}")
        if any(self.output_padding) and not self.transposed:
            raise ValueError(f"only a transposed convolution has output_padding: {self!r}")

    @property
    def KH(self) -> int:  # noqa: N802
        """Height of the kernel, without dilation."""
        return self.kernel[0]

    @property
    def KW(self) -> int:  # noqa: N802
        """Width of the kernel, without dilation."""
        return self.kernel[1]

    @property
    def OH(self) -> int | None:  # noqa: N802
        """Height of the output; None where H is not known, 0 where the kernel does not fit."""
        return self._output_size(self.H, 0)

    @property
    def OW(self) -> int | None:  # noqa: N802
        """Width of the output; None where W is not known, 0 where the kernel does not fit."""
        return self._output_size(self.W, 1)

    @property
    def group_Cin(self) -> int:  # noqa: N802
        """Input channels of one group: the channels each output channel sums over."""
        return self.Cin // self.group

    @property
    def group_Cout(self) -> int:  # noqa: N802
        """Output channels of one group."""
        return self.Cout // self.group

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width that the kernel spans, with dilation."""
        return (self.KH - 1) * self.dilations[0] + 1, (self.KW - 1) * self.dilations[1] + 1

    @property
    def is_depthwise(self) -> bool:
        """Whether every group has one input channel. One channel in one group is not depthwise but
        a first layer: its outputs all read the same channel."""
        return self.group == self.Cin and self.group > 1

    @property
    def multiplier(self) -> int:
        """Output channels for each input channel of a depthwise convolution.

        Raises ValueError for any other convolution.
        """
        if not self.is_depthwise:
            raise ValueError(f"not a depthwise convolution: {self}")
        return self.group_Cout

    @property
    def is_pointwise(self) -> bool:
        """Whether the kernel is 1x1 with no padding, so that it is a matrix product."""
        return self.kernel == (1, 1) and not any(self.pads)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """ONNX's shape of the weights: (Cout, Cin/group, KH, KW), (Cin, Cout/group, KH, KW) where
        transposed."""
        if self.transposed:
            return self.Cin, self.group_Cout, *self.kernel
        return self.Cout, self.group_Cin, *self.kernel

    @property
    def macs(self) -> int | None:
        """Multiply-adds by the definition, those on padding included; None where N, H or W is not
        known."""
        if self.N is None or self.H is None or self.W is None:
            return None
        height, width = (self.H, self.W) if self.transposed else (self.OH, self.OW)
        assert height is not None
        assert width is not None
        channels = self.Cin * self.Cout // self.group
        return self.N * height * width * channels * self.KH * self.KW

    def __str__(self) -> str:
        """Short, for tables and labels: `3x3 64->128 s2 g4 d2 @56x56`."""
        parts = [f"{self.KH}x{self.KW}", f"{self.Cin}->{self.Cout}"]
        if self.transposed:
            parts.append("transposed")
        for letter, pair in (("s", self.strides), ("d", self.dilations)):
            if pair != (1, 1):
                parts.append(f"{letter}{pair[0]}" + (f"x{pair[1]}" if pair[0] != pair[1] else ""))
        if self.group > 1:
            parts.append(f"g{self.group}")
        if self.H is not None and self.W is not None:
            batch = f"{self.N}x" if self.N not in (None, 1) else ""
            parts.append(f"@{batch}{self.H}x{self.W}")
        return " ".join(parts)

    def _output_size(self, size: int | None, axis: int) -> int | None:
        if size is None:
            return None
        padding = self.pads[axis] + self.pads[axis + 2]
        stride, extent = self.strides[axis], self.extent[axis]
        if self.transposed:
            return max(0, (size - 1) * stride + extent + self.output_padding[axis] - padding)
        return max(0, (size + padding - extent) // stride + 1)
