"""What stands against our code in a process or on a machine: ONNX Runtime then runs regions."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from ort_optim.compiler import build
from ort_optim.hardware import load_target
from ort_optim.runtime import library
from ort_optim.runtime import session as sessions
from ort_optim.runtime.session import InferenceSession, stats
from ort_optim.runtime.stats import ALL
from tests.runtime.networks import (
    assert_close,
    feeds_of,
    plain,
    residual,
    single,
    tiled,
)
from tests.runtime.opened import FEEDS, check_left_to_ort, left, opened
from tests.runtime.sessions import options

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture(scope="module")
def model() -> ModelProto:
    return tiled(residual())


@pytest.fixture(scope="module")
def expected() -> list[np.ndarray]:
    return plain(residual(), FEEDS)


@pytest.mark.parametrize(("value", "is_off"), [("1", True), ("yes", True), ("0", False)])
def test_one_switch_turns_it_off(
    value: str, is_off: bool, model: ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORT_OPTIM_DISABLE", value)
    session = opened(model)
    if is_off:
        check_left_to_ort(session, "ORT_OPTIM_DISABLE is set")
    else:
        assert not left(session)


def test_a_model_that_ort_writes_can_be_loaded(model: ModelProto, tmp_path: Path) -> None:
    base = options()
    base.optimized_model_filepath = str(tmp_path / "written.onnx")
    session = InferenceSession(model.SerializeToString(), base)
    check_left_to_ort(session, "would lack their bodies")
    again = InferenceSession(tmp_path / "written.onnx", options())
    assert_close(again.run(None, FEEDS), plain(residual(), FEEDS), rtol=0)


def test_without_the_native_library_ort_runs_all(
    model: ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(library, "library_path", lambda: tmp_path / "missing.so")
    library._fault.cache_clear()
    try:
        session = opened(model)
        check_left_to_ort(session, "missing.so is missing")
        assert list(left(session)) == [ALL]
    finally:
        monkeypatch.undo()
        library._fault.cache_clear()
    (line,) = caplog.messages
    assert "all regions are left to ONNX Runtime" in line


def test_without_llvmlite_ort_runs_what_is_not_compiled_yet(
    model: ModelProto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened(model)  # now the code is there
    monkeypatch.setattr(build, "has_compiler", lambda: False)
    assert not left(opened(model))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    check_left_to_ort(opened(model), "llvmlite is not installed")


@pytest.mark.parametrize(
    ("target", "reason"),
    [("neoverse-n1", "no kernels for aarch64"), ("x86-64-v2", "neither AVX2 nor AVX-512")],
)
def test_on_an_unknown_cpu_ort_runs_all(
    target: str, reason: str, model: ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_machine", lambda: load_target(target))
    check_left_to_ort(opened(model), reason)


def test_without_a_folder_for_code_ort_runs_all(
    model: ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(sessions, "CodeCache", nowhere)
    check_left_to_ort(opened(model), "No usable temporary directory")


def test_compiling_is_said_once_and_what_is_warm_is_silent(
    cold: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiled(single(), prefer=())
    opened(model)
    (line,) = caplog.messages
    assert line.startswith("compiling ")
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "ort_optim"):
        opened(model)
    assert not caplog.messages


def damage(path: Path, how: str) -> None:
    """Put another file in the place of one: the old one may be mapped by this process."""
    contents = path.read_bytes()
    path.unlink()
    if how == "a folder":
        path.mkdir()
        return
    path.write_bytes(
        {
            "empty": b"",
            "cut off": contents[:-5],
            "flipped": contents[:-9] + bytes([contents[-9] ^ 1]) + contents[-8:],
            "writable for others": contents,
        }[how]
    )
    path.chmod(0o666 if how == "writable for others" else 0o600)


@pytest.mark.parametrize("how", ["empty", "cut off", "flipped", "writable for others", "a folder"])
def test_damaged_code_is_compiled_again(how: str, cold: Path) -> None:
    model = tiled(single(), prefer=())
    feeds = feeds_of(model, N=1)
    opened(model)
    files = sorted(cold.rglob("*.code"))
    assert files
    for path in files:
        damage(path, how)
    session = opened(model)
    assert_close(session.run(None, feeds), plain(model, feeds))
    if how == "a folder":  # that can't be put right, so the region is left
        assert not stats(session).regions
    else:
        assert stats(session).runs == 1


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners and modes are those of POSIX")
def test_a_folder_that_others_may_write_to_is_not_used(
    cold: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cold.mkdir()
    cold.chmod(0o777)
    model = tiled(single(), prefer=())
    feeds = feeds_of(model, N=1)
    session = opened(model)
    assert_close(session.run(None, feeds), plain(model, feeds))
    assert stats(session).runs == 1
    assert not list(cold.rglob("*.code"))
    assert any("others may write to" in line for line in caplog.messages)
