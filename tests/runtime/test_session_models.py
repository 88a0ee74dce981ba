"""Models of all kinds in sessions, and those that were changed after they were tiled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

from ort_optim.graph.repair import repair
from ort_optim.graph.save import save_model
from ort_optim.runtime.session import InferenceSession, stats
from tests.runtime.networks import (
    assert_close,
    feeds_of,
    names_of,
    plain,
    residual,
    tiled,
)
from tests.runtime.opened import FEEDS, left, opened
from tests.runtime.sessions import options
from tests.toolbox import save_with_data

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture(scope="module")
def model() -> ModelProto:
    return tiled(residual())


@pytest.fixture(scope="module")
def expected() -> list[np.ndarray]:
    return plain(residual(), FEEDS)


@pytest.mark.parametrize("name", ["digits_adaptive", "digits_resnet", "photo_superres"])
def test_trained_networks_give_ort_s_results(name: str, own_models: Path) -> None:
    before = onnx.load(own_models / f"{name}.onnx")
    repair(before)
    session = opened(tiled(before))
    assert not left(session)
    feeds = feeds_of(before, batch=2, height=40, width=56)
    assert_close(session.run(None, feeds), plain(before, feeds))
    assert stats(session).runs == len(names_of(tiled(before)))


@pytest.mark.parametrize("resolve", ["beside", "link"])
def test_external_data_is_found(resolve: str, tmp_path: Path, expected: list[np.ndarray]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "model.onnx"
    save_with_data(tiled(residual()), path, location="weights.bin")
    if resolve == "link":  # as a hub's cache lays them out
        store = tmp_path / "blob"
        path.rename(store)
        path.symlink_to(store)
    session = InferenceSession(path, options())
    assert_close(session.run(None, FEEDS), expected)
    assert stats(session).runs == 1


def test_weights_apart_are_found(
    model: ModelProto, tmp_path: Path, expected: list[np.ndarray]
) -> None:
    apart = frozenset(t.name for t in model.graph.initializer if len(t.dims) == 4)
    assert apart
    save_model(model, tmp_path, tmp_path / "model.onnx", apart=apart)
    assert len(list(tmp_path.iterdir())) == 2
    session = InferenceSession(tmp_path / "model.onnx", options())
    assert_close(session.run(None, FEEDS), expected)
    assert stats(session).runs == 1


@pytest.mark.parametrize(("opset", "ir"), [(7, 3), (9, 4), (11, 6), (13, 7), (17, 8), (21, 10)])
def test_operator_sets_and_versions_of_files(opset: int, ir: int) -> None:
    before = residual(opset=opset)
    before.ir_version = ir
    if ir < 4:
        repair(before)
    session = opened(tiled(before))
    assert_close(session.run(None, FEEDS), plain(before, FEEDS))
    assert not left(session)
    assert stats(session).runs == 1


def variable_weights(made: ModelProto) -> None:
    name = made.graph.node[0].input[1]
    tensor = next(t for t in made.graph.initializer if t.name == name)
    made.graph.input.append(
        onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, tensor.dims)
    )


def another_type(element: int) -> object:
    def change(made: ModelProto) -> None:
        for info in (*made.graph.input, *made.graph.output, *made.graph.value_info):
            info.type.tensor_type.elem_type = element
        dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
        for tensor in made.graph.initializer:
            array = onnx.numpy_helper.to_array(tensor).astype(dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))

    return change


def unknown_rank(made: ModelProto) -> None:
    del made.graph.value_info[:]
    made.graph.input[0].type.tensor_type.ClearField("shape")


@pytest.mark.parametrize(
    "change",
    [
        variable_weights,
        another_type(TensorProto.FLOAT16),
        unknown_rank,
    ],
    ids=["variable weights", "float16", "unknown rank"],
)
def test_what_was_changed_after_it_was_tiled_is_left_with_a_reason(
    change: object, model: ModelProto, caplog: pytest.LogCaptureFixture
) -> None:
    made = ModelProto.FromString(model.SerializeToString())
    assert callable(change)
    change(made)
    session = opened(made)
    assert list(left(session)) == names_of(made)
    assert not stats(session).regions
    assert names_of(made)[0] in caplog.text
    kind = onnx.helper.tensor_dtype_to_np_dtype(made.graph.input[0].type.tensor_type.elem_type)
    feeds = {"x0": FEEDS["x0"].astype(kind)}
    assert_close(session.run(None, feeds), plain(made, feeds), rtol=0)
