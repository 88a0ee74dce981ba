"""From a job and its patches to the command line that is run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.keeping.spec import Spec, option_arguments, read_spec, write_spec
from ort_optim.cluster.keeping.status import Fault, Patch
from ort_optim.cluster.keeping.watch import cause_of
from ort_optim.cluster.keeping.work_folder import WorkFolder
from ort_optim.cluster.plan import Placement
from ort_optim.errors import InputError

PLACE = Placement("a", 4000, 0, ((2, 500),))
MODEL = Job("m", model=Path("/in.onnx"), output=Path("/out.onnx"), options={"rtol": 0.1})


def test_a_spec_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path / "job")
    folder.make()
    for job in (MODEL, Job("c", command=("a", "b c"), hold_s=float("inf"))):
        spec = Spec.of(job, PLACE, attempt=3, env={"A": "b"})
        write_spec(folder, spec)
        assert read_spec(folder) == spec


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": 1', '{"id": "a", "devices": 3}'])
def test_a_damaged_spec_is_told(tmp_path: Path, text: str) -> None:
    folder = WorkFolder(tmp_path / "job")
    folder.make()
    folder.job.write_text(text)
    folder.job.chmod(0o600)
    with pytest.raises(InputError, match=r"job\.json: damaged"):
        read_spec(folder)


def test_options_become_arguments() -> None:
    options = {
        "threads": 2,
        "no_timing": True,
        "unverified": False,
        "data": None,
        "disable": ["a", "b"],
        "shape": {"x": [1, 3], "y": "2x2"},
        "rtol": -1e-3,
    }
    assert option_arguments(options) == [
        "--threads=2",
        "--no-timing",
        "--disable=a",
        "--disable=b",
        *("--shape=x:1x3", "--shape=y:2x2"),
        "--rtol=-0.001",
    ]


def test_a_model_job_uses_its_cpus_unless_told_otherwise() -> None:
    folder = WorkFolder(Path("/f"))
    spec = Spec.of(MODEL, PLACE)
    assert spec.argv(folder) == (
        *(sys.executable, "-P", "-m", "ort_optim", "optimize", "/in.onnx", "/out.onnx"),
        *("--work", "/f/work/steps", "--report", "/f/report.json", "--quiet"),
        *("--threads=4", "--rtol=0.1"),
    )
    patched = spec.patched(Patch(options={"threads": 1, "rtol": None}, model="fixed.onnx"))
    assert "fixed.onnx" in patched.argv(folder)
    assert patched.argv(folder)[-1] == "--threads=1"


def test_the_slot_is_not_for_the_job_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    spec = Spec.of(MODEL, PLACE, env={"CUDA_VISIBLE_DEVICES": "9", "OMP_NUM_THREADS": "1"})
    found = spec.environment(WorkFolder(Path("/f")), "nonce")
    assert (found["CUDA_VISIBLE_DEVICES"], found["ORT_OPTIM_DEVICES"]) == ("2", "2:500")
    assert found["OMP_NUM_THREADS"] == "1"
    assert found["PYTHONPATH"].endswith(f"{os.pathsep}/mine")


@pytest.mark.parametrize(
    ("code", "kernel_killed", "fault", "words"),
    [
        (1, False, Fault.EXIT, "exit 1"),
        (2, False, Fault.BAD_INPUT, "bad option or input (exit 2)"),
        (3, False, Fault.VERIFICATION, "verification failed (exit 3)"),
        (-9, False, Fault.SIGNAL, "signal SIGKILL"),
        (-9, True, Fault.KERNEL_MEMORY, "killed by the kernel: out of memory"),
        (-11, True, Fault.SIGNAL, "signal SIGSEGV; the kernel killed a process nearby"),
        (1, True, Fault.EXIT, "exit 1; the kernel killed a process nearby: out of memory"),
        (-40, False, Fault.SIGNAL, "signal 40"),
    ],
)
def test_an_exit_code_has_a_meaning(
    code: int, kernel_killed: bool, fault: Fault, words: str
) -> None:
    found, cause = cause_of(code, kernel_killed=kernel_killed)
    assert found is fault
    assert cause.startswith(words)
