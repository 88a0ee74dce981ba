"""The networks in `models/` are what their manifest says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from models_lib import recording, zoo

MODELS = Path(__file__).resolve().parents[2] / "models"
MANIFEST = recording.read_manifest(MODELS)
LIMIT_BYTES = 20_000_000

each_model = pytest.mark.parametrize("entry", MANIFEST.values(), ids=MANIFEST.keys())


def sha256(name: str) -> str:
    return hashlib.sha256((MODELS / name).read_bytes()).hexdigest()


def test_manifest_lists_every_network_of_the_zoo_and_every_model_file() -> None:
    assert tuple(MANIFEST) == zoo.NAMES
    assert {e["file"] for e in MANIFEST.values()} == {p.name for p in MODELS.glob("*.onnx")}


def test_manifest_covers_every_data_file() -> None:
    data = [e["data"] for e in MANIFEST.values()]
    named = {d["inputs"] for d in data} | {d["labels"] for d in data}
    assert named == {p.name for p in MODELS.glob("*.npz")}


def test_folder_stays_small() -> None:
    assert sum(path.stat().st_size for path in MODELS.iterdir()) < LIMIT_BYTES


@each_model
def test_files_are_the_recorded_ones(entry: dict[str, Any]) -> None:
    assert sha256(entry["file"]) == entry["sha256"]
    assert (MODELS / entry["file"]).stat().st_size == entry["size_bytes"]
    assert sha256(entry["data"]["inputs"]) == entry["data"]["inputs_sha256"]
    assert sha256(entry["data"]["labels"]) == entry["data"]["labels_sha256"]


@each_model
def test_model_is_valid_and_declares_what_the_manifest_says(entry: dict[str, Any]) -> None:
    model = onnx.load(MODELS / entry["file"])
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == entry["ir_version"]
    assert {o.domain or "ai.onnx": o.version for o in model.opset_import} == entry["opset"]
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [v.name for v in model.graph.input if v.name not in weights]
    assert inputs == [v["name"] for v in entry["inputs"]]
    assert [v.name for v in model.graph.output] == [v["name"] for v in entry["outputs"]]


@each_model
def test_model_carries_no_path_of_the_machine_that_made_it(entry: dict[str, Any]) -> None:
    content = (MODELS / entry["file"]).read_bytes()
    assert b"site-packages" not in content
    assert b"models_lib/" not in content


@each_model
def test_evaluation_set_fits_the_inputs(entry: dict[str, Any]) -> None:
    arrays = recording.read_npz(MODELS / entry["data"]["inputs"])
    assert list(arrays) == [v["name"] for v in entry["inputs"]]
    for value in entry["inputs"]:
        array = arrays[value["name"]]
        assert array.dtype == value["dtype"]
        assert len(array) == entry["metric"]["samples"]
        assert array.min() >= value["low"]
        assert array.max() <= value["high"]
        assert value["shape"][0] in (1, "batch")
        for have, declared in zip(array.shape[1:], value["shape"][1:], strict=True):
            assert declared == have or isinstance(declared, str)


@each_model
def test_onnxruntime_reaches_the_recorded_accuracy(entry: dict[str, Any]) -> None:
    value = recording.measure(
        str(MODELS / entry["file"]),
        entry["metric"]["name"],
        recording.read_npz(MODELS / entry["data"]["inputs"]),
        recording.read_npz(MODELS / entry["data"]["labels"]),
    )
    # Another machine's rounding may turn one near tie.
    tolerance = 0.01 if entry["metric"]["name"] == "psnr_db" else 1.5 / entry["metric"]["samples"]
    assert value == pytest.approx(entry["metric"]["value"], abs=tolerance)


@each_model
def test_outputs_depend_on_the_input(entry: dict[str, Any]) -> None:
    arrays = recording.read_npz(MODELS / entry["data"]["inputs"])
    two = {name: array[:2] for name, array in arrays.items()}
    first, second = recording.run_samples(str(MODELS / entry["file"]), two)
    assert any(
        first[name].shape != second[name].shape or not np.array_equal(first[name], second[name])
        for name in first
    )


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("shapes_mobilenet", (3, 3, 64, 64)),
        ("shapes_mobilenet_qdq", (3, 3, 64, 64)),
        ("textures_unet", (2, 37, 54, 3)),
        ("photo_superres", (2, 1, 17, 40)),
        ("ocr_bilstm", (3, 1, 16, 92)),
        ("code_tagger", (2, 200)),
        ("code_lm", (3, 33)),
        ("digits_adaptive", (1, 1, 24, 40)),
    ],
)
def test_dynamic_dimensions_take_other_sizes(name: str, shape: tuple[int, ...]) -> None:
    session = ort.InferenceSession(MODELS / f"{name}.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feed = {
        value["name"]: rng.uniform(value["low"], value["high"] + 0.5, shape).astype(value["dtype"])
        for value in MANIFEST[name]["inputs"]
    }
    outputs = session.run(None, feed)
    assert all(np.isfinite(output).all() for output in outputs)
    steps_first = name == "ocr_bilstm"
    assert outputs[0].shape[1 if steps_first else 0] == shape[0]


def operators(graph: onnx.GraphProto) -> set[str]:
    """Operator types of a graph and of its nodes' subgraphs."""
    found = set()
    for node in graph.node:
        found.add(node.op_type)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found |= operators(attribute.g)
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits_resnet", {"Conv", "BatchNormalization", "Relu", "Add", "Gemm"}),
        ("shapes_mobilenet", {"BatchNormalization", "GlobalAveragePool", "Clip", "Div", "Mul"}),
        ("shapes_mobilenet_qdq", {"QuantizeLinear", "DequantizeLinear"}),
        ("shapes_detector", {"Sigmoid", "TopK", "NonMaxSuppression", "Gather", "Resize"}),
        ("textures_unet", {"ConvTranspose", "Concat", "Pad", "ArgMax", "Transpose", "Cast"}),
        ("photo_superres", {"PRelu", "DepthToSpace", "Resize"}),
        ("ocr_bilstm", {"Conv", "LSTM", "LogSoftmax"}),
        ("code_tagger", {"Erf", "ReduceMean", "Sqrt", "Shape", "Softmax"}),
        ("code_lm", {"LayerNormalization", "Gelu", "Softmax", "Where"}),
        ("digits_adaptive", {"If", "Loop", "InstanceNormalization"}),
    ],
)
def test_model_holds_the_forms_it_is_there_for(name: str, expected: set[str]) -> None:
    model = onnx.load(MODELS / f"{name}.onnx")
    assert expected <= operators(model.graph)


def test_tones_kws_lists_its_weights_as_graph_inputs() -> None:
    graph = onnx.load(MODELS / "tones_kws.onnx").graph
    assert {t.name for t in graph.initializer} < {v.name for v in graph.input}


def test_manifest_is_written_the_way_it_is_read(tmp_path: Path) -> None:
    recording.write_manifest(tmp_path, MANIFEST)
    assert (tmp_path / "manifest.json").read_bytes() == (MODELS / "manifest.json").read_bytes()
    assert json.loads((MODELS / "manifest.json").read_text("utf-8"))["manifest_version"] == 1
