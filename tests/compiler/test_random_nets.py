"""Random nets as one region, with random templates and tiles: right, and nothing written outside.

Each net follows from its number alone, so a failure is seen again with `-k "[17]"`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from onnx import ModelProto

from ort_optim.compiler.lower import Choice
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.templates import TEMPLATES
from tests.compiler.regions import Net, check
from tests.kernels.harness import AVX2, AVX512

FEW, MANY = 24, 400
MOST_PIXELS = 6000
RTOL = 2e-3  # of several layers of F(4x4) one after another, in nets whose sums cancel


@dataclass(frozen=True)
class Tensor:
    name: str
    C: int
    H: int
    W: int


class RandomNet:
    """A net of some layers, each on tensors that are there already."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.net = Net(seed)
        self.batch = self.random.choice((1, 1, 2, 3))
        self.shapes: list[tuple[int, ...]] = []
        self.tensors: list[Tensor] = []
        for _ in range(self.random.choice((1, 1, 2))):
            self.add_input()
        for _ in range(self.random.randint(4, 9)):
            self.add_layer()

    def model(self) -> ModelProto:
        """The net; its outputs are what nobody reads, and perhaps something else."""
        read = {name for node in self.net.nodes for name in node.input}
        made = [each.name for each in self.tensors if each.name.startswith("t")]
        outputs = [name for name in made if name not in read or self.random.random() < 0.15]
        return self.net.model(*outputs)

    def add_input(self) -> None:
        channels = self.random.choice((1, 3, 4, 8, 16, 17, 24, 32, 33, 48))
        height, width = self.random.choice(
            (
                (self.random.randint(1, 40), self.random.randint(1, 40)),
                (self.random.randint(1, 6), self.random.randint(50, 900)),
                (32, 32),
            )
        )
        dims = self.batch, channels, height, width
        known = [each if self.random.random() < 0.5 else None for each in dims]
        self.shapes.append(dims)
        name = self.net.input(known[0], channels, *known[2:])
        self.tensors.append(Tensor(name, channels, height, width))

    def add_layer(self) -> None:
        makers: list[Callable[[Tensor], Tensor | None]] = [
            *[self.conv] * 6,
            *[self.activation, self.binary, self.concat] * 2,
            *[self.pool, self.gate, self.resize, self.transposed, self.widen, self.pick],
        ]
        made = None
        while made is None:
            x = self.random.choice(self.tensors[-4:])
            made = self.random.choice(makers)(x)
        self.tensors.append(made)

    def conv(self, x: Tensor) -> Tensor | None:
        choice = self.random.choice
        k, stride, dilation = choice((1, 1, 1, 3, 3, 5)), choice((1, 1, 1, 2)), choice((1, 1, 1, 2))
        group = choice((1, 1, 1, 1, x.C, 2 if x.C % 2 == 0 else 1))
        channels = group * -(-choice((1, 4, 6, 16, 17, 31, 32, 48, 64, 70)) // group)
        if group == x.C:
            channels = x.C
        reach = dilation * (k - 1)
        pads = [reach // 2] * 4 if choice((True, True, False)) else self.uneven(reach)
        height = (x.H + pads[0] + pads[2] - reach - 1) // stride + 1
        width = (x.W + pads[1] + pads[3] - reach - 1) // stride + 1
        if min(height, width) < 1:
            return None
        name = self.net.conv(
            x.name,
            x.C,
            channels,
            k,
            group,
            bias=choice((True, True, False)),
            pads=pads,
            strides=[stride, stride],
            dilations=[dilation, dilation],
        )
        return Tensor(name, channels, height, width)

    def uneven(self, reach: int) -> list[int]:
        return [self.random.randint(0, reach) for _ in range(4)]

    def transposed(self, x: Tensor) -> Tensor | None:
        if 4 * x.H * x.W > MOST_PIXELS:
            return None
        channels, k = self.random.choice((1, 8, 16, 20)), self.random.choice((2, 3, 4))
        weights = self.net.weights(x.C, channels, k, k, scale=(x.C * k * k) ** -0.5)
        name = self.net.add("ConvTranspose", x.name, weights, strides=[2, 2])
        return Tensor(name, channels, 2 * (x.H - 1) + k, 2 * (x.W - 1) + k)

    def activation(self, x: Tensor) -> Tensor:
        op = self.random.choice(("Relu", "Sigmoid", "LeakyRelu", "HardSwish", "Tanh"))
        return Tensor(self.net.add(op, x.name), x.C, x.H, x.W)

    def binary(self, x: Tensor) -> Tensor | None:
        others = [each for each in self.tensors if (each.C, each.H, each.W) == (x.C, x.H, x.W)]
        op = self.random.choice(("Add", "Add", "Mul"))
        other = self.random.choice(others)
        return Tensor(self.net.add(op, x.name, other.name), x.C, x.H, x.W)

    def concat(self, x: Tensor) -> Tensor | None:
        others = [each for each in self.tensors if (each.H, each.W) == (x.H, x.W) and each != x]
        if not others:
            return None
        other = self.random.choice(others)
        name = self.net.add("Concat", x.name, other.name, axis=1)
        return Tensor(name, x.C + other.C, x.H, x.W)

    def pick(self, x: Tensor) -> Tensor:
        count = self.random.choice((x.C, self.random.randint(1, 40)))
        channels = [self.random.randrange(x.C) for _ in range(count)]
        name = self.net.add("Gather", x.name, self.net.constant(np.array(channels)), axis=1)
        return Tensor(name, count, x.H, x.W)

    def widen(self, x: Tensor) -> Tensor:
        more = self.random.choice((1, 4, 16, 21))
        pads = self.net.constant(np.array([0, 0, 0, 0, 0, more, 0, 0]))
        return Tensor(self.net.add("Pad", x.name, pads), x.C + more, x.H, x.W)

    def pool(self, x: Tensor) -> Tensor | None:
        if min(x.H, x.W) < 2:
            return None
        op = self.random.choice(("MaxPool", "AveragePool"))
        name = self.net.add(op, x.name, kernel_shape=[2, 2], strides=[2, 2])
        return Tensor(name, x.C, x.H // 2, x.W // 2)

    def gate(self, x: Tensor) -> Tensor:
        mean = self.net.conv(self.net.add("GlobalAveragePool", x.name), x.C, x.C)
        name = self.net.add("Mul", x.name, self.net.add("Sigmoid", mean))
        return Tensor(name, x.C, x.H, x.W)

    def resize(self, x: Tensor) -> Tensor | None:
        if 4 * x.H * x.W > MOST_PIXELS:
            return None
        scales = self.net.constant(np.array([1, 1, 2, 2], np.float32))
        mode = self.random.choice(("nearest", "linear"))
        name = self.net.add("Resize", x.name, "", scales, mode=mode)
        return Tensor(name, x.C, 2 * x.H, 2 * x.W)


def choose_anything(seed: int) -> Callable[[ConvSpec, Isa], Choice]:
    """Any template that takes the convolution, with any of its tiles."""
    source = random.Random(seed)

    def choose(spec: ConvSpec, isa: Isa) -> Choice:
        template = source.choice([t for t in TEMPLATES if t.supports(spec, isa) is None])
        return Choice(template, source.choice(list(template.tiles(spec, isa))))

    return choose


def check_net(seed: int) -> None:
    made = RandomNet(seed)
    isa, threads = made.random.choice((AVX2, AVX512)), made.random.choice((1, 2, 5))
    choose = choose_anything(seed)
    check(made.model(), isa, choose, *made.shapes, rtol=RTOL, threads=threads)


@pytest.mark.parametrize("seed", range(FEW))
def test_nets(seed: int) -> None:
    check_net(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FEW, MANY))
def test_many_nets(seed: int) -> None:
    check_net(seed)
