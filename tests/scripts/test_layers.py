"""The list of real convolution layers, and the models that benchmarks make of it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import _layers
import onnx
import pytest
from _layers import CLASSES, Layer, chain_of, conv_model, layer_class, read_layers, write_layers
from onnx import helper

from ort_optim.kernels.spec import ConvSpec
from tests.scripts.test_slices import run_script

PLAIN = ConvSpec(64, 64, (3, 3), pads=(1, 1, 1, 1), N=1, H=14, W=14)


def test_the_list_has_each_layer_once_and_every_class() -> None:
    layers = read_layers()
    assert len({layer.spec for layer in layers}) == len(layers)
    assert {layer_class(layer.spec) for layer in layers} == set(CLASSES)
    assert all(layer.count >= len(layer.models) for layer in layers)


def test_the_class_column_is_what_the_code_says() -> None:
    with _layers.LAYERS_FILE.open(newline="") as lines:
        written = [row["class"] for row in csv.DictReader(lines)]
    assert written == [layer_class(layer.spec) for layer in read_layers()]


def test_the_list_comes_back_as_it_was_written(tmp_path: Path) -> None:
    odd = ConvSpec(
        *(8, 4, (2, 3)),
        **{"strides": (2, 1), "dilations": (1, 2), "pads": (0, 1, 2, 3), "group": 2},
        **{"N": 5, "H": 6, "W": 7, "transposed": True, "output_padding": (1, 0)},
    )
    layers = [Layer(PLAIN, ("a", "b"), 3), Layer(odd, ("c",), 1)]
    write_layers(layers, tmp_path / "list.csv")
    assert read_layers(tmp_path / "list.csv") == layers
    assert _layers.spec_of_row(_layers.to_row(layers[1])) == odd


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "3x3s1"),
        ({"kernel": (1, 1), "pads": (0, 0, 0, 0), "strides": (2, 2)}, "pointwise"),
        ({"strides": (2, 2)}, "strided"),
        ({"dilations": (2, 2)}, "other"),
        ({"group": 64}, "depthwise"),
        ({"group": 4}, "grouped"),
        ({"Cin": 4}, "first"),
        ({"transposed": True, "group": 64}, "transposed"),
    ],
)
def test_classes(changes: dict[str, object], name: str) -> None:
    assert layer_class(replace(PLAIN, **changes)) == name


def test_a_square_layer_chains_with_itself() -> None:
    assert chain_of(PLAIN) == [PLAIN] * 4


def test_without_padding_each_layer_of_a_chain_reads_what_the_last_one_wrote() -> None:
    chain = chain_of(replace(PLAIN, pads=(0, 0, 0, 0)))
    assert chain is not None
    assert [(spec.H, spec.W) for spec in chain] == [(14, 14), (12, 12), (10, 10), (8, 8)]


def test_other_channels_go_there_and_back_with_equal_work() -> None:
    chain = chain_of(replace(PLAIN, Cout=32))
    assert chain is not None
    assert [(spec.Cin, spec.Cout) for spec in chain] == [(64, 32), (32, 64)] * 2
    assert len({spec.macs for spec in chain}) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"strides": (2, 2)},
        {"Cin": 3},
        {"transposed": True},
        {"group": 64, "Cout": 128},
        {"pads": (0, 0, 0, 0), "H": 6},
    ],
)
def test_what_has_no_chain(changes: dict[str, object]) -> None:
    assert chain_of(replace(PLAIN, **changes)) is None


@pytest.mark.parametrize("number", range(0, 441, 40))
def test_models_of_layers_have_the_sizes_of_their_specs(number: int) -> None:
    spec = read_layers()[number].spec
    model = conv_model([spec])
    onnx.checker.check_model(model, full_check=True)
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output[0]
    dims = [dim.dim_value for dim in inferred.type.tensor_type.shape.dim]
    assert dims == [spec.N, spec.Cout, spec.OH, spec.OW]


def test_auto_pad_is_resolved_as_onnx_does() -> None:
    from conv_layers import spec_of

    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 3])
    assert spec_of(node, [1, 8, 10, 12], [4, 8, 3, 5]).pads == (0, 1, 1, 1)
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER", strides=[2, 3])
    assert spec_of(node, [1, 8, 10, 12], [4, 8, 3, 5]).pads == (1, 1, 0, 1)


def test_a_layer_is_timed_alone_and_in_a_chain(scripts: Path, tmp_path: Path) -> None:
    out = tmp_path / "layers.json"
    arguments = ["--layers", "pointwise 1x1 64->64 @13x13", "--seconds", "0.01", "--ort-only"]
    printed = run_script(scripts / "bench_conv.py", *arguments, "--json", out)
    assert "alone  1" in printed
    assert "chain  1" in printed
    assert '"failure": ""' in out.read_text()
