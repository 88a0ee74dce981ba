from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ort_optim.hardware import Gpu
from ort_optim.hardware.files import Tree
from ort_optim.hardware.gpus import read_gpus

from .machines import server

GPUS = (Gpu(0, "GPU A", 80 << 30, "9.0"), Gpu(1, "GPU B", 24 << 30, "9.0"))


class NvmlError(Exception):
    pass


def fake_nvml(**replaced: Any) -> ModuleType:
    module = ModuleType("pynvml")
    functions: dict[str, Any] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: ["GPU A", b"GPU B"][handle],
        "nvmlDeviceGetUUID": lambda handle: ["GPU-aaaa-1", b"GPU-bbbb-2"][handle],
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=GPUS[handle].memory_bytes),
        "nvmlDeviceGetCudaComputeCapability": lambda handle: (9, 0),
    }
    for name, function in (functions | replaced).items():
        setattr(module, name, function)
    return module


def failing(*_: Any) -> Any:
    raise NvmlError("driver/library\nversion mismatch")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A machine on which the driver shows itself."""
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text("NVRM version: 1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Tree(tmp_path)


def test_gpus_are_read(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    assert read_gpus(tree) == GPUS
    assert tree.warnings == []


@pytest.mark.parametrize(
    ("mask", "indices"),
    [
        ("", []),
        ("-1", []),
        ("1", [1]),
        ("1,0", [1, 0]),
        ("0,7,1", [0]),
        ("0,0", [0]),
        ("GPU-bbbb", [1]),
        ("GPU-", []),  # of two
        ("NoDevFiles", []),
    ],
)
def test_only_visible_gpus_count(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, mask: str, indices: list[int]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    assert [gpu.index for gpu in read_gpus(tree)] == indices


def test_without_a_driver_nvml_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlInit=lambda: pytest.fail("asked")))
    assert server(tmp_path).detect().gpus == ()


def test_driver_without_nvml_package_is_a_warning(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert read_gpus(tree) == ()
    assert "nvidia-ml-py is not installed" in tree.warnings[0]


@pytest.mark.parametrize(
    "function",
    [
        "nvmlInit",
        "nvmlDeviceGetCount",
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetName",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetCudaComputeCapability",
        "nvmlDeviceGetUUID",
    ],
)
def test_failing_driver_is_a_warning(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(**{function: failing}))
    assert read_gpus(tree) == ()
    assert len(tree.warnings) == 1
    assert "driver/library version mismatch" in tree.warnings[0]


def test_failing_shutdown_keeps_the_gpus(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlShutdown=failing))
    assert read_gpus(tree) == GPUS


def test_where_the_driver_can_not_be_seen_a_silent_nvml_means_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where most machines have no NVIDIA driver."""
    tree = Tree(tmp_path)
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlInit=failing))
    assert read_gpus(tree, look_first=False) == ()
    assert tree.warnings == []


def test_detection_reports_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    machine = server(tmp_path)
    machine.write("proc/driver/nvidia/version", "NVRM version: 1")
    assert machine.detect().gpus == GPUS
