"""`optimize` from end to end on every kind of model that real life has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from ort_optim import pipeline
from ort_optim.engine import Engine, client
from ort_optim.errors import InputError, VerificationError
from ort_optim.report import Report
from tests.passes.harness import model_of
from tests.toolbox import LastingEngine, assert_same_outputs, ops, save_with_data, snapshot

F = TensorProto.FLOAT
I64 = TensorProto.INT64

Optimize = Callable[..., Report]


@pytest.fixture
def optimize(
    tmp_path: Path, lasting_engine: LastingEngine, monkeypatch: pytest.MonkeyPatch
) -> Optimize:
    """`optimize` on a model or path, to tmp_path/out.onnx unless told otherwise, untimed."""

    def call(source: onnx.ModelProto | Path, out: Path | None = None, **options: Any) -> Report:
        if isinstance(source, onnx.ModelProto):
            onnx.save(source, tmp_path / "in.onnx")
            source = tmp_path / "in.onnx"
        monkeypatch.setattr(pipeline, "Engine", lasting_engine.lend)
        options.setdefault("timing", False)
        return pipeline.optimize(source, out or tmp_path / "out.onnx", **options)

    return call


@pytest.fixture
def same(tmp_path: Path, engine: Engine) -> Callable[..., None]:
    """Asserts that in.onnx and out.onnx in tmp_path give the same outputs."""

    def check(**feeds: Any) -> None:
        assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / "out.onnx", feeds)

    return check


def passed(report: Report) -> None:
    assert report.verification.status == "passed", report.verification.reason or report.warnings


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def loaded(path: Path) -> onnx.ModelProto:
    return onnx.load(path, load_external_data=False)


# ---- shapes


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


DYNAMIC = (
    "g (float[batch,3,H,W] x) => (float[batch,M] y)"
    "{ s = Shape(x)\n b = Gather(s, zero)\n u = Unsqueeze(b, axis)\n t = Concat<axis=0>(u, rest)\n"
    " i = Identity(x)\n y = Reshape(i, t) }"
)
DYNAMIC_WEIGHTS = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1])}


def test_dynamic_dimensions_stay_dynamic(
    tmp_path: Path, optimize: Optimize, same: Callable[..., None]
) -> None:
    report = optimize(model_of(DYNAMIC, weights=DYNAMIC_WEIGHTS))
    passed(report)
    result = loaded(tmp_path / "out.onnx")
    assert dims(result.graph.input[0]) == ["batch", 3, "H", "W"]
    assert dims(result.graph.output[0]) == ["batch", "M"]
    for shape in ((1, 3, 4, 4), (5, 3, 2, 7)):
        same(x=floats(*shape))


def test_shape_pins_them(tmp_path: Path, optimize: Optimize, same: Callable[..., None]) -> None:
    model = model_of(DYNAMIC, weights=DYNAMIC_WEIGHTS)
    report = optimize(model, shapes={"x": (2, 3, 4, 5)})
    passed(report)
    result = loaded(tmp_path / "out.onnx")
    assert dims(result.graph.input[0]) == [2, 3, 4, 5]
    assert dims(result.graph.output[0]) == [2, 60]
    assert report.verification.shapes[0]["x"] == (2, 3, 4, 5)
    same(x=floats(2, 3, 4, 5))


@pytest.mark.parametrize("shape", ["float[0,4]", "float[2,0,3]"])
def test_dimensions_of_size_zero(optimize: Optimize, same: Callable[..., None], shape: str) -> None:
    passed(optimize(model_of(f"g ({shape} x) => ({shape} y) {{ i = Identity(x)\n y = Relu(i) }}")))
    same(x=np.zeros([int(d) for d in shape[6:-1].split(",")], np.float32))


def test_scalars(optimize: Optimize, same: Callable[..., None]) -> None:
    passed(optimize(model_of("g (float x) => (float y) { i = Identity(x)\n y = Exp(i) }")))
    same(x=np.array(0.5, np.float32))


# ---- weights


def input_weights_model(ir_version: int) -> onnx.ModelProto:
    model = model_of(
        "g (float[1,2,4,4] x, float[3,2,1,1] w, float[3] b) => (float[1,3,4,4] y)"
        "{ i = Identity(x)\n y = Conv(i, w, b) }",
        weights={"w": floats(3, 2, 1, 1), "b": floats(3)},
        opset=9,
    )
    model.ir_version = ir_version
    return model


@pytest.mark.parametrize("ir_version", [3, 4, 8])
def test_weights_among_the_inputs_are_frozen(
    tmp_path: Path, optimize: Optimize, same: Callable[..., None], ir_version: int
) -> None:
    report = optimize(input_weights_model(ir_version))
    passed(report)
    assert any("frozen" in each for each in report.repairs)
    result = loaded(tmp_path / "out.onnx")
    assert [value.name for value in result.graph.input] == ["x"]
    assert result.ir_version >= 4
    onnx.checker.check_model(result, full_check=True)
    same(x=floats(1, 2, 4, 4))


@pytest.mark.parametrize("ir_version", [3, 4, 8])
def test_or_kept_for_those_who_override_them(
    tmp_path: Path, engine: Engine, optimize: Optimize, ir_version: int
) -> None:
    report = optimize(input_weights_model(ir_version), keep_initializer_inputs=True)
    passed(report)
    result = loaded(tmp_path / "out.onnx")
    assert [value.name for value in result.graph.input] == ["x", "w", "b"]
    assert ops(tmp_path / "out.onnx") == ["Conv"]
    feeds = {"x": floats(1, 2, 4, 4)}
    if ir_version >= 4:
        feeds["b"] = np.array([7, 8, 9], np.float32)
    assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / "out.onnx", feeds)


def test_a_sparse_initializer(
    tmp_path: Path, optimize: Optimize, same: Callable[..., None]
) -> None:
    model = model_of(
        "g (float[2,4] x) => (float[2,4] y, float[4] z)"
        "{ i = Identity(x)\n y = Add(i, s)\n z = Mul(s, two) }",
        weights={"two": np.float32(2)},
    )
    values = helper.make_tensor("s", F, [2], [1.5, -2.5])
    indices = helper.make_tensor("s_indices", I64, [2], [0, 3])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    passed(optimize(model))
    same(x=floats(2, 4))


# ---- operator sets

OLD_NET = """g (float[1,2,6,6] x) => (float[1,5] y)
{
    c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w, b)
    n = BatchNormalization(c, scale, shift, mean, var)
    r = Relu(n)
    p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
    d = Dropout(p)
    i = Identity(d)
    f = Flatten<axis=1>(i)
    y = Gemm<transB=1>(f, m, o)
}"""


def old_net(opset: int) -> onnx.ModelProto:
    model = model_of(
        OLD_NET,
        opset=opset,
        weights={
            "w": floats(3, 2, 3, 3),
            "b": floats(3),
            "scale": floats(3),
            "shift": floats(3),
            "mean": floats(3),
            "var": np.abs(floats(3)) + 1,
            "m": floats(5, 27),
            "o": floats(5),
        },
    )
    if opset < 7:
        for node in model.graph.node:
            if node.op_type in ("BatchNormalization", "Dropout"):
                node.attribute.append(helper.make_attribute("is_test", 1))
            if node.op_type == "Gemm":
                node.attribute.append(helper.make_attribute("broadcast", 1))
    return model


@pytest.mark.parametrize("opset", range(6, onnx.defs.onnx_opset_version() + 1))
def test_operator_sets_from_six_on(
    tmp_path: Path, optimize: Optimize, same: Callable[..., None], opset: int
) -> None:
    report = optimize(old_net(opset))
    if report.verification.status == "unverified":  # newer than the installed ORT, or dropped by it
        assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()
        assert opset < 7 or "opset" in report.verification.reason
        return
    passed(report)
    result = loaded(tmp_path / "out.onnx")
    assert result.opset_import[0].version == opset
    assert "Identity" not in ops(tmp_path / "out.onnx")
    assert "BatchNormalization" not in ops(tmp_path / "out.onnx")
    same(x=floats(1, 2, 6, 6))


@pytest.mark.parametrize(
    ("field", "value"), [("opset", 999), ("ir_version", 999)], ids=["opset", "ir-version"]
)
def test_a_model_newer_than_ort_is_copied_with_a_warning(
    tmp_path: Path, optimize: Optimize, field: str, value: int
) -> None:
    model = old_net(17)
    if field == "opset":
        model.opset_import[0].version = value
    else:
        model.ir_version = value
    report = optimize(model)
    assert report.verification.status == "unverified"
    assert not report.decision.kept
    assert "/onnxruntime_src" not in report.verification.reason
    assert "999" in report.verification.reason
    assert any("copied" in warning for warning in report.warnings)
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()
    with pytest.raises(VerificationError):
        optimize(model, require_verify=True)


# ---- control flow, functions, containers


def test_if_loop_and_scan(optimize: Optimize, same: Callable[..., None]) -> None:
    model = model_of(
        """g (bool c, float[3,4] x, int64 n) => (float[3,4] y, float[4] z, float[3,4] s)
        {
            a = Identity(x)
            y = If (c) <then_branch = t () => (float[3,4] ty) { ti = Identity(a)
                          ty = Relu(ti) },
                        else_branch = e () => (float[3,4] ey) { ei = Identity(a)
                          ey = Neg(ei) }>
            true = Constant<value = bool {1}>()
            z0 = ReduceMax<axes=[0], keepdims=0>(a)
            z = Loop (n, true, z0) <body = l (int64 i, bool go, float[4] v)
                 => (bool go2, float[4] v2) { go2 = Identity(go)
                          vi = Identity(v)
                          v2 = Tanh(vi) }>
            zero = ReduceMin<axes=[0], keepdims=0>(a)
            last, s = Scan <num_scan_inputs=1, body = b (float[4] acc, float[4] row)
                 => (float[4] acc2, float[4] out) { ri = Identity(row)
                          acc2 = Add(acc, ri)
                          out = Mul(acc2, acc2) }> (zero, a)
        }"""
    )
    report = optimize(model)
    passed(report)
    assert report.output.op_histogram["Identity"] == 1  # a Loop's body may not give out its input
    for c, n in ((True, 0), (False, 3)):
        same(c=np.array(c), x=floats(3, 4), n=np.array(n))


def function_model() -> onnx.ModelProto:
    body = [helper.make_node("Identity", ["a"], ["i"]), helper.make_node("Mul", ["i", "b"], ["r"])]
    function = helper.make_function(
        "local", "Scale", ["a", "b"], ["r"], body, [helper.make_opsetid("", 17)]
    )
    graph = helper.make_graph(
        [
            helper.make_node("Scale", ["x", "w"], ["h"], domain="local"),
            helper.make_node("Scale", ["h", "w"], ["y"], domain="local"),
        ],
        "g",
        [helper.make_tensor_value_info("x", F, ["N", 4])],
        [helper.make_tensor_value_info("y", F, ["N", 4])],
        [numpy_helper.from_array(floats(4), "w")],
    )
    return helper.make_model(
        graph,
        functions=[function],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("local", 1)],
        ir_version=8,
    )


def test_model_local_functions_are_inlined(
    tmp_path: Path, optimize: Optimize, same: Callable[..., None]
) -> None:
    passed(optimize(function_model()))
    result = loaded(tmp_path / "out.onnx")
    assert not result.functions
    assert "Scale" not in ops(tmp_path / "out.onnx")
    same(x=floats(2, 4))


def test_sequences(optimize: Optimize, same: Callable[..., None]) -> None:
    model = model_of(
        "g (float[2,3] x, seq(float[2,3]) q) => (seq(float[2,3]) s, float[2,3] y)"
        "{ i = Identity(x)\n s = SequenceInsert(q, i)\n zero = Constant<value=int64 {0}>()\n"
        " y = SequenceAt(s, zero) }"
    )
    passed(optimize(model))
    same(x=floats(2, 3), q=[floats(2, 3), floats(2, 3)])


def test_optional_types(optimize: Optimize, same: Callable[..., None]) -> None:
    model = model_of(
        "g (float[4] x) => (float[4] y, bool h)"
        "{ i = Identity(x)\n o = Optional(i)\n y = OptionalGetElement(o)\n"
        " h = OptionalHasElement(o) }",
        opset=18,
    )
    passed(optimize(model))
    same(x=floats(4))


def test_strings(optimize: Optimize, same: Callable[..., None]) -> None:
    model = model_of(
        "g (string[3] x) => (string[3] y, bool[3] e)"
        "{ i = Identity(x)\n y = StringConcat(i, w)\n e = Equal(i, w) }",
        opset=20,
    )
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.STRING, [1], [b"b"]))
    passed(optimize(model))
    same(x=np.array(["a", "b", "ä"], object))


def test_optional_outputs_that_nobody_asked_for(
    optimize: Optimize, same: Callable[..., None]
) -> None:
    model = model_of(
        "g (float[5,1,3] x) => (float[1,1,2] h)"
        '{ i = Identity(x)\n "", h = LSTM<hidden_size=2>(i, w, r)\n'
        " m, u = Dropout(h) }".replace('"", h', "unused, h"),
        weights={"w": floats(1, 8, 3), "r": floats(1, 8, 2)},
        opset=14,
    )
    model.graph.node[1].output[0] = ""
    passed(optimize(model))
    same(x=floats(5, 1, 3))


# ---- element types


@pytest.mark.parametrize(
    ("onnx_type", "dtype"),
    [("float16", np.float16), ("double", np.float64), ("int32", np.int32), ("uint8", np.uint8)],
)
def test_other_element_types(
    optimize: Optimize, same: Callable[..., None], onnx_type: str, dtype: Any
) -> None:
    model = model_of(
        f"g ({onnx_type}[2,3] x) => ({onnx_type}[2,3] y)"
        "{ i = Identity(x)\n m = Mul(i, w)\n y = Max(m, i) }",
        weights={"w": np.array([1, 2, 3], dtype)},
    )
    passed(optimize(model))
    same(x=np.array([[1, 2, 3], [4, 5, 6]], dtype))


def test_a_type_that_ort_has_no_kernel_for_is_copied(tmp_path: Path, optimize: Optimize) -> None:
    graph = helper.make_graph(
        [helper.make_node("Sin", ["x"], ["a"]), helper.make_node("Identity", ["a"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [4])],
        [helper.make_tensor_value_info("y", TensorProto.BFLOAT16, [4])],
        [numpy_helper.from_array(np.ones(4, ml_dtypes.bfloat16), "unused")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    report = optimize(model)
    assert report.verification.status == "unverified"
    assert "NOT_IMPLEMENTED" in report.verification.reason
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()


def test_a_quantized_model(optimize: Optimize, same: Callable[..., None]) -> None:
    model = model_of(
        "g (float[1,2,6,6] x) => (float[1,3,6,6] y)"
        "{ i = Identity(x)\n q = QuantizeLinear(i, s, z)\n d = DequantizeLinear(q, s, z)\n"
        " wd = DequantizeLinear(w, ws, wz)\n c = Conv<pads=[1,1,1,1]>(d, wd)\n"
        " q2 = QuantizeLinear(c, s, z)\n y = DequantizeLinear(q2, s, z) }",
        weights={
            "s": np.float32(0.05),
            "z": np.uint8(128),
            "w": np.random.default_rng(0).integers(-99, 99, (3, 2, 3, 3)).astype(np.int8),
            "ws": np.float32(0.01),
            "wz": np.int8(0),
        },
    )
    report = optimize(model)
    passed(report)
    assert report.output.op_histogram["QuantizeLinear"] == 2
    assert report.output.op_histogram["DequantizeLinear"] == 3
    same(x=floats(1, 2, 6, 6))


# ---- external data


def weighty(size: int = 600) -> onnx.ModelProto:
    return model_of(
        f"g (float[{size}] x) => (float[{size}] y)"
        "{ i = Identity(x)\n a = Add(i, w)\n y = Mul(a, s) }",
        weights={"w": floats(size), "s": np.float32(2)},
    )


@pytest.mark.parametrize("size", [4, 600], ids=["small-tensors-too", "large-tensors"])
def test_external_data_in_place_and_elsewhere(
    tmp_path: Path, engine: Engine, optimize: Optimize, size: int
) -> None:
    path = tmp_path / "in.onnx"
    onnx.save(weighty(size), tmp_path / "inline.onnx")
    save_with_data(weighty(size), path, location="weights.bin")
    feeds = {"x": floats(size)}
    other = tmp_path / "folder" / "out.onnx"
    other.parent.mkdir()
    for out in (tmp_path / "out.onnx", other, path):
        report = optimize(path, out)
        passed(report)
        assert report.decision.kept
        assert "Identity" not in ops(out)
        assert_same_outputs(engine, tmp_path / "inline.onnx", out, feeds)
    optimize(path, path)  # nothing is left to do, and nothing is spoilt
    assert_same_outputs(engine, tmp_path / "inline.onnx", path, feeds)


def test_data_of_a_renamed_result_survives_the_next_run(
    tmp_path: Path, engine: Engine, optimize: Optimize
) -> None:
    save_with_data(weighty(), tmp_path / "in.onnx", location="weights.bin")
    optimize(tmp_path / "in.onnx")
    (tmp_path / "out.onnx").rename(tmp_path / "renamed.onnx")
    report = optimize(tmp_path / "renamed.onnx")
    passed(report)
    for name in ("renamed.onnx", "out.onnx"):
        assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / name, {"x": floats(600)})


def test_links_of_a_model_hub_are_followed(
    tmp_path: Path, engine: Engine, optimize: Optimize
) -> None:
    save_with_data(weighty(), tmp_path / "in.onnx", location="weights.bin")
    repository = tmp_path / "models--some--net"
    revision, blobs = repository / "snapshots" / "abc", repository / "blobs"
    revision.mkdir(parents=True)
    blobs.mkdir()
    for name, blob in (("in.onnx", "0001"), ("weights.bin", "0002")):
        (blobs / blob).write_bytes((tmp_path / name).read_bytes())
        (revision / name).symlink_to(Path("..", "..", "blobs", blob))
    before = snapshot(repository)
    passed(optimize(revision / "in.onnx"))
    assert snapshot(repository) == before
    feeds = {"x": floats(600)}
    assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / "out.onnx", feeds)


def test_a_link_as_out_is_replaced_and_what_it_leads_to_stays(
    tmp_path: Path, engine: Engine, optimize: Optimize
) -> None:
    save_with_data(weighty(), tmp_path / "in.onnx", location="weights.bin")
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real.onnx"
    real.write_bytes(b"something else")
    (tmp_path / "out.onnx").symlink_to(real)
    passed(optimize(tmp_path / "in.onnx"))
    assert real.read_bytes() == b"something else"
    feeds = {"x": floats(600)}
    assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / "out.onnx", feeds)


# ---- names and what users wrote into the file


ODD_NAMES = ("input:0", "a/b c", "größe", "x\ty", "日本", "%s{}$'\"", "-")


@pytest.mark.parametrize("odd", ODD_NAMES)
def test_odd_names(tmp_path: Path, optimize: Optimize, same: Callable[..., None], odd: str) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Identity", [odd], [f"{odd}.i"], name=odd),
            helper.make_node("Add", [f"{odd}.i", f"{odd}.w"], [f"{odd}.y"], name=f"{odd}.add"),
        ],
        odd,
        [helper.make_tensor_value_info(odd, F, ["N", 4])],
        [helper.make_tensor_value_info(f"{odd}.y", F, ["N", 4])],
        [numpy_helper.from_array(floats(4), f"{odd}.w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    passed(optimize(model, shapes={odd: (2, 4)}))
    result = loaded(tmp_path / "out.onnx")
    assert [value.name for value in result.graph.input] == [odd]
    assert [value.name for value in result.graph.output] == [f"{odd}.y"]
    same(**{odd: floats(2, 4)})


def test_file_names_with_spaces_and_other_alphabets(tmp_path: Path, optimize: Optimize) -> None:
    folder = tmp_path / "größe 日本"
    folder.mkdir()
    save_with_data(weighty(), folder / "ein gäbe.onnx", location="ge wichte.bin")
    passed(optimize(folder / "ein gäbe.onnx", folder / "aus %s.onnx"))
    assert "Identity" not in ops(folder / "aus %s.onnx")


def test_nodes_and_tensors_that_share_names_are_repaired(
    tmp_path: Path, optimize: Optimize, same: Callable[..., None]
) -> None:
    model = weighty()
    for node in model.graph.node:
        node.name = "same"
    model.graph.initializer.append(model.graph.initializer[0])
    model.graph.node.reverse()
    report = optimize(model)
    passed(report)
    assert len(report.repairs) >= 2
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)


def test_what_users_wrote_into_the_file_survives(tmp_path: Path, optimize: Optimize) -> None:
    model = model_of(
        "g (float[4] x) => (float[4] y) { i = Identity(x)\n a = Add(i, w)\n y = Relu(a) }",
        weights={"w": floats(4)},
    )
    model.producer_name, model.producer_version = "exporter", "1.2"
    model.domain, model.model_version, model.doc_string = "org.example", 7, "a model"
    helper.set_model_props(model, {"author": "somebody", "labels": "cat,dog"})
    model.graph.doc_string = "a graph"
    model.graph.metadata_props.add(key="g", value="1")
    model.graph.input[0].doc_string = "an input"
    model.graph.initializer[0].doc_string = "a weight"
    model.graph.node[2].doc_string = "a node"
    model.graph.node[2].metadata_props.add(key="k", value="v")
    model.graph.value_info.append(helper.make_tensor_value_info("a", F, [4]))
    passed(optimize(model))
    result = loaded(tmp_path / "out.onnx")
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        assert getattr(result, field) == getattr(model, field)
    assert {p.key: p.value for p in result.metadata_props} == {
        "author": "somebody",
        "labels": "cat,dog",
    }
    assert result.graph.name == "g"
    assert result.graph.doc_string == "a graph"
    assert result.graph.metadata_props == model.graph.metadata_props
    assert result.graph.input == model.graph.input
    assert result.graph.output == model.graph.output
    assert result.graph.initializer[0].doc_string == "a weight"
    assert result.graph.node[-1] == model.graph.node[-1]
    assert [value.name for value in result.graph.value_info] == ["a"]


# ---- inputs and outputs


def test_several_inputs_and_outputs_keep_their_order_and_unused_inputs_stay(
    tmp_path: Path, optimize: Optimize, same: Callable[..., None]
) -> None:
    model = model_of(
        "g (float[4] b, float[4] unused, float[4] a) => (float[4] z, float[4] y, float[4] x)"
        "{ i = Identity(a)\n x = Add(i, b)\n z = Neg(i)\n y = Relu(x) }"
    )
    passed(optimize(model))
    result = loaded(tmp_path / "out.onnx")
    assert [value.name for value in result.graph.input] == ["b", "unused", "a"]
    assert [value.name for value in result.graph.output] == ["z", "y", "x"]
    same(a=floats(4), b=floats(4), unused=floats(4))


def test_one_tensor_under_two_output_names(
    tmp_path: Path, optimize: Optimize, same: Callable[..., None]
) -> None:
    model = model_of(
        "g (float[4] x) => (float[4] y, float[4] z, float[4] w)"
        "{ a = Relu(x)\n y = Identity(a)\n z = Identity(a)\n w = Identity(x)\n d = Neg(x) }"
    )
    passed(optimize(model))
    assert "Neg" not in ops(tmp_path / "out.onnx")
    same(x=floats(4))


def test_outputs_that_are_constants(optimize: Optimize, same: Callable[..., None]) -> None:
    model = model_of(
        "g (float[2] x) => (float[2] y, float[3] k, float[3] w2)"
        "{ i = Identity(x)\n y = Neg(i)\n k = Abs(w)\n w2 = Identity(w) }",
        weights={"w": floats(3)},
    )
    passed(optimize(model))
    same(x=floats(2))


def test_a_graph_without_nodes(tmp_path: Path, optimize: Optimize) -> None:
    model = model_of("g (float[2] x) => (float[2] w) { }", weights={"w": floats(2)})
    report = optimize(model)
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()
    assert not report.decision.kept


def test_an_output_that_is_an_input_passes_through(tmp_path: Path, optimize: Optimize) -> None:
    model = model_of("g (float[2] x) => (float[2] x) { d = Identity(x) }")
    report = optimize(model)
    assert report.verification.status in ("passed", "unverified")


def test_random_operators_are_compared_by_shape(optimize: Optimize) -> None:
    model = model_of(
        "g (float[3,4] x) => (float[3,4] y, float[3,4] z)"
        "{ i = Identity(x)\n r = RandomNormalLike(i)\n y = Add(r, i)\n z = Neg(i) }"
    )
    report = optimize(model)
    passed(report)
    assert report.decision.kept


# ---- models that can't be verified


def custom_model() -> onnx.ModelProto:
    model = model_of(
        "g (float[4] x) => (float[4] y) { i = Identity(x)\n a = Neg(i)\n y = Relu(a) }"
    )
    model.graph.node[1].op_type, model.graph.node[1].domain = "Frobnicate", "org.example"
    model.opset_import.add(domain="org.example", version=1)
    return model


class TestCustomOperators:
    def test_copied_with_a_warning(self, tmp_path: Path, optimize: Optimize) -> None:
        report = optimize(custom_model())
        assert report.verification.status == "unverified"
        assert "Frobnicate" in report.verification.reason
        assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()
        assert any("copied" in warning for warning in report.warnings)

    def test_rewritten_and_marked_when_asked(self, tmp_path: Path, optimize: Optimize) -> None:
        report = optimize(custom_model(), unverified=True)
        assert report.decision.kept
        assert report.verification.status == "unverified"
        result = loaded(tmp_path / "out.onnx")
        assert ops(tmp_path / "out.onnx") == ["Frobnicate", "Relu"]
        assert any(p.key == pipeline.UNVERIFIED_MARK for p in result.metadata_props)
        optimize(tmp_path / "out.onnx", tmp_path / "again.onnx", unverified=True)
        again = loaded(tmp_path / "again.onnx")
        assert sum(p.key == pipeline.UNVERIFIED_MARK for p in again.metadata_props) == 1

    def test_an_error_where_verification_is_required(
        self, tmp_path: Path, optimize: Optimize
    ) -> None:
        (tmp_path / "out.onnx").write_bytes(b"old")
        with pytest.raises(VerificationError, match="Frobnicate"):
            optimize(custom_model(), require_verify=True)
        assert (tmp_path / "out.onnx").read_bytes() == b"old"

    def test_both_wishes_at_once_are_refused(self, optimize: Optimize) -> None:
        with pytest.raises(InputError, match="exclude"):
            optimize(custom_model(), unverified=True, require_verify=True)


WORKER_THAT = """
import os, sys, time
from ort_optim.engine import worker

