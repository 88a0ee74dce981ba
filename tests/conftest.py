"""Fixtures for all tests: one engine for the whole run, and the optional folder of real models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ort_optim.engine import Engine
from tests.toolbox import ROOT, LastingEngine

SHARED_MODELS = ROOT.parent / "shared" / "models"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with Engine(threads=1, timeout_s=120) as running:
        yield running


@pytest.fixture(scope="session")
def lasting_engine() -> Iterator[LastingEngine]:
    """For `monkeypatch.setattr(pipeline, "Engine", lasting_engine.lend)`."""
    running = LastingEngine(threads=1, timeout_s=120)
    yield running
    running.shut_down()


@pytest.fixture(scope="session")
def own_models() -> Path:
    """The small networks in models/."""
    return ROOT / "models"


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """A folder of real models beside the project, which not everybody has."""
    if not SHARED_MODELS.is_dir():
        pytest.skip("no folder of shared models beside the project")
    return SHARED_MODELS
