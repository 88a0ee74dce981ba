"""Whole models with their regions in NumPy, in plain ONNX Runtime and in code of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from ort_optim.engine import Engine
from ort_optim.graph.regions import DOMAIN
from ort_optim.hardware import Target, detect, load_target
from ort_optim.kernels.isa import Isa
from ort_optim.kernels.spec import ConvSpec
from ort_optim.kernels.templates import TEMPLATES
from ort_optim.kernels.winograd_transforms import F23, F43, Transform
from ort_optim.runtime import library
from ort_optim.runtime.machine import isa_of
from ort_optim.runtime.prepare import prepare
from ort_optim.runtime.reference import ReferenceSession
from ort_optim.runtime.session import CPU, stats
from tests.compiler.regions import Net, code_cache
from tests.runtime.tiled import Chosen, Tiled, preferring, rewritten, tiled

Array = NDArray[np.float32]
EPSILON = 2.0**-24

MODELS = {  # by name templates that it is to have where they can be had
    "digits_resnet": ("winograd_f43",),
    "shapes_mobilenet": ("first_layer", "depthwise", "pointwise"),
    "shapes_detector": ("winograd_f23", "pointwise"),
    "textures_unet": ("winograd_f43", "direct"),
    "photo_superres": ("direct",),
    "ocr_bilstm": ("winograd_f23",),
}

COMPILED = ("digits_resnet", "ocr_bilstm")  # others would only take time to compile


def here() -> Target:
    target = detect()
    if not isinstance(isa_of(target), Isa):
        pytest.skip("no code can be made for this machine")
    return target


@cache
def tiled_once(path: Path, engine: Engine, target: str) -> Tiled:
    """A model, made for a target, that shows what its regions give besides its own outputs."""
    made_for = here() if target == "native" else load_target(target)
    model = rewritten(path, engine)
    found = tiled(model, made_for, preferring(made_for, *MODELS[path.stem]))
    graph = found.model.graph
    known = {each.name for each in graph.output}
    inner = {name for node in graph.node if node.domain == DOMAIN for name in node.output}
    graph.output.extend(each for each in graph.value_info if each.name in inner - known)
    return found


def growth(transform: Transform) -> float:
    """How much larger than a plain sum's the rounding errors of a Winograd tile come out: each
    number of the transformed tile has an error of its own, in proportion to its own size."""
    A, G, B = (np.asarray(each, float) for each in (transform.AT, transform.G, transform.BT))
    one_axis = A**2 @ ((G**2).sum(1) * (B**2).sum(1))
    return float(one_axis.max()) / G.shape[1]


def variance(template: str, spec: ConvSpec) -> float:
    """Of a result's error in roundings of the largest number: what is summed up is rounded once for
    each term, where errors cancel like the random numbers that they are."""
    if template.startswith("winograd"):
        transform = {"winograd_f23": F23, "winograd_f43": F43}[template]
        return growth(transform) ** 2 * (spec.Cin + 4 * transform.n)
    return spec.group_Cin * spec.KH * spec.KW + 1


def bound(found: Tiled) -> float:
    """Of all errors, relative to the largest number: each convolution adds its own."""
    return EPSILON * math.sqrt(sum(variance(*each) for each in found.convolutions))


def plain(model: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])


def compiled(model: ModelProto) -> onnxruntime.InferenceSession:
    prepared = prepare(model, here(), 1, code_cache())
    assert not prepared.left
    assert prepared.extension is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    library.stage(prepared.extension.blob)
    options.register_custom_ops_library(str(prepared.extension.library))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])


def sample(path: Path) -> dict[str, Array]:
    with np.load(path.with_suffix(".eval.npz")) as arrays:
        return {name: arrays[name][:1] for name in arrays}


def run(session: onnxruntime.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def assert_close(found: dict[str, Array], wanted: dict[str, Array], relative: float) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape
        if value.dtype != np.float32:
            assert (found[name] == value).mean() > 0.999, name  # near ties of ArgMax
        else:
            assert np.abs(found[name] - value).max() <= relative * np.abs(value).max(), name


@pytest.mark.parametrize("name", MODELS)
def test_a_model_in_numpy_is_the_model(name: str, own_models: Path, engine: Engine) -> None:
    path = own_models / f"{name}.onnx"
    found = tiled_once(path, engine, "native")
    session = ReferenceSession(found.model)
    assert not stats(session).left
    feeds = sample(path)
    given = run(session, feeds)
    assert_close(given, run(plain(found.model), feeds), bound(found))
    if name in COMPILED:
        assert_close(given, run(compiled(found.model), feeds), bound(found))


def test_every_template_is_in_a_model(own_models: Path, engine: Engine) -> None:
    used = {
        template
        for name in MODELS
        for template, _ in tiled_once(own_models / f"{name}.onnx", engine, "native").convolutions
    }
    assert used == {each.name for each in TEMPLATES}


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4"])
def test_a_model_made_for_another_machine(target: str, own_models: Path, engine: Engine) -> None:
    path = own_models / "shapes_detector.onnx"
    found = tiled_once(path, engine, target)
    session = ReferenceSession(found.model)
    assert not stats(session).left
    feeds = sample(path)
    assert_close(run(session, feeds), run(plain(found.model), feeds), bound(found))


def whole(*dims: int, seed: int = 0) -> Array:
    """Small whole numbers."""
    return np.random.default_rng(seed).integers(-2, 3, dims).astype(np.float32)


def exact_network() -> ModelProto:
    """Whole numbers and quarters that stay small: nothing is ever rounded, in no order of sums.

    Only the last layer rounds where it is of F(4x4), whose transform has irrational factors.
    """
    net = Net(opset=18)

    def conv(x: str, cin: int, cout: int, k: int, group: int = 1, stride: int = 1) -> str:
        weights = net.constant(whole(cout, cin // group, k, k, seed=len(net.nodes)))
        bias = net.constant(whole(cout, seed=len(net.nodes) + 1))
        strides = [stride] * 2
        return net.add("Conv", x, weights, bias, group=group, pads=[k // 2] * 4, strides=strides)

    def clipped(x: str) -> str:
        return net.add("Clip", x, net.constant(-2.0), net.constant(6.0))

    x = net.input("batch", 3, "height", "width")
    first = clipped(conv(x, 3, 20, 3, stride=2))
    wide = clipped(conv(first, 20, 24, 1))
    deep = clipped(conv(wide, 24, 24, 3, group=24))
    sums = clipped(net.add("Add", conv(deep, 24, 20, 3), first))
    pool = net.add("MaxPool", sums, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    mean = net.add("AveragePool", sums, kernel_shape=[2, 2], pads=[0, 0, 1, 1], count_include_pad=1)
    joined = net.add("Concat", pool, mean, axis=1)
    part = net.add("Slice", joined, *(net.constant(np.array([i])) for i in (7, 39, 1)))
    grouped = clipped(conv(part, 32, 12, 5, group=2))
    kernel = net.constant(whole(12, 8, 2, 2, seed=77))
    larger = clipped(net.add("ConvTranspose", grouped, kernel, strides=[2, 2]))
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    twice = net.add("Resize", larger, "", scales, mode="nearest")
    around = net.add("Pad", twice, net.constant(np.array([0, 0, 1, 2, 0, 0, 0, 1])), mode="edge")
    return net.model(conv(around, 8, 5, 3), around, sums)


def test_where_nothing_is_rounded_all_agree_to_the_last_bit() -> None:
    target = here()

    def chosen(spec: ConvSpec) -> Chosen | None:
        last = (spec.Cin, spec.Cout) == (8, 5)
        order = ["winograd_f43"] if last else ["first_layer", "depthwise", "pointwise"]
        return preferring(target, *order, "winograd_f23", "direct")(spec)

    found = tiled(exact_network(), target, chosen)
    assert {name for name, _ in found.convolutions} == {each.name for each in TEMPLATES}
    assert [node.domain for node in found.model.graph.node] == [DOMAIN]
    (last,) = (each for each in found.convolutions if each[0] == "winograd_f43")
    rounded = EPSILON * math.sqrt(variance(*last))
    session, others = ReferenceSession(found.model), (compiled(found.model), plain(found.model))
    assert not stats(session).left
    for shape in ((1, 3, 20, 17), (3, 3, 9, 31), (1, 3, 1, 1)):
        feeds = {"x0": whole(*shape, seed=5)}
        given = session.run(None, feeds)
        assert all(each.any() for each in given)
        for other in others:
            first, *rest = other.run(None, feeds)
            largest = np.abs(first).max()
            np.testing.assert_allclose(given[0], first, rtol=0, atol=rounded * largest)
            for mine, exact in zip(given[1:], rest, strict=True):
                np.testing.assert_array_equal(mine, exact)


def test_an_empty_batch() -> None:
    target = load_target("x86-64-v4")
    found = tiled(exact_network(), target, preferring(target, "winograd_f43"))
    session, feeds = ReferenceSession(found.model), {"x0": whole(0, 3, 8, 8)}
    shapes = [each.shape for each in session.run(None, feeds)]
    assert shapes == [each.shape for each in plain(found.model).run(None, feeds)]
