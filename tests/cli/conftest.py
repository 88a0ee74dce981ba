"""The desk at which batches are submitted without Ray."""

import pytest

from ort_optim.cli.batch import submit as submit_module
from ort_optim.cluster.keeping.supervisor import Supervisor
from tests.cli.batch_desk import Desk


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home-state"))
    made = Desk(tmp_path)
    monkeypatch.setattr(submit_module, "connect", made.connect)
    yield made
    for file in made.state.glob("jobs/*/state.json"):
        Supervisor(file.parent).stop()
    for door in made.doors:
        door.close()
