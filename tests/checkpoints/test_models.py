"""Candidates as content files: what the original has is named, what a pass has made is inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from ort_optim.checkpoints.folder import DamagedError, WorkFolder
from ort_optim.checkpoints.models import KeptModels
from ort_optim.engine import Spill, unload
from ort_optim.engine.spill import without_data
from ort_optim.graph import LoadedModel, load_model
from tests.passes.harness import model_of


@pytest.fixture(autouse=True)
def all_is_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ort_optim.engine.spill.HEAVY_MODEL_BYTES", 1000)
    monkeypatch.setattr("ort_optim.engine.spill.HEAVY_TENSOR_BYTES", 100)


@pytest.fixture
def folder(tmp_path: Path) -> WorkFolder:
    return WorkFolder(tmp_path / "work")


def weight(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(500).astype(np.float32)


def run(tmp_path: Path) -> tuple[LoadedModel, Spill]:
    """What a run starts with: the original, unloaded into a spill of its own."""
    path = tmp_path / "in.onnx"
    onnx.save(
        model_of(
            "g (float[500] x) => (float[500] y) { a = Add(x, u)\n b = Mul(a, v)\n y = Sub(b, w) }",
            weights={"u": weight(0), "v": weight(1), "w": weight(0)},
        ),
        path,
    )
    spill = Spill(tmp_path)
    return unload(load_model(path), spill), spill


def candidate(original: ModelProto) -> tuple[ModelProto, onnx.TensorProto]:
    """`v` under another name and in another shape, and a new tensor in place of `u`."""
    model = ModelProto()
    model.CopyFrom(original)
    new = onnx.numpy_helper.from_array(weight(2), "new")
    model.graph.initializer[1].name = "renamed"
    model.graph.initializer[1].dims[:] = [5, 100]
    model.graph.initializer[0].CopyFrom(new)
    return model, new


def test_another_run_finds_the_weights_in_its_own_spill(tmp_path: Path, folder: WorkFolder) -> None:
    first, spill = run(tmp_path)
    model, new = candidate(first.model)
    name = KeptModels(folder, first, spill).put(model)
    assert new.ByteSize() < (folder.path / name).stat().st_size < new.ByteSize() + 1000
    second, other = run(tmp_path)
    found = KeptModels(folder, second, other).get(name)
    assert [t.name for t in found.graph.initializer] == ["new", "renamed", "w"]
    assert found.graph.initializer[0] == new
    for tensor, same in (
        (1, second.model.graph.initializer[1]),
        (2, second.model.graph.initializer[0]),
    ):
        assert found.graph.initializer[tensor].external_data == same.external_data
    assert list(found.graph.initializer[1].dims) == [5, 100]


def test_a_spilled_weight_that_the_original_has_not_is_kept_with_its_data(
    tmp_path: Path, folder: WorkFolder
) -> None:
    first, spill = run(tmp_path)
    model, new = candidate(first.model)
    name = KeptModels(folder, first, spill).put(without_data(model, spill))
    second, other = run(tmp_path)
    found = KeptModels(folder, second, other).get(name)
    assert found.graph.initializer[0].raw_data == new.raw_data


def test_a_name_that_the_original_has_not_is_damage(tmp_path: Path, folder: WorkFolder) -> None:
    original, spill = run(tmp_path)
    name = KeptModels(folder, original, spill).put(original.model)
    forged = onnx.load(folder.path / name, load_external_data=False)
    forged.graph.initializer[0].external_data[0].value = "nobody"
    name = folder.put(forged.SerializeToString(), ".onnx")
    with pytest.raises(DamagedError, match="no tensor 'nobody'"):
        KeptModels(folder, original, spill).get(name)


def test_what_is_no_model_is_damage(tmp_path: Path, folder: WorkFolder) -> None:
    original, spill = run(tmp_path)
    with pytest.raises(DamagedError, match="is not a model"):
        KeptModels(folder, original, spill).get(folder.put(b"\xff\xff", ".onnx"))
