"""Every bad argument and bad input: one clear line on stderr, exit code 2, nothing touched."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from ort_optim.cli import main
from tests.passes.harness import model_of
from tests.toolbox import run_program, save_with_data, snapshot

OLD = b"what stood there before"


def small_model() -> onnx.ModelProto:
    return model_of(
        "g (float[N,4] x, int64[N] n) => (float[N,4] y, int64[N] m)"
        "{ i = Identity(x)\n a = Add(i, w)\n y = Relu(a)\n m = Abs(n) }",
        weights={"w": np.ones((4,), np.float32)},
    )


def heavy_model(kilobytes: int = 512) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    return model_of(
        f"g (float[{kilobytes * 256}] x) => (float[{kilobytes * 256}] y)"
        "{ i = Identity(x)\n y = Add(i, w) }",
        weights={"w": rng.standard_normal(kilobytes * 256).astype(np.float32)},
    )


Refuses = Callable[..., str]


@pytest.fixture
def refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuses:
    """Calls `optimize` in `tmp_path`; checks that it is refused in one line; returns the line."""

    def call(source: str | Path, destination: str | Path, *options: str | Path) -> str:
        before = snapshot(tmp_path)
        arguments = [str(each) for each in ("optimize", source, destination, *options)]
        code = main(arguments)
        captured = capsys.readouterr()
        assert code == 2, captured.err
        assert captured.out == ""
        assert captured.err.startswith("ort_optim: ")
        assert captured.err.count("\n") == 1
        assert captured.err.endswith("\n")
        assert snapshot(tmp_path) == before
        return captured.err

    return call


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.onnx"
    onnx.save(small_model(), path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out.onnx"
    path.write_bytes(OLD)
    return path


LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"hello, this is no model\n", "is a text file"),
        (LFS_POINTER, "git lfs pull"),
        (b"\x18\x00\x00\x00ORTM" + bytes(40), "ORT format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not an ONNX model"),
        (bytes(100), "not an ONNX model"),
    ],
    ids=["empty", "text", "lfs-pointer", "ort-format", "picture", "zeros"],
)
def test_a_file_that_is_no_model(
    tmp_path: Path, out: Path, refuses: Refuses, content: bytes, told: str
) -> None:
    (tmp_path / "in.onnx").write_bytes(content)
    assert told in refuses(tmp_path / "in.onnx", out)


def test_no_such_file(tmp_path: Path, out: Path, refuses: Refuses) -> None:
    assert "no such file" in refuses(tmp_path / "none.onnx", out)


def test_a_directory(tmp_path: Path, out: Path, refuses: Refuses) -> None:
    (tmp_path / "folder.onnx").mkdir()
    assert "is a directory" in refuses(tmp_path / "folder.onnx", out)


def test_a_link_that_leads_nowhere(tmp_path: Path, out: Path, refuses: Refuses) -> None:
    (tmp_path / "in.onnx").symlink_to(tmp_path / "gone.onnx")
    assert "no such file" in refuses(tmp_path / "in.onnx", out)


def test_a_pipe_or_device_is_not_waited_for(tmp_path: Path, out: Path, refuses: Refuses) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "not a regular file" in refuses(tmp_path / "pipe.onnx", out)
    assert "not a regular file" in refuses("/dev/zero", out)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_model(tmp_path: Path, out: Path, refuses: Refuses, share: float) -> None:
    raw = heavy_model(8).SerializeToString()
    (tmp_path / "in.onnx").write_bytes(raw[: int(len(raw) * share)])
    assert "truncated" in refuses(tmp_path / "in.onnx", out)


@pytest.mark.parametrize(
    "text",
    [
        "g (float[4] x) => (float[4] y) { y = Add(x, nowhere) }",
        "g (float[4] x) => (float[4] y) { y = Relu(x, x) }",
        "g (float[4] x) => (float[4] y) { a = Relu(b)\n b = Relu(a)\n y = Add(a, x) }",
        "g (string[4] x) => (string[4] y) { y = Relu(x) }",
        "g (float[4] x) => (float[4] y) { z = Relu(x) }",
    ],
    ids=["dangling-input", "too-many-inputs", "cycle", "wrong-type", "output-nobody-makes"],
)
def test_a_model_that_no_repair_makes_valid(
    tmp_path: Path, out: Path, refuses: Refuses, text: str
) -> None:
    onnx.save(model_of(text), tmp_path / "in.onnx")
    told = refuses(tmp_path / "in.onnx", out)
    assert "not a valid model" in told
    assert "ONNX Runtime says" in told


def test_names_that_are_not_utf8(tmp_path: Path, out: Path, refuses: Refuses) -> None:
    raw = small_model().SerializeToString()
    (tmp_path / "in.onnx").write_bytes(raw.replace(b"Identity", b"Id\xff\xfetity"))
    refuses(tmp_path / "in.onnx", out)


class TestExternalData:
    def save(self, folder: Path) -> Path:
        save_with_data(heavy_model(16), folder / "in.onnx", location="weights.bin")
        return folder / "in.onnx"

    def relocate(self, path: Path, **entries: str) -> None:
        model = onnx.load(path, load_external_data=False)
        for entry in model.graph.initializer[0].external_data:
            entry.value = entries.get(entry.key, entry.value)
        path.write_bytes(model.SerializeToString())

    def test_missing(self, tmp_path: Path, out: Path, refuses: Refuses) -> None:
        path = self.save(tmp_path)
        (tmp_path / "weights.bin").unlink()
        told = refuses(path, out)
        assert "weights.bin" in told
        assert "is missing" in told

    def test_short(self, tmp_path: Path, out: Path, refuses: Refuses) -> None:
        path = self.save(tmp_path)
        os.truncate(tmp_path / "weights.bin", 1000)
        assert "too short" in refuses(path, out)

    def test_a_git_lfs_pointer_in_its_place(
        self, tmp_path: Path, out: Path, refuses: Refuses
    ) -> None:
        path = self.save(tmp_path)
        (tmp_path / "weights.bin").write_bytes(LFS_POINTER)
        assert "git lfs pull" in refuses(path, out)

    @pytest.mark.parametrize(
        "location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin", "..\\weights.bin", ""]
    )
    def test_escaping(self, tmp_path: Path, out: Path, refuses: Refuses, location: str) -> None:
        folder = tmp_path / "inner"
        folder.mkdir()
        path = self.save(folder)
        (folder / "weights.bin").rename(tmp_path / "weights.bin")
        self.relocate(path, location=location)
        assert "leaves the model's folder" in refuses(path, out)

    def test_a_link_out_of_the_folder(self, tmp_path: Path, out: Path, refuses: Refuses) -> None:
        folder = tmp_path / "inner"
        folder.mkdir()
        path = self.save(folder)
        (folder / "weights.bin").rename(tmp_path / "secret.bin")
        (folder / "weights.bin").symlink_to(tmp_path / "secret.bin")
        assert "is a link that leaves" in refuses(path, out)

    @pytest.mark.parametrize(
        "entries", [{"offset": "x"}, {"length": "1e3"}, {"offset": "-4"}, {"offset": "9" * 30}]
    )
    def test_senseless_numbers(
        self, tmp_path: Path, out: Path, refuses: Refuses, entries: dict[str, str]
    ) -> None:
        path = self.save(tmp_path)
        self.relocate(path, **entries)
        refuses(path, out)

    def test_in_a_subgraph_too(self, tmp_path: Path, out: Path, refuses: Refuses) -> None:
        model = model_of(
            "g (bool c, float[4] x) => (float[4] y) { y = If (c) <"
            "then_branch = t () => (float[4] a) { k = Constant<value = float[4] {1,2,3,4}>()\n"
            " a = Add(x, k) }, else_branch = e () => (float[4] b) { b = Neg(x) }> }"
        )
        constant = model.graph.node[0].attribute[0].g.node[0].attribute[0].t
        constant.ClearField("float_data")
        constant.data_location = TensorProto.EXTERNAL
        constant.external_data.add(key="location", value="gone.bin")
        onnx.save(model, tmp_path / "in.onnx")
        assert "is missing" in refuses(tmp_path / "in.onnx", out)


class TestOutputPath:
    def test_folder_missing(self, tmp_path: Path, source: Path, refuses: Refuses) -> None:
        assert "does not exist" in refuses(source, tmp_path / "none" / "out.onnx")

    def test_a_file_where_the_folder_should_be(
        self, tmp_path: Path, source: Path, refuses: Refuses
    ) -> None:
        (tmp_path / "file").write_bytes(OLD)
        assert "does not exist" in refuses(source, tmp_path / "file" / "out.onnx")

    def test_a_directory(self, tmp_path: Path, source: Path, refuses: Refuses) -> None:
        (tmp_path / "out.onnx").mkdir()
        assert "is a directory" in refuses(source, tmp_path / "out.onnx")

    def test_a_device_is_never_replaced(
        self, tmp_path: Path, source: Path, refuses: Refuses
    ) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert "not a regular file" in refuses(source, tmp_path / "pipe")
        assert (tmp_path / "pipe").is_fifo()

    def test_a_name_too_long(self, tmp_path: Path, source: Path, refuses: Refuses) -> None:
        assert "too long" in refuses(source, tmp_path / ("x" * 300))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_folder_read_only(self, tmp_path: Path, source: Path, refuses: Refuses) -> None:
        folder = tmp_path / "closed"
        folder.mkdir()
        folder.chmod(0o500)
        assert "read-only" in refuses(source, folder / "out.onnx")

    def test_a_folder_the_system_says_is_read_only(
        self, source: Path, out: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        assert "read-only" in refuses(source, out)


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
@pytest.mark.parametrize("limit_kb", [16, 300])
def test_a_disk_that_fills_half_way(
    tmp_path: Path, out: Path, external: bool, limit_kb: int
) -> None:
    if external:
        save_with_data(heavy_model(), tmp_path / "in.onnx", location="weights.bin")
    else:
        onnx.save(heavy_model(), tmp_path / "in.onnx")
    before = snapshot(tmp_path)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_kb << 10, limit_kb << 10))

    done = run_program("optimize", "--no-timing", tmp_path / "in.onnx", out, preexec_fn=limit)
    assert done.returncode == 2
    assert done.stderr == f"ort_optim: the disk is full: {out} was not written\n"
    assert snapshot(tmp_path) == before


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (["--shape", "nothere:1x4"], "no input 'nothere'; the inputs are x, n"),
            (["--shape", "x:1x4x4"], "rank 2"),
            (["--shape", "x:1x5"], "fixed dimension 4"),
            (["--shape", "x"], "write NAME:1x3x224x224"),
            (["--shape", "x:1xfour"], "write NAME:1x3x224x224"),
            (["--shape", "x:-1x4"], "write NAME:1x3x224x224"),
            (["--shape", "x:1x4", "--shape", "x:2x4"], "given twice"),
            (["--shape", "x:99999999999999999999x4"], "too large"),
            (["--threads", "0"], "at least 1"),
            (["--threads", "-3"], "at least 1"),
            (["--threads", "many"], "--threads: many"),
            (["--rtol", "-1"], "rtol"),
            (["--rtol", "nan"], "rtol"),
            (["--atol", "inf"], "atol"),
            (["--atol", "little"], "--atol: little"),
            (["--disable", "fold-everything"], "no pass 'fold-everything'"),
            (["--unverified", "--require-verify"], "not allowed with"),
            (["--target", "no-such-machine"], "no-such-machine"),
            (["--target", "facts.json"], "facts.json"),
            (["--report", "report.pdf"], "must end in"),
            (["--report", "none/report.json"], "does not exist"),
            (["--explian"], "--explian"),
            (["third.onnx"], "third.onnx"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_refused(
        self, source: Path, out: Path, refuses: Refuses, options: list[str], told: str
    ) -> None:
        assert told in refuses(source, out, *options)

    @pytest.mark.parametrize(
        "arguments", [[], ["optimise", "a", "b"], ["optimize"], ["optimize", "a"], ["--nonsense"]]
    )
    def test_an_incomplete_command(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str]
    ) -> None:
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert "--help" in captured.err
        assert captured.out == ""

    @pytest.mark.parametrize("name", ["in.json", "out.json"])
    def test_a_report_in_the_place_of_a_model(
        self, tmp_path: Path, source: Path, refuses: Refuses, name: str
    ) -> None:
        source.rename(tmp_path / "in.json")
        line = refuses(tmp_path / "in.json", tmp_path / "out.json", "--report", tmp_path / name)
        assert "place of a model" in line

    def test_a_size_beyond_all_memory(self, source: Path, out: Path) -> None:
        before = source.read_bytes()
        code = main(["optimize", str(source), str(out), "--shape", "x:1000000000000x4", "--quiet"])
        assert code in (0, 2)
        assert source.read_bytes() == before


class TestData:
    def npz(self, folder: Path, **arrays: np.ndarray) -> Path:
        np.savez(folder / "samples.npz", **arrays)
        return folder / "samples.npz"

    @pytest.mark.parametrize(
        ("arrays", "told"),
        [
            ({"x": np.zeros((1, 4), np.float32)}, "n"),
            ({"y": np.zeros((1, 4), np.float32), "n": np.zeros(1, np.int64)}, "y"),
            ({"x": np.zeros((1, 4), np.float64), "n": np.zeros(1, np.int64)}, "x"),
            ({"x": np.zeros((1, 5), np.float32), "n": np.zeros(1, np.int64)}, "x"),
            ({"x": np.zeros(4, np.float32), "n": np.zeros(1, np.int64)}, "x"),
            ({"x": np.full((1, 4), None), "n": np.zeros(1, np.int64)}, "x"),
            ({}, "samples.npz"),
        ],
        ids=["missing", "unknown", "type", "shape", "rank", "objects", "no-arrays"],
    )
    def test_samples_that_do_not_fit(
        self,
        tmp_path: Path,
        source: Path,
        out: Path,
        refuses: Refuses,
        arrays: dict[str, np.ndarray],
        told: str,
    ) -> None:
        line = refuses(source, out, "--data", self.npz(tmp_path, **arrays))
        assert "--data" in line
        assert told in line

    def test_no_such_file(self, tmp_path: Path, source: Path, out: Path, refuses: Refuses) -> None:
        assert "no such file" in refuses(source, out, "--data", tmp_path / "none.npz")

    def test_an_empty_folder(
        self, tmp_path: Path, source: Path, out: Path, refuses: Refuses
    ) -> None:
        (tmp_path / "samples").mkdir()
        assert "--data" in refuses(source, out, "--data", tmp_path / "samples")

    def test_no_archive(self, tmp_path: Path, source: Path, out: Path, refuses: Refuses) -> None:
        (tmp_path / "samples.npz").write_bytes(b"no archive")
        assert "can't be read" in refuses(source, out, "--data", tmp_path / "samples.npz")
