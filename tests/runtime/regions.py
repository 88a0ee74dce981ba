"""A region made by hand, without the compiler: `x + relu(x * w)` in two steps with a packed w."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ort_optim.compiler.plan import Pointer, RegionPlan, Row, Step

HEADER_BYTES = 64
DOMAIN = "ort_optim"


@dataclass(frozen=True)
class Code:
    """A flat piece of machine code in a file."""

    path: Path
    entries: dict[str, int]


def compile_code(folder: Path) -> Code:
    """kernels.c as a code file; skips the test where there is no GNU tool chain."""
    if missing := [tool for tool in ("gcc", "ld", "objcopy", "nm") if shutil.which(tool) is None]:
        pytest.skip(f"needs {missing[0]}")
    source = Path(__file__).with_name("kernels.c")
    linked = folder / "kernels.elf"
    flags = "-O2 -ffreestanding -fPIC -fno-builtin -fno-stack-protector -fcf-protection=none"
    _call("gcc", *flags.split(), "-c", source, "-o", folder / "kernels.o")
    layout = ("-static", "--build-id=none", f"-Ttext={HEADER_BYTES:#x}", "-e", "pack")
    _call("ld", *layout, folder / "kernels.o", "-o", linked)
    _call("objcopy", "-O", "binary", "-j", ".text", linked, folder / "kernels.bin")
    symbols = (line.split() for line in _call("nm", linked).splitlines())
    entries = {name: int(address, 16) for address, kind, name in symbols if kind == "T"}
    path = folder / "kernels.code"
    path.write_bytes(bytes(HEADER_BYTES) + (folder / "kernels.bin").read_bytes())
    path.chmod(0o600)
    return Code(path, entries)


def _call(*command: str | Path) -> str:
    clean = {**os.environ, "LD_PRELOAD": ""}  # the tools are not what a sanitizer should watch
    return subprocess.run(command, check=True, capture_output=True, text=True, env=clean).stdout


def plan_of(code: Code, channels: int, name: str = "R_test", repeats: int = 1) -> RegionPlan:
    """The plan for x (N, channels, H, W) and w (channels, 1, 1).

    `repeats` runs the two steps so many times over, for measurements.
    """
    program: list[Row] = []

    def row(operation: str, a: int = 0, b: int = 0) -> int:
        program.append((operation, a, b))
        return len(program) - 1

    n, c, h, w = (row("dim", 0, axis) for axis in range(4))
    wc, w1, w2 = (row("dim", 1, axis) for axis in range(3))
    zero, one, four = row("const", 0), row("const", 1), row("const", 4)
    plane = row("mul", h, w)
    plane_bytes = row("mul", plane, four)
    planes = row("mul", n, c)
    total_bytes = row("mul", planes, plane_bytes)
    x, packed, arena = (Pointer(kind, 0, zero) for kind in ("input", "packed", "arena"))
    weights, y = Pointer("input", 1, zero), Pointer("output", 0, zero)
    entries = code.entries
    return RegionPlan(
        name=name,
        ranks=(4, 3),
        outputs=((n, c, h, w),),
        program=tuple(program),
        guards=((c, channels), (wc, channels), (w1, 1), (w2, 1)),
        packed_bytes=(channels * 4,),
        pack_steps=(Step(0, entries["pack"], (packed, weights), (wc,), one, zero, "pack"),),
        slots=((total_bytes, plane_bytes),),
        steps=(
            Step(
                0, entries["scale_relu"], (x, packed, arena), (plane, c), planes, plane_bytes,
                "scale_relu",
            ),
            Step(0, entries["add"], (x, arena, y), (plane,), planes, zero, "add"),
        ) * repeats,
        images=(code.path,),
    )  # fmt: skip


def expected(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return x + np.maximum(x * w, 0)


def model_of(
    w: np.ndarray,
    name: str = "R_test",
    dims: tuple[int | str, ...] = ("N", "C", "H", "W"),
    *,
    constant: bool = True,
    with_shape: bool = False,
) -> onnx.ModelProto:
    """A model that calls the region once, its body being the standard nodes.

    `with_shape` adds an output `shape`, the Shape of the region's output.
    """
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    body = [
        helper.make_node("Mul", ["x", "w"], ["scaled"]),
        helper.make_node("Relu", ["scaled"], ["positive"]),
        helper.make_node("Add", ["x", "positive"], ["y"]),
    ]
    function = helper.make_function(DOMAIN, name, ["x", "w"], ["y"], body, opsets[:1])
    nodes = [helper.make_node(name, ["x", "w"], ["y"], domain=DOMAIN, name="call")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    if with_shape:
        nodes.append(helper.make_node("Shape", ["y"], ["shape"]))
        outputs.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [4]))
    weights = [onnx.numpy_helper.from_array(w, "w")] if constant else []
    if not constant:
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, w.shape))
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8)
