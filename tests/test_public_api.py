"""`import ort_optim` as users' scripts do it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest

import ort_optim
from tests.passes.harness import model_of
from tests.toolbox import environment, ops, run_program

TEXT = "g (float[N,4] x) => (float[N,4] y) { i = Identity(x)\n y = Relu(i) }"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    onnx.save(model_of(TEXT), tmp_path / "in.onnx")
    return tmp_path / "in.onnx"


def test_every_promised_name_is_there() -> None:
    for name in ort_optim.__all__:
        assert getattr(ort_optim, name) is not None
    assert not hasattr(ort_optim, "no_such_name")
    assert set(ort_optim.__all__) <= set(dir(ort_optim))


def test_a_script_without_a_main_guard(tmp_path: Path, source: Path) -> None:
    """The worker must not run the caller's script again, as multiprocessing would."""
    script = tmp_path / "script.py"
    script.write_text(
        "import ort_optim\n"
        "print('once')\n"
        "report = ort_optim.optimize('in.onnx', 'out.onnx', timing=False)\n"
        "again = ort_optim.optimize('out.onnx', 'again.onnx', timing=False)\n"
        "print(report.decision.kept, again.decision.kept)\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "once\nTrue False\n"
    assert done.stderr == ""
    assert ops(tmp_path / "out.onnx") == ["Relu"]


def test_files_of_the_users_folder_do_not_get_in_the_way(tmp_path: Path, source: Path) -> None:
    """The worker's imports are not taken from where the program happens to run."""
    for name in ("numpy.py", "queue.py", "onnxruntime.py", "onnx.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from the working folder')\n")
    code = (
        "import sys; sys.path.remove('')\n"
        "import ort_optim\n"
        "ort_optim.optimize('in.onnx', 'out.onnx', timing=False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    assert ops(tmp_path / "out.onnx") == ["Relu"]


def test_from_several_threads_at_once(tmp_path: Path, source: Path) -> None:
    outs = [tmp_path / f"out{i}.onnx" for i in range(3)]
    with ThreadPoolExecutor(3) as pool:
        reports = list(
            pool.map(lambda out: ort_optim.optimize(source, out, timing=False, sets=1), outs)
        )
    assert all(report.verification.status == "passed" for report in reports)
    assert len({out.read_bytes() for out in outs}) == 1


def test_paths_may_be_text(source: Path, tmp_path: Path) -> None:
    report = ort_optim.optimize(str(source), str(tmp_path / "out.onnx"), timing=False)
    assert report.output.path == str(tmp_path / "out.onnx")


def test_errors_are_exceptions_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(ort_optim.InputError, match="no such file") as caught:
        ort_optim.optimize(tmp_path / "none.onnx", tmp_path / "out.onnx")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    with pytest.raises(ort_optim.InputError):
        ort_optim.optimize(tmp_path / "none.onnx", tmp_path / "out.onnx", threads=0)


def test_relative_paths_and_a_program_started_elsewhere(tmp_path: Path, source: Path) -> None:
    done = run_program("optimize", "in.onnx", "out.onnx", "--no-timing", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert ops(tmp_path / "out.onnx") == ["Relu"]
