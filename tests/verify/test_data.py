from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from ort_optim.engine import TensorInfo
from ort_optim.errors import InputError
from ort_optim.verify.data import load_samples

IMAGE = TensorInfo("image", "tensor(float)", (1, 3, 8, 8))
OPEN = TensorInfo("x", "tensor(float)", ("batch", 3))


def save(folder: Path, name: str = "samples.npz", **arrays: np.ndarray) -> Path:
    path = folder / name
    np.savez(path, **arrays)
    return path


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@given(st.integers(1, 5), st.sampled_from(["one more axis", "multiple of the batch"]))
def test_several_samples_come_back_one_by_one(count: int, how: str) -> None:
    batch = 2
    info = TensorInfo("x", "tensor(float)", (batch, 3))
    array = np.arange(count * batch * 3, dtype=np.float32).reshape(count, batch, 3)
    with tempfile.TemporaryDirectory() as folder:
        stored = array if how == "one more axis" else array.reshape(count * batch, 3)
        samples = load_samples(save(Path(folder), x=stored), [info])
    assert len(samples) == count
    for sample, expected in zip(samples, array, strict=True):
        assert np.array_equal(sample["x"], expected)


def test_one_array_of_the_inputs_shape_is_one_sample(tmp_path: Path) -> None:
    (sample,) = load_samples(save(tmp_path, image=zeros(1, 3, 8, 8)), [IMAGE])
    assert sample["image"].shape == (1, 3, 8, 8)


def test_an_open_batch_is_one_sample(tmp_path: Path) -> None:
    (sample,) = load_samples(save(tmp_path, x=zeros(7, 3)), [OPEN])
    assert sample["x"].shape == (7, 3)


def test_a_folder_of_archives_is_all_of_them(tmp_path: Path) -> None:
    for name in ("b.npz", "a.npz"):
        save(tmp_path, name, x=zeros(1, 3))
    assert len(load_samples(tmp_path, [OPEN])) == 2


def test_onnx_test_data_is_read_by_name_or_position(tmp_path: Path) -> None:
    infos = [OPEN, TensorInfo("n", "tensor(int64)", ())]
    for number in (0, 1, 10):
        folder = tmp_path / f"test_data_set_{number}"
        folder.mkdir()
        x = numpy_helper.from_array(np.full((1, 3), number, np.float32), "")
        n = numpy_helper.from_array(np.array(number), "n")
        (folder / "input_0.pb").write_bytes(x.SerializeToString())
        (folder / "input_1.pb").write_bytes(n.SerializeToString())
    samples = load_samples(tmp_path, infos)
    assert [int(sample["n"]) for sample in samples] == [0, 1, 10]
    assert [float(sample["x"][0, 0]) for sample in samples] == [0, 1, 10]
    assert len(load_samples(tmp_path / "test_data_set_0", infos)) == 1


def test_strings_are_read(tmp_path: Path) -> None:
    info = TensorInfo("s", "tensor(string)", (2,))
    (sample,) = load_samples(save(tmp_path, s=np.array(["a", "bc"])), [info])
    assert list(sample["s"]) == ["a", "bc"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "archive is empty"),
        ({"picture": zeros(1, 3, 8, 8)}, "no array named 'image'"),
        ({"image": zeros(1, 3, 8, 8), "extra": zeros(1)}, "'extra' is not an input"),
        ({"image": np.zeros((1, 3, 8, 8))}, "'image' is float64, the model wants float32"),
        ({"image": zeros(1, 3, 8, 9)}, "has shape 1x3x8x9, the model wants 1x3x8x8"),
        ({"image": zeros(3, 8, 8)}, "has shape 3x8x8"),
        ({"image": np.array(zeros(1, 3, 8, 8), dtype=object)}, "Python objects"),
        ({"image": zeros(0, 1, 3, 8, 8)}, "holds no samples"),
    ],
)
def test_archives_that_do_not_fit_are_refused_in_one_line(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_samples(save(tmp_path, **arrays), [IMAGE])
    assert "\n" not in str(caught.value)


def test_different_numbers_of_samples_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, image=zeros(2, 1, 3, 8, 8), x=zeros(3, 1, 3))
    with pytest.raises(InputError, match="image: 2, x: 3"):
        load_samples(path, [IMAGE, OPEN])


def test_paths_that_hold_no_samples_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    (tmp_path / "broken.npz").write_bytes(b"not a zip")
    (tmp_path / "array.npz").write_bytes(b"")
    np.save(tmp_path / "bare.npy", zeros(1))
    (tmp_path / "bare.npy").rename(tmp_path / "bare.npz")
    for name, message in (
        ("model.onnx", "give a .npz file or a folder"),
        ("absent.npz", "can't be read|no such file"),
        ("absent", "no such file or folder"),
        ("broken.npz", "can't be read"),
        ("array.npz", "can't be read"),
        ("bare.npz", "one bare array"),
    ):
        with pytest.raises(InputError, match=message):
            load_samples(tmp_path / name, [OPEN])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"neither \.npz files nor test_data_set"):
        load_samples(empty, [OPEN])


def test_damaged_or_missing_protobufs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "input_0.pb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(InputError, match="can't be read"):
        load_samples(tmp_path, [OPEN])
    with pytest.raises(InputError, match=r"1 input_.* for a model with 2 inputs"):
        load_samples(tmp_path, [OPEN, IMAGE])
