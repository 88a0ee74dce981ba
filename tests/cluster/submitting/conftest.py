"""A batch on one server, whose plans are made within the turn."""

import pytest

from ort_optim.cluster.submitting import driver as driver_module
from tests.cluster.submitting.driven import Batch


@pytest.fixture(autouse=True)
def _plans_are_waited_for(monkeypatch):
    monkeypatch.setattr(driver_module, "PLAN_WITHIN_TURN_S", 30.0)


@pytest.fixture
def batch(tmp_path):
    made = Batch(tmp_path / "s")
    yield made
    made.journal.close()
