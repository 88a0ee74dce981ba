"""The machine code that the tests of the native library run, and where sessions keep theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ort_optim.runtime import library
from tests.runtime.regions import Code, compile_code


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Code:
    assert library.unavailable_reason() is None
    return compile_code(tmp_path_factory.mktemp("code"))


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that all tests of this run fill."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def warm(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Compiled code is kept where other tests find it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_cache))
    return shared_cache


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Compiled code is kept in a folder that is empty at first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cold"))
    return tmp_path / "cold"
