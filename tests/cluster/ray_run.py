"""A batch on a Ray cluster, driven by hand, turn by turn."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

from ort_optim.cluster.jobs import Job
from ort_optim.cluster.placement.planner import Policy, plan
from ort_optim.cluster.ray.ray_backend import connect
from ort_optim.cluster.states import OVER, State
from ort_optim.cluster.submitting.driver import Driver, Limits
from ort_optim.cluster.submitting.journal import Journal
from ort_optim.cluster.submitting.turns import Planner

WAIT_S = 60.0


class Run:
    """One batch on the cluster, driven by hand."""

    def __init__(self, state: Path, address: str, **options) -> None:
        self.state = state
        self.address = address
        self.options = options
        self.journal = Journal.open(state, create=True)
        self.backend = None

    def submit(self, *jobs: Job) -> None:
        self.journal.submit(jobs, {job.id: "ann" for job in jobs}, {"ann": "d"})

    def begin(self) -> None:
        assert self.journal.take_lease() is None
        self.backend = connect(self.address, self.state, **self.options)
        ask = functools.partial(plan, policy=Policy())
        self.driver = Driver(self.journal, self.backend, Planner(ask), limits=Limits())
        self.driver.recover()

    def until(self, done: Callable[[], bool], wait_s: float = WAIT_S) -> None:
        until_s = time.monotonic() + wait_s
        while not done():
            assert time.monotonic() < until_s, [
                (record.id, record.state, record.cause, record.note)
                for record in self.journal.records()
            ]
            self.driver.turn(0.05)

    def until_over(self) -> None:
        self.until(lambda: all(record.state in OVER for record in self.journal.records()))

    def until_state(self, job: str, state: State) -> None:
        self.until(lambda: self.record(job).state is state)

    def record(self, job: str):
        return self.journal.record(job)

    def path(self, job: str) -> list[State]:
        return [event.after for event in self.journal.events(job)]

    def log(self, job: str) -> str:
        return (self.state / "jobs" / job / "log").read_text()

    def end(self) -> None:
        """The driver goes, as when it is killed: keepers go on."""
        self.journal.drop_lease()
        if self.backend is not None:
            self.backend.close()
            self.backend = None

    def close(self) -> None:
        """Leave nothing behind."""
        if self.backend is None:
            self.begin()
        for record in self.journal.records():
            if record.state not in OVER:
                self.journal.ask(record.id, "cancel", {})
        self.until_over()
        self.end()
        self.journal.close()