real = worker.Sessions.{verb}

def {verb}(self, *arguments):
    {act}
    return real(self, *arguments)

worker.Sessions.{verb} = {verb}
worker.main()
"""


class TestWorker:
    """A worker process that dies or hangs takes nothing else with it."""

    @pytest.fixture
    def with_worker(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[str, str], None]:
        """Lets each worker do `act` before `verb`."""

        def install(verb: str, act: str) -> None:
            shim = tmp_path / "shim"
            (shim / "ort_optim_shim").mkdir(parents=True)
            script = shim / "worker.py"
            script.write_text(WORKER_THAT.format(verb=verb, act=act))
            started = client.subprocess.Popen

            def popen(command: list[str], **options: Any) -> Any:
                assert command[-2:] == ["-m", "ort_optim.engine.worker"]
                return started([command[0], str(script)], **options)

            monkeypatch.setattr(client.subprocess, "Popen", popen)

        return install

    def call(self, tmp_path: Path, **options: Any) -> Report:
        onnx.save(weighty(), tmp_path / "in.onnx")
        return pipeline.optimize(tmp_path / "in.onnx", tmp_path / "out.onnx", **options)

    @pytest.mark.parametrize(
        ("verb", "act", "told"),
        [
            ("open", "os.abort()", "SIGABRT"),
            ("run", "os.kill(os.getpid(), 11)", "SIGSEGV"),
            ("run", "os._exit(3)", "exit code 3"),
            ("open", "time.sleep(60)", "within 2 s"),
            ("run", "time.sleep(60)", "within 2 s"),
        ],
    )
    def test_while_the_reference_is_opened_or_run(
        self,
        tmp_path: Path,
        with_worker: Callable[[str, str], None],
        verb: str,
        act: str,
        told: str,
    ) -> None:
        with_worker(verb, act)
        report = self.call(tmp_path, timeout_s=2.0)
        assert report.verification.status == "unverified"
        assert told in report.verification.reason
        assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()

    def test_while_models_are_timed(
        self, tmp_path: Path, with_worker: Callable[[str, str], None]
    ) -> None:
        with_worker("time", "os.abort()")
        report = self.call(tmp_path)
        passed(report)
        assert report.timing.verdict == "not timed"
        assert report.decision.kept

    def test_on_the_rewritten_model_only(
        self, tmp_path: Path, engine: Engine, with_worker: Callable[[str, str], None]
    ) -> None:
        """The rewrite that brings the crash is found, as any other fault is."""
        with_worker("open", "os.abort() if arguments[0].proto.count(b'Identity') == 0 else None")
        report = self.call(tmp_path, timing=False)
        assert [c.pass_name for c in report.verification.culprits] == ["identity"]
        assert "Identity" in ops(tmp_path / "out.onnx")
        feeds = {"x": floats(600)}
        assert_same_outputs(engine, tmp_path / "in.onnx", tmp_path / "out.onnx", feeds)

    def test_no_worker_outlives_the_run(self, tmp_path: Path) -> None:
        before = {child.pid for child in psutil.Process().children()}
        self.call(tmp_path, timing=False)
        assert {child.pid for child in psutil.Process().children()} <= before


# ---- options and decisions


def test_disabled_passes_do_nothing(tmp_path: Path, optimize: Optimize) -> None:
    report = optimize(weighty(), disable={"identity"})
    assert "Identity" in ops(tmp_path / "out.onnx")
    assert all(p.name != "identity" for p in report.passes)


def test_an_optimized_model_is_given_back_byte_for_byte(tmp_path: Path, optimize: Optimize) -> None:
    optimize(weighty())
    report = optimize(tmp_path / "out.onnx", tmp_path / "again.onnx")
    assert not report.decision.kept
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()


def test_two_runs_give_the_same_bytes(tmp_path: Path, optimize: Optimize) -> None:
    optimize(old_net(13), tmp_path / "a.onnx")
    optimize(old_net(13), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_own_samples_are_what_is_compared_on(tmp_path: Path, optimize: Optimize) -> None:
    np.savez(tmp_path / "samples.npz", x=floats(5, 600))
    report = optimize(weighty(), data=tmp_path / "samples.npz")
    passed(report)
    assert report.verification.sets == 5


def test_tolerances_decide(tmp_path: Path, optimize: Optimize) -> None:
    passed(optimize(old_net(13), rtol=0.0, atol=1e-3))
    strict = optimize(old_net(13), rtol=0.0, atol=0.0)
    assert (
        strict.verification.status == "passed"
    )  # what rounds otherwise was refused or within noise


def test_in_place_keeps_the_file_mode(tmp_path: Path, optimize: Optimize) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(weighty(), path)
    path.chmod(0o640)
    optimize(path, path)
    assert "Identity" not in ops(path)
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(snapshot(tmp_path)) == ["model.onnx"]


def test_reports_are_written_in_all_formats(tmp_path: Path, optimize: Optimize) -> None:
    paths = [tmp_path / f"report.{suffix}" for suffix in ("json", "md", "html")]
    report = optimize(weighty(), report=paths)
    assert Report.from_json(paths[0].read_text()) == report
    assert all(path.stat().st_size for path in paths)


def test_the_stages_are_announced_in_order(optimize: Optimize) -> None:
    seen: list[str] = []
    optimize(weighty(), observer=seen.append, timing=True)
    assert tuple(seen) == pipeline.STAGES


def test_samples_of_other_shapes_than_pinned_are_refused(
    tmp_path: Path, optimize: Optimize
) -> None:
    model = model_of('g (float["N", 4] x) => (float["N", 4] y) { i = Identity(x)\n y = Relu(i) }')
    np.savez(tmp_path / "samples.npz", x=floats(3, 4))
    with pytest.raises(InputError, match="x:2x4 contradicts --data, where 'x' is 3x4"):
        optimize(model, shapes={"x": (2, 4)}, data=tmp_path / "samples.npz")
    passed(optimize(model, shapes={"x": (3, 4)}, data=tmp_path / "samples.npz"))


def test_pins_that_are_not_in_the_result_are_told(optimize: Optimize) -> None:
    report = optimize(custom_model(), shapes={"x": (4,)})
    assert not report.decision.kept
    assert any("--shape is not in OUT" in warning for warning in report.warnings)


def test_samples_may_be_sequences(tmp_path: Path, optimize: Optimize) -> None:
    model = model_of("g (float[2] x) => (float[N] y) { y = ConcatFromSequence<axis=0>(s) }")
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_sequence_value_info("s", F, None))
    folder = tmp_path / "samples" / "test_data_set_0"
    folder.mkdir(parents=True)
    sequence = numpy_helper.from_list([floats(2), floats(3)], "s")
    (folder / "input_0.pb").write_bytes(sequence.SerializeToString())
    report = optimize(model, data=tmp_path / "samples")
    passed(report)
    assert report.verification.sets == 1


def test_what_was_verified_does_not_keep_the_mark_of_what_was_not(
    tmp_path: Path, optimize: Optimize
) -> None:
    model = weighty()
    model.metadata_props.add(key=pipeline.UNVERIFIED_MARK, value="an earlier run")
    passed(optimize(model))
    assert not loaded(tmp_path / "out.onnx").metadata_props


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("seed", -1),
        ("sets", 0),
        ("timeout_s", 0.0),
        ("timeout_s", float("nan")),
        ("search_seconds", -1.0),
        ("search_seconds", float("inf")),
    ],
)
def test_options_out_of_range_are_refused(optimize: Optimize, option: str, value: float) -> None:
    with pytest.raises(InputError, match=option):
        optimize(weighty(), **{option: value})


def test_an_import_that_is_missing_is_added_and_the_model_runs(
    tmp_path: Path, optimize: Optimize
) -> None:
    model = model_of("g (float[4] x) => (float[4] y) { i = Identity(x)\n y = Relu(i) }")
    model.graph.node[1].op_type, model.graph.node[1].domain = "Gelu", "com.microsoft"
    report = optimize(model)
    passed(report)
    assert report.repairs
    assert ops(tmp_path / "out.onnx") == ["Gelu"]
