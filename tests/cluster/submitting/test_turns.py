"""What starts now, as the planner itself says it."""

import pytest

from ort_optim.cluster.jobs import Job, Resources
from ort_optim.cluster.placement.planner import plan
from ort_optim.cluster.states import State
from ort_optim.cluster.submitting import turns
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.cluster.submitting.turns import Planner
from tests.cluster.fake_backend import cluster


def command(name: str, seconds: float = 60.0, **others) -> Job:
    return Job(
        name, command=("true",), resources=Resources(milli_cpus=2000), duration_s=seconds, **others
    )


@pytest.mark.parametrize("window", [2, 500])
def test_of_jobs_of_one_file_the_longest_starts_first_with_what_waits_for_it(
    tmp_path, monkeypatch, window
):
    """Also where what waits for it is not shown to the planner, as the queue is long."""
    monkeypatch.setattr(turns, "WINDOW", window)
    jobs = [
        command("short", 10),
        command("long", 50),
        command("first", 1),
        command("longest", 90, after=("first",)),
        command("urgent", 5, priority=1),
    ]
    planner, servers, started = Planner(plan), cluster("a"), []
    with Journal.open(tmp_path / "j", create=True) as journal:
        journal.submit(jobs, dict.fromkeys((job.id for job in jobs), "ann"), {"ann": "d"})
        while waiting := journal.records(State.QUEUED):
            records = {record.id: record for record in journal.records()}
            (name,) = planner.decide(records, servers, waiting[0].since_s + 1.0).starts
            journal.move(name, State.RUNNING)
            journal.move(name, State.DONE)
            started.append(name)
    assert started == ["urgent", "first", "long", "short", "longest"]
