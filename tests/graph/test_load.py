from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ort_optim.errors import InputError
from ort_optim.graph import load_model
from ort_optim.graph.weights import make_inline
from tests.passes.harness import model_of
from tests.toolbox import environment


def external_model(folder: Path, location: str = "w.bin", elements: int = 4000) -> Path:
    """A model whose weight `w` lies in `location`; the data file is not written."""
    model = model_of(
        f"g (float[{elements}] x) => (float[{elements}] y) {{ y = Add(x, w) }}",
        weights={"w": np.arange(elements, dtype=np.float32)},
    )
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def saved(path: Path) -> Path:
    path.write_bytes(model_of("g (float[2] x) => (float[2] y) { y = Neg(x) }").SerializeToString())
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"Not found\n", "is a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (b"\x18\x00\x00\x00ORTM" + bytes(100), "ORT format"),
        (bytes(range(256)) * 8, "truncated or damaged"),
        (b"\x08\x07", "truncated or damaged"),
    ],
    ids=["empty", "text", "lfs", "ort", "binary", "no graph"],
)
def test_a_file_that_is_no_model_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_model(path)


def test_a_truncated_model_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="truncated or damaged"):
        load_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"data_type": 99}, "element type unknown"), ({"dims": [-1]}, "negative dimension")],
)
def test_damaged_tensors_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = external_model(tmp_path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].MergeFrom(onnx.TensorProto(**change))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=f"'w' has .*{message}"):
        load_model(path)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes().replace(b"Neg", b"N\xffg"))
    with pytest.raises(InputError, match="not UTF-8"):
        load_model(path)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="is a directory"):
        load_model(tmp_path)


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"w\.bin.*is missing"):
        load_model(external_model(tmp_path))


def test_short_external_data_is_refused(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    (tmp_path / "w.bin").write_bytes(bytes(15_999))
    with pytest.raises(InputError, match="too short for tensor 'w'"):
        load_model(path)


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "a/../../w.bin", "..\\w.bin", ""])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(16_000))
    with pytest.raises(InputError, match="leaves the model's folder"):
        load_model(external_model(inner, location))


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_out_of_the_folder_is_refused_but_a_hub_cache_is_read(tmp_path: Path) -> None:
    data = np.arange(4000, dtype=np.float32).tobytes()
    snapshot = tmp_path / "snapshots" / "abc"
    (tmp_path / "blobs").mkdir()
    snapshot.mkdir(parents=True)
    (tmp_path / "blobs" / "123").write_bytes(data)
    (tmp_path / "secret").write_bytes(data)
    path = external_model(snapshot)
    (snapshot / "w.bin").symlink_to(tmp_path / "blobs" / "123")
    assert load_model(path).data_files == (tmp_path / "blobs" / "123",)
    (snapshot / "w.bin").unlink()
    (snapshot / "w.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="link that leaves"):
        load_model(path)


def test_large_external_data_stays_on_disk_and_small_data_is_read(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    (tmp_path / "w.bin").write_bytes(np.arange(4000, dtype=np.float32).tobytes())
    large = load_model(path)
    assert not large.model.graph.initializer[0].HasField("raw_data")
    assert large.size_bytes == path.stat().st_size + 16_000
    path = external_model(tmp_path, elements=4)
    small = load_model(path).model.graph.initializer[0]
    assert numpy_helper.to_array(small).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("location", ["a" * 5000, "a\0b"])
def test_locations_that_no_file_can_have_are_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(InputError, match=r"can't be read|is missing") as caught:
        load_model(external_model(tmp_path, location))
    assert "\n" not in str(caught.value)


def test_unreadable_external_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = external_model(tmp_path)
    data = tmp_path / "w.bin"
    data.write_bytes(bytes(16_000))
    original = Path.open

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self == data:
            raise PermissionError(13, "Permission denied")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"w\.bin' can't be read: Permission denied"):
        load_model(path)
    tensor = onnx.load(path, load_external_data=False).graph.initializer[0]
    with pytest.raises(InputError, match="can't be read: Permission denied"):
        make_inline(tensor, tmp_path)


def test_text_that_protobuf_in_python_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["name"], ["y"])], "g", [], [])
    data = onnx.helper.make_model(graph).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data.replace(b"name", b"\xff\xff\xff\xff"))
    code = "import sys; from ort_optim.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(tmp_path / "m.onnx")],
        env=environment(PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION="python"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
