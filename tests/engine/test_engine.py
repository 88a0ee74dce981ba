from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ort_optim.engine import Engine, EngineError, Spill, StartError, make_source, unload
from ort_optim.errors import InputError, WorkerError
from ort_optim.graph import load_model
from ort_optim.graph.save import save_model
from tests.passes.harness import model_of

NEG = "g (float[2] x) => (float[2] y) { y = Neg(x) }"
X = {"x": np.array([1, 2], np.float32)}


def test_a_model_runs_and_tells_its_inputs_and_outputs(engine: Engine) -> None:
    handle = engine.open(model_of('g (float["N", 3] x) => (float["N", 3] y) { y = Neg(x) }'))
    (info,) = engine.inputs(handle)
    assert (info.name, info.type, info.shape) == ("x", "tensor(float)", ("N", 3))
    assert engine.outputs(handle)[0].name == "y"
    assert engine.run(handle, {"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[-1, -1, -1]]
    engine.close(handle)


def test_ort_refusals_are_one_line(engine: Engine) -> None:
    with pytest.raises(EngineError) as caught:
        engine.open(b"not a model")
    assert "\n" not in str(caught.value)
    handle = engine.open(model_of(NEG))
    with pytest.raises(EngineError, match="x"):
        engine.run(handle, {"wrong": np.ones(2, np.float32)})
    assert engine.run(handle, X)["y"].tolist() == [-1, -2]


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.float16])
def test_element_types_that_numpy_lacks_go_in_and_out(engine: Engine, dtype: type) -> None:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", element, [3])],
        [helper.make_tensor_value_info("y", element, [3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    given = np.array([1, -2, 0.5], dtype)
    handle = engine.open(model)
    found = engine.run(handle, {"x": given})["y"]
    assert found.dtype == given.dtype
    np.testing.assert_array_equal(found, given)


def test_sequences_and_strings_go_out(engine: Engine) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("SplitToSequence", ["x"], ["s"], axis=0),
            helper.make_node("Identity", ["t"], ["u"]),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("t", TensorProto.STRING, [1]),
        ],
        [
            helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("u", TensorProto.STRING, [1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    handle = engine.open(model)
    found = engine.run(handle, {**X, "t": np.array(["word"], object)})
    assert [part.tolist() for part in found["s"]] == [[1], [2]]
    assert found["u"].tolist() == ["word"]


def test_timings_come_in_pairs(engine: Engine) -> None:
    handles = [engine.open(model_of(NEG)), engine.open(model_of(NEG), optimize=True)]
    first, second = engine.time(handles, X, max_runs=4)
    assert len(first) == len(second) == 4
    assert min(first + second) > 0
    (once,) = engine.time(handles[:1], X, max_runs=50, max_seconds=0)
    assert len(once) == 1


def test_a_killed_worker_is_reported_and_replaced() -> None:
    with Engine() as engine:
        engine.open(model_of(NEG))
        assert engine._process is not None
        os.kill(engine._process.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="SIGKILL"):
            engine.open(model_of(NEG))
        handle = engine.open(model_of(NEG))
        assert engine.run(handle, X)["y"].tolist() == [-1, -2]


def test_a_run_that_takes_too_long_is_ended() -> None:
    endless = model_of(
        """g (int64 n, bool c, float[2] x) => (float[2] y) {
            y = Loop(n, c, x) <
                body = b (int64 i, bool go, float[2] a) => (bool on, float[2] o) {
                    on = Identity(go)
                    o = Neg(a)
                }
            >
        }"""
    )
    feeds = {"n": np.array(2**62), "c": np.array(True), **X}
    with Engine(timeout_s=2) as engine:
        handle = engine.open(endless)
        with pytest.raises(WorkerError, match="within 2 s"):
            engine.run(handle, feeds)
        assert engine.run(engine.open(model_of(NEG)), X)["y"].tolist() == [-1, -2]


def test_external_data_is_mapped_also_through_a_link(engine: Engine, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    model = model_of(
        "g (float[4000] x) => (float[4000] y) { y = Add(x, w) }",
        weights={"w": np.arange(4000, dtype=np.float32)},
    )
    path = snapshot / "m.onnx"
    save_model(model, tmp_path, path, external=True)
    (data,) = load_model(path).data_files
    data.rename(tmp_path / "blobs" / "1")
    data.symlink_to(tmp_path / "blobs" / "1")
    loaded = load_model(path)
    source = make_source(loaded.model, loaded.folder, tmp_path)
    assert source.proto is not None
    assert len(source.proto) < 1000
    assert len(source.blobs) == 1
    found = engine.run(engine.open(source), {"x": np.ones(4000, np.float32)})["y"]
    np.testing.assert_array_equal(found, np.arange(1, 4001))


@pytest.fixture
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of a few kB count as heavy."""
    from ort_optim.engine import spill

    monkeypatch.setattr(spill, "HEAVY_MODEL_BYTES", 10_000)
    monkeypatch.setattr(spill, "HEAVY_TENSOR_BYTES", 8_000)


@pytest.mark.usefixtures("low_limits")
def test_heavy_weights_do_not_travel(engine: Engine, tmp_path: Path) -> None:
    model = model_of(
        "g (float[4000] x) => (float[4000] y) { a = Add(x, w)\n y = Mul(a, s) }",
        weights={"w": np.arange(4000, dtype=np.float32), "s": np.array([2], np.float32)},
    )
    before = model.SerializeToString()
    made = make_source(model, tmp_path, tmp_path)
    assert model.SerializeToString() == before
    assert [blob.name for blob in made.blobs] == ["w"]
    found = engine.run(engine.open(made), {"x": np.zeros(4000, np.float32)})["y"]
    np.testing.assert_array_equal(found, 2 * np.arange(4000))


@pytest.mark.usefixtures("low_limits")
@pytest.mark.parametrize("is_external", [False, True])
def test_large_weights_that_nothing_reads_are_left_out(
    engine: Engine, tmp_path: Path, is_external: bool
) -> None:
    model = model_of(
        """
        g (float[4000] x, bool c) => (float[4000] y) {
            y = If(c) <
                then_branch = t () => (float[4000] a) { a = Add(x, inner) },
                else_branch = e () => (float[4000] b) { b = Identity(x) }
            >
            dead = Mul(x, of_dead)
        }
        """,
        weights={
            name: np.full(4000, value, np.float32)
            for value, name in enumerate(("unread", "inner", "of_dead"))
        },
    )
    if is_external:
        onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data")
        model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    before = model.SerializeToString()
    made = make_source(model, tmp_path, tmp_path)
    assert model.SerializeToString() == before
    assert [blob.name for blob in made.blobs] == ["inner", "of_dead"]
    feeds = {"x": np.zeros(4000, np.float32), "c": np.array(True)}
    for optimize in (False, True):
        found = engine.run(engine.open(made, optimize=optimize), feeds)["y"]
        np.testing.assert_array_equal(found, np.ones(4000))


@pytest.mark.usefixtures("low_limits")
def test_equal_weights_of_several_models_are_spilled_once(engine: Engine, tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    text = "g (float[4000] x) => (float[4000] y) { y = Add(x, w) }"
    ascending = np.arange(4000, dtype=np.float32)
    sources = [
        make_source(model_of(text, weights={"w": values}), tmp_path, spill)
        for values in (ascending, ascending[::-1], ascending)
    ]
    assert spill.path.stat().st_size == 2 * ascending.nbytes
    for source, wanted in zip(sources, (ascending, ascending[::-1], ascending), strict=True):
        assert source.proto is not None
        assert len(source.proto) < 1000
        found = engine.run(engine.open(source), {"x": np.zeros(4000, np.float32)})["y"]
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.usefixtures("low_limits")
def test_models_that_share_only_the_scratch_folder_keep_apart(
    engine: Engine, tmp_path: Path
) -> None:
    text = "g (float[4000] x) => (float[4000] y) { y = Add(x, w) }"
    weights = [np.arange(4000, dtype=np.float32), np.ones(4000, np.float32)]
    sources = [make_source(model_of(text, weights={"w": w}), tmp_path, tmp_path) for w in weights]
    for source, wanted in zip(sources, weights, strict=True):
        found = engine.run(engine.open(source), {"x": np.zeros(4000, np.float32)})["y"]
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.usefixtures("low_limits")
def test_an_unloaded_model_is_saved_as_it_was(tmp_path: Path) -> None:
    model = model_of(
        "g (float[4000] x) => (float[4000] y) { a = Add(x, w)\n y = Mul(a, s) }",
        weights={"w": np.arange(4000, dtype=np.float32), "s": np.array([2], np.float32)},
    )
    model.graph.initializer[0].doc_string = "kept"
    model.metadata_props.add(key="a", value="b")
    onnx.save(model, tmp_path / "in.onnx")
    (tmp_path / "scratch").mkdir()
    loaded = unload(load_model(tmp_path / "in.onnx"), Spill(tmp_path / "scratch"))
    assert loaded.model.ByteSize() < 1000
    save_model(loaded.model, loaded.folder, tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == model


@pytest.mark.usefixtures("low_limits")
def test_scratch_without_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, mode: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    model = model_of(
        "g (float[4000] x) => (float[4000] y) { y = Add(x, w) }",
        weights={"w": np.arange(4000, dtype=np.float32)},
    )
    with pytest.raises(InputError, match="TMPDIR"):
        make_source(model, tmp_path, Spill(tmp_path))


@pytest.mark.parametrize("data_type", [TensorProto.INT4, TensorProto.UINT4])
def test_packed_elements_come_out_one_by_one(engine: Engine, data_type: int) -> None:
    values = [1, 7, 3] if data_type == TensorProto.UINT4 else [-8, 7, -1]
    graph = helper.make_graph(
        [helper.make_node("Cast", ["w"], ["y"], to=data_type)],
        "g",
        [],
        [helper.make_tensor_value_info("y", data_type, [3])],
        [helper.make_tensor("w", TensorProto.FLOAT, [3], values)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert engine.run(engine.open(model), {})["y"].astype(int).tolist() == values


def test_the_worker_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    with Engine() as engine:
        assert engine.run(engine.open(model_of(NEG)), X)["y"].tolist() == [-1, -2]


def test_an_onnxruntime_that_cannot_be_imported_is_no_fault_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libmissing.so: not found')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Engine() as engine, pytest.raises(StartError, match=r"libmissing\.so") as caught:
        engine.open(model_of(NEG))
    assert caught.value.exit_code == 1


class Unreadable:
    """Can be sent, but not received."""

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return int, ("no number",)


def test_a_request_that_the_worker_cannot_read_ends_it() -> None:
    with Engine(timeout_s=30) as engine:
        handle = engine.open(model_of(NEG))
        with pytest.raises(WorkerError, match="exit code 1, ValueError"):
            engine.run(handle, {"x": Unreadable()})
        assert engine.run(engine.open(model_of(NEG)), X)["y"].tolist() == [-1, -2]


def test_the_worker_starts_without_onnx() -> None:
    code = "import sys, ort_optim.engine.worker; print('onnx' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
