from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import pytest

from ort_optim.errors import InputError
from ort_optim.graph import load_model
from ort_optim.graph import save as saving
from ort_optim.graph.leftovers import temporary_beside
from ort_optim.graph.save import check_writable, clean_up, copy_model, save_model
from ort_optim.graph.weights import to_array
from tests.conftest import ROOT
from tests.passes.harness import model_of


def weighty(value: float = 1.0) -> onnx.ModelProto:
    return model_of(
        "g (float[4000] x) => (float[4000] y) { a = Add(x, w)\n y = Mul(a, s) }",
        weights={
            "w": np.full(4000, value, np.float32),
            "s": np.array([2.0], np.float32),
        },
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_inline_model_is_written_as_it_serializes(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    written = save_model(weighty(), tmp_path, out)
    assert out.read_bytes() == weighty().SerializeToString()
    assert written == out.stat().st_size
    assert names(tmp_path) == ["out.onnx"]


def test_external_data_is_named_by_its_content_and_stale_data_goes(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    save_model(weighty(1), tmp_path, out, external=True)
    first = load_model(out)
    (data,) = first.data_files
    assert data.name.startswith("out.onnx.")
    assert data.suffix == ".data"
    big, small = first.model.graph.initializer
    assert to_array(big, tmp_path)[0] == 1
    assert small.HasField("raw_data")
    save_model(weighty(2), tmp_path, out, external=True)
    assert len(names(tmp_path)) == 3
    clean_up(out)
    (newer,) = load_model(out).data_files
    assert names(tmp_path) == sorted(["out.onnx", newer.name])
    assert newer != data
    onnx.checker.check_model(str(out), full_check=True)


def test_external_becomes_inline_and_moves_with_a_copy(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    source = tmp_path / "a" / "m.onnx"
    save_model(weighty(3), tmp_path, source, external=True)
    loaded = load_model(source)
    save_model(loaded.model, loaded.folder, tmp_path / "b" / "inline.onnx")
    inline = onnx.load(tmp_path / "b" / "inline.onnx")
    assert onnx.numpy_helper.to_array(inline.graph.initializer[0])[0] == 3
    copy_model(loaded, tmp_path / "b" / "moved.onnx")
    moved = load_model(tmp_path / "b" / "moved.onnx")
    assert moved.data_files[0].parent == tmp_path / "b"
    assert to_array(moved.model.graph.initializer[0], moved.folder)[0] == 3


def test_a_copy_is_byte_for_byte_and_onto_itself_harmless(tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    source.write_bytes(weighty().SerializeToString())
    copy_model(load_model(source), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == source.read_bytes()
    copy_model(load_model(source), source)
    assert source.read_bytes() == weighty().SerializeToString()


@pytest.mark.parametrize("external", [False, True])
def test_a_full_disk_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, external: bool
) -> None:
    out = tmp_path / "out.onnx"
    save_model(weighty(1), tmp_path, out, external=external)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving, "_flush", full)
    with pytest.raises(InputError, match="disk is full"):
        save_model(weighty(2), tmp_path, out, external=external)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    save_model(weighty(), tmp_path, out, external=True)
    (tmp_path / f"other.onnx.{'0' * 64}.data").write_bytes(b"another model's")
    kept = names(tmp_path)
    here = temporary_beside(out).name
    dead = here.replace(f".{os.getpid()}-", f".{2**22 - 1}-")
    foreign = dead.replace(here.split("-")[1], "0" * 12)
    for name in (dead, dead.replace("out.onnx", "out.onnx.data"), foreign):
        (tmp_path / name).write_bytes(b"half")
    os.utime(tmp_path / foreign, (0, 0))
    (tmp_path / f"out.onnx.{'0' * 64}.data").write_bytes(b"stale")
    clean_up(out)
    assert names(tmp_path) == kept


@pytest.mark.parametrize("owner", ["own", "foreign"])
def test_while_something_is_written_it_and_all_data_stay(tmp_path: Path, owner: str) -> None:
    out = tmp_path / "out.onnx"
    living = temporary_beside(out)
    if owner == "foreign":  # another container: its processes can't be seen
        living = living.with_name(f".out.onnx.{2**22 - 1}-{'0' * 12}-0.tmp")
    living.write_bytes(b"half")
    (tmp_path / f"out.onnx.{'0' * 64}.data").write_bytes(b"about to be named")
    before = names(tmp_path)
    clean_up(out)
    assert names(tmp_path) == before


OTHER_WRITERS = {
    "begins": "clean_up(out)",
    "fails": """
        def fail(file):
            raise OSError("stopped")
        save._flush = fail
        try:
            save.save_model(load_model(other).model, other.parent, out, external=True)
        except InputError:
            pass
        """,
    "succeeds": "save.save_model(load_model(other).model, other.parent, out, external=True)",
}


@pytest.mark.parametrize("name", OTHER_WRITERS)
def test_two_writers_leave_a_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    out, other = tmp_path / "out.onnx", tmp_path / "other" / "other.onnx"
    other.parent.mkdir()
    save_model(weighty(2), tmp_path, other)
    program = f"""
from pathlib import Path
from ort_optim.errors import InputError
from ort_optim.graph import load_model, save
from ort_optim.graph.leftovers import temporary_beside
from ort_optim.graph.save import clean_up
out, other = Path({str(out)!r}), Path({str(other)!r})
{textwrap.dedent(OTHER_WRITERS[name])}
"""
    flush = saving._flush

    def interrupted(file: BinaryIO) -> None:
        flush(file)
        subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)

    monkeypatch.setattr(saving, "_flush", interrupted)
    save_model(weighty(1), tmp_path, out, external=True)
    clean_up(out)
    loaded = load_model(out)
    assert to_array(loaded.model.graph.initializer[0], tmp_path)[0] == 1
    assert names(tmp_path) == sorted(["other", "out.onnx", loaded.data_files[0].name])


@pytest.mark.skipif(sys.platform == "win32", reason="files have no such modes")
def test_the_file_mode_of_a_replaced_file_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"old")
    out.chmod(0o640)
    save_model(weighty(), tmp_path, out)
    assert out.stat().st_mode & 0o777 == 0o640


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        check_writable(tmp_path / "none" / "out.onnx")
    with pytest.raises(InputError, match="is a directory"):
        check_writable(tmp_path)
    if sys.platform != "win32" and os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(InputError, match="read-only"):
            check_writable(tmp_path / "out.onnx")


def heavy_initializers() -> onnx.ModelProto:
    return model_of(
        "g (float[4000] x) => (float[4000] y) { a = Add(x, w)\n b = Mul(a, v)\n y = Mul(b, s) }",
        weights={
            "w": np.full(4000, 1, np.float32),
            "v": np.full(4000, 2, np.float32),
            "s": np.array([2.0], np.float32),
        },
    )


def is_inline(model: onnx.ModelProto) -> dict[str, bool]:
    return {tensor.name: tensor.HasField("raw_data") for tensor in model.graph.initializer}


def test_only_the_named_initializers_go_to_the_data_file(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    model = heavy_initializers()
    written = save_model(model, tmp_path, out, apart={"v", "no such name"})
    assert written == sum(path.stat().st_size for path in tmp_path.iterdir())
    loaded = load_model(out)
    assert is_inline(loaded.model) == {"w": True, "v": False, "s": True}
    assert loaded.data_files[0].stat().st_size == 16000
    assert (to_array(loaded.model.graph.initializer[1], tmp_path) == 2).all()
    onnx.checker.check_model(str(out), full_check=True)
    assert is_inline(model) == {"w": True, "v": True, "s": True}


def test_external_data_that_is_not_named_comes_inside(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    save_model(heavy_initializers(), tmp_path, tmp_path / "a" / "all.onnx", external=True)
    loaded = load_model(tmp_path / "a" / "all.onnx")
    assert is_inline(loaded.model) == {"w": False, "v": False, "s": True}
    out = tmp_path / "out.onnx"
    save_model(loaded.model, loaded.folder, out, apart=["v"])
    again = load_model(out)
    assert is_inline(again.model) == {"w": True, "v": False, "s": True}
    w, v, _ = again.model.graph.initializer
    assert (to_array(w, tmp_path) == 1).all()
    assert (to_array(v, tmp_path) == 2).all()
    assert is_inline(loaded.model) == {"w": False, "v": False, "s": True}


def test_without_a_named_initializer_there_is_no_data_file(tmp_path: Path) -> None:
    save_model(heavy_initializers(), tmp_path, tmp_path / "out.onnx", apart=["x", "a"])
    assert names(tmp_path) == ["out.onnx"]
